"""
What a node returns: short types and JSON schema, made into one schema.

    {po_number: str | null, amount: number, lines: [str], kind: {one of: [order, invoice]}}

Every string gets a length limit unless it has one: without it a fifth of a small
model's answers ran on until they broke.
"""

from collections.abc import Mapping
from typing import Any

MAX_STRING = 1000
MAX_SCHEMA = 20_000
MAX_DEPTH = 12

_SHORT: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "maxLength": 10},
    "null": {"type": "null"},
}


def object_schema(returns: Mapping[str, Any]) -> dict[str, Any]:
    """
    The JSON schema of an answer with these fields, all of them required.

    Raises:
        ValueError: a field's type is not understood.
    """
    if not returns:
        raise ValueError("'returns' names no field")
    fields = {}
    for name, written in returns.items():
        if not str(name).isidentifier():
            raise ValueError(f"field {name!r} is not a name that a template can use")
        fields[str(name)] = type_schema(written, str(name))
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def type_schema(written: Any, field: str = "") -> dict[str, Any]:
    """The JSON schema of one type as written in a workflow file."""
    where = f"field {field!r}: " if field else ""
    if isinstance(written, str):
        parts = [part.strip() for part in written.split("|")]
        unknown = [part for part in parts if part not in _SHORT]
        if unknown:
            raise ValueError(f"{where}{unknown[0]!r} is not a type\n  types are {', '.join(_SHORT)}, T | null, [T], {{one of: […]}} or a JSON schema")
        schemas = [dict(_SHORT[part]) for part in parts]
        return limited(schemas[0] if len(schemas) == 1 else {"anyOf": schemas})
    if isinstance(written, list):
        if len(written) != 1:
            raise ValueError(f"{where}a list type has exactly one type in it, as in [str]")
        return {"type": "array", "items": type_schema(written[0], field), "maxItems": 200}
    if isinstance(written, Mapping):
        if set(written) == {"one of"}:
            options = written["one of"]
            if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
                raise ValueError(f"{where}'one of' wants a list of texts")
            return {"type": "string", "enum": list(options)}
        if not {"type", "enum", "anyOf", "const", "properties", "oneOf"} & set(written):
            raise ValueError(f"{where}a JSON schema needs 'type', 'enum' or 'anyOf'")
        return limited(written)
    raise ValueError(f"{where}{written!r} is not a type")


def limited(schema: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """*schema* with a length limit on every string and closed objects; refuses what costs too much to check."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the JSON schema is nested deeper than {MAX_DEPTH}")
    if "$ref" in schema or "$dynamicRef" in schema:
        raise ValueError("a JSON schema here may not use '$ref'; write the type out")
    if schema.get("uniqueItems"):
        raise ValueError("'uniqueItems' takes too long to check on large answers; use a criterion")
    result = dict(schema)
    kind = result.get("type")
    if (kind == "string" or (isinstance(kind, list) and "string" in kind)) and not {"maxLength", "enum", "const"} & set(result):
        result["maxLength"] = MAX_STRING
    if "properties" in result:
        result["properties"] = {name: limited(inner, depth + 1) for name, inner in result["properties"].items()}
        result.setdefault("required", list(result["properties"]))
        result.setdefault("additionalProperties", False)
    if isinstance(result.get("items"), Mapping):
        result["items"] = limited(result["items"], depth + 1)
        result.setdefault("maxItems", 200)
    for word in ("anyOf", "oneOf", "allOf"):
        if word in result:
            if len(result[word]) > 20:
                raise ValueError(f"{word!r} with more than 20 choices takes too long to check")
            result[word] = [limited(inner, depth + 1) for inner in result[word]]
    return result
