"""A model's words as the output that a node returns, or the exact place where they are not."""

import datetime
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema
import re2
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from beam_ray.define.fingerprint import canonical, strict_json
from beam_ray.define.returns import DATE
from beam_ray.errors import BadAnswer

MAX_TEXT = 1_000_000
"""Characters of a text that a pattern is tried on."""

MAX_DEPTH = 100
"""Objects and lists inside each other."""

MAX_ANSWER = 4_000_000
"""Characters of an answer that are read."""


def parse_answer(text: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    A model's answer as the output that the schema describes; without one, ``{text: …}``.

    Raises:
        BadAnswer: it is empty, too long, not JSON, or does not fit.
    """
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise BadAnswer("the answer is empty")
    if len(text) > MAX_ANSWER:
        raise BadAnswer(f"the answer has {len(text):,} characters; at most {MAX_ANSWER:,} are read", raw=text[:10_000])
    if schema is None:
        return {"text": text}
    body = text.strip()
    if body.startswith("```"):
        body = body.strip("`").removeprefix("json").strip()
    try:
        value = strict_json(body)
    except json.JSONDecodeError as error:
        raise BadAnswer(f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos}", raw=text[:10_000]) from None
    except RecursionError:
        raise BadAnswer(f"nested deeper than {MAX_DEPTH}", raw=text[:10_000]) from None
    except ValueError as error:
        said = "a number has too many digits" if "digits" in str(error) else str(error)
        raise BadAnswer(f"not JSON: {said}", raw=text[:10_000]) from None
    if not isinstance(value, dict):
        raise BadAnswer(f"not an object but {_named(value)}", raw=text[:10_000])
    if _deeper(value, MAX_DEPTH):
        raise BadAnswer(f"nested deeper than {MAX_DEPTH}", raw=text[:10_000])
    fault = first_fault(value, schema)
    if fault:
        raise BadAnswer(f"does not fit what the node returns: {fault}", raw=text[:10_000])
    return value


def first_fault(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Where and how *value* departs from *schema*, or None when it fits."""
    validator = _validator(canonical(schema))
    try:
        error = next(validator.iter_errors(value), None)
    except RecursionError:
        return "nested too deep to be checked"
    except Unresolvable as fault:
        return f"the schema asks for {fault.ref!r}, which is never fetched"
    if error is None:
        return None
    place = "/" + "/".join(str(part) for part in error.absolute_path)
    return f"{place}: {_departure(error)}"


def _departure(error: Any) -> str:
    value, limit = error.instance, error.validator_value
    if error.validator == "maxLength":
        return f"{len(value):,} characters, and at most {limit:,} are allowed"
    if error.validator == "maxItems":
        return f"{len(value):,} entries, and at most {limit:,} are allowed"
    if error.validator == "type":
        return f"{_named(value)} is not of type {limit if isinstance(limit, str) else ' or '.join(limit)}"
    if error.validator == "anyOf" and all("type" in choice for choice in limit):
        inner = [found for found in error.context if found.validator != "type"]
        return _departure(inner[0]) if inner else f"{_named(value)} is not of type {' or '.join(str(choice['type']) for choice in limit)}"
    return str(error.message)[:200]


def _named(value: Any) -> str:
    """What *value* is, and what it says if that is short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"the {'text' if isinstance(value, str) else 'number'} {shown if len(shown) <= 60 else shown[:57] + '…'}"


def _deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part) if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


@lru_cache(maxsize=1024)
def pattern(source: str) -> Any:
    """*source* compiled by RE2, which takes linear time on any text."""
    return re2.compile(source)


def _pattern_keyword(validator: Validator, source: str, instance: Any, schema: Any) -> Any:
    if source == DATE and isinstance(instance, str) and not _is_day(instance):
        yield jsonschema.ValidationError(f"{instance[:80]!r} is not a day such as 2026-11-23")
    elif isinstance(instance, str) and not pattern(source).search(instance[:MAX_TEXT]):
        yield jsonschema.ValidationError(f"{instance[:80]!r} does not match {source!r}")


def _is_day(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


# Python's own patterns can take forever on a text made for it; RE2's cannot
_Linear: Any = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern_keyword})  # type: ignore[no-untyped-call]


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    # an empty registry: a schema may not make us fetch another one
    validator: Validator = _Linear(json.loads(schema), registry=Registry())
    return validator
