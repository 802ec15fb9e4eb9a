"""
Which columns of a row a task's fields are read from.

    {"task_query": "question", "expected": "answer,level"}

A field that is an object may be made of several columns. Of one column that holds no object it is
an object of that column alone, ``{"answer": …}``; of recorded outputs, ``{"output": …}``.
"""

import datetime
import decimal
from collections.abc import Mapping
from typing import Any

from beam_ray.define.fingerprint import strict_json

OBJECTS = ("task_query", "variables", "expected", "recorded")
"""Fields that may be objects."""


def columns_of(field: str, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that the field is read from."""
    written = mapping.get(field, field)
    return tuple(written.split(",")) if field in OBJECTS and field in mapping else (written,)


def mapped(field: str, mapping: Mapping[str, str], row: Mapping[str, Any]) -> Any:
    """The field's value in the row; None where the row does not have it."""
    columns = columns_of(field, mapping)
    if field not in OBJECTS or field not in mapping:
        return row.get(columns[0])
    values = {column: _as_json(row.get(column)) for column in columns}
    if len(values) > 1:
        return values
    value = values[columns[0]]
    if field == "task_query" or value is None or isinstance(value, dict) or _holds_object(value):
        return value
    return {"output" if field == "recorded" else columns[0]: value}


def _as_json(value: Any) -> Any:
    """A value of a table's column as JSON has it: a time as ISO 8601, a decimal as a number."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {name: _as_json(inner) for name, inner in value.items()}
    return [_as_json(inner) for inner in value] if isinstance(value, list) else value


def _holds_object(value: Any) -> bool:
    """Whether the value is a text that holds a JSON object, as cells of CSV files do."""
    try:
        return isinstance(value, str) and isinstance(strict_json(value), dict)
    except (ValueError, RecursionError):
        return False
