"""Whether JSON has the shape that a TypedDict declares, no key more and no key less; and which shape each document of a store has."""

import datetime
import json
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel

from beam_ray.backtest.kept_spec import KeptSpec
from beam_ray.backtest.manifest import BacktestManifest
from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.improve.exposure import Exposure, HoldoutTest, SplitDocument
from beam_ray.improve.model_query import StoredAnswer
from beam_ray.improve.proposals import StoredProposal
from beam_ray.improve.search_result import SearchDocument, SearchOrigin
from beam_ray.llm.families import EndpointFindings
from beam_ray.publish import Version
from beam_ray.run.job_record import JobExit, JobStart
from beam_ray.store.checksummed_json import RunMark
from beam_ray.store.lease import StoredLease
from beam_ray.store.libraries import UseDocument
from beam_ray.store.manifest import Manifest
from beam_ray.store.opening import StoreFormat
from beam_ray.store.pins import PinDocument
from beam_ray.store.run_record import RunRecord

SHAPES: dict[str, Any] = {
    r"store\.json": StoreFormat,
    r"open/\w+\.json": RunMark,
    r"runs/[\w-]+/run\.json": RunRecord,
    r"runs/[\w-]+/lease/\d+\.json": StoredLease,
    r"runs/[\w-]+/manifest\.json": Manifest,
    r"backtests/[\w-]+/sides/[\w-]+\.json": RunMark,
    r"backtests/[\w-]+/spec\.json": KeptSpec,
    r"backtests/[\w-]+/manifest\.json": BacktestManifest,
    r"backtests/[\w-]+/verdict\.json": BacktestDocument,
    r"libraries/\w+/used/[\w-]+\.json": UseDocument,
    r"libraries/\w+/split/\d+\.json": SplitDocument,
    r"libraries/\w+/held/[\w-]+\.json": HoldoutTest,
    r"holdout/\w+\.json": Exposure,
    r"workflows/\w+/\d+\.json": Version,
    r"searches/[\w-]+\.json": SearchOrigin,
    r"searches/[\w-]+/\d+\.json": SearchDocument,
    r"proposals/[\w-]+/\w+/\w+\.json": StoredProposal,
    r"answers/[\w-]+/\d+\.json": StoredAnswer,
    r"models/\w+\.json": EndpointFindings,
    r"pins/\w+\.json": PinDocument,
    r"jobs/[\w-]+/[\w-]+\.json": JobStart,
    r"jobs/[\w-]+\.json": JobExit,
}
"""Key in the store to the shape of what is kept there."""


def undeclared(store: Path) -> list[str]:
    """What of the JSON documents in the folder *store* is not of their declared shapes; a document without a shape is a line too."""
    paths = sorted(store.rglob("*.json"))
    assert paths, f"there is nothing in {store}"
    found = []
    for path in paths:
        key = path.relative_to(store).as_posix()
        document = json.loads(path.read_text(encoding="utf-8"))
        document.pop("seal", None)
        shape = next((shape for pattern, shape in SHAPES.items() if re.fullmatch(pattern, key)), None)
        found += [f"{key} has no declared shape"] if shape is None else misfits(document, shape, key)
    return found


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
    if shape is datetime.datetime:
        return [] if isinstance(value, shape) else _other(value, shape, at)
    if origin in (list, Sequence):
        if not isinstance(value, list if origin is list else (list, tuple)):
            return _other(value, shape, at)
        return [line for index, one in enumerate(value) for line in misfits(one, inner[0], f"{at}[{index}]")]
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
