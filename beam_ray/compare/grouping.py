"""What is known of the tasks of a comparison beside their results: classes they expect, clusters they come in, slices they belong to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from beam_ray.compare.class_questions import Question, class_questions
from beam_ray.errors import Unusable
from beam_ray.store.runs import Run
from beam_ray.tasks.fields import LABELS, field_fault, field_values, label_values

FEWEST_CLUSTERS = 5
"""With fewer, an interval of clusters would be wider than anything that a change could be."""
FEW_CLUSTERS = 20
"""With fewer, readers are told what intervals of so few are worth."""


@dataclass(frozen=True)
class By:
    """The fields that a comparison is asked to group its tasks by."""

    cluster: str | None = None
    slices: tuple[str, ...] = ()


NOTHING = By()


@dataclass(frozen=True)
class Clusters:
    """Tasks that are alike, such as those of one customer: they are drawn together, and count together."""

    field: str
    of: Mapping[str, str]
    """Task id to its cluster; a task that is not here is a cluster of its own."""

    def units(self, task_ids: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Each task's cluster, as a number from 0."""
        names: dict[tuple[bool, str], int] = {}
        return np.array([names.setdefault((task in self.of, self.of.get(task, task)), len(names)) for task in task_ids], dtype=np.int64)


@dataclass(frozen=True)
class Clustering:
    """How many clusters the compared tasks came in."""

    field: str
    clusters: int
    smallest: int
    """Tasks of the smallest cluster."""
    largest: int
    alone: int
    """Tasks without the field, each a cluster of its own."""


@dataclass(frozen=True)
class Dimension:
    """A field whose values divide the tasks into slices."""

    field: str
    of: Mapping[str, tuple[str, ...]]
    """Task id to its values: one, or several labels."""


@dataclass(frozen=True)
class Grouping:
    """Everything known of the tasks beside their results."""

    questions: tuple[Question, ...] = ()
    clusters: Clusters | None = None
    dimensions: tuple[Dimension, ...] = ()


def grouping(before: Run, after: Run, cluster: str | None = None, slices: Sequence[str] = ()) -> Grouping:
    """
    What the tasks of two runs are grouped by.

    Raises:
        Unusable: no task has a field.
    """
    questions = class_questions(before, after)
    if cluster is None and not slices:
        return Grouping(questions)
    tasks = after.tasks()
    dimensions = [Dimension(field, label_values(tasks) if field == LABELS else _single(field_values(tasks, field))) for field in slices]
    return Grouping(questions, Clusters(cluster, field_values(tasks, cluster)) if cluster is not None else None, tuple(dimensions))


def require_fields(cluster: str | None, slices: Sequence[str]) -> None:
    """Raise ValueError unless all of them name fields of tasks."""
    for field in (*([cluster] if cluster is not None else []), *slices):
        if fault := field_fault(field):
            raise ValueError(fault)
    if cluster == LABELS:
        raise ValueError("tasks cannot be clustered by labels, of which a task may have several; write a field such as variables.customer")


def _slice_field(field: str) -> str:
    require_fields(None, (field,))
    return field


def _cluster_field(field: str) -> str:
    require_fields(field, ())
    return field


ClusterField = Annotated[str, AfterValidator(_cluster_field)]
SliceField = Annotated[str, AfterValidator(_slice_field)]
"""Fields of a pydantic model that name fields of tasks."""


def clustering(clusters: Clusters, task_ids: Sequence[str]) -> Clustering:
    """How many clusters these tasks come in, and how large they are."""
    sizes = Counter(clusters.units(task_ids).tolist())
    alone = sum(task not in clusters.of for task in task_ids)
    return Clustering(clusters.field, len(sizes), min(sizes.values(), default=0), max(sizes.values(), default=0), alone)


def require_clusters(clusters: Clusters, task_ids: Sequence[str]) -> None:
    """Raise Unusable where the tasks come in too few clusters."""
    found = clustering(clusters, task_ids)
    if found.clusters < FEWEST_CLUSTERS:
        raise Unusable(
            f"{clusters.field} divides the {len(task_ids):,} tasks into {found.clusters} cluster{'s'[: found.clusters != 1]}; at least {FEWEST_CLUSTERS} are needed\n"
            "  intervals count clusters and not tasks, and of so few they would show nothing; add tasks of others, or leave 'cluster' out"
        )


def _single(values: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    return {task: (value,) for task, value in values.items()}
