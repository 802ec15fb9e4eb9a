"""The result of a library check as JSON and in words."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TypedDict

from beam_ray.library.check import Check
from beam_ray.library.coverage import misplaced, size_class
from beam_ray.library.gaps import Gap
from beam_ray.store.libraries import UseDocument


class Covered(TypedDict):
    """Which routes, nodes or criteria the library's tasks reach."""

    covered: dict[str, list[str]]
    """Name to the ids of the tasks that reach it."""
    not_covered: list[str]


class Decided(TypedDict):
    """How many tasks meet a criterion."""

    met: int
    not_met: int


class TaskShare(TypedDict):
    """Some of the library's tasks."""

    tasks: list[str]
    share: float | None
    """0 to 1; None for an empty library."""


class EdgeCases(TaskShare):
    """The tasks that carry a label of edge cases."""

    labels: list[str]


class GapDocument(TypedDict):
    """One thing that the library lacks."""

    kind: str
    name: str
    text: str
    needed: int
    fill: list[str]
    command: str | None
    remedy: str | None


class CheckDocument(TypedDict):
    """A library check as JSON."""

    library: str
    version: int
    workflow: str
    workflow_version: int | None
    tasks: int
    size_class: str
    never_run: list[str]
    routes: Covered
    nodes: Covered
    criteria: Covered
    decided: dict[str, Decided]
    failures: TaskShare
    edge_cases: EdgeCases
    successes: TaskShare
    newest_task: str | None
    newest_task_days: int | None
    refreshed_days: int | None
    last_used: UseDocument | None
    misplaced: dict[str, str]
    """Task to why it does not test what it is there to test."""
    gaps: list[GapDocument]
    all_at_once: str | None
    good: bool


def document(check: Check, *, version: int | None = None, written: str = "", where: str = "") -> CheckDocument:
    """
    The check as a JSON document.

    Args:
        version: The workflow's version number.
        written: How the user named the workflow.
        where: The ``--store`` option for suggested commands.
    """
    facts, coverage = check.facts, check.coverage
    count = facts.library.tasks.num_rows
    return {
        "library": facts.library.name,
        "version": facts.library.version,
        "workflow": facts.workflow.name,
        "workflow_version": version,
        "tasks": count,
        "size_class": size_class(count),
        "never_run": list(coverage.never_run),
        "routes": _split(coverage.routes),
        "nodes": _split(coverage.nodes),
        "criteria": _split({f"{node}/{criterion}": tasks for (node, criterion), tasks in coverage.criteria.items()}),
        "decided": {f"{node}/{criterion}": {"met": met, "not_met": missed} for (node, criterion), (met, missed) in coverage.decided.items()},
        "failures": _share(coverage.failures, count),
        "edge_cases": {"labels": list(facts.edge_labels), **_share(coverage.edge_cases, count)},
        "successes": _share(coverage.successes, count),
        "newest_task": coverage.newest[0] if coverage.newest else None,
        "newest_task_days": coverage.newest[1].days if coverage.newest else None,
        "refreshed_days": coverage.refreshed.days if coverage.refreshed else None,
        "last_used": {"backtest_id": facts.used.backtest_id, "version": facts.used.version, "at": facts.used.at} if facts.used else None,
        "misplaced": misplaced(facts, coverage),
        "gaps": [
            {
                "kind": gap.kind,
                "name": gap.name,
                "text": gap.text,
                "needed": gap.needed,
                "fill": list(gap.fill),
                "command": _command(check, gap, written, where) or None,
                "remedy": None if gap.fill else gap.remedy or None,
            }
            for gap in check.gaps
        ],
        "all_at_once": _adds(check, check.smallest_fill, where) or None,
        "good": not check.gaps,
    }


def measures(checked: CheckDocument) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each measure in the document."""
    rows = [("size", checked["size_class"], "at least 10 tasks; 20 to 30 are good, 50 for major changes")]
    for kind, part in (("routes", checked["routes"]), ("nodes", checked["nodes"]), ("criteria", checked["criteria"])):
        covered, missing = part["covered"], part["not_covered"]
        if covered or missing:
            rows.append((kind, f"{len(covered)} of {len(covered) + len(missing)}", f"not covered: {', '.join(missing)}" if missing else "all covered"))
    labels = " or ".join(checked["edge_cases"]["labels"])
    shares: tuple[tuple[str, TaskShare, str, str], ...] = (
        ("failures", checked["failures"], "failed in a past run", "no task failed in a past run"),
        ("edge cases", checked["edge_cases"], f"labelled {labels}", f"no task is labelled {labels}"),
        ("successes", checked["successes"], "passed in their newest run", "no task passed in its newest run"),
    )
    for name, found, some, none in shares:
        rows.append((name, f"{len(found['tasks'])} of {checked['tasks']}", f"{found['share']:.0%} {some}" if found["share"] else none))
    newest = (
        f"age of the newest task, {checked['newest_task']}; last task added {_days(checked['refreshed_days'])} ago"
        if checked["newest_task"]
        else "no task's age is known"
    )
    return [*rows, ("recent data", _days(checked["newest_task_days"]), newest)]


def advice(check: Check, *, written: str, where: str = "") -> list[tuple[str, str]]:
    """Each gap with the command or advice that fills it; gaps that the same past tasks fill are merged."""
    groups: dict[object, list[Gap]] = {}
    for gap in check.gaps:
        same_fill = gap.fill if gap.fill and gap.kind in ("route", "node", "criterion") else gap.text
        groups.setdefault(same_fill, []).append(gap)
    checked = []
    for group in groups.values():
        first, command = group[0], _command(check, group[0], written, where)
        if command and first.kind != "size" and len(first.fill) > 1:
            command += f"\n      or {' or '.join(first.fill[1:])}"
        checked.append(("; ".join(gap.text for gap in group), command or first.remedy))
    return checked


def fill_all_command(check: Check, where: str = "") -> str:
    """One command that adds past tasks for all gaps; empty where no past task fills one."""
    return _adds(check, check.smallest_fill, where)


def _command(check: Check, gap: Gap, written: str, where: str) -> str:
    if gap.kind == "runs":
        return f"beam-ray run {shlex.quote(written or check.facts.workflow.name)} --tasks library:{check.facts.library}{where}"
    return _adds(check, gap.fill if gap.kind == "size" else gap.fill[:1], where)


def _adds(check: Check, addresses: Sequence[str], where: str) -> str:
    return f"beam-ray library add {check.facts.library.name} {' '.join(map(shlex.quote, addresses))}{where}" if addresses else ""


def _split(covered: Mapping[str, Sequence[str]]) -> Covered:
    return {"covered": {name: list(tasks) for name, tasks in covered.items() if tasks}, "not_covered": [name for name, tasks in covered.items() if not tasks]}


def _share(tasks: Sequence[str], count: int) -> TaskShare:
    return {"tasks": list(tasks), "share": len(tasks) / count if count else None}


def _days(days: int | None) -> str:
    return "unknown" if days is None else "1 day" if days == 1 else f"{days} days"
