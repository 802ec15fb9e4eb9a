"""Read a model's answer as the output that its node returns, or say exactly where it does not fit."""

import datetime
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema
import re2
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from beam_ray.define.fingerprint import Json, JsonObject, canonical, strict_json, strict_json_at
from beam_ray.define.returns import DATE
from beam_ray.errors import BadAnswer, ModelRefused
from beam_ray.llm.request import Answer

MAX_TEXT = 1_000_000
"""Characters of a string that a pattern is matched against."""

MAX_DEPTH = 100
"""Levels of nested objects and lists."""

MAX_ANSWER = 4_000_000
"""Characters of an answer that are read."""


def read_answer(answer: Answer, schema: Mapping[str, Json] | None, max_tokens: int) -> JsonObject:
    """
    The output in a model's answer: what *schema* describes, or ``{text: …}`` without one.

    Raises:
        ModelRefused: the model declined to answer.
        BadAnswer: it is empty, was cut off at *max_tokens*, is not JSON, or does not fit the schema.
    """
    if answer.refusal or answer.finish == "content_filter":
        raise ModelRefused(f"the model declined: {answer.refusal or 'content filter'}")
    if answer.tool_calls and not answer.text.strip():
        raise BadAnswer(f"the model called the function {answer.tool_calls[0].name!r}, which was not offered, instead of answering")
    try:
        return parse_answer(answer.text, schema)
    except BadAnswer as error:
        if answer.finish == "length":
            raise BadAnswer(_cut_off(answer, max_tokens, str(error)), raw=error.raw, again=False) from None
        raise


def _cut_off(answer: Answer, max_tokens: int, fault: str) -> str:
    said = f"the answer was cut off at max_tokens ({max_tokens:,})"
    if answer.reasoning_tokens or answer.reasoning:
        count = f"{answer.reasoning_tokens:,}" if answer.reasoning_tokens is not None else f"about {len(answer.reasoning) // 4:,}"
        return f"{said}: reasoning used {count} of these tokens; raise max_tokens, or lower reasoning_effort ({fault})"
    return f"{said}: {fault}"


def parse_answer(text: str, schema: Mapping[str, Json] | None) -> JsonObject:
    """
    The output in the text of an answer: what *schema* describes, or ``{text: …}`` without one.

    JSON may stand alone, in one code fence, or with words around one object.

    Raises:
        BadAnswer: it is empty, too long, not JSON, or does not fit the schema.
    """
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise BadAnswer("the answer is empty")
    if len(text) > MAX_ANSWER:
        raise BadAnswer(f"the answer has {len(text):,} characters; at most {MAX_ANSWER:,} are read", raw=text[:10_000])
    if schema is None:
        return {"text": text}
    try:
        value = find_json(text)
    except json.JSONDecodeError as error:
        raise BadAnswer(f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos}", raw=text[:10_000]) from None
    except RecursionError:
        raise BadAnswer(f"nested more than {MAX_DEPTH} levels deep", raw=text[:10_000]) from None
    except ValueError as error:
        fault = "a number has too many digits" if "digits" in str(error) else str(error)
        raise BadAnswer(f"not JSON: {fault}", raw=text[:10_000]) from None
    if not isinstance(value, dict):
        raise BadAnswer(f"not an object but {_named(value)}", raw=text[:10_000])
    if _deeper(value, MAX_DEPTH):
        raise BadAnswer(f"nested more than {MAX_DEPTH} levels deep", raw=text[:10_000])
    fault = first_fault(value, schema) or ""
    if fault:
        raise BadAnswer(f"does not fit what the node returns: {fault}", raw=text[:10_000])
    return value


_FENCE = re.compile(r"^[ \t]*```[a-zA-Z0-9]*[ \t]*\n(.*?)\n[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_OBJECT = re.compile(r'\{(?=\s*["}])')
_ARRAY = re.compile(r"\[(?=\s*[\[{])")


def find_json(text: str) -> Json:
    """
    The one JSON value of *text*: alone, in one code fence, or with words around it.

    Two values, or one that breaks off, are refused rather than guessed.

    Raises:
        ValueError: there is no such value.
    """
    body = text.strip()
    try:
        return strict_json(body)
    except json.JSONDecodeError as error:
        alone = error
    fenced = _FENCE.findall(body)
    if len(fenced) == 1:
        return strict_json(fenced[0].strip())
    if len(fenced) > 1:
        raise ValueError(f"the answer has {len(fenced)} code blocks")
    values: list[Json] = []
    began = place = 0
    while begins := min((found for pattern in (_OBJECT, _ARRAY) if (found := pattern.search(body, place))), key=re.Match.start, default=None):
        try:
            value, place = strict_json_at(body, begins.start())
        except json.JSONDecodeError as error:
            # what breaks off may hold a smaller whole value, which is not the answer
            raise error if begins.start() else alone from None
        values.append(value)
        began = begins.start()
        if len(values) > 1:
            raise ValueError("the answer has more than one JSON value")
    if not values or set("{}") & set(body[:began] + body[place:]):
        raise alone
    return values[0]


def first_fault(value: Json, schema: Mapping[str, Json]) -> str | None:
    """Where and how *value* violates *schema*, or None where it fits."""
    validator = _validator(canonical(schema))
    try:
        error = next(validator.iter_errors(value), None)
    except RecursionError:
        return "nested too deeply to be checked"
    except Unresolvable as fault:
        return f"the schema refers to {fault.ref!r}; references are not followed"
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


def _named(value: Json) -> str:
    """*value* in words: its type, and the value itself where it is short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"the {'string' if isinstance(value, str) else 'number'} {shown if len(shown) <= 60 else shown[:57] + '…'}"


def _deeper(value: Json, most: int) -> bool:
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


# Python's own regular expressions can take exponential time on a malicious string; RE2's cannot
_Linear: Any = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern_keyword})  # type: ignore[no-untyped-call]


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    # an empty registry: references to other schemas are never fetched
    validator: Validator = _Linear(json.loads(schema), registry=Registry())
    return validator
