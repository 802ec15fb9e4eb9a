"""Backtests that go on: how far each side is, and what the gate says of the pairs so far."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.api.backtest_specs import backtest_runs
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.run_progress import RunProgress, RunProgressDocument, run_progress
from beam_ray.backtest.live import SILENT_S, InterimAnalysis, StoredBacktest, interim_analysis, read_backtest_progress
from beam_ray.backtest.rescored_baseline import rescored_name_of
from beam_ray.compare.compare_runs import compare_done
from beam_ray.compare.gate import Gate
from beam_ray.errors import BeamRayError, Unusable
from beam_ray.store.objects import NotThere
from beam_ray.store.runs import Run as StoredRun

MOST_PAIRS = 20_000
"""Pairs that are compared while a backtest goes on; with more, only how far it is."""


class BacktestSideDocument(TypedDict):
    """A side of a backtest that goes on, as ``--json`` prints it."""

    name: str
    progress: RunProgressDocument


class BacktestProgressDocument(TypedDict):
    """How far a backtest is, as ``--json`` prints it."""

    backtest_id: str
    name: str
    workflow: str
    state: str
    tasks: int
    pairs: dict[str, int]
    usd: float | None
    calls: int
    budget: dict[str, float]
    interim_analyses: list[int]
    message: str
    sides: list[BacktestSideDocument]
    looks: list[InterimAnalysis]
    so_far: list[InterimAnalysis]


@dataclass(frozen=True, repr=False)
class BacktestProgress(Displayed):
    """How far a backtest without a verdict is, as the store has it."""

    id: str
    name: str
    workflow: str
    source: str
    """Where its tasks come from."""
    state: str
    """running (its driver reported within some seconds) or stopped."""
    tasks: int
    """Tasks that are planned; with ``stop: early`` at most."""
    trials: int
    candidates: tuple[str, ...]
    sides: tuple[tuple[str, RunProgress], ...]
    """Each run that was begun for it, the baseline first."""
    pairs: tuple[tuple[str, int], ...]
    """Each candidate with the tasks that both sides have done."""
    budget: tuple[tuple[str, float], ...]
    interim_analyses: tuple[int, ...]
    """Numbers of tasks at the interim analyses of a backtest that may stop early."""
    looks: tuple[InterimAnalysis, ...]
    """The analyses so far, whose intervals hold at every analysis."""
    so_far: tuple[InterimAnalysis, ...]
    """
    Of a backtest that does not stop early, the gate's lines for the pairs so far, by candidate.

    Their intervals hold for one analysis and not for looking again and again: they decide nothing.
    """
    started_at: float
    message: str
    """What its driver last said."""
    driver: str

    @property
    def calls(self) -> int:
        """Model calls of its unfinished and finished runs."""
        return sum(progress.calls for _, progress in self.sides)

    @property
    def usd(self) -> float | None:
        """US dollars of its runs so far; None when a model has no price."""
        prices = [progress.usd for _, progress in self.sides]
        known = [price for price in prices if price is not None]
        return sum(known) if len(known) == len(prices) else None

    @property
    def usd_left(self) -> float | None:
        """About how many US dollars the runs that were begun will still take; None where that is not known."""
        if self.usd is None or not any(progress.steps_done for _, progress in self.sides):
            return None
        return sum((each.usd or 0.0) * (each.steps - each.steps_done) / each.steps_done for _, each in self.sides if each.steps_done)

    def display(self) -> Display:
        facts = (("state", self.state), ("workflow", self.workflow), ("tasks", self.tasks), ("$", self.usd))
        return Display(self.id, facts, ("side", "run", "steps done", "of"), [(name, each.run_id, each.steps_done, each.steps) for name, each in self.sides])

    def document(self) -> BacktestProgressDocument:
        """The progress as a JSON document."""
        return {
            "backtest_id": self.id,
            "name": self.name,
            "workflow": self.workflow,
            "state": self.state,
            "tasks": self.tasks,
            "pairs": dict(self.pairs),
            "usd": self.usd,
            "calls": self.calls,
            "budget": dict(self.budget),
            "interim_analyses": list(self.interim_analyses),
            "message": self.message,
            "sides": [{"name": name, "progress": progress.document()} for name, progress in self.sides],
            "looks": list(self.looks),
            "so_far": list(self.so_far),
        }


def unfinished_backtests(store: Location, finished: Collection[str] = ()) -> list[str]:
    """See ``Store.unfinished_backtests``."""
    objects = store.existing()
    found = []
    for name in objects.folders("backtests"):
        if name in finished:
            continue
        try:
            objects.age(f"backtests/{name}/verdict.json")
        except NotThere:
            found.append(name)
    return found


def backtest_progress(store: Location, backtest: str) -> BacktestProgress:
    """See ``Store.backtest_progress``."""
    known = unfinished_backtests(store)
    matches = [backtest] if backtest in known else [name for name in known if name.startswith(backtest)]
    if len(matches) != 1:
        raise Unusable(f"there is no unfinished backtest {backtest!r}\n  there are: {', '.join(known[-5:]) or 'none'}")
    told, runs = read_backtest_progress(store.objects, matches[0]), backtest_runs(store, matches[0])
    sides = []
    for name, run_id in runs.items():
        try:
            sides.append((name, run_progress(store, run_id)))
        except BeamRayError:
            continue  # its driver is writing it down just now
    driven = any(progress.state == "running" for _, progress in sides)
    candidates = tuple(told["candidates"]) if told else tuple(name for name in runs if name != "baseline" and "-for-" not in name)
    pairs, so_far = _so_far(store, told, runs, candidates)
    first = StoredRun(store.objects, next(iter(runs.values()))).record if runs else None
    return BacktestProgress(
        matches[0],
        told["name"] if told else matches[0].rpartition("-")[0],
        told["workflow"] if told else first.workflow if first else "",
        told["source"] if told else first.source if first else "",
        "running" if driven or (told is not None and time.time() - told["at"] < SILENT_S and told["driver"] != "") else "stopped",
        told["tasks"] if told else first.tasks if first else 0,
        told["trials"] if told else first.trials if first else 1,
        candidates,
        tuple(sides),
        pairs,
        tuple(told["budget"].items()) if told else (),
        tuple(told["pauses"]) if told else (),
        tuple(told["looks"]) if told else (),
        so_far,
        told["started_at"] if told else 0.0,
        told["message"] if told else "",
        told["driver"] if told else "",
    )


def _so_far(
    store: Location, told: StoredBacktest | None, runs: dict[str, str], candidates: tuple[str, ...]
) -> tuple[tuple[tuple[str, int], ...], tuple[InterimAnalysis, ...]]:
    """Each candidate with its pairs so far, and what the gate says of them."""
    pairs, found = [], []
    for name in candidates:
        baseline = runs.get(rescored_name_of(name)) or runs.get("baseline")
        if name not in runs or baseline is None:
            pairs.append((name, 0))
            continue
        before, after = StoredRun(store.objects, baseline), StoredRun(store.objects, runs[name])
        try:
            ids = [pc.unique(run.outcome(["task_id"])["task_id"]) for run in (before, after)]
            both = ids[0].filter(pc.is_in(ids[0], value_set=ids[1]))
            pairs.append((name, len(both)))
            if told and not told["pauses"] and 0 < len(both) <= MOST_PAIRS:
                found.append(_analysis(told, name, (before, after), both))
        except (BeamRayError, NotThere):
            continue  # parts are being merged just now
    return tuple(pairs), tuple(found)


def _analysis(told: StoredBacktest, name: str, runs: tuple[StoredRun, StoredRun], tasks: pa.Array) -> InterimAnalysis:
    gate = Gate.model_validate(told["gate"])
    # a rule about a slice needs fields that only the driver has
    gate = gate.model_copy(update={"limits": tuple(limit for limit in gate.limits if "=" not in limit.rule)})
    return interim_analysis(name, compare_done(*runs, gate, ("baseline", name), tasks, family=len(told["candidates"])), gate)
