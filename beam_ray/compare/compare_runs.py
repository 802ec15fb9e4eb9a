"""Two runs of the store as the sides of a comparison."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.compare.comparison import Comparison, compare
from beam_ray.compare.cost_notes import cost_notes
from beam_ray.compare.first_calls import with_first_calls
from beam_ray.compare.gate import Gate
from beam_ray.compare.gate_file import default_gate
from beam_ray.compare.grouping import NOTHING, By, grouping
from beam_ray.compare.judge_notes import judge_notes
from beam_ray.compare.metrics import NOT_COMPARED, Metric, not_compared
from beam_ray.compare.pairs import Side
from beam_ray.compare.regressions import Repeats
from beam_ray.compare.replay import CALL_COLUMNS
from beam_ray.compare.replay import COLUMNS as REPLAY_COLUMNS
from beam_ray.errors import Unusable
from beam_ray.store.runs import Run

OUTCOME_COLUMNS = [
    "task_id",
    "trial",
    "outcome",
    "passed",
    "score",
    "first_score",
    "inputs",
    "labels",
    "routes",
    "output",
    "turns",
    "tool_calls",
    "tool_errors",
    "auto_reruns",
    "auto_rerun_tokens",
    "auto_rerun_usd",
    "work_seconds",
    "work_calls",
    "work_tokens",
    "work_usd",
    "error",
]
STEPS_COLUMNS = ["task_id", "trial", "node", "outcome", "score", "output", "error_type", "error"]
CRITERIA_COLUMNS = [f"criteria.list.element.{field}" for field in ("id", "text", "met", "judge")]
PANEL_COLUMNS = ["criteria.list.element.judges"]
"""What a comparison looks at; attempts, which are most of a run's bytes, and the reasons of judges are not read."""

TIMES, COSTS = ("seconds", "seconds_p50", "seconds_p95"), ("usd", "auto_rerun_usd")
"""Metrics that depend on whether models are asked in batches."""


def compare_runs(before: Run, after: Run, gate: Gate | None = None, *, names: tuple[str, str] = ("baseline", "candidate"), **how: Any) -> Comparison:
    """
    Two finished runs, pair by pair.

    Raises:
        Unusable: one of them is not finished.
    """
    for run in (before, after):
        if not run.finished:
            raise Unusable(f"run {run.run_id} is not finished\n  beam-ray resume {run.run_id}  resumes it")
    return compare_done(before, after, gate or default_gate(), names, **how)


def compare_done(before: Run, after: Run, gate: Gate, names: tuple[str, str], tasks: pa.Array | None = None, *, by: By = NOTHING, **how: Any) -> Comparison:
    """Two runs over those of the *tasks* that are done; over all that either has done where none are given."""
    panels = any(len(run.record.plan.judges_of(node)) > 1 for run in (before, after) for node in run.record.plan.order)
    columns = [*STEPS_COLUMNS, *CRITERIA_COLUMNS, *(PANEL_COLUMNS if panels else ())]
    with ThreadPoolExecutor(2) as threads:
        sides = list(threads.map(lambda name, run: _side(name, run, columns, tasks), names, (before, after)))
    notes = judge_notes({side.name: side.steps for side in sides}) if panels else ()
    # handed over and not kept, as a table that was used is memory for the next
    found = compare(
        sides.pop(0),
        sides.pop(0),
        order=list(after.record.plan.order),
        confidence=gate.confidence,
        grouping=grouping(before, after, by.cluster, by.slices),
        **how,
    )
    found = replace(found, cost_notes=cost_notes(before, after, names), judge_notes=notes)
    found = replace(found, changes=with_first_calls(found.changes, before, after))
    return _with_lanes(found, _lanes(before), _lanes(after))


def _side(name: str, run: Run, columns: list[str], tasks: pa.Array | None) -> Side:
    """The run as a side of a comparison over those of the *tasks* that are done; over all of them where none are given."""
    makes_calls = any(node.records_calls for node in run.record.plan.nodes.values())
    tables = [run.outcome(OUTCOME_COLUMNS), run.steps(columns=columns + (REPLAY_COLUMNS if makes_calls else []))]
    if makes_calls:
        tables.append(run.calls(columns=CALL_COLUMNS))
    if tasks is not None:
        tables = [table.filter(pc.is_in(table["task_id"], tasks)) for table in tables]
    return Side(name, run.run_id, tables[0], tables[1], bool(run.record.recorded), tables[2] if makes_calls else None)


def with_repeats(found: Comparison, trials: int, runs: Sequence[Run]) -> Comparison:
    """
    *found*, with its newly failing tasks divided by what they did when they were repeated.

    Args:
        trials: of the backtest itself.
        runs: those that repeat the tasks, the baseline's first; then, where there are any, those that repeat the suspected tasks again.
    """
    second = repeats_of(runs[0].record.trials, runs[2], runs[3]) if len(runs) > 2 else {}
    return found.confirmed(repeats_of(trials, runs[0], runs[1]), second)


def repeats_of(trials: int, before: Run, after: Run) -> Mapping[str, Repeats]:
    """Per task: how often it passed when it was repeated, on both sides; the first *trials*, which chose it, left out."""
    counts: dict[str, list[int]] = {}
    for place, run in ((0, before), (2, after)):
        for row in run.outcome(["task_id", "trial", "passed"]).to_pylist():
            if row["trial"] > trials:
                found = counts.setdefault(row["task_id"], [0, 0, 0, 0])
                found[place] += bool(row["passed"])
                found[place + 1] += 1
    return {task: Repeats(*found) for task, found in counts.items()}


def _lanes(run: Run) -> str:
    """How the models of a run were asked, in words."""
    batches = [written.get("lane") == "batch" for written in run.record.models.values()]
    return "in batches" if batches and all(batches) else "partly in batches" if any(batches) else "interactively"


def _with_lanes(comparison: Comparison, before: str, after: str) -> Comparison:
    """The comparison without changes that follow from how models were asked, each with the reason in its place."""

    def honest(metric: Metric) -> Metric:
        if metric.name in TIMES and "batches" in before + after:
            return not_compared(metric, ("batches" in before, "batches" in after), f"{NOT_COMPARED}: the time that batches take is not measured")
        if metric.name in COSTS and before != after:
            why = f"{NOT_COMPARED}: the baseline was asked {before}, the candidate {after}, and batches cost half"
            return not_compared(metric, (False, False), why)
        return metric

    return replace(comparison, metrics=tuple(map(honest, comparison.metrics)))
