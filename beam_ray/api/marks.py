"""Marks on pairs of a backtest: whether people take a difference for real, for noise, or for a fault of judge or expected outcome."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.review.queue import reviewer_of
from beam_ray.store.marks import MarkDocument, add_mark, read_marks

if TYPE_CHECKING:
    from beam_ray.api.flips import Pairs

PAIR_MARKS = {"real": "real", "noise": "noise", "judge": "judge is wrong", "expected": "expected is wrong"}
"""Each mark with what it says."""
NO_MARK = "none"
"""Takes one's own mark back."""
MAX_NOTE = 1_000
"""Characters of a note."""


@dataclass(frozen=True)
class PairMark(Displayed):
    """What one person says of a pair."""

    candidate: str
    task: str
    trial: int
    mark: str
    """real, noise, judge or expected; none where the person has taken their mark back"""
    note: str
    marked_by: str
    marked_at: str
    """ISO 8601, UTC."""

    @property
    def words(self) -> str:
        """The mark as people read it."""
        return PAIR_MARKS.get(self.mark, self.mark)

    def display(self) -> Display:
        return Display(self.words, (("task", self.task), ("by", self.marked_by), ("at", self.marked_at[:16]), ("note", self.note)), (), ())

    def document(self) -> MarkDocument:
        """The mark as a JSON document."""
        return {
            "candidate": self.candidate,
            "task": self.task,
            "trial": self.trial,
            "mark": self.mark,
            "note": self.note,
            "marked_by": self.marked_by,
            "marked_at": self.marked_at,
        }


def mark_pair(pairs: "Pairs", task: str, mark: str, *, trial: int = 1, by: str = "", note: str = "") -> PairMark:
    """See ``Store.mark_pair``."""
    if mark not in (*PAIR_MARKS, NO_MARK):
        raise Unusable("\n  ".join([f"there is no mark {mark[:40]!r}", f"marks are: {', '.join((*PAIR_MARKS, NO_MARK))}", *did_you_mean(mark, PAIR_MARKS)]))
    if len(note) > MAX_NOTE:
        raise Unusable(f"the note has {len(note):,} characters; at most {MAX_NOTE:,} are kept")
    columns = (pairs.table[name].to_pylist() for name in ("task_id", "trial"))
    if (task, trial) not in set(zip(*columns, strict=True)):
        known = pairs.table["task_id"].unique().to_pylist()
        which = f"{task[:60]!r}" + (f" in trial {trial}" if trial != 1 else "")
        raise Unusable("\n  ".join([f"{pairs.candidate.name} of the backtest {pairs.verdict.id} has no pair {which}", *did_you_mean(task, known)]))
    moment = datetime.datetime.now(datetime.UTC).isoformat()
    made = PairMark(pairs.candidate.name, task, trial, mark, note.strip(), reviewer_of(by), moment)
    earlier = next((each for each in marks_of(pairs).get((task, trial), ()) if each.marked_by == made.marked_by), None)
    if earlier is not None and (earlier.mark, earlier.note) == (made.mark, made.note):
        return earlier
    if earlier is not None or mark != NO_MARK:
        add_mark(pairs.verdict.store.objects, pairs.verdict.id, made.document())
    return made


def pair_marks(store: Location, backtest: str, candidate: str | None = None) -> list[PairMark]:
    """See ``Store.pair_marks``."""
    from beam_ray.api.verdicts import verdict

    return [mark for marks in marks_of(verdict(store, backtest).pairs_of(candidate)).values() for mark in marks]


def marks_of(pairs: "Pairs") -> dict[tuple[str, int], tuple[PairMark, ...]]:
    """The marks that count, by task and trial: of each person the newest."""
    newest: dict[tuple[str, int], dict[str, PairMark]] = {}
    for row in read_marks(pairs.verdict.store.objects, pairs.verdict.id):
        if row["candidate"] == pairs.candidate.name:
            newest.setdefault((row["task"], row["trial"]), {})[row["marked_by"]] = PairMark(**row)
    found = {pair: tuple(each for each in people.values() if each.mark != NO_MARK) for pair, people in newest.items()}
    return {pair: marks for pair, marks in found.items() if marks}


def marks_counted(marks: Mapping[tuple[str, int], tuple[PairMark, ...]], pairs: Iterable[tuple[str, int]] | None = None) -> dict[str, int]:
    """For each mark how many of the *pairs*, or of all, somebody has marked so; marks that nobody made are left out."""
    chosen = [marks[pair] for pair in (marks if pairs is None else pairs) if pair in marks]
    counts = {name: sum(any(each.mark == name for each in people) for people in chosen) for name in PAIR_MARKS}
    return {name: count for name, count in counts.items() if count}
