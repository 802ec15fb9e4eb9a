"""
Filter expressions over whole columns, for the forms that people write most; any other is evaluated row by row.

What is translated means exactly what it means row by row: where a null would make a row's expression
fail, or a type is another one, nothing is translated.
"""

from collections.abc import Callable
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import nodes

_EQUAL: dict[str, Callable[[Any, Any], Any]] = {"eq": pc.equal, "ne": pc.not_equal}
_ORDERED: dict[str, Callable[[Any, Any], Any]] = {"lt": pc.less, "lteq": pc.less_equal, "gt": pc.greater, "gteq": pc.greater_equal}


class _OtherForm(Exception):
    """The expression is none that can be translated."""


def arrow_mask(expression: str, table: pa.Table) -> Any:
    """For each row whether the expression holds; None where it must be evaluated row by row."""
    try:
        body = jinja2.Environment().parse(f"{{{{ {expression} }}}}").body
        if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
            return None
        return _mask(body[0].nodes[0], table)
    except (_OtherForm, jinja2.TemplateSyntaxError, pa.ArrowException):
        return None


def _mask(node: nodes.Node, table: pa.Table) -> Any:
    if isinstance(node, nodes.And):
        return pc.and_(_mask(node.left, table), _mask(node.right, table))
    if isinstance(node, nodes.Or):
        return pc.or_(_mask(node.left, table), _mask(node.right, table))
    if isinstance(node, nodes.Not):
        return pc.invert(_mask(node.node, table))
    if isinstance(node, nodes.Test) and node.name == "none" and not node.args:
        return pc.is_null(_column(node.node, table))
    if isinstance(node, nodes.Compare) and len(node.ops) == 1:
        return _comparison(node.expr, node.ops[0].op, node.ops[0].expr, table)
    column = _column(node, table)
    if not pa.types.is_boolean(column.type):
        raise _OtherForm
    return pc.fill_null(column, False)


def _comparison(left: nodes.Node, operator: str, right: nodes.Node, table: pa.Table) -> Any:
    if operator in ("in", "notin"):
        mask = _membership(left, right, table)
        return pc.invert(mask) if operator == "notin" else mask
    column, value = _column(left, table), _constant(right, table.schema.field(str(getattr(left, "name", ""))).type)
    if operator in _EQUAL:
        return pc.fill_null(_EQUAL[operator](column, value), operator == "ne")
    if operator not in _ORDERED or column.null_count:
        raise _OtherForm
    return _ORDERED[operator](column, value)


def _membership(left: nodes.Node, right: nodes.Node, table: pa.Table) -> Any:
    if isinstance(right, nodes.List | nodes.Tuple):
        column = _column(left, table)
        values = [_constant(item, column.type) for item in right.items]
        return pc.is_in(column, value_set=pa.array(values, column.type)) if values else pa.array(np.zeros(len(column), bool))
    column = _column(right, table)
    if column.null_count:
        raise _OtherForm
    if pa.types.is_list(column.type):
        return holds(column, _constant(left, column.type.value_type))
    return pc.match_substring(column, _constant(left, column.type)) if pa.types.is_string(column.type) else _refuse()


def holds(column: Any, value: Any) -> Any:
    """Whether each list of the column has the value."""
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    hits = pc.fill_null(pc.equal(pc.list_flatten(lists), value), False)
    mask = np.zeros(len(lists), bool)
    mask[pc.list_parent_indices(lists).filter(hits).to_numpy()] = True
    return pa.array(mask)


def _column(node: nodes.Node, table: pa.Table) -> Any:
    if not isinstance(node, nodes.Name) or node.name not in table.schema.names:
        raise _OtherForm
    return table[node.name]


def _constant(node: nodes.Node, kind: pa.DataType) -> Any:
    """A value of the column's kind."""
    sign = -1 if isinstance(node, nodes.Neg) else 1
    value: Any = getattr(node.node if isinstance(node, nodes.Neg) else node, "value", None)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and isinstance(value, int | float) and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return sign * value
    if (isinstance(value, str) and pa.types.is_string(kind)) or (isinstance(value, bool) and pa.types.is_boolean(kind)):
        return value
    return _refuse()


def _refuse() -> Any:
    raise _OtherForm
