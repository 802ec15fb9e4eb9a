"""What is said about a checked library, to machines and to people."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from beam_ray.library.check import Check
from beam_ray.library.coverage import misplaced, size_class
from beam_ray.library.gaps import Gap


def document(check: Check, *, version: int | None = None, written: str = "", where: str = "") -> dict[str, Any]:
    """
    The check as one JSON document.

    *version* is the workflow's number, *written* what the user called it, and *where* what a
    command needs to find the store.
    """
    facts, coverage = check.facts, check.coverage
    count = len(facts.tasks)
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
        "all_at_once": _adds(check, check.together, where) or None,
        "good": not check.gaps,
    }


def measures(told: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What was measured, from the document: (what, how much, meaning) each."""
    rows = [("size", told["size_class"], "10 are the minimum, 20 to 30 good, 50 for major changes")]
    for kind in ("routes", "nodes", "criteria"):
        covered, missing = told[kind]["covered"], told[kind]["not_covered"]
        if covered or missing:
            rows.append((kind, f"{len(covered)} of {len(covered) + len(missing)}", f"not covered: {', '.join(missing)}" if missing else "all covered"))
    labels = " or ".join(told["edge_cases"]["labels"])
    for kind, some, none in (
        ("failures", "did not pass in some past run", "none failed in a past run"),
        ("edge_cases", f"labelled {labels}", f"none is labelled {labels}"),
        ("successes", "passed in their newest run", "none passed in its newest run"),
    ):
        share = told[kind]["share"]
        rows.append((kind.replace("_", " "), f"{len(told[kind]['tasks'])} of {told['tasks']}", f"{share:.0%} {some}" if share else none))
    newest = (
        f"the age of {told['newest_task']}, the newest; last refreshed {_days(told['refreshed_days'])} ago" if told["newest_task"] else "no task's age is known"
    )
    return [*rows, ("recent data", _days(told["newest_task_days"]), newest)]


def advice(check: Check, *, written: str, where: str = "") -> list[tuple[str, str]]:
    """Each gap and what to do about it; routes, nodes and criteria that the same past tasks fill are said together."""
    groups: dict[object, list[Gap]] = {}
    for gap in check.gaps:
        alike = gap.fill if gap.fill and gap.kind in ("route", "node", "criterion") else gap.text
        groups.setdefault(alike, []).append(gap)
    told = []
    for group in groups.values():
        first, command = group[0], _command(check, group[0], written, where)
        if command and first.kind != "size" and len(first.fill) > 1:
            command += f"\n      or {' or '.join(first.fill[1:])}"
        told.append(("; ".join(gap.text for gap in group), command or first.remedy))
    return told


def at_once(check: Check, where: str = "") -> str:
    """The one command that adds what past tasks can fill; nothing where they can fill nothing."""
    return _adds(check, check.together, where)


def _command(check: Check, gap: Gap, written: str, where: str) -> str:
    if gap.kind == "runs":
        return f"beam-ray run {shlex.quote(written or check.facts.workflow.name)} --tasks library:{check.facts.library}{where}"
    return _adds(check, gap.fill if gap.kind == "size" else gap.fill[:1], where)


def _adds(check: Check, addresses: Sequence[str], where: str) -> str:
    return f"beam-ray library add {check.facts.library.name} {' '.join(map(shlex.quote, addresses))}{where}" if addresses else ""


def _split(covered: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {"covered": {name: list(tasks) for name, tasks in covered.items() if tasks}, "not_covered": [name for name, tasks in covered.items() if not tasks]}


def _share(tasks: Sequence[str], count: int) -> dict[str, Any]:
    return {"tasks": list(tasks), "share": len(tasks) / count if count else None}


def _days(days: int | None) -> str:
    return "unknown" if days is None else "1 day" if days == 1 else f"{days} days"
