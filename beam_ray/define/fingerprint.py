"""
Digests that identify definitions, inputs and settings.

A digest is taken over a list that begins with a tag for the kind of thing, so that two kinds
never collide, and over canonical JSON, so that key order and layout do not matter. Tests pin
literal digests: a changed digest would make every stored result look outdated.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

Json = Any
"""A JSON value: None, bool, int, float, str, or lists and string-keyed mappings of them."""

JsonObject = dict[str, Json]
"""A JSON object."""

JsonSchema = dict[str, Json]
"""A JSON schema."""


def canonical(value: Json) -> str:
    """*value* as JSON text with sorted keys, no white space, and 1.0 written as 1."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(tag: str, *parts: Json) -> str:
    """32 hexadecimal characters that identify *parts* as a thing of kind *tag*."""
    text = canonical([tag, *parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def flatten(value: Json, path: str = "") -> dict[str, Json]:
    """The leaves of a nested mapping by dotted path; a list is a leaf."""
    if not isinstance(value, Mapping):
        return {path: value}
    leaves: dict[str, Json] = {}
    for key, inner in value.items():
        leaves |= flatten(inner, f"{path}.{key}" if path else str(key))
    return leaves


def strict_json(text: str) -> Json:
    """
    The value of JSON *text*. Unlike ``json.loads``, it refuses NaN, infinities, numbers too large for a float, and duplicate keys.

    Raises:
        ValueError: it is not JSON.
    """
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_repeats)


def strict_json_at(text: str, start: int) -> tuple[Json, int]:
    """
    The JSON value that begins at *start* of *text*, and where it ends; as strict as ``strict_json``.

    Raises:
        ValueError: no JSON value begins there.
    """
    return _DECODER.raw_decode(text, start)


def _no_constant(word: str) -> Json:
    raise ValueError(f"{word} is not a JSON value")


def _finite(word: str) -> float:
    number = float(word)
    if math.isinf(number):
        raise ValueError(f"{word[:40]} is not a JSON value: it is too large for a number")
    return number


def _no_repeats(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return result


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_repeats)


def _plain(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
