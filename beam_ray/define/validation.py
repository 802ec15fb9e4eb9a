"""Turn pydantic's validation errors into problems in our own words, each at its place in the file."""

import json
import math
from collections.abc import Callable
from typing import get_args

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from beam_ray.define.fingerprint import Json
from beam_ray.define.returns import Faults
from beam_ray.define.yaml_file import KeyPath, Source
from beam_ray.errors import Problem, did_you_mean

HIDDEN = ("tools_from", "file")
"""Fields that are set while loading and are not keys of any file."""

_TYPES = {
    "mapping": "a mapping",
    "dict": "a mapping",
    "model": "a mapping",
    "tuple": "a list",
    "list": "a list",
    "string": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
}
"""What pydantic's error types, by their beginning, say that a value must be."""

_BOUNDS = {"ge": "at least", "le": "at most", "gt": "above", "lt": "below"}

_PATTERNS: dict[str, Callable[[str], str]] = {
    "tool": lambda shown: f"the tool {shown} must have the form module:function",
    "base_url": lambda shown: f"'base_url' must begin with http:// or https://, not {shown}",
    "url": lambda shown: f"'url' must begin with http:// or https://, not {shown}",
}


def validation_problems(error: pydantic.ValidationError, source: Source, model: type[pydantic.BaseModel], at: KeyPath = ()) -> list[Problem]:
    """The problems of a *model* that stands at *at* in the file *source*."""
    problems = []
    errors = error.errors(include_url=False)
    inner = {found["loc"][:-1] for found in errors}
    reported = set[KeyPath]()
    for found in errors:
        if _of_union(found["loc"], model):
            # a value that fits no member of a union has one error per member
            place = found["loc"][:-1]
            if place not in reported:
                reported.add(place)
                problems.append(source.problem((*at, *place), f"{str(place[-1])!r} must be {_described(model, place)}, not {as_written(found.get('input'))}"))
            continue
        if found["type"] == "too_short" and any(place[: len(found["loc"])] == found["loc"] for place in inner):
            continue  # it is only short because of the problem inside it
        cause = (found.get("ctx") or {}).get("error")
        if isinstance(cause, Faults):
            problems += [source.problem((*at, *found["loc"], index), message) for index, message in cause.faults]
        else:
            problems.append(_problem(found, (*at, *found["loc"]), source, known_keys(found["loc"], model)))
    return problems


def known_keys(place: KeyPath, model: type[pydantic.BaseModel]) -> list[str]:
    """The keys that may stand beside the last one of *place*, below a *model*."""
    for part in place[:-1]:
        field = next((field for name, field in model.model_fields.items() if part in (name, _key(name, field))), None)
        model = (_model_in(field.annotation) if field else None) or model
    return [_key(name, field) for name, field in model.model_fields.items() if name not in HIDDEN]


def as_written(value: Json) -> str:
    """*value* as it would stand in a file, at most 60 characters of it."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"


def _key(name: str, field: FieldInfo) -> str:
    """The key of a field as a file writes it."""
    return str(field.serialization_alias or field.alias or name)


def _of_union(place: KeyPath, model: type[pydantic.BaseModel]) -> bool:
    """Whether pydantic's *place* ends in the name of a union's member and not in a key of the file."""
    if len(place) < 2 or "nodes" in model.model_fields:
        return False  # a workflow has no unions, and its nodes may be named like types
    return place[-1] in ("str", "int", "float", "bool") or str(place[-1]).startswith(("constrained-", "dict[", "literal["))


def _described(model: type[pydantic.BaseModel], place: KeyPath) -> str:
    field = next((field for name, field in model.model_fields.items() if place[0] in (name, _key(name, field))), None)
    return str(field.description).splitlines()[0].rstrip(".") if field and field.description else "a string"


def _problem(found: ErrorDetails, place: KeyPath, source: Source, known: list[str]) -> Problem:
    kind, given, limits = found["type"], found.get("input"), found.get("ctx") or {}
    here = str(place[-1]) if place else ""
    shown = as_written(given)
    if here == "[key]":
        return source.problem(place[:-1], f"the name {shown} must be a string; put it in quotes")
    named = f"entry {int(here) + 1} of {place[-2]!r}" if place and isinstance(place[-1], int) and len(place) > 1 else repr(here)
    if kind == "extra_forbidden":
        return source.problem(place, f"unknown key {here!r}", f"allowed keys: {', '.join(known)}", *did_you_mean(here, known))
    if kind == "missing":
        return source.problem(place[:-1], f"{'' if len(place) < 2 else repr(str(place[-2])) + ': '}the key {here!r} is missing")
    if kind == "value_error":
        return source.problem(place, str(limits.get("error", found["msg"])))
    if kind == "string_pattern_mismatch":
        describe = _PATTERNS.get(here)
        return source.problem(place, describe(shown) if describe else f"the name {shown} must be 1 to 64 lower-case letters, digits, _ or -")
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        bound = " and ".join(f"{_BOUNDS[key]} {value:,}".removesuffix(".0") for key, value in limits.items() if key in _BOUNDS)
        if isinstance(given, float) and math.isnan(given):
            bound = "a number"
        if place[-2:] == ("auto_rerun", "max"):
            bound = "1, 2 or 3"
        return source.problem(place, f"{here!r} must be {bound}, not {shown}")
    if kind == "literal_error":
        expected = str(limits.get("expected"))
        options = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
        return source.problem(place, f"{here!r} must be {expected}, not {shown}", *did_you_mean(str(given), options))
    if kind == "too_short":
        return source.problem(place, f"{here!r} is empty")
    wanted = next((word for start, word in _TYPES.items() if kind.startswith(start)), None)
    return source.problem(place, f"{named} must be {wanted}, not {shown}" if wanted else f"{named}: {found['msg']}")


def _model_in(annotation: object) -> type[pydantic.BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
