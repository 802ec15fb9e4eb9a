"""
What is logged of a backtest: its sides, and which of their tasks get traces. ``experiments`` makes MLflow's fields of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NotRequired, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.store.call_table import CALLS
from beam_ray.store.run_record import RunRecord

MOST_TRACES = 1_000
"""Traces logged per side; MLflow's comparison page lists no more."""

MOST_ROWS = 10_000
"""Rows logged of a side's results table."""


class TaskRequest(TypedDict):
    """A task as MLflow shows what came in."""

    task: str
    task_query: NotRequired[Json]
    variables: NotRequired[JsonObject]
    messages: NotRequired[list[JsonObject]]


@dataclass(frozen=True)
class SideLog:
    """One side of a backtest, as it is logged."""

    name: str
    """``baseline``, or the candidate's name."""
    role: str
    """``baseline`` or ``candidate``."""
    record: RunRecord
    outcome: pa.Table
    steps: pa.Table
    metrics: Mapping[str, float]
    """Metric name, ``Overall/<metric>`` or ``<node>/<metric>``, to value."""
    started_at: datetime
    ended_at: datetime
    calls: pa.Table = field(default_factory=CALLS.empty_table)
    """The calls of agents and programs (schema CALLS), of tasks that get traces."""
    read_calls: Callable[[Sequence[str]], pa.Table] | None = None
    """Reads the calls of these tasks, when it is known which ones get traces."""


@dataclass(frozen=True)
class BacktestLog:
    """A finished backtest, as it is logged."""

    backtest_id: str
    name: str
    workflow: str
    sides: tuple[SideLog, ...]
    note: str
    """The comparison table as Markdown, shown as the experiment's description."""
    verdict: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name to content of the artifacts logged with each candidate: reports, verdict, comparison."""
    changed: Sequence[str] = ()
    """Ids of the tasks whose verdict changed; these get traces first."""
    tasks: pa.Table | None = None
    """The tasks (schema TASKS). Without them a trace shows the task id but no query."""


@dataclass(frozen=True)
class Logged:
    """Where MLflow shows a backtest that was logged."""

    experiment_id: str
    run_ids: Mapping[str, str]
    """Side name to the id of its MLflow run."""
    url: str
    """The page to open; for a local database, the page that ``beam-ray ui`` serves."""


def traced_tasks(log: BacktestLog, most: int = MOST_TRACES) -> list[str]:
    """Ids of the tasks that get traces: the same on every side, changed verdicts first, at most *most* traces per side."""
    everywhere = set.intersection(*(set(side.outcome["task_id"].to_pylist()) for side in log.sides))
    trials = max(1, *(side.record.trials for side in log.sides))
    wanted = dict.fromkeys([*log.changed, *log.sides[0].outcome["task_id"].to_pylist()])
    return [task for task in wanted if task in everywhere][: max(most // trials, 1)]


def trimmed(log: BacktestLog) -> BacktestLog:
    """The part of *log* that is logged, so that a large backtest is not copied whole into the worker."""
    tasks = traced_tasks(log)
    listed = sorted(set(tasks).union(*(side.outcome["task_id"].slice(0, MOST_ROWS).to_pylist() for side in log.sides)))
    sides = tuple(
        replace(
            side,
            outcome=_rows_of(side.outcome, listed),
            steps=_rows_of(side.steps, tasks),
            metrics=dict(side.metrics),
            calls=side.read_calls(tasks) if side.read_calls else side.calls,
            read_calls=None,
        )
        for side in log.sides
    )
    known = None if log.tasks is None else _rows_of(log.tasks, listed)
    return replace(log, sides=sides, files=dict(log.files), changed=tuple(log.changed), tasks=known)


def _rows_of(table: pa.Table, tasks: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["task_id"], pa.array(tasks, pa.string())))
