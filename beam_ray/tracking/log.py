"""
What MLflow is told about a backtest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.define.workflow import Workflow
from beam_ray.store.runs import RunRecord
from beam_ray.tracking.watchdog import PATIENCE_S, in_child

MOST_TRACES = 1_000
"""Traces of a side; MLflow's comparison lists no more."""

MOST_ROWS = 10_000
"""Rows of a side's table of results."""


@dataclass(frozen=True)
class SideLog:
    """One side of a backtest."""

    name: str
    """``baseline``, or the candidate's name."""
    role: str
    """``baseline`` or ``candidate``."""
    record: RunRecord
    outcome: pa.Table
    steps: pa.Table
    metrics: Mapping[str, float]
    """By the name that people see: ``Overall/…`` first, then ``<node>/…``."""
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True)
class BacktestLog:
    """A finished backtest."""

    backtest_id: str
    name: str
    workflow: str
    sides: tuple[SideLog, ...]
    note: str
    """Markdown: the table of the comparison."""
    verdict: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name to content of what is kept with each candidate: reports, verdict, comparison."""
    changed: Sequence[str] = ()
    """Tasks whose verdict changed; they are the first to get traces."""
    tasks: pa.Table | None = None
    """The tasks, as the table TASKS; without it a trace shows its task's id and no query."""


@dataclass(frozen=True)
class Logged:
    """Where MLflow shows a backtest."""

    experiment_id: str
    run_ids: Mapping[str, str]
    """Side to the id of its MLflow run."""
    url: str
    """The page to open; for a database, the one at which ``beam-ray ui`` shows it."""


def log_backtest(uri: str, log: BacktestLog, *, patience_s: float = PATIENCE_S) -> Logged:
    """
    Tell the MLflow at *uri* about a backtest. Telling it again changes nothing.

    Raises:
        TrackingUnavailable: MLflow is away, refuses, or gave no answer for *patience_s* seconds; what
            was told stays told, and ``beam-ray mlflow-sync`` goes on with the rest.
    """
    found = in_child(_handing("log_backtest", uri, _in_short(log)), uri=uri, sync=log.backtest_id, patience_s=patience_s)
    return Logged(found["experiment_id"], found["run_ids"], found["url"])


def production_alias(uri: str, workflow: Workflow, *, patience_s: float = PATIENCE_S) -> dict[str, int]:
    """
    Point the alias ``production`` at the prompts of *workflow*, which was just published; prompt to version.

    Raises:
        TrackingUnavailable: as for ``log_backtest``.
    """
    found = in_child(_handing("production_alias", uri, workflow), uri=uri, sync="", patience_s=patience_s)
    return {name: int(version) for name, version in found.items()}


def _handing(work: str, uri: str, subject: BacktestLog | Workflow) -> Callable[[Path], None]:
    from beam_ray.tracking.snapshot import write  # which knows what a log is

    return lambda folder: write(folder, work, uri, subject)


def traced(log: BacktestLog, most: int = MOST_TRACES) -> list[str]:
    """The tasks that get traces: on every side the same ones, changed verdicts first, at most *most* with their trials."""
    everywhere = set.intersection(*(set(side.outcome["task_id"].to_pylist()) for side in log.sides))
    trials = max(1, *(side.record.trials for side in log.sides))
    wanted = dict.fromkeys([*log.changed, *log.sides[0].outcome["task_id"].to_pylist()])
    return [task for task in wanted if task in everywhere][: max(most // trials, 1)]


def _in_short(log: BacktestLog) -> BacktestLog:
    """The part of *log* that is told, so that a large backtest is not copied whole into the child."""
    tasks = traced(log)
    listed = sorted(set(tasks).union(*(side.outcome["task_id"].slice(0, MOST_ROWS).to_pylist() for side in log.sides)))
    sides = tuple(replace(side, outcome=_of(side.outcome, listed), steps=_of(side.steps, tasks), metrics=dict(side.metrics)) for side in log.sides)
    known = None if log.tasks is None else _of(log.tasks, listed)
    return replace(log, sides=sides, files=dict(log.files), changed=tuple(log.changed), tasks=known)


def _of(table: pa.Table, tasks: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["task_id"], pa.array(tasks, pa.string())))
