"""Workflows of a store, each with its published version, its drafts, and how its newest runs did."""

from dataclasses import dataclass
from typing import TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.runs import Run
from beam_ray.compare.wilson import wilson_bounds
from beam_ray.publish import versions as version_numbers
from beam_ray.store.drafts import newest_drafts
from beam_ray.store.newest_run import whole_runs

HISTORY = 10
"""Runs whose success rates a summary has."""


class FlowSummaryDocument(TypedDict):
    """A workflow in short as ``--json`` prints it."""

    workflow: str
    published: int | None
    drafts: list[str]
    runs: int
    newest_run: str | None
    version: int | None
    passed: int | None
    tasks: int | None
    success_rate: float | None
    success_interval: list[float] | None
    """95%, in percent."""
    history: list[float]


@dataclass(frozen=True, repr=False)
class FlowSummary(Displayed):
    """A workflow in short."""

    workflow: str
    published: int | None
    """Number of the published version; None where nothing was published."""
    drafts: tuple[str, ...]
    """Names of its drafts in the store, the newest first."""
    runs: int
    """Finished runs; reruns do not count, and the sides of backtests only where there is nothing else."""
    newest: Run | None
    """The newest of them."""
    passed: int | None
    """Tasks and trials of it that passed."""
    tasks: int | None
    """Its tasks and trials."""
    history: tuple[float, ...]
    """Success rates in percent of the newest runs, the oldest first."""

    @property
    def success_rate(self) -> float | None:
        """Percent of the newest run's tasks that passed."""
        return 100 * self.passed / self.tasks if self.tasks and self.passed is not None else None

    @property
    def success_interval(self) -> tuple[float, float] | None:
        """95% confidence interval of the success rate, in percent; trials of a task never count as tasks. None without a run."""
        if not self.tasks or self.passed is None or self.newest is None:
            return None
        low, high = wilson_bounds(self.passed / self.tasks, self.tasks / self.newest.record.trials)
        return 100 * low, 100 * high

    def display(self) -> Display:
        return Display(self.workflow, (("published version", self.published), ("runs", self.runs), ("success rate %", self.success_rate)))

    def document(self) -> FlowSummaryDocument:
        """The summary as a JSON document."""
        return {
            "workflow": self.workflow,
            "published": self.published,
            "drafts": list(self.drafts),
            "runs": self.runs,
            "newest_run": self.newest.id if self.newest else None,
            "version": self.newest.version if self.newest else None,
            "passed": self.passed,
            "tasks": self.tasks,
            "success_rate": self.success_rate,
            "success_interval": list(self.success_interval) if self.success_interval else None,
            "history": list(self.history),
        }


def flows(store: Location) -> list[FlowSummary]:
    """See ``Store.flows``."""
    objects, counts = store.existing(), store.run_counts
    notes = counts.notes()
    drafts: dict[str, list[str]] = {}
    for draft in newest_drafts(objects):
        drafts.setdefault(draft.workflow, []).append(draft.name)
    names = sorted({*objects.folders("workflows"), *drafts, *(note.workflow for note in notes)})
    return [_summary(store, name, version_numbers(objects, name), drafts.get(name, [])) for name in names]


def _summary(store: Location, name: str, versions: list[int], drafts: list[str]) -> FlowSummary:
    counts = store.run_counts
    whole = whole_runs(note for note in counts.notes() if note.workflow == name and counts.finished(note.run_id))
    shares = [counts.passed(note.run_id) for note in whole[:HISTORY]]
    passed, tasks = shares[0] if shares else (None, None)
    return FlowSummary(
        name,
        versions[-1] if versions else None,
        tuple(drafts),
        len(whole),
        Run(store, whole[0].run_id) if whole else None,
        passed,
        tasks,
        tuple(100 * each[0] / max(each[1], 1) for each in reversed(shares)),
    )
