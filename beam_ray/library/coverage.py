"""Coverage of a workflow by a library, from the newest run of each task. Pure: nothing is read or written here."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.define.workflow import Workflow
from beam_ray.library.run_history import Flags, LibraryHistory, Reach
from beam_ray.store.libraries import Library, Use

EDGE_LABELS = ("edge", "hard")
"""Default labels that mark edge cases."""

STALE = datetime.timedelta(days=90)
"""Age of the newest task from which a library counts as outdated."""

MINIMUM, GOOD, AMPLE, LARGE = 10, 20, 31, 50
"""Sizes from which a library is enough for a first check, is good, is more than good, and is enough for major changes."""


@dataclass(frozen=True)
class Facts:
    """The inputs of a library check."""

    library: Library
    workflow: Workflow
    history: LibraryHistory
    reach: Reach
    """What each task reached in its newest run."""
    born: Sequence[datetime.datetime | None]
    """When each task's inputs were first seen, where known."""
    used: Use | None
    now: datetime.datetime
    edge_labels: tuple[str, ...] = EDGE_LABELS


@dataclass(frozen=True)
class Coverage:
    """What the tasks of a library cover; values are task ids."""

    routes: Mapping[str, tuple[str, ...]]
    nodes: Mapping[str, tuple[str, ...]]
    criteria: Mapping[tuple[str, str], tuple[str, ...]]
    decided: Mapping[tuple[str, str], tuple[int, int]]
    """How often each criterion was met, and not met."""
    failures: tuple[str, ...]
    """Tasks that did not pass in some past run."""
    successes: tuple[str, ...]
    """Tasks that passed in their newest run."""
    edge_cases: tuple[str, ...]
    never_run: tuple[str, ...]
    newest: tuple[str, datetime.timedelta] | None
    """The newest task and its age; None where no age is known."""
    refreshed: datetime.timedelta | None
    """Time since a task was last added to the library."""


def size_class(tasks: int) -> str:
    """What a library of this size is enough for, in words."""
    for limit, word in ((MINIMUM, "too small"), (GOOD, "minimum"), (AMPLE, "good"), (LARGE, "more than good")):
        if tasks < limit:
            return word
    return "for major changes"


def routes_of(workflow: Workflow) -> dict[str, tuple[str, ...]]:
    """Each route of the workflow with its nodes; a route without a label is named by its condition."""
    found: dict[str, list[str]] = {}
    for name in workflow.order:
        node = workflow.nodes[name]
        label = node.route or (f"{name}: {node.when}" if node.when else "")
        if label:
            found.setdefault(label, []).append(name)
    return {label: tuple(names) for label, names in found.items()}


def criteria_of(workflow: Workflow) -> list[tuple[str, str]]:
    """(node, criterion) of every criterion of the workflow."""
    judged = ((name, workflow.nodes[name].evaluate) for name in workflow.order)
    return [(name, criterion.id) for name, evaluate in judged if evaluate for criterion in evaluate.criteria]


def cover(facts: Facts) -> Coverage:
    """Measure the coverage."""
    workflow, history, reach = facts.workflow, facts.history, facts.reach
    ids = np.array(facts.library.tasks["task_id"].to_pylist(), dtype=object)
    nothing = np.zeros(len(ids), bool)

    def those(flags: Flags) -> tuple[str, ...]:
        return tuple(ids[flags].tolist())

    pairs = criteria_of(workflow)
    nodes = {node: those(reach.nodes[node]) for node in workflow.order}
    ages = {moment: _age(facts, moment) for moment in set(facts.born) if moment}
    youngest = min(ages.values(), default=None)
    newest = next(((task, youngest) for task, moment in zip(ids.tolist(), facts.born, strict=True) if moment and youngest == ages[moment]), None)
    kept = [_age(facts, datetime.datetime.fromisoformat(moment)) for moment in set(facts.library.since.values())]
    return Coverage(
        routes={label: tuple(dict.fromkeys(task for name in names for task in nodes[name])) for label, names in routes_of(workflow).items()},
        nodes=nodes,
        criteria={pair: those(reach.decided.get(pair, nothing)) for pair in pairs},
        decided={pair: reach.counts.get(pair, (0, 0)) for pair in pairs},
        failures=those(history.ever_failed),
        successes=those(history.passed),
        edge_cases=those(_labelled(facts.library.tasks, facts.edge_labels)),
        never_run=those(~history.ever_run),
        newest=newest,
        refreshed=min(kept, default=None),
    )


def _labelled(tasks: pa.Table, labels: Sequence[str]) -> Flags:
    """Which of the tasks have one of these labels."""
    lists = tasks["labels"].combine_chunks()
    here = pc.is_in(pc.list_flatten(lists), value_set=pa.array(labels, pa.string()))
    flags = np.zeros(len(lists), bool)
    flags[pc.list_parent_indices(lists).filter(here).to_numpy()] = True
    return flags


def misplaced(facts: Facts, coverage: Coverage) -> dict[str, str]:
    """Tasks that do not test what they are meant to test, each with the reason."""
    meant = facts.library.tasks.select(["task_id", "tests"])
    meant = meant.filter(pc.fill_null(pc.not_equal(meant["tests"], ""), False))
    if not meant.num_rows:
        return {}
    routes, never_run, found = routes_of(facts.workflow), set(coverage.never_run), {}
    tested = {name: set(coverage.routes.get(name, ())) | set(coverage.nodes.get(name, ())) for name in pc.unique(meant["tests"]).to_pylist()}
    for task, tests in zip(meant["task_id"].to_pylist(), meant["tests"].to_pylist(), strict=True):
        if tests not in routes and tests not in coverage.nodes:
            found[task] = f"is meant to test {tests!r}, which the workflow does not have"
        elif task not in never_run and task not in tested[tests]:
            found[task] = f"is meant to test {tests!r}, which its newest run did not reach"
    return found


def _age(facts: Facts, moment: datetime.datetime) -> datetime.timedelta:
    # clocks differ: a time in the future counts as now
    return max(facts.now - moment, datetime.timedelta())
