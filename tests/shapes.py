"""Whether a JSON value has the shape that a TypedDict declares, no key more and no key less."""

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel


def misfits(value: Any, shape: Any, at: str = "it") -> list[str]:
    """What of *value* is not of *shape*, a line each, with the place where it stands."""
    origin, inner = get_origin(shape), get_args(shape)
    if shape is Any:
        return []
    if is_typeddict(shape) or (isinstance(shape, type) and issubclass(shape, BaseModel)):
        return _object(value, shape, at)
    if origin in (NotRequired, Required):
        return misfits(value, inner[0], at)
    if origin in (Union, types.UnionType):
        found = [misfits(value, one, at) for one in inner]
        return [] if [] in found else max(found, key=lambda lines: max(line.count(".") for line in lines))
    if origin is Literal:
        return [] if value in inner else [f"{at} is {value!r}, not one of {inner}"]
    if origin in (list, Sequence):
        return (
            [line for index, one in enumerate(value) for line in misfits(one, inner[0], f"{at}[{index}]")]
            if isinstance(value, list)
            else _other(value, shape, at)
        )
    if origin is tuple:
        return [] if isinstance(value, list) else _other(value, shape, at)
    if origin in (dict, Mapping):
        return [line for key, one in value.items() for line in misfits(one, inner[1], f"{at}.{key}")] if isinstance(value, dict) else _other(value, shape, at)
    fits = isinstance(value, (int, float) if shape is float else shape) and isinstance(value, bool) <= (shape is bool)
    return [] if fits else _other(value, shape, at)


def _object(value: Any, shape: Any, at: str) -> list[str]:
    if not isinstance(value, dict):
        return _other(value, shape, at)
    hints = get_type_hints(shape)
    if is_typeddict(shape):
        required = shape.__required_keys__
    else:
        hints = {name: hints[name] for name in shape.model_fields}
        required = {name for name, each in shape.model_fields.items() if each.is_required()}
    missing = [f"{at}.{key} is missing" for key in sorted(required - value.keys())]
    further = [f"{at}.{key} is not in {shape.__name__}" for key in sorted(value.keys() - hints.keys())]
    return [*missing, *further, *(line for key in value.keys() & hints.keys() for line in misfits(value[key], hints[key], f"{at}.{key}"))]


def _other(value: Any, shape: Any, at: str) -> list[str]:
    return [f"{at} is {value!r:.80}, not {shape}"]
