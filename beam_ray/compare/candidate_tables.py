"""Several candidates as text: a table of verdicts and gains, one of score against cost and time, and what to know of them."""

from collections.abc import Iterator
from typing import NamedTuple

from beam_ray.compare.candidates import GAINS, Candidate, Overview, title_of
from beam_ray.compare.formatting import amount, change, plain, span
from beam_ray.compare.metric_definitions import KINDS
from beam_ray.compare.report import ON_FRESH_TASKS, Result

SHOWN_IN_FULL = 6
"""Candidates whose comparison is shown in full where there are more: the best ones."""


class Table(NamedTuple):
    """A table of texts that are not escaped yet."""

    header: list[str]
    rows: list[list[str]]


def gain_table(found: Overview) -> Table:
    """Each candidate's verdict, with and without correction, and its gain, as found and shrunk."""
    name = gained(found)
    unit = KINDS[name].unit if name else ""
    interval = f"{found.confidence:g}% confidence interval"
    judged = any(each.word != "NONE" for each in found.candidates)
    header = [
        "candidate",
        *(["verdict", "alone"] if judged else []),
        *([title_of(name), "gain", interval, "shrunk", f"{found.confidence:g}% interval"] if name else []),
    ]
    rows = []
    for each in found.candidates:
        words = [each.word, each.own_word] if judged else []
        rows.append([each.name, *words, *(_gain_cells(each, name, unit) if name else [])])
    return Table(header, rows)


def front_table(found: Overview) -> Table | None:
    """Each side's score against its cost and its time, and what dominates it; None without such numbers."""
    if not found.fronts:
        return None
    score = found.fronts[0].score
    header = ["", title_of(score)]
    for each in found.fronts:
        header += [title_of(each.cost), f"score and {axis(each.cost)}"]
    names = list(dict.fromkeys(point.name for each in found.fronts for point in each.points))
    rows = []
    for name in names:
        row = [name, "-"]
        for each in found.fronts:
            point = next((point for point in each.points if point.name == name), None)
            if point is None:
                row += ["-", ""]
                continue
            row[1] = amount(point.score, KINDS[each.score].unit)
            row += [amount(point.cost, KINDS[each.cost].unit), f"dominated by {point.dominated_by}" if point.dominated_by else "on the front"]
        rows.append(row)
    return Table(header, rows)


def overview_notes(found: Overview) -> Iterator[str]:
    """What a reader must know before choosing a candidate."""
    count = len(found.candidates)
    if any(each.word != "NONE" for each in found.candidates):
        fell = [each.name for each in found.candidates if each.word != each.own_word]
        changed = f" Without it, {', '.join(plain(name, 64) for name in fell)} would pass." if fell else " It changes no verdict here."
        yield f"PASS is corrected for choosing among {count} candidates (Holm's method); 'alone' is the verdict without that.{changed}"
    name = gained(found)
    best = next(each for each in found.candidates if each.name == found.best)
    if name and name in best.gains:
        gain, unit = best.gains[name], KINDS[name].unit
        shrunk, as_found = change(gain.shrunk, unit), change(gain.found, unit)
        expect = f" Expect a gain of {shrunk} from {plain(best.name, 64)}, not the {as_found} found; 'shrunk' allows for it." if shrunk != as_found else ""
        yield f"The gain of the best of several candidates is partly chance.{expect}"
    if found.fronts:
        yield "Dominated: another side scores at least as high and takes no more, by the numbers found."


def rerun_notes(rerun: Result, candidates: int) -> Iterator[str]:
    """What the rerun of the best candidate on fresh tasks says that the comparison does not."""
    best = f", the best of {candidates} candidates," if candidates > 1 else ""
    yield f"{plain(rerun.comparison.candidate.name.removesuffix(ON_FRESH_TASKS), 64)}{best} was run again on tasks that the comparison did not use."
    yield "The verdict is that of this rerun. It needs no correction, and its gain is not inflated by choosing the best."


def gained(found: Overview) -> str | None:
    """The metric whose gains are shown."""
    return next((name for name in GAINS if any(name in each.gains for each in found.candidates)), None)


def axis(cost: str) -> str:
    """What a side takes, in a word."""
    return {"usd": "cost", "tokens": "tokens", "seconds": "time"}[cost]


def _gain_cells(each: Candidate, name: str, unit: str) -> list[str]:
    level = amount(each.comparison.metric(name).after, unit)
    gain = each.gains.get(name)
    if gain is None:
        return [level, "-", "-", "-", "-"]
    return [level, change(gain.found, unit), span(gain.interval, unit), change(gain.shrunk, unit), span(gain.shrunk_interval, unit)]
