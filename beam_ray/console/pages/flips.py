"""The pairs of a backtest one by one: a group of flipped tasks, or those of a bin of the score scatter."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from typing import TYPE_CHECKING

import beam_ray
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import backtest_path, prove_path, with_query
from beam_ray.console.pages.backtests import chosen, flips_link
from beam_ray.console.pages.compare import compared
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

if TYPE_CHECKING:
    from beam_ray import Candidate, Verdict

FIELDS = ("candidate", "group", "node", "scores", "mark", "route", "at", "swap", "reviewer")


def flips(site: Site, path: str, fields: Fields) -> Page | str:
    """The pair with that number in its group: the comparison of its two tasks, with the next and the one before."""
    verdict, candidate = chosen(site, path.split("/")[2], fields)
    pairs = site.reader.pairs(verdict, candidate.name)
    node, at, swapped = one(fields, "node"), one(fields, "at", "1"), one(fields, "swap") == "yes"
    scores, mark, route = _scores(one(fields, "scores")), _mark(one(fields, "mark")), one(fields, "route")
    group = one(fields, "group", "" if scores or mark or route else "newly failing")
    mine = pairs.select(group or None, node or None, scores, mark=mark or None, route=route or None)
    number = int(at) if at.isdecimal() else 0
    if not mine.num_rows:
        return backtest_path(verdict.id, candidate=one(fields, "candidate"))
    if not 1 <= number <= mine.num_rows:
        raise Unusable(f"the group has no pair {at[:20]!r}; it has {mine.num_rows}")
    row = mine.slice(number - 1, 1).to_pylist()[0]
    before = beam_ray.Address(candidate.baseline_run.id, row["task_id"], row["trial"])
    after = beam_ray.Address(candidate.run.id, row["task_id"], row["trial"])

    def link(place: int, swap: bool = swapped) -> str:
        query = {
            "node": node,
            "scores": one(fields, "scores"),
            "mark": mark,
            "route": route,
            "at": place,
            "swap": "yes" if swap else "",
            "reviewer": one(fields, "reviewer"),
        }
        return flips_link(verdict, candidate, group, **query) if 1 <= place <= mine.num_rows else ""

    confirmed, noise = (set(candidate.document["comparison"]["regressions"][name]) for name in ("confirmed", "noise"))
    named = pairs.group(group) if group.startswith("f") else None
    walk = {
        "at": number,
        "count": mine.num_rows,
        "previous": link(number - 1),
        "next": link(number + 1),
        "swap": link(number, not swapped),
        "group": named.flip
        if named
        else group or (f"marked: {beam_ray.PAIR_MARKS[mark]}" if mark else f"route {route}" if route else "pairs with these scores"),
        "marked": beam_ray.PAIR_MARKS[mark] if mark and group else "",
        "node": node or (named.node or "none" if named else ""),
        "up": backtest_path(verdict.id, candidate=one(fields, "candidate")),
        "title": f"Backtest {verdict.document()['name']}",
        "sides": (candidate.name, "baseline") if swapped else ("baseline", candidate.name),
        "confirmed": row["task_id"] in confirmed,
        "noise": row["task_id"] in noise,
        "proof": pairs.proven.get(row["task_id"]),
        "marks": pairs.marks.get((row["task_id"], row["trial"]), ()),
        "mark_words": beam_ray.PAIR_MARKS,
        "mark_form": {
            "path": f"/backtests/{verdict.id}/mark",
            "hidden": [(name, one(fields, name)) for name in FIELDS if name not in ("reviewer", "at") and one(fields, name)]
            + [("at", str(number)), ("candidate_of", candidate.name), ("task", row["task_id"]), ("trial", str(row["trial"]))],
            "reviewer": one(fields, "reviewer"),
            "me": beam_ray.reviewer_of(one(fields, "reviewer")),
        },
        "expect": with_query("/add-to-library", {"task": str(after), "expect": "yes"}),
        "prove": _prove_link(verdict, candidate, row) if row["flip"] in ("newly failing", "newly passing") and row["diverges_at"] else "",
    }
    return compared(site, after, before, walk) if swapped else compared(site, before, after, walk)


def _mark(written: str) -> str:
    if written and written not in beam_ray.PAIR_MARKS:
        raise Unusable(f"there is no mark {written[:20]!r}\n  marks are: {', '.join(beam_ray.PAIR_MARKS)}")
    return written


def mark(site: Site, path: str, fields: Fields) -> str:
    """Keep what a person says of a pair; the pair's page, or that of the next one where the mark takes it out of the list."""
    wanted = {name: fields[name] for name in FIELDS if fields.get(name)}
    verdict, said, trial = site.reader.backtest(path.split("/")[2]), one(fields, "say"), one(fields, "trial", "1")
    if not (trial.isdecimal() and one(fields, "at", "1").isdecimal()):
        raise Unusable("trial and at are whole numbers")
    _mark(one(fields, "mark"))
    reviewer, candidate = one(fields, "reviewer"), one(fields, "candidate_of") or None
    site.store.mark_pair(verdict.id, one(fields, "task"), said, candidate=candidate, trial=int(trial), by=reviewer, note=one(fields, "note"))
    if one(fields, "mark"):
        _, chosen_one = chosen(site, verdict.id, wanted)
        scores = _scores(one(fields, "scores"))
        left = site.reader.pairs(verdict, chosen_one.name).select(
            one(fields, "group") or None, one(fields, "node") or None, scores, mark=one(fields, "mark"), route=one(fields, "route") or None
        )
        wanted["at"] = [str(min(int(one(fields, "at", "1")), max(left.num_rows, 1)))]
    return with_query(f"/backtests/{verdict.id}/flips", wanted)


def _scores(written: str) -> tuple[int, int] | None:
    """The bin of the baseline's score and of the candidate's."""
    if not written:
        return None
    parts = written.split(",")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) < 20 for part in parts):
        raise Unusable(f"scores: {written[:20]!r} names no bin\n  a bin is written BEFORE,AFTER, each a number from 0 to 19")
    return int(parts[0]), int(parts[1])


def _prove_link(verdict: Verdict, candidate: Candidate, row: dict[str, object]) -> str:
    group = str(row["flip"]).replace(" ", "-")
    return prove_path(verdict.id, candidate=candidate.name, group=group, task=row["task_id"])
