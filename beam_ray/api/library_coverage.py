"""Coverage of a library as a grid: how many of its tasks take each route with each label, and which past tasks would fill the gaps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.api.libraries import LibraryCheck
from beam_ray.store.arrow_expression import holds

MAX_LABELS = 12
"""Labels that a grid shows; those of the most tasks."""


class CoverageCellDocument(TypedDict):
    """A cell of the grid as JSON."""

    route: str | None
    label: str | None
    tasks: list[str]
    past: int


@dataclass(frozen=True)
class CoverageCell:
    """The tasks that take one route and have one label."""

    route: str | None
    """None: tasks that took no route of the workflow, or were never run."""
    label: str | None
    """None: tasks without a label."""
    tasks: tuple[str, ...]
    """Ids of tasks of the library."""
    past: int
    """Past tasks of the workflow of the same kind that the library does not have."""

    @property
    def gap(self) -> bool:
        """Whether the library has no such task although some were run."""
        return not self.tasks and self.past > 0


@dataclass(frozen=True)
class CoverageGrid:
    """A library's tasks by route and label."""

    routes: tuple[str | None, ...]
    labels: tuple[str | None, ...]
    cells: tuple[tuple[CoverageCell, ...], ...]
    """One row per route, with one cell per label."""
    more_labels: int
    """Labels that are left out."""

    def document(self) -> list[CoverageCellDocument]:
        """The grid as a JSON document: its cells."""
        return [{"route": cell.route, "label": cell.label, "tasks": list(cell.tasks), "past": cell.past} for row in self.cells for cell in row]


def coverage_grid(check: LibraryCheck) -> CoverageGrid:
    """See ``LibraryCheck.grid``."""
    library, found = check.library, check.document()
    rows = library.tasks.select(["task_id", "labels"]).to_pylist()
    labels_of = {row["task_id"]: row["labels"] or [] for row in rows}
    route_tasks: dict[str | None, Sequence[str]] = {}
    route_tasks.update(found["routes"]["covered"].items())
    route_tasks.update((name, []) for name in found["routes"]["not_covered"])
    on_a_route = {task for tasks in route_tasks.values() for task in tasks}
    without = [task for task in labels_of if task not in on_a_route]
    past = _Past(library.store.index.table(), found["workflow"], library.tasks["task_id"])
    counts: dict[str, int] = past.labels()
    for labels in labels_of.values():
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    shown: list[str | None] = [*sorted(ranked[:MAX_LABELS]), None]
    if without or not route_tasks:
        route_tasks[None] = without
    cells = tuple(tuple(_cell(route, label, tasks, labels_of, past) for label in shown) for route, tasks in route_tasks.items())
    return CoverageGrid(tuple(route_tasks), tuple(shown), cells, max(len(ranked) - MAX_LABELS, 0))


def _cell(route: str | None, label: str | None, tasks: Sequence[str], labels_of: dict[str, list[str]], past: "_Past") -> CoverageCell:
    here = tuple(task for task in tasks if (label in labels_of[task] if label is not None else not labels_of[task]))
    return CoverageCell(route, label, here, past.count(route, label))


class _Past:
    """Finished tasks of a workflow that the library does not have, each id once."""

    def __init__(self, index: pa.Table, workflow: str, known: Any):
        mask = pc.and_(pc.equal(index["workflow"], workflow), pc.is_valid(index["outcome"]))
        mask = pc.and_(mask, pc.invert(pc.is_in(index["task_id"], value_set=known.combine_chunks())))
        self.table = index.filter(mask).select(["task_id", "labels", "routes"])
        self._masks: dict[tuple[str, str | None], Any] = {}

    def labels(self) -> dict[str, int]:
        """Each label with how many executions have it."""
        counted = pc.value_counts(pc.list_flatten(self.table["labels"])).to_pylist()
        return {entry["values"]: entry["counts"] for entry in counted if entry["values"] is not None}

    def count(self, route: str | None, label: str | None) -> int:
        """How many took the route and have the label."""
        both = self._mask("routes", route) & self._mask("labels", label)
        return len(pc.unique(self.table["task_id"].filter(pa.array(both)))) if both.any() else 0

    def _mask(self, column: str, value: str | None) -> Any:
        if (column, value) not in self._masks:
            values = self.table[column]
            made = holds(values, value) if value is not None else pc.equal(pc.fill_null(pc.list_value_length(values), 0), 0)
            self._masks[column, value] = np.asarray(made, dtype=bool)
        return self._masks[column, value]
