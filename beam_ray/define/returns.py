"""
The ``returns`` of a node, written as short types or JSON schema, as one JSON schema.

    {po_number: str | null, amount: number, lines: [str], kind: {one of: [order, invoice]}}

Every string gets a length limit unless it has one: without it, a fifth of a small model's
answers repeated themselves until they were cut off.
"""

import difflib
import json
from collections.abc import Iterator, Mapping

import re2

from beam_ray.define.fingerprint import Json, JsonSchema

MAX_STRING = 1000
MAX_SCHEMA = 20_000
"""Characters of a schema."""
MAX_DEPTH = 12
MAX_CHOICES = 20

TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
_CHOICES = ("anyOf", "oneOf", "allOf")
_WHOLE = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains")
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_SCHEMAS = ("items", "not", "if", "then", "else", "contains", "additionalProperties")
_WORDS = ("title", "description", "format", "$comment")
_DATA = ("enum", "const", "default", "examples")
KEYWORDS = ("type", "properties", "required", "pattern", "prefixItems", "uniqueItems", *_CHOICES, *_WHOLE, *_NUMBER, *_SCHEMAS, *_WORDS, *_DATA)
"""The supported keywords: an answer cannot make them expensive to check, and none fetches anything."""

DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
"""The pattern for a date that the model is given; whether the date exists is checked as well."""

_SHORT: dict[str, JsonSchema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "pattern": DATE, "maxLength": 10},
    "null": {"type": "null"},
}


class Faults(ValueError):
    """Problems of entries of a list or mapping: (index or key, message) each."""

    def __init__(self, faults: list[tuple[int | str, str]]):
        self.faults = faults
        super().__init__("; ".join(message for _, message in faults))


def object_schema(returns: Mapping[str, Json]) -> JsonSchema:
    """
    The JSON schema of an answer with these fields, all of them required.

    Raises:
        Faults: fields have unknown types.
    """
    if not returns:
        raise ValueError("'returns' has no field; write {FIELD: TYPE}, or leave it out for an answer in plain text")
    fields: dict[str, Json] = {}
    faults: list[tuple[int | str, str]] = []
    for name, written in returns.items():
        try:
            if not str(name).isidentifier():
                raise ValueError(f"field {name!r} is not a valid name; use letters, digits and _")
            fields[str(name)] = type_schema(written, str(name))
        except ValueError as error:
            faults.append((name, str(error)))
    if faults:
        raise Faults(faults)
    size = len(json.dumps(fields, default=str))
    if size > MAX_SCHEMA:
        raise ValueError(f"the schema of 'returns' has {size:,} characters; at most {MAX_SCHEMA:,} are allowed; split the step")
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def type_schema(written: Json, field: str = "") -> JsonSchema:
    """The JSON schema of one type as written in a workflow file."""
    where = f"field {field!r}: " if field else ""
    if isinstance(written, str):
        parts = [part.strip() for part in written.split("|")]
        unknown = [part for part in parts if part not in _SHORT]
        if unknown:
            raise ValueError(f"{where}{unknown[0]!r} is not a type{_KINDS}")
        schemas = [dict(_SHORT[part]) for part in parts]
        return limited(schemas[0] if len(schemas) == 1 else {"anyOf": schemas})
    if isinstance(written, list):
        if len(written) != 1:
            raise ValueError(f"{where}a list type must contain exactly one type, as in [str]")
        return {"type": "array", "items": type_schema(written[0], field), "maxItems": 200}
    if isinstance(written, Mapping):
        if set(written) == {"one of"}:
            options = written["one of"]
            if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
                raise ValueError(f"{where}'one of' must be a list of strings; put numbers in quotes")
            return {"type": "string", "enum": list(options)}
        try:
            if not {"type", "enum", "anyOf", "const", "properties", "oneOf"} & set(written):
                raise ValueError("a JSON schema needs 'type', 'enum' or 'anyOf'")
            return limited(written)
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None
    raise ValueError(f"{where}{json.dumps(written, default=str)} is not a type{_KINDS}")


def limited(schema: Mapping[str, Json], depth: int = 0) -> JsonSchema:
    """*schema* with a length limit on every string and closed objects; keywords that are expensive to check are refused."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the JSON schema is nested more than {MAX_DEPTH} levels deep; split the step")
    fault = next(_faults(schema), None)
    if fault:
        raise ValueError(fault)
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
    for word in _CHOICES:
        if word in result:
            result[word] = [limited(inner, depth + 1) for inner in result[word]]
    for word in _SCHEMAS:
        # these schemas only decide something, so they are checked but not closed
        if isinstance(result.get(word), Mapping):
            limited(result[word], depth + 1)
    return result


_KINDS = f"\n  types are {', '.join(_SHORT)}, T | null, [T], {{one of: […]}} or a JSON schema"


def _faults(schema: Mapping[str, Json]) -> Iterator[str]:
    """The problems of a JSON schema, without those of the schemas inside it."""
    for key, value in schema.items():
        if key in ("$ref", "$dynamicRef", "$defs", "definitions", "$id", "$anchor"):
            yield f"the JSON schema keyword {key!r} is not supported; write the type out"
        elif key in ("patternProperties", "propertyNames"):
            yield f"the JSON schema keyword {key!r} is not supported; name the fields in 'properties'"
        elif key not in KEYWORDS:
            near = difflib.get_close_matches(str(key), KEYWORDS, 1)
            yield f"the JSON schema keyword {key!r} is not supported" + (f"\n  did you mean {near[0]!r}?" if near else f"\n  supported: {', '.join(KEYWORDS)}")
        elif key == "type":
            kinds = value if isinstance(value, list) and value else [value]
            unknown = [kind for kind in kinds if kind not in TYPES]
            if unknown:
                yield f"{unknown[0]!r} is not a JSON schema type\n  the types are {', '.join(TYPES)}"
        elif key == "properties":
            if not isinstance(value, Mapping) or not all(isinstance(inner, Mapping) for inner in value.values()):
                yield "'properties' of a JSON schema must map names to schemas such as {type: string}"
        elif key == "required":
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                yield "'required' of a JSON schema must be a list of names"
        elif key == "pattern":
            problem = pattern_fault(value)
            if problem:
                yield problem
        elif key == "uniqueItems" and value:
            yield "'uniqueItems' takes too long to check on large answers; use a criterion"
        elif key in (*_CHOICES, "prefixItems"):
            if not isinstance(value, list) or not value or not all(isinstance(inner, Mapping) for inner in value):
                yield f"{key!r} of a JSON schema must be a list of schemas such as {{type: string}}"
            elif len(value) > MAX_CHOICES:
                yield f"{key!r} with more than {MAX_CHOICES} choices takes too long to check; use 'enum', or fewer"
            elif key == "prefixItems":
                for inner in value:
                    limited(inner)
        elif key in _WHOLE and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            yield f"{key!r} of a JSON schema must be an integer of 0 or more, not {value!r}"
        elif key in _NUMBER and (isinstance(value, bool) or not isinstance(value, (int, float)) or (key == "multipleOf" and not value > 0)):
            yield f"{key!r} of a JSON schema must be a number{' above 0' if key == 'multipleOf' else ''}, not {value!r}"
        elif key in _SCHEMAS and not isinstance(value, Mapping) and not (key == "additionalProperties" and isinstance(value, bool)):
            yield f"{key!r} of a JSON schema must be a schema such as {{type: string}}"
        elif key == "enum" and (not isinstance(value, list) or not value):
            yield "'enum' of a JSON schema must be a list of values"


def pattern_fault(written: Json) -> str:
    """Why *written* is not a valid pattern, or an empty string. Patterns are RE2, which takes linear time on any text."""
    if not isinstance(written, str):
        return f"a pattern must be a string, not {written!r}"
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(written, options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        return f"invalid regular expression {written[:60]!r} (RE2): {said.decode() if isinstance(said, bytes) else said}{_without(written)}"
    return ""


def _without(written: str) -> str:
    if "(?=" in written or "(?!" in written or "(?<" in written:
        return "\n  RE2 has no lookahead or lookbehind; write what must match, or use 'check'"
    return ""
