"""The pairs of a backtest one by one: a group of flipped tasks, or those of a bin of the score scatter."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from typing import TYPE_CHECKING

import beam_ray
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import backtest_path, with_query
from beam_ray.console.pages.backtests import chosen, flips_link
from beam_ray.console.pages.compare import compared
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

if TYPE_CHECKING:
    from beam_ray import Candidate, Verdict

FIELDS = ("candidate", "group", "node", "scores", "at", "swap")


def flips(site: Site, path: str, fields: Fields) -> Page | str:
    """The pair with that number in its group: the comparison of its two tasks, with the next and the one before."""
    verdict, candidate = chosen(site, path.split("/")[2], fields)
    pairs = site.reader.pairs(verdict, candidate.name)
    node, at, swapped = one(fields, "node"), one(fields, "at", "1"), one(fields, "swap") == "yes"
    scores = _scores(one(fields, "scores"))
    group = one(fields, "group", "" if scores else "newly failing")
    mine = pairs.select(group or None, node or None, scores)
    number = int(at) if at.isdecimal() else 0
    if not mine.num_rows:
        return backtest_path(verdict.id, candidate=one(fields, "candidate"))
    if not 1 <= number <= mine.num_rows:
        raise Unusable(f"the group has no pair {at[:20]!r}; it has {mine.num_rows}")
    row = mine.slice(number - 1, 1).to_pylist()[0]
    before = beam_ray.Address(candidate.baseline_run.id, row["task_id"], row["trial"])
    after = beam_ray.Address(candidate.run.id, row["task_id"], row["trial"])

    def link(place: int, swap: bool = swapped) -> str:
        query = {"node": node, "scores": one(fields, "scores"), "at": place, "swap": "yes" if swap else ""}
        return flips_link(verdict, candidate, group, **query) if 1 <= place <= mine.num_rows else ""

    confirmed, noise = (set(candidate.document["comparison"]["regressions"][name]) for name in ("confirmed", "noise"))
    named = pairs.group(group) if group.startswith("f") else None
    walk = {
        "at": number,
        "count": mine.num_rows,
        "previous": link(number - 1),
        "next": link(number + 1),
        "swap": link(number, not swapped),
        "group": named.flip if named else group or "pairs with these scores",
        "node": node or (named.node or "none" if named else ""),
        "up": backtest_path(verdict.id, candidate=one(fields, "candidate")),
        "title": f"Backtest {verdict.document()['name']}",
        "sides": (candidate.name, "baseline") if swapped else ("baseline", candidate.name),
        "confirmed": row["task_id"] in confirmed,
        "noise": row["task_id"] in noise,
        "proof": pairs.proven.get(row["task_id"]),
        "prove": _prove_link(verdict, candidate, row) if row["flip"] in ("newly failing", "newly passing") and row["diverges_at"] else "",
    }
    return compared(site, after, before, walk) if swapped else compared(site, before, after, walk)


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
    return with_query(f"/backtests/{verdict.id}/prove", {"candidate": candidate.name, "group": group, "task": row["task_id"]})
