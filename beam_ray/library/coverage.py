"""Coverage of a workflow by a library, from the newest run of each task. Pure: nothing is read or written here."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from beam_ray.define.workflow import Workflow
from beam_ray.library.run_history import History, Key, Reached
from beam_ray.store.libraries import Library, Use
from beam_ray.store.tables import TaskRow

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
    tasks: Sequence[TaskRow]
    workflow: Workflow
    histories: Mapping[Key, History]
    """For the library's tasks that were ever run."""
    reached: Mapping[Key, Reached]
    """What each task reached in its newest run."""
    born: Mapping[str, datetime.datetime]
    """When a task's inputs were first seen, where known."""
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


def key_of(row: TaskRow) -> Key:
    """The key that matches a saved task with its past executions."""
    return row["task_id"], row["inputs"]


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
    workflow, rows = facts.workflow, facts.tasks
    reached = {row["task_id"]: facts.reached.get(key_of(row), Reached(frozenset(), {})) for row in rows}
    known = {row["task_id"]: facts.histories[key_of(row)] for row in rows if key_of(row) in facts.histories}
    pairs = criteria_of(workflow)
    nodes = {node: tuple(task for task, each in reached.items() if node in each.nodes) for node in workflow.order}
    ages = {row["task_id"]: age for row in rows if (age := _age(facts, facts.born.get(row["task_id"]))) is not None}
    kept = [age for moment in facts.library.since.values() if (age := _age(facts, datetime.datetime.fromisoformat(moment))) is not None]
    return Coverage(
        routes={label: tuple(dict.fromkeys(task for name in names for task in nodes[name])) for label, names in routes_of(workflow).items()},
        nodes=nodes,
        criteria={pair: tuple(task for task, each in reached.items() if pair in each.criteria) for pair in pairs},
        decided={pair: _sum([each.criteria[pair] for each in reached.values() if pair in each.criteria]) for pair in pairs},
        failures=tuple(task for task, each in known.items() if each.failed),
        successes=tuple(task for task, each in known.items() if each.newest.passed),
        edge_cases=tuple(row["task_id"] for row in rows if set(row["labels"] or ()) & set(facts.edge_labels)),
        never_run=tuple(row["task_id"] for row in rows if row["task_id"] not in known),
        newest=min(((task, age) for task, age in ages.items()), key=lambda each: each[1], default=None),
        refreshed=min(kept, default=None),
    )


def misplaced(facts: Facts, coverage: Coverage) -> dict[str, str]:
    """Tasks that do not test what they are meant to test, each with the reason."""
    routes, found = routes_of(facts.workflow), {}
    for row in facts.tasks:
        task, tests = row["task_id"], row["tests"]
        if not tests or (task in coverage.never_run and (tests in routes or tests in coverage.nodes)):
            continue
        if tests not in routes and tests not in coverage.nodes:
            found[task] = f"is meant to test {tests!r}, which the workflow does not have"
        elif task not in coverage.routes.get(tests, ()) and task not in coverage.nodes.get(tests, ()):
            found[task] = f"is meant to test {tests!r}, which its newest run did not reach"
    return found


def _age(facts: Facts, born: datetime.datetime | None) -> datetime.timedelta | None:
    # clocks differ: a time in the future counts as now
    return None if born is None else max(facts.now - born, datetime.timedelta())


def _sum(counts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(met for met, _ in counts), sum(missed for _, missed in counts)
