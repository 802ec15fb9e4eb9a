"""Backtests: their list, the page of one with its verdict, and its flipped pairs one by one."""

from typing import Any

import beam_ray
from beam_ray import Candidate, Verdict
from beam_ray.console.charts import interval_mark
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import backtest_path, with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

FIELDS = ("candidate",)
FLIP_FIELDS = ("candidate", "group", "node", "at")
GROUPS = ("newly failing", "newly passing", "both failing", "both passing", "not judged")
QUIET = ("unscored", "tool_errors", "infrastructure_errors", "answer_errors", "auto_reruns", "auto_rerun_tokens", "auto_rerun_usd")
"""Metrics that are shown only where a side has something of them."""
SHOWN = 50
"""Tasks of a group that are named."""
SLICE_TITLES = {"node": "Nodes", "criterion": "Criteria", "label": "Labels", "route": "Routes"}


def backtests(site: Site, path: str, fields: Fields) -> Page:
    """The list."""
    verdicts = site.reader.backtests()
    rows = [{"verdict": each, "document": each.document(), "best": each.best} for each in verdicts]
    document = [
        {
            "backtest_id": each.id,
            "name": each.document()["name"],
            "workflow": each.workflow,
            "word": each.word,
            "finished_at": each.document()["finished_at"],
            "tasks": each.document()["tasks_source"],
            "candidates": [candidate.name for candidate in each.candidates],
        }
        for each in verdicts
    ]
    return Page("backtests", "Backtests", {"rows": rows}, document, section="backtests")


def backtest(site: Site, path: str, fields: Fields) -> Page:
    """One backtest."""
    verdict, candidate = _chosen(site, path.rpartition("/")[2], fields)
    comparison, paid = candidate.document["comparison"], candidate.document["paid"]
    metrics = [each for each in comparison["metrics"] if each["name"] not in QUIET or each["before"] or each["after"]]
    values: dict[str, Any] = {
        "verdict": verdict,
        "document": verdict.document(),
        "candidate": candidate,
        "comparison": comparison,
        "paid": paid,
        "why": _why(candidate),
        "metrics": [(each, interval_mark(each["change"], each["low"], each["high"], each["better"])) for each in metrics],
        "matrix": _matrix(verdict, candidate),
        "groups": _groups(verdict, candidate),
        "slices": _slices(comparison["slices"]),
        "routes": comparison["route_flips"],
        "unpaired": sum(len(tasks) for name, tasks in comparison["unpaired"].items() if name != "not_judged" and isinstance(tasks, list)),
        "candidates": [(each, backtest_path(verdict.id, candidate=each.name), each.name == candidate.name) for each in verdict.candidates],
        "confirmed": set(comparison["regressions"]["confirmed"]),
        "noise": set(comparison["regressions"]["noise"]),
        "changed": site.store.diff(candidate.baseline_run.workflow, candidate.workflow),
        "baseline_tasks": with_query("/tasks", {"run": candidate.baseline_run.id}),
        "candidate_tasks": with_query("/tasks", {"run": candidate.run.id}),
    }
    command = f"beam-ray report {verdict.id}{site.store.option}"
    return Page("backtest", f"Backtest {verdict.document()['name']}", values, verdict.document(), section="backtests", command=command)


def _chosen(site: Site, name: str, fields: Fields) -> tuple[Verdict, Candidate]:
    verdict = site.reader.backtest(name)
    asked = one(fields, "candidate")
    if not asked:
        return verdict, verdict.best
    found = next((each for each in verdict.candidates if each.name == asked), None)
    if found is None:
        raise Unusable(f"the backtest has no candidate {asked[:60]!r}; it has {', '.join(each.name for each in verdict.candidates)}")
    return verdict, found


def _why(candidate: Candidate) -> str:
    """The reason of the word, by the gate's lines that decided it."""
    decisive = [line for line in candidate.gate if line.word == candidate.word and line.level != "target"]
    if candidate.word == "PASS":
        return f"All {len(candidate.gate)} lines of the gate hold." if candidate.gate else ""
    return "; ".join(line.reason or f"{line.rule}: {line.observed}" for line in decisive[:3])


def _pairs(verdict: Verdict, candidate: Candidate) -> Any:
    import pyarrow.compute as pc

    pairs = verdict.pairs
    return pairs.filter(pc.equal(pairs["candidate"], candidate.name)) if "candidate" in pairs.schema.names else pairs


def _matrix(verdict: Verdict, candidate: Candidate) -> dict[str, dict[str, Any]]:
    """Each kind of pair with how many tasks are of it, and its first pair."""
    import pyarrow.compute as pc

    pairs = _pairs(verdict, candidate)
    found = {}
    for word in GROUPS:
        mine = pairs.filter(pc.equal(pairs["flip"], word))
        count = len(pc.unique(mine["task_id"]))
        found[word] = {"count": count, "link": _flips_link(verdict, candidate, word) if count else ""}
    return found


def _flips_link(verdict: Verdict, candidate: Candidate, group: str, **query: Any) -> str:
    fields = {"candidate": candidate.name if len(verdict.candidates) > 1 else "", "group": group, **query}
    return with_query(f"/backtests/{verdict.id}/flips", fields)


def _groups(verdict: Verdict, candidate: Candidate) -> list[dict[str, Any]]:
    """The flipped pairs by the first node at which the sides part."""
    import pyarrow.compute as pc

    pairs = _pairs(verdict, candidate)
    found = []
    for word in ("newly failing", "newly passing"):
        mine = pairs.filter(pc.equal(pairs["flip"], word))
        counted = pc.value_counts(pc.fill_null(mine["diverges_at"], "")).to_pylist()
        for entry in sorted(counted, key=lambda each: -each["counts"]):
            node = entry["values"]
            rows = mine.filter(pc.equal(pc.fill_null(mine["diverges_at"], ""), node)).slice(0, SHOWN).to_pylist()
            found.append(
                {
                    "word": word,
                    "node": node,
                    "count": entry["counts"],
                    "link": _flips_link(verdict, candidate, word, node=node or "none"),
                    "rows": [{**row, "link": _flips_link(verdict, candidate, word, node=node or "none", at=at)} for at, row in enumerate(rows, 1)],
                    "criteria": _criteria(rows),
                }
            )
    return found


def _criteria(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The criteria whose results differ, with in how many of the pairs."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row.get("changed_criteria") or ():
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts.items(), key=lambda entry: -entry[1])


def _slices(slices: Any) -> list[dict[str, Any]]:
    found = []
    for kind, title in SLICE_TITLES.items():
        mine = [(each, interval_mark(each["change"], each["low"], each["high"], "up")) for each in slices if each["kind"] == kind]
        if mine:
            found.append({"title": title, "rows": mine})
    return found


def flips(site: Site, path: str, fields: Fields) -> "Page | str":
    """The pair with that number in its group: the comparison of its two tasks, with the next and the one before."""
    import pyarrow.compute as pc

    from beam_ray.console.pages.compare import compared

    verdict, candidate = _chosen(site, path.split("/")[2], fields)
    group, node, at = one(fields, "group", "newly failing"), one(fields, "node"), one(fields, "at", "1")
    if group not in GROUPS:
        raise Unusable(f"there is no group {group[:60]!r}\n  groups are: {', '.join(GROUPS)}")
    pairs = _pairs(verdict, candidate)
    mine = pairs.filter(pc.equal(pairs["flip"], group))
    if node:
        mine = mine.filter(pc.equal(pc.fill_null(mine["diverges_at"], "none"), node))
    number = int(at) if at.isdecimal() else 0
    if not mine.num_rows:
        return backtest_path(verdict.id, candidate=one(fields, "candidate"))
    if not 1 <= number <= mine.num_rows:
        raise Unusable(f"the group has no pair {at[:20]!r}; it has {mine.num_rows}")
    row = mine.slice(number - 1, 1).to_pylist()[0]
    before = beam_ray.Address(candidate.baseline_run.id, row["task_id"], row["trial"])
    after = beam_ray.Address(candidate.run.id, row["task_id"], row["trial"])

    def link(place: int) -> str:
        return _flips_link(verdict, candidate, group, node=node, at=place) if 1 <= place <= mine.num_rows else ""

    walk = {
        "at": number,
        "count": mine.num_rows,
        "previous": link(number - 1),
        "next": link(number + 1),
        "group": group,
        "node": node,
        "up": backtest_path(verdict.id, candidate=one(fields, "candidate")),
        "title": f"Backtest {verdict.document()['name']}",
        "sides": ("baseline", candidate.name),
        "confirmed": row["task_id"] in candidate.document["comparison"]["regressions"]["confirmed"],
        "noise": row["task_id"] in candidate.document["comparison"]["regressions"]["noise"],
    }
    page = compared(site, before, after, walk)
    return page
