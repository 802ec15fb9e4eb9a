"""What people said of outputs beside what the judge said: one entry per output, and what may be computed from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from beam_ray.address import parse
from beam_ray.errors import Damaged, Unusable
from beam_ray.review.correction import Strata
from beam_ray.review.sample import DRAWN, StoredOutput, outputs_of
from beam_ray.store.objects import Objects
from beam_ray.store.review_table import ReviewRow
from beam_ray.store.runs import Run

Words = Mapping[tuple[str, str], bool]
"""Address and digest of an output to what a judge says of it."""


@dataclass(frozen=True)
class ReviewedOutput:
    """One output that people reviewed by one criterion."""

    address: str
    output_digest: str
    judge: bool
    people: bool
    """What most of them say."""
    reviewers: tuple[str, ...]
    comment: str
    drawn: bool
    """Whether it was drawn with a known probability."""
    how: str
    weight: float
    """How many outputs it stands for among those with the same word of the judge, relative to the others of its sample; 0 if it was not drawn."""

    @property
    def run_id(self) -> str:
        """The run that the output is of."""
        return parse(self.address).run


@dataclass(frozen=True)
class Resolved:
    """Reviews of one criterion, output by output."""

    outputs: tuple[ReviewedOutput, ...]
    unsure: int
    """Outputs of which nobody could tell."""
    tied: int
    """Outputs of which as many people say that it is met as that it is not."""
    undecided: int
    """Outputs of which the judge could not decide."""

    @property
    def drawn(self) -> tuple[ReviewedOutput, ...]:
        """Those drawn with a known probability."""
        return tuple(each for each in self.outputs if each.drawn)


def resolved(rows: Iterable[ReviewRow], words: Words | None = None) -> Resolved:
    """
    The reviews of one criterion, one entry per output: the same output of a task in several runs, such as a borrowed one, counts once.

    Args:
        rows: as ``newest_reviews`` gives them.
        words: what another judge says of the outputs; without it, what the judge had said when they were reviewed.
    """
    by_output: dict[tuple[str, str], dict[str, ReviewRow]] = {}
    for row in rows:
        # of the same person the newest word
        by_output.setdefault((parse(row["address"]).task, row["output_digest"]), {})[row["reviewer"]] = row
    outputs, unsure, tied, undecided = [], 0, 0, 0
    for newest in by_output.values():
        said = list(newest.values())
        votes = [row["met"] for row in said if row["met"] is not None]
        keys = [(row["address"], row["output_digest"]) for row in said]
        judge = said[-1]["judge_met"] if words is None else next((words[key] for key in keys if key in words), None)
        met = 2 * sum(votes) - len(votes)
        if not votes:
            unsure += 1
        elif not met:
            tied += 1
        elif judge is None:
            undecided += 1
        else:
            drawn = next((row for row in said if row["drawn"] in DRAWN), None)
            weight = 0.0 if drawn is None else 1.0 if drawn["drawn"] == "random" else 1 / (drawn["probability"] or 1.0)
            comment = "; ".join(dict.fromkeys(row["comment"] for row in said if row["comment"]))
            names = tuple(dict.fromkeys(row["reviewer"] for row in said))
            outputs.append(ReviewedOutput(*keys[-1], judge, met > 0, names, comment, drawn is not None, (drawn or said[-1])["drawn"], weight))
    return Resolved(tuple(outputs), unsure, tied, undecided)


def strata_of(outputs: Sequence[ReviewedOutput], judged: tuple[float, float] | None) -> Strata | None:
    """
    The reviewed outputs by the judge's word; None where none was drawn at random.

    Args:
        judged: how many outputs the judge takes to be not met and met; None where only the reviewed ones are known.
    """
    drawn = [each for each in outputs if each.drawn]
    if not drawn:
        return None
    # balanced samples take outputs with different chances; within a sample only the ratios matter
    scale = {how: sum(each.weight for each in drawn if each.how == how) / sum(each.how == how for each in drawn) for how in {each.how for each in drawn}}
    weights = {word: [(each.weight / scale[each.how], each.people) for each in drawn if each.judge is word] for word in (False, True)}
    counts = [_effective(weights[word]) for word in (False, True)]
    shares = judged or (sum(weight for weight, _ in weights[False]), sum(weight for weight, _ in weights[True]))
    return Strata(shares, (counts[0][0], counts[1][0]), (counts[0][1], counts[1][1]))


def _effective(weighted: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """How many equal reviews the weighted ones are worth (Kish), and how many of these say met."""
    total = sum(weight for weight, _ in weighted)
    if not total:
        return 0.0, 0.0
    worth = total**2 / sum(weight**2 for weight, _ in weighted)
    return worth, worth * sum(weight for weight, met in weighted if met) / total


def words_of(outputs: Iterable[StoredOutput], criterion: str) -> tuple[int, int]:
    """Of so many outputs the criterion is judged not met, and of so many met."""
    found = [each.criteria[criterion]["met"] for each in outputs if criterion in each.criteria]
    return found.count(False), found.count(True)


_counted: WeakKeyDictionary[Objects, dict[tuple[str, ...], tuple[int, int]]] = WeakKeyDictionary()
"""Counts of finished runs, by the digests of the files that they were read from: whoever reviews asks for them after each answer."""


def judged_in(objects: Objects, run_ids: Iterable[str], node: str, criterion: str) -> tuple[int, int] | None:
    """The same over whole runs; None where one of them cannot be read."""
    counts = []
    for run_id in dict.fromkeys(run_ids):
        try:
            counts.append(_words_in(Run(objects, run_id), node, criterion))
        except (Unusable, Damaged):
            return None
    return (sum(each[0] for each in counts), sum(each[1] for each in counts)) if counts else None


def _words_in(run: Run, node: str, criterion: str) -> tuple[int, int]:
    files = [entry for entry in run.manifest["files"] if entry["name"].startswith(f"steps/{node}-")] if run.manifest else []
    known = _counted.setdefault(run.objects, {})
    key = (node, criterion, *(entry["sha256"] for entry in files))
    if not files:
        return words_of(outputs_of(run, node), criterion)
    if key not in known:
        known[key] = words_of(outputs_of(run, node), criterion)
    return known[key]
