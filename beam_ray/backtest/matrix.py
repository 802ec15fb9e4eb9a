"""
Candidates from a matrix of values: one for every combination.

    matrix:
      model: [hosted/small, hosted/large]
      nodes.extract.llm.prompt: [prompts/p1.md, prompts/p2.md]
      exclude:
        - {model: hosted/large, nodes.extract.llm.prompt: prompts/p2.md}

makes ``small-p1``, ``small-p2`` and ``large-p1``. Each is a mapping of overrides, as if it had been written
under ``candidates``.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.define.returns import Faults
from beam_ray.define.validation import as_written
from beam_ray.define.yaml_file import Source
from beam_ray.errors import BadDefinition, Problem, did_you_mean
from beam_ray.run.lenders import behaviour

if TYPE_CHECKING:
    from beam_ray.backtest.spec import Side

MOST_CANDIDATES = 32
"""Candidates of one matrix: each is a run over all tasks, and the more there are, the more must the best one show."""
MOST_COMBINATIONS = 10_000
"""Combinations before exclusions."""
EXCLUDE = "exclude"
_LONGEST = 24
"""Characters of a value in a candidate's name."""
_Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Cell:
    """One combination."""

    name: str
    overrides: JsonObject
    places: Mapping[str, _Place]
    """Override to where its value stands in the spec."""


def cells(matrix: Mapping[str, Json], taken: Iterable[str] = ()) -> list[Cell]:
    """
    The combinations of *matrix*, the last key varying fastest, each with a short name that is not among those *taken*.

    Raises:
        Faults: at their places, a key without values, a value that is there twice, an exclusion that fits nothing, or too many combinations.
    """
    axes: dict[str, list[Json]] = {key: values for key, values in matrix.items() if key != EXCLUDE and isinstance(values, list)}
    excluded = _checked(matrix, axes)
    whole = math.prod(len(values) for values in axes.values())
    if whole > MOST_COMBINATIONS:
        raise Faults([("", _too_many(whole))])
    found = [places for places in itertools.product(*(range(len(values)) for values in axes.values())) if not _fits(places, axes, excluded)]
    if len(found) > MOST_CANDIDATES:
        raise Faults([("", _too_many(len(found)))])
    if not found:
        raise Faults([("", "the matrix makes no candidate" + (f": {EXCLUDE!r} leaves none" if axes else ""))])
    labels = [_labels(key, values) for key, values in axes.items()]
    shown = [index for index, values in enumerate(labels) if len(values) > 1] or list(range(len(labels)))
    names = _unique(["-".join(labels[index][places[index]] for index in shown) for places in found], {*taken, "baseline"})
    return [
        Cell(
            name,
            {key: axes[key][place] for key, place in zip(axes, places, strict=True)},
            {key: ("matrix", key, place) for key, place in zip(axes, places, strict=True)},
        )
        for name, places in zip(names, found, strict=True)
    ]


def placed(source: Source, made: Sequence[Cell]) -> Source:
    """*source*, in which the overrides of candidates from a matrix stand where their values do."""
    places = dict(source.places)
    for cell in made:
        places["candidates", cell.name] = source.place(("matrix",))
        places |= {("candidates", cell.name, key): source.place(place) for key, place in cell.places.items()}
    return Source(source.file, source.data, places)


def _too_many(count: int) -> str:
    return f"the matrix makes {count:,} candidates, and at most {MOST_CANDIDATES} are compared: leave out values, or {EXCLUDE!r} combinations"


def without_repeats(baseline: "Side", candidates: Sequence["Side"], made: Container[str], source: Source) -> tuple[list["Side"], list[Problem]]:
    """
    The candidates without those of a matrix, *made*, that are the baseline or an earlier candidate under another name, and a warning for each.

    Raises:
        BadDefinition: none is left.
    """
    known = {} if baseline.recorded else {behaviour(baseline.workflow): "the baseline"}
    kept, warnings = list["Side"](), list[Problem]()
    for side in candidates:
        same = known.setdefault(behaviour(side.workflow), side.name)
        if same != side.name and side.name in made:
            warnings.append(source.problem(("matrix",), f"{side.name} is the same as {same} and is left out"))
        else:
            kept.append(side)
    if not kept:
        raise BadDefinition(problems=[source.problem(("matrix",), "the matrix changes nothing: each of its candidates is the baseline")])
    return kept, warnings


def _checked(matrix: Mapping[str, Json], axes: Mapping[str, list[Json]]) -> list[Mapping[str, Json]]:
    """The exclusions, all of the matrix being sound."""
    faults: list[tuple[int | str, str]] = [
        (key, f"{key!r} in the matrix must be a list of values, not {as_written(values)}") for key, values in matrix.items() if not isinstance(values, list)
    ]
    for key, values in axes.items():
        if not values:
            faults.append((key, f"{key!r} in the matrix has no values"))
        twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
        if twice is not None:
            faults.append((key, f"{key!r} in the matrix has {as_written(twice)} twice"))
    written = matrix.get(EXCLUDE, [])
    excluded = [entry for entry in written if isinstance(entry, Mapping)] if isinstance(written, list) else []
    if isinstance(written, list) and len(excluded) < len(written):
        faults.append((EXCLUDE, f"{EXCLUDE!r} must be a list of combinations such as {{model: hosted/large}}"))
    for entry in excluded:
        for key, value in entry.items():
            if key not in axes:
                faults.append((EXCLUDE, "\n".join([f"{EXCLUDE!r} names {key!r}, which is not in the matrix", *did_you_mean(key, axes)])))
            elif value not in axes[key]:
                faults.append((EXCLUDE, f"{EXCLUDE!r} names {as_written(value)}, which is no value of {key!r} in the matrix"))
        if not entry:
            faults.append((EXCLUDE, f"an empty entry of {EXCLUDE!r} would exclude everything"))
    if faults:
        raise Faults(faults)
    return excluded


def _fits(places: Sequence[int], axes: Mapping[str, list[Json]], excluded: Iterable[Mapping[str, Json]]) -> bool:
    values = {key: axes[key][place] for key, place in zip(axes, places, strict=True)}
    return any(all(values[key] == value for key, value in entry.items()) for entry in excluded)


def _labels(path: str, values: Sequence[Json]) -> list[str]:
    """A short word for each value of a key, all different."""
    labels = [_label(path, value, number) for number, value in enumerate(values, 1)]
    if len(set(labels)) < len(labels):
        # of files with one name, the folders tell
        labels = [_slug(value) if isinstance(value, str) and _is_name(value) else label for value, label in zip(values, labels, strict=True)]
    return labels if len(set(labels)) == len(labels) else [f"{_key(path)}-{number}" for number in range(1, len(values) + 1)]


def _label(path: str, value: Json, number: int) -> str:
    if isinstance(value, str) and _is_name(value):
        last = value.rstrip("/").rpartition("/")[2]
        stem = re.sub(r"\.(md|txt|jinja2?|j2|ya?ml|prompt)$", "", last)
        return _slug(stem) or f"{_key(path)}-{number}"
    if isinstance(value, bool) or value is None:
        return f"{_key(path)}-{'none' if value is None else str(value).lower()}"
    if isinstance(value, int | float):
        return f"{_key(path)}-{_slug(f'{value:g}' if value >= 0 else f'minus {-value:g}')}"
    return f"{_key(path)}-{number}"


def _is_name(value: str) -> bool:
    """Whether a text is the name of something, such as a model or a file, rather than a prompt."""
    return bool(value) and not re.search(r"\s|\{\{", value)


def _key(path: str) -> str:
    return _slug(path.rpartition(".")[2]) or "value"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower())[-_LONGEST:].strip("-_")


def _unique(names: Sequence[str], taken: set[str]) -> list[str]:
    """The names, with numbers in place of those that are too long for a name, or not the only ones."""
    counts = Counter(names)
    return [name if len(name) <= 64 and counts[name] == 1 and name not in taken else f"candidate-{number}" for number, name in enumerate(names, 1)]
