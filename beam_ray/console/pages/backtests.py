"""Backtests: their list, and the page of one with its verdict."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from typing import TYPE_CHECKING, Any

import beam_ray
from beam_ray.console.charts import front_marks, interval_mark, limit_mark, strength
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import backtest_path, prove_path, publish_path, with_query
from beam_ray.console.pages.backtest_progress import backtest_progress
from beam_ray.console.rendering import Download, Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

if TYPE_CHECKING:
    from beam_ray import Candidate, Verdict

FIELDS = ("candidate", "sort")
GROUPS = ("newly failing", "newly passing", "both failing", "both passing", "not judged")
MAIN = ("success_rate", "score", "failing", "seconds", "tokens", "usd")
"""Metrics that are shown also where both sides have nothing of them."""
SHOWN = 20
"""Tasks of a group that are named."""
MOST_GROUPS = 40
"""Groups of flipped tasks that are shown."""
SLICE_TITLES = {"node": "Nodes", "criterion": "Criteria", "label": "Labels", "route": "Routes", "recording": "Recordings"}
SORTS = {"name": "name", "pairs": "pairs", "before": "before", "after": "after", "change": "change", "p": "p_adjusted"}
"""Column of a slice to what it is sorted by."""
REPORTS = {"report.html": "HTML", "report.md": "Markdown", "junit.xml": "JUnit", "verdict.json": "JSON"}


def backtests(site: Site, path: str, fields: Fields) -> Page:
    """The list."""
    verdicts = site.reader.backtests()
    rows = [{"verdict": each, "document": each.document(), "best": each.best} for each in verdicts]
    going_on = [site.store.backtest_progress(name) for name in site.store.unfinished_backtests({each.id for each in verdicts})]
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
    values = {"rows": rows, "going_on": going_on}
    return Page("backtests", "Backtests", values, document, section="backtests", live=any(each.state == "running" for each in going_on))


def backtest(site: Site, path: str, fields: Fields) -> Page:
    """One backtest; while it has no verdict, how far it is."""
    name = path.rpartition("/")[2]
    # before the verdict is looked for: what a command leaves as it ends is then either read or waited for
    going_on = [each for each in site.commands.all() if each.code is None and each.command == "backtest"]
    try:
        verdict, candidate = chosen(site, name, fields)
    except Unusable as error:
        if "is not finished" not in str(error):
            raise
        try:
            return backtest_progress(site, name, going_on)
        except Unusable:
            verdict, candidate = chosen(site, name, fields)  # it has got its verdict meanwhile
    comparison, paid = candidate.document["comparison"], candidate.document["paid"]
    metrics = [each for each in comparison["metrics"] if each["name"] in MAIN or each["before"] or each["after"]]
    pairs = site.reader.pairs(verdict, candidate.name)
    values: dict[str, Any] = {
        "verdict": verdict,
        "document": verdict.document(),
        "candidate": candidate,
        "comparison": comparison,
        "paid": paid,
        "why": _why(candidate),
        "gate": _gate(verdict, candidate),
        "deciding": candidate.deciding,
        "spec": site.store.backtest_spec(verdict.id),
        "zeros": [each["title"] for each in comparison["metrics"] if each not in metrics and each["before"] == 0 == each["after"]],
        "metrics": [(each, interval_mark(each["change"], each["low"], each["high"], each["better"])) for each in metrics],
        "matrix": {word: {"count": pairs.counts[word], "link": flips_link(verdict, candidate, word) if pairs.counts[word] else ""} for word in GROUPS},
        "groups": _groups(verdict, candidate, pairs, pairs.proven),
        "more_groups": max(0, len(pairs.groups) - MOST_GROUPS),
        "scatter": _scatter(verdict, candidate, pairs),
        "slices": _slices(verdict, candidate, comparison["slices"], one(fields, "sort")),
        "routes": [(each, _routes_text(each["before"]), _routes_text(each["after"])) for each in comparison["route_flips"]],
        "unpaired": sum(len(tasks) for name, tasks in comparison["unpaired"].items() if name != "not_judged" and isinstance(tasks, list)),
        "candidates": [(each, backtest_path(verdict.id, candidate=each.name), each.name == candidate.name) for each in verdict.candidates],
        "fronts": [front_marks(front, verdict.document()["baseline"]["name"]) for front in verdict.overview["fronts"]] if verdict.overview else [],
        "gains": verdict.overview["gains"] if verdict.overview else [],
        "sides": [verdict.document()["baseline"], *verdict.document()["candidates"]],
        "confirmed": set(comparison["regressions"]["confirmed"]),
        "noise": set(comparison["regressions"]["noise"]),
        "changed": site.store.diff(candidate.baseline_run.workflow, candidate.workflow),
        "baseline_tasks": with_query("/tasks", {"run": candidate.baseline_run.id}),
        "candidate_tasks": with_query("/tasks", {"run": candidate.run.id}),
        "barred": verdict.why_no_evidence(candidate),
        "publish": _publish_link(verdict, candidate, site.store.backtest_spec(verdict.id)),
        "prove": prove_path(verdict.id, candidate=candidate.name) if pairs.counts["newly failing"] else "",
        "marks": _marks(verdict, candidate, pairs.marks_counted),
        "mlflow": site.store.mlflow_page(verdict.id),
        "reports": [(title, with_query(f"/backtests/{verdict.id}/report", {"name": name})) for name, title in REPORTS.items()],
    }
    command = f"beam-ray report {verdict.id}{site.store.option}"
    document = {**verdict.document(), "flip_groups": pairs.group_documents()[:MOST_GROUPS], "mlflow": values["mlflow"] or None}
    return Page("backtest", f"Backtest {verdict.document()['name']}", values, document, section="backtests", command=command)


def _publish_link(verdict: Verdict, candidate: Candidate, spec: Any) -> str:
    """The page that publishes the candidate, where it is a draft; empty where it is an override or a file."""
    written = (spec or {}).get("candidates", {}).get(candidate.name)
    workflow, _, draft = written.partition("@") if isinstance(written, str) else ("", "", "")
    name, _, number = draft.partition(":")
    return publish_path(workflow, name, number) if name and not name.isdecimal() else ""


def report(site: Site, path: str, fields: Fields) -> Download:
    """A report of a finished backtest, to save."""
    verdict, name = site.reader.backtest(path.split("/")[2]), one(fields, "name", "report.html")
    return Download(f"{verdict.id}-{name}", verdict.report(name).encode("utf-8", "replace"))


def chosen(site: Site, name: str, fields: Fields) -> tuple[Verdict, Candidate]:
    """The backtest, and the candidate that the fields name."""
    verdict = site.reader.backtest(name)
    return verdict, site.reader.pairs(verdict, one(fields, "candidate")).candidate


def _why(candidate: Candidate) -> str:
    """The reason of the word, by the gate's lines that decided it."""
    decisive = [line for line in candidate.gate if line.word == candidate.word and line.level != "target"]
    if candidate.word == "PASS":
        return f"All {len(candidate.gate)} lines of the gate hold." if candidate.gate else ""
    return "; ".join(line.reason or f"{line.rule}: {line.observed}" for line in decisive[:3])


def _gate(verdict: Verdict, candidate: Candidate) -> list[dict[str, Any]]:
    """The gate's lines, each with the picture of its interval where it has one."""
    numbers = verdict.gate_intervals(candidate)
    found = []
    for line in candidate.gate:
        interval = numbers.get((line.rule, line.limit))
        found.append(
            {"line": line, "interval": interval, "mark": limit_mark(interval.low, interval.value, interval.high, interval.limit) if interval else None}
        )
    return found


def flips_link(verdict: Verdict, candidate: Candidate, group: str = "", **query: Any) -> str:
    """The page of a group's pairs, one by one."""
    fields = {"candidate": candidate.name if len(verdict.candidates) > 1 else "", "group": group, **query}
    return with_query(f"/backtests/{verdict.id}/flips", fields)


def _groups(verdict: Verdict, candidate: Candidate, pairs: beam_ray.Pairs, proven: dict[str, beam_ray.ProofTask]) -> list[dict[str, Any]]:
    """The flipped pairs by where they part, by which criteria and with which change of route."""
    found, marks, counted = [], pairs.marks, pairs.marks_by_group()
    for group in pairs.groups[:MOST_GROUPS]:
        rows = pairs.select(group.id).slice(0, SHOWN).to_pylist()
        tried = [proven[task] for task in group.tasks if task in proven]
        found.append(
            {
                "group": group,
                "link": flips_link(verdict, candidate, group.id),
                "rows": [
                    {
                        **row,
                        "link": flips_link(verdict, candidate, group.id, at=at),
                        "proof": proven.get(row["task_id"]),
                        "marks": list(dict.fromkeys(each.words for each in marks.get((row["task_id"], row["trial"]), ()))),
                    }
                    for at, row in enumerate(rows, 1)
                ],
                "marks": _marks(verdict, candidate, counted.get(group.id, {}), group.id),
                "routes": tuple(map(_routes_text, group.routes)) if group.routes else (),
                "tried": len(tried),
                "recovered": sum(each.recovered for each in tried),
                "prove": prove_path(verdict.id, candidate=candidate.name, group=group.id) if group.node else "",
            }
        )
    return found


def _marks(verdict: Verdict, candidate: Candidate, counts: dict[str, int], group: str = "") -> list[tuple[str, int, str]]:
    """What people marked, with how many pairs and the link to them."""
    return [(beam_ray.PAIR_MARKS[name], count, flips_link(verdict, candidate, group, mark=name)) for name, count in counts.items()]


def _routes_text(routes: Any) -> str:
    return " › ".join(routes) or "none"


def _scatter(verdict: Verdict, candidate: Candidate, pairs: beam_ray.Pairs) -> list[dict[str, Any]]:
    """The bins of the score scatter, each with the link to its pairs and how it is drawn."""
    most = max((each.pairs for each in pairs.scores), default=1)
    return [
        {"bin": each, "link": flips_link(verdict, candidate, scores=f"{each.before},{each.after}"), "strength": strength(each.pairs, most)}
        for each in pairs.scores
    ]


def _slices(verdict: Verdict, candidate: Candidate, slices: Any, sort: str) -> list[dict[str, Any]]:
    """Nodes, criteria, labels and routes, each as a table that can be sorted: ``criterion.-change``."""
    kind_sorted, _, way = sort.partition(".")
    column = way.removeprefix("-")
    found = []
    for kind, title in SLICE_TITLES.items():
        mine = [each for each in slices if each["kind"] == kind]
        if not mine:
            continue
        if kind == kind_sorted and column in SORTS:
            known = [each for each in mine if each[SORTS[column]] is not None]
            known.sort(key=lambda each: each[SORTS[column]], reverse=way.startswith("-"))
            mine = [*known, *(each for each in mine if each[SORTS[column]] is None)]
        heads = {}
        for name in SORTS:
            now = ("descending" if way.startswith("-") else "ascending") if kind == kind_sorted and column == name else ""
            turned = name if now == "descending" or (not now and name in ("name", "p")) else f"-{name}"
            fields = {"candidate": candidate.name if len(verdict.candidates) > 1 else "", "sort": f"{kind}.{turned}"}
            heads[name] = {"way": now, "link": f"{backtest_path(verdict.id, **fields)}#slice-{kind}"}
        found.append(
            {
                "kind": kind,
                "title": title,
                "heads": heads,
                "rows": [(each, interval_mark(each["change"], each["low"], each["high"], "up")) for each in mine],
                "links": {each["name"]: flips_link(verdict, candidate, route=each["name"]) for each in mine} if kind == "route" else {},
            }
        )
    return found
