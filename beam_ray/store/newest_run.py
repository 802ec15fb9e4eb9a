"""What "the newest run" of a workflow is, for every page and command that takes it without being told a run."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from beam_ray.define.workflow import Workflow
from beam_ray.store.lookup import newest_first
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run

ORDINARY = "run"
SIDES = ("baseline", "candidate")
"""Modes of a backtest's sides."""


class Purpose(Protocol):
    """What a run was for."""

    @property
    def mode(self) -> str: ...

    @property
    def executes(self) -> bool: ...


Described = TypeVar("Described", bound=Purpose)


def whole_runs(runs: Iterable[Described]) -> list[Described]:
    """
    Those that executed the workflow over tasks as they came: ordinary runs, and where there are none the sides of backtests.

    Reruns, repeats and experiments never are: their tasks were selected by their results.
    """
    executed = [run for run in runs if run.executes]
    return [run for run in executed if run.mode == ORDINARY] or [run for run in executed if run.mode in SIDES]


def newest_run(objects: Objects, workflow: str) -> Run | None:
    """The newest finished run of a workflow that is neither a rerun nor a backtest's side; where there is none, the newest side of a backtest."""
    side: Run | None = None
    for run in _of(objects, workflow):
        if not run.finished or not run.record.executes:
            continue
        if run.record.mode == ORDINARY:
            return run
        if side is None and run.record.mode in SIDES:
            side = run
    return side


def newest_definition(objects: Objects, workflow: str) -> Workflow | None:
    """What the newest run of a workflow ran; where none has finished, what was begun last. None where nothing was run."""
    found = newest_run(objects, workflow) or next(_of(objects, workflow), None)
    return found.record.plan if found else None


def _of(objects: Objects, workflow: str) -> Iterator[Run]:
    return (run for run in newest_first(objects, skip_damaged=True) if run.workflow == workflow)
