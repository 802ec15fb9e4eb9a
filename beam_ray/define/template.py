"""
Templates and expressions: prompts, tool arguments, conditions and checks use the same language.

It is Jinja2 in its immutable sandbox, strict: an unknown name is an error and never an empty
string. A value is rendered once and is never itself treated as a template.
"""

import difflib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import jinja2
from jinja2 import meta, nodes

from beam_ray.define.fingerprint import Json
from beam_ray.define.sandbox import Sandbox, begin
from beam_ray.errors import BadTemplate

MAX_SOURCE = 200_000
"""Characters of a template's source."""

MAX_SAID = 500
"""Characters of an error message that are kept."""

MAX_RENDERED = 2_000_000
"""Characters that a template may render to."""

MAX_ROWS_S = (2.0, 0.0002)
"""Seconds of processor time that an expression may take over many rows, and for each of them on top."""


_ENVIRONMENT = Sandbox()

_ALONE: Mapping[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Extends: "extends",
    nodes.Import: "import",
    nodes.FromImport: "from … import",
    nodes.Block: "block",
}


@dataclass(frozen=True)
class Use:
    """A name that a template uses: ``extract.po_number`` has the root 'extract' and the field 'po_number'."""

    root: str
    field: str
    line: int


class TemplateFault(ValueError):
    """A template has an error at *line* (counted from 1)."""

    def __init__(self, message: str, *, line: int = 1):
        self.line = line
        super().__init__(message)


def uses(source: str, *, expression: bool = False) -> list[Use]:
    """
    The names that a template, or an expression, takes from its context.

    Raises:
        TemplateFault: it cannot be parsed, is too long, or uses a feature that the sandbox does not offer.
    """
    return list(_uses(source, expression))


@lru_cache(maxsize=4096)
def _uses(source: str, expression: bool) -> tuple[Use, ...]:
    if len(source) > MAX_SOURCE:
        raise TemplateFault(f"the template has {len(source):,} characters; at most {MAX_SOURCE:,} are allowed")
    try:
        if expression:
            _expression(source)
            tree = _ENVIRONMENT.parse("{{ (" + source + ") }}")
        else:
            # compiling finds unknown filters and tests; parsing does not
            _template(source)
            tree = _ENVIRONMENT.parse(source)
        outside = meta.find_undeclared_variables(tree)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFault(str(error.message).rstrip(".") + _near(str(error.message)), line=error.lineno or 1) from None
    except (RecursionError, MemoryError):
        raise TemplateFault("it is nested too deeply") from None
    except Exception as error:  # Jinja2 and Python's compiler raise further kinds of errors
        raise TemplateFault(f"it cannot be compiled ({str(error).splitlines()[0] if str(error) else type(error).__name__})") from None
    _refuse(tree)
    found: list[Use] = []
    inside = set[int]()
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(node, (nodes.Getattr, nodes.Getitem))
        if not isinstance(node.node, nodes.Name) or node.node.name not in outside:
            continue
        if isinstance(node, nodes.Getattr):
            field = node.attr
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            field = node.arg.value
        else:
            continue
        inside.add(id(node.node))
        found.append(Use(node.node.name, field, node.lineno))
    found += [Use(node.name, "", node.lineno) for node in tree.find_all(nodes.Name) if node.name in outside and id(node) not in inside]
    return tuple(sorted(set(found), key=lambda use: (use.line, use.root, use.field)))


def _near(said: str) -> str:
    """A suggestion where Jinja2 does not know a filter, test or tag."""
    unknown = re.match(r"No (filter|test) named '(\w+)'", said)
    if unknown:
        known = _ENVIRONMENT.filters if unknown[1] == "filter" else _ENVIRONMENT.tests
        near = difflib.get_close_matches(unknown[2], known, 1)
        return f"; did you mean {near[0]!r}?" if near else ""
    return "; tags are if, elif, else, for, set, macro, filter, with and raw" if "unknown tag" in said else ""


def _refuse(tree: nodes.Template) -> None:
    """Report at check time what would otherwise fail only when a row is rendered."""
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        assert isinstance(node, (nodes.Filter, nodes.Test))
        known, kind = (_ENVIRONMENT.filters, "filter") if isinstance(node, nodes.Filter) else (_ENVIRONMENT.tests, "test")
        if node.name not in known:
            said = f"No {kind} named {node.name!r}"
            raise TemplateFault(said + _near(said), line=node.lineno)
    for block in tree.find_all(tuple(_ALONE)):
        raise TemplateFault(f"{_ALONE[type(block)]!r} is not available in templates", line=block.lineno)
    for part in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(part, (nodes.Getattr, nodes.Getitem))
        name = part.attr if isinstance(part, nodes.Getattr) else getattr(part.arg, "value", "")
        if isinstance(name, str) and name.startswith("__"):
            raise TemplateFault(f"{name!r} is not available in templates", line=part.lineno)


@lru_cache(maxsize=4096)
def _template(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


@lru_cache(maxsize=4096)
def _expression(source: str) -> Callable[[Mapping[str, Json]], Json]:
    return _ENVIRONMENT.compile_expression(source, undefined_to_none=False)


def render(source: str, values: Mapping[str, Json]) -> str:
    """
    *source* with *values* filled in.

    Raises:
        BadTemplate: a value is missing, or the result exceeds a limit.
    """
    pieces, length = [], 0
    try:
        template = _template(source)
        begin()
        for piece in template.generate(values):
            length += len(piece)
            if length > MAX_RENDERED:
                raise BadTemplate(f"the rendered prompt has more than {MAX_RENDERED:,} characters")
            pieces.append(piece)
    except BadTemplate:
        raise
    except Exception as error:  # whatever goes wrong while rendering is the failure of this row only
        raise BadTemplate(f"the template could not be rendered: {str(error)[:MAX_SAID] or type(error).__name__}") from None
    return "".join(pieces)


def evaluate(source: str, values: Mapping[str, Json]) -> Json:
    """
    The value of the expression *source*.

    Raises:
        BadTemplate: a value is missing, or the expression cannot be evaluated.
    """
    try:
        expression = _expression(source)
        begin()
        result = expression(values)
        if isinstance(result, jinja2.Undefined):
            str(result)  # a strict undefined raises here, with the name that is missing
        return result
    except Exception as error:  # as above
        raise BadTemplate(f"{source[:MAX_SAID]!r} could not be evaluated: {str(error)[:MAX_SAID] or type(error).__name__}") from None


def evaluate_rows(source: str, rows: Iterable[Mapping[str, Json]]) -> Iterator[Json]:
    """
    The value of the expression *source* for each row, while it does not take long in all: whoever lists tasks waits for it.

    Raises:
        BadTemplate: as ``evaluate``, or it takes too long.
    """
    began = time.thread_time()
    for number, row in enumerate(rows):
        if time.thread_time() - began > MAX_ROWS_S[0] + MAX_ROWS_S[1] * number:
            raise BadTemplate(f"{source[:MAX_SAID]!r} takes too long: {number:,} rows took more than {MAX_ROWS_S[0]:g} seconds; write a simpler condition")
        yield evaluate(source, row)


def fill(value: Json, values: Mapping[str, Json]) -> Json:
    """
    *value* with its templates rendered: ``"{{ extract.amount }}"`` alone keeps the value's type, with text around it the result is a string.

    Raises:
        BadTemplate: a value is missing.
    """
    if isinstance(value, Mapping):
        return {key: fill(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, values) for inner in value]
    if not isinstance(value, str) or "{" not in value:
        return value
    inner = value.strip()
    if inner.startswith("{{") and inner.endswith("}}") and inner.count("{{") == 1:
        return evaluate(inner[2:-2].strip(), values)
    return render(value, values)
