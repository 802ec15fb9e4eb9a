"""
A workflow over time: its numbers per version and day, and whether a model changed under its name.

Days run different tasks, so a number that moves from day to day may be the tasks alone. A canary
set answers the other question: the same tasks run again and again by one definition with the
same models. Its newest run is compared with its first, pair by pair, as an A/A test. What differs
beyond chance was not changed here: the model behind the name, or its endpoint, was.

Runs whose tasks were selected by their results do not count, nor do tasks of which every step
was borrowed, or for which a model did not answer.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict, cast

import numpy as np
import pyarrow as pa

from beam_ray.compare.compare_runs import compare_runs
from beam_ray.compare.flips import NOT_JUDGED
from beam_ray.compare.gate import NONE
from beam_ray.compare.intervals import level, p_of_change, sample
from beam_ray.compare.metrics import rounded
from beam_ray.compare.pairs import numbers
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Numbers, Quantity, holm
from beam_ray.define.fingerprint import digest
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.improve.executions import COUNTED, unanswered
from beam_ray.publish import read_version, versions
from beam_ray.store.lookup import newest_first
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run

LEVEL = 0.05
"""A canary set whose adjusted p-value is below this has changed."""

CanaryWord = Literal["CHANGED", "no change shown"]
_COLUMNS = ["task_id", "trial", "inputs", "passed", "score", "work_usd", "work_seconds", "auto_reruns", "steps_done", "steps_failed"]
_LARGEST = {"passed": 1.0, "score": 100.0}
_CHANGES = ("success_rate", "score", "usd", "seconds", "auto_reruns")


class Level(TypedDict):
    """A mean over tasks with its 95% interval; without an interval for fewer than two tasks."""

    value: float
    low: float | None
    high: float | None
    tasks: int


@dataclass(frozen=True)
class TrendPoint:
    """A version on a day (UTC, when its runs began)."""

    day: str
    version: int | None
    """None for a draft."""
    definition: str
    """Digest of the definition."""
    runs: tuple[str, ...]
    tasks: int
    """Distinct tasks; a task with several trials or in several runs counts once, with its mean."""
    executions: int
    unanswered: int
    """Executions left out because a model did not answer."""
    success: Level | None
    """Percent of tasks passed."""
    score: Level | None
    usd: Level | None
    """US dollars per task; None where no task has a price."""
    seconds: Level | None
    auto_reruns: Level | None
    """Auto-reruns per task."""


class CanaryChange(TypedDict):
    """A metric of the first and the newest run of a canary set, with the 95% interval of the change."""

    name: str
    title: str
    unit: str
    before: float | None
    after: float | None
    change: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CanaryRun:
    """One run of a canary set."""

    run_id: str
    day: str
    success: Level | None
    score: Level | None


@dataclass(frozen=True)
class CanarySet:
    """The same tasks run again and again by one definition with the same models; the newest run against the first."""

    version: int | None
    definition: str
    source: str
    """Where the tasks came from."""
    models: tuple[str, ...]
    runs: tuple[CanaryRun, ...]
    """Oldest first."""
    tasks: int
    """Tasks that could be compared."""
    newly_passing: tuple[str, ...]
    newly_failing: tuple[str, ...]
    outputs_differ: int
    """Pairs of a task and trial whose outputs are not the same text."""
    changes: tuple[CanaryChange, ...]
    p_success: float
    """McNemar's exact test of newly passing against newly failing tasks."""
    p_score: float
    """Test of the change of the mean score."""
    p: float
    """The smaller of both, adjusted (Holm) for both tests of all canary sets."""
    word: CanaryWord


class PointDocument(TypedDict):
    """A version on a day, as JSON."""

    day: str
    version: int | None
    definition: str
    runs: Sequence[str]
    tasks: int
    executions: int
    unanswered: int
    success: Level | None
    score: Level | None
    usd: Level | None
    seconds: Level | None
    auto_reruns: Level | None


class CanaryRunDocument(TypedDict):
    """A run of a canary set as JSON."""

    run_id: str
    day: str
    success: Level | None
    score: Level | None


class CanaryDocument(TypedDict):
    """A canary set as JSON."""

    version: int | None
    definition: str
    source: str
    models: Sequence[str]
    runs: Sequence[CanaryRunDocument]
    tasks: int
    newly_passing: Sequence[str]
    newly_failing: Sequence[str]
    outputs_differ: int
    changes: Sequence[CanaryChange]
    p_success: float
    p_score: float
    p: float
    word: CanaryWord


class TrendDocument(TypedDict):
    """A trend as JSON."""

    workflow: str
    points: Sequence[PointDocument]
    canaries: Sequence[CanaryDocument]


@dataclass(frozen=True)
class Trend:
    """A workflow over time."""

    workflow: str
    points: tuple[TrendPoint, ...]
    """Oldest day first."""
    canaries: tuple[CanarySet, ...]
    """Changed ones first, then those with the newest run."""

    def document(self) -> TrendDocument:
        """The trend as a JSON document."""
        return cast(TrendDocument, asdict(self))


def trend(objects: Objects, workflow: str, *, since: str = "") -> Trend:
    """
    The trend of all finished runs of the workflow's definitions, those that began on the day *since* or later.

    Raises:
        Unusable: there is no finished run of a workflow of that name.
    """
    runs = newest_first(objects)[::-1]
    mine = [run for run in runs if run.workflow == workflow and run.created_at >= since and _counts(run)]
    if not mine:
        known = sorted({run.workflow for run in runs})
        words = [f"no finished run of a workflow {workflow!r}{f' since {since}' if since else ''} in {objects.uri}"]
        raise Unusable(
            "\n  ".join([*words, f"workflows with runs: {', '.join(known) or 'none'}", *did_you_mean(workflow, [*known] if workflow not in known else [])])
        )
    published: dict[str, int] = {}
    for number in versions(objects, workflow):
        published.setdefault(read_version(objects, workflow, number).digest, number)
    days: dict[tuple[str, int, str], list[Run]] = {}
    for run in mine:
        found = run.record.definition_digest
        days.setdefault((run.record.created_at[:10], published.get(found, 0), found), []).append(run)
    # of one day the definition that was run first: a draft that followed a version stands after it
    began = {key: min(run.record.created_at for run in members) for key, members in days.items()}
    points = [_point(key[0], key[1] or None, key[2], days[key]) for key in sorted(days, key=lambda key: (key[0], began[key], key))]
    return Trend(workflow, tuple(point for point in points if point.executions or point.unanswered), _canaries(mine, published))


def _counts(run: Run) -> bool:
    record = run.record
    return record.mode in COUNTED and not record.ruler_only and not record.recorded and not record.start_node and run.finished


def _executed(runs: Sequence[Run]) -> tuple[pa.Table, int]:
    """Rows of tasks that were executed in the runs and answered, and how many were not answered."""
    kept, away = [], 0
    for run in runs:
        missing = unanswered(run)
        outcome = run.outcome(_COLUMNS)
        own = [done + failed > 0 for done, failed in zip(outcome["steps_done"].to_pylist(), outcome["steps_failed"].to_pylist(), strict=True)]
        keys = zip(outcome["task_id"].to_pylist(), outcome["trial"].to_pylist(), strict=True)
        lost = [key in missing for key in keys]
        away += sum(mine and gone for mine, gone in zip(own, lost, strict=True))
        kept.append(outcome.filter(pa.array([mine and not gone for mine, gone in zip(own, lost, strict=True)], pa.bool_())))
    return pa.concat_tables(kept), away


def _point(day: str, version: int | None, definition: str, runs: Sequence[Run]) -> TrendPoint:
    rows, away = _executed(runs)
    names = ("passed", "score", "work_usd", "work_seconds", "auto_reruns")
    tasks = _task_numbers(rows)
    levels = {name: _level(rows, tasks, name) for name in names}
    return TrendPoint(
        day,
        version,
        definition,
        tuple(run.run_id for run in runs),
        len(set(tasks.tolist())),
        rows.num_rows,
        away,
        *(levels[name] for name in names),
    )


def _task_numbers(rows: pa.Table) -> np.ndarray[Any, Any]:
    """Each row's task as a number from 0: the same id with other inputs is another task."""
    keys = list(zip(rows["task_id"].to_pylist(), rows["inputs"].to_pylist(), strict=True))
    places = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return np.array([places[key] for key in keys], dtype=np.int64)


def _level(rows: pa.Table, task: np.ndarray[Any, Any], name: str) -> Level | None:
    """The mean of each task's mean; None where no task has the number."""
    values = numbers(rows[name].cast(pa.float64())).astype(np.float64)
    there = ~np.isnan(values)
    if not there.any():
        return None
    counts = np.bincount(task[there])
    means: Numbers = (np.bincount(task[there], weights=values[there]) / np.maximum(counts, 1))[counts > 0]
    largest = _LARGEST.get(name)
    found = level(means, Confidence(), largest=largest, usual=1.0 if name == "auto_reruns" else 0.0)
    scale = 100.0 if name == "passed" else 1.0
    ends = (rounded(scale * found.low), rounded(scale * found.high)) if found else (None, None)
    return {"value": rounded(scale * float(means.mean())) or 0.0, "low": ends[0], "high": ends[1], "tasks": len(means)}


# -- canary sets -------------------------------------------------------------------------------


def _canaries(runs: Sequence[Run], published: dict[str, int]) -> tuple[CanarySet, ...]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        record = run.record
        models = {name: about.get("identity", about) for name, about in record.models.items()}
        if not record.cut_from and run.manifest and not run.manifest["usage"]["steps_borrowed"]:
            key = digest("canary/1", record.definition_digest, record.tasks_digest, record.trials, record.tools, models)
            groups.setdefault(key, []).append(run)
    sets = [members for members in groups.values() if len(members) > 1]
    compared = [_compared(members) for members in sets]
    adjusted = holm([p for each in compared for p in (each["p_success"], each["p_score"])])
    found = []
    for index, (members, facts) in enumerate(zip(sets, compared, strict=True)):
        record, p = members[0].record, min(adjusted[2 * index : 2 * index + 2])
        word: CanaryWord = "CHANGED" if p < LEVEL else "no change shown"
        about = (published.get(record.definition_digest), record.definition_digest, record.source, tuple(sorted(record.models)))
        found.append(CanarySet(*about, runs=tuple(_canary_run(run) for run in members), p=rounded(p) or 0.0, word=word, **facts))
    return tuple(sorted(sorted(found, key=lambda each: each.runs[-1].day, reverse=True), key=lambda each: each.word != "CHANGED"))


def _compared(members: Sequence[Run]) -> dict[str, Any]:
    """The newest run of a canary set against the first."""
    comparison = compare_runs(members[0], members[-1], NONE, names=("first", "newest"), same=True)
    table = comparison.table.filter(pa.array([flip != NOT_JUDGED for flip in comparison.table["flip"].to_pylist()], pa.bool_()))
    ids = {task: index for index, task in enumerate(dict.fromkeys(table["task_id"].to_pylist()))}
    task = np.array([ids[name] for name in table["task_id"].to_pylist()], dtype=np.int64)
    scores = Quantity(*(numbers(table[name]).astype(np.float64) for name in ("before_score", "after_score")))
    p_score = p_of_change(sample(scores, task, largest=100.0), Confidence()) if len(task) else 1.0
    changes = [comparison.metric(name) for name in _CHANGES]
    return {
        "tasks": comparison.tasks,
        "newly_passing": comparison.newly_passing,
        "newly_failing": comparison.newly_failing,
        "outputs_differ": sum(one != other for one, other in zip(table["before_output"].to_pylist(), table["after_output"].to_pylist(), strict=True)),
        "changes": tuple(
            CanaryChange(
                name=each.name, title=each.title, unit=each.unit, before=each.before, after=each.after, change=each.change, low=each.low, high=each.high
            )
            for each in changes
        ),
        "p_success": comparison.p,
        "p_score": (rounded(p_score) or 0.0) if math.isfinite(p_score) else 1.0,
    }


def _canary_run(run: Run) -> CanaryRun:
    rows, _ = _executed([run])
    tasks = _task_numbers(rows)
    return CanaryRun(run.run_id, run.record.created_at[:10], *(_level(rows, tasks, name) if rows.num_rows else None for name in ("passed", "score")))
