"""How far a judge agrees with people, per criterion, its version and the judge: figures, and every disagreement one by one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple, TypedDict

from beam_ray.address import parse
from beam_ray.compare.verdict_json import FigureDocument
from beam_ray.review.correction import Figure, JudgeErrors, Strata, corrected_rate, errors, judged_rate, reviews_needed
from beam_ray.review.reviewed import ReviewedOutput, Words, judged_in, resolved, strata_of
from beam_ray.review.sample import DRAWN
from beam_ray.store.objects import Objects
from beam_ray.store.review_table import ReviewRow
from beam_ray.store.reviews import newest_reviews

PRECISE = 0.05
"""Half of a corrected rate's interval that is narrow enough: what the gate no-harm takes for the smallest loss that matters."""


class SampleReviewed(NamedTuple):
    """A sample, and how much of it was reviewed."""

    run_id: str
    how: str
    seed: int | None
    reviewed: int
    """Outputs of it that somebody answered."""
    sample: int | None
    population: int | None


class ReviewerPair(NamedTuple):
    """Two people who reviewed the same outputs."""

    one: str
    other: str
    outputs: int
    same: int
    kappa: Figure | None


class JudgePrecision(NamedTuple):
    """How near a corrected rate is to the truth, and what brings it nearer."""

    half_width: float
    """Half of its interval, as a share."""
    wanted: float
    """What is near enough."""
    reached: bool
    reviews: int | None
    """Outputs reviewed in all that reach it, if people go on finding what they found; None where not even the review of every output would."""

    def words(self, reviewed: int) -> str:
        """The same in a sentence, of so many outputs that were drawn at random."""
        here, wanted = f"±{100 * self.half_width:.1f} points", f"±{100 * self.wanted:.0f} points"
        if self.reached:
            return f"Narrow enough: the corrected rate is within {here}."
        if self.reviews is None:
            return f"The corrected rate is within {here}. Reviewing every output would not bring it within {wanted}: the run has too few tasks."
        return f"The corrected rate is within {here}. About {max(self.reviews - reviewed, 1):,} more reviews, drawn at random, bring it within {wanted}."


class Disagreement(NamedTuple):
    """An output on which the judge and people differ."""

    address: str
    reviewers: tuple[str, ...]
    comment: str
    drawn: bool
    """Whether it was drawn at random."""


@dataclass(frozen=True)
class JudgeReport:
    """A judge beside people, on one version of a criterion."""

    node: str
    criterion: str
    text: str
    """What must hold, as people read it."""
    version: str
    """Identifies what must hold."""
    judge: str | None
    """The model or models; None for a rule."""
    judge_version: str
    """Identifies the judge: models, settings, and what they are asked together."""
    outputs: int
    """Outputs with a word of people and of the judge."""
    drawn: int
    """Those drawn at random: what the figures stand on."""
    hidden: int
    """Answers given without seeing the judge's word."""
    answers: int
    unsure: int
    tied: int
    undecided: int
    samples: tuple[SampleReviewed, ...]
    reviewers: tuple[tuple[str, int], ...]
    """Who answered, and how many outputs."""
    counts: tuple[int, int, int, int]
    """Of the drawn outputs: passed rightly, passed falsely, failed falsely, failed rightly."""
    errors: JudgeErrors | None
    """None where nothing was drawn at random."""
    strata: Strata | None
    judged_rate: Figure | None
    """Share of all outputs of the reviewed runs that the judge takes to be met; None where that is not known."""
    corrected_rate: Figure | None
    """The same, corrected for the judge's errors."""
    false_passes: tuple[Disagreement, ...]
    false_failures: tuple[Disagreement, ...]
    between: tuple[ReviewerPair, ...]

    @cached_property
    def precision(self) -> "JudgePrecision | None":
        """How near the corrected rate is to the truth; None where there is none."""
        if self.corrected_rate is None or self.strata is None:
            return None
        half = (self.corrected_rate.high - self.corrected_rate.low) / 2
        return JudgePrecision(half, PRECISE, half <= PRECISE, reviews_needed(self.strata, PRECISE))

    def document(self) -> "JudgeReportDocument":
        """The report as a JSON document."""
        return document_of(self)


class PrecisionDocument(TypedDict):
    """How near a corrected rate is to the truth, as JSON; shares from 0 to 1."""

    half_width: float
    wanted: float
    reached: bool
    reviews: int | None


class SampleDocument(TypedDict):
    """A reviewed sample as JSON."""

    run_id: str
    how: str
    seed: int | None
    reviewed: int
    sample: int | None
    population: int | None


class PairDocument(TypedDict):
    """A pair of reviewers as JSON."""

    one: str
    other: str
    outputs: int
    same: int
    kappa: FigureDocument | None


class DisagreementDocument(TypedDict):
    """A disagreement as JSON."""

    address: str
    reviewers: list[str]
    comment: str
    drawn: bool


class JudgeReportDocument(TypedDict):
    """A judge beside people, as JSON."""

    node: str
    criterion: str
    text: str
    version: str
    judge: str | None
    judge_version: str
    outputs: int
    drawn: int
    answers: int
    hidden: int
    unsure: int
    tied: int
    undecided: int
    samples: list[SampleDocument]
    reviewers: dict[str, int]
    passed_rightly: int
    passed_falsely: int
    failed_falsely: int
    failed_rightly: int
    agreement: FigureDocument | None
    kappa: FigureDocument | None
    constant: float | None
    sensitivity: FigureDocument | None
    specificity: FigureDocument | None
    judged_rate: FigureDocument | None
    corrected_rate: FigureDocument | None
    precision: PrecisionDocument | None
    false_passes: list[DisagreementDocument]
    false_failures: list[DisagreementDocument]
    between_reviewers: list[PairDocument]


def judge_reports(objects: Objects, workflow: str, node: str | None = None) -> list[JudgeReport]:
    """Every judge of the workflow beside what people said, by the words that it had said when they reviewed; no model is called."""
    groups: dict[tuple[str, str, str], list[ReviewRow]] = {}
    for row in newest_reviews(objects, workflow):
        if node in (None, row["node"]):
            groups.setdefault((row["node"], row["criterion_version"], str(row["judge_version"])), []).append(row)
    reports = []
    for rows in groups.values():
        drawn = [parse(row["address"]).run for row in rows if row["drawn"] in DRAWN]
        reports.append(report_of(rows, judged=judged_in(objects, drawn, rows[-1]["node"], rows[-1]["criterion"])))
    return sorted(reports, key=lambda each: (each.node, each.criterion, -each.answers))


def report_of(
    rows: Sequence[ReviewRow], *, judged: tuple[float, float] | None, words: Words | None = None, judge: tuple[str | None, str] | None = None
) -> JudgeReport:
    """
    A judge beside what people said in *rows*, which are of one version of a criterion.

    Args:
        judged: how many outputs of the reviewed runs the judge takes to be not met and met, where that is known.
        words: what the judge says of the outputs; by default what it had said when they were reviewed.
        judge: the judge's models and version, where it is not the one of the rows.
    """
    found, last = resolved(rows, words), rows[-1]
    strata = strata_of(found.outputs, judged)
    table = Counter((each.judge, each.people) for each in found.drawn)
    return JudgeReport(
        node=last["node"],
        criterion=last["criterion"],
        text=last["text"],
        version=last["criterion_version"],
        judge=judge[0] if judge else last["judge"],
        judge_version=judge[1] if judge else str(last["judge_version"]),
        outputs=len(found.outputs),
        drawn=len(found.drawn),
        hidden=sum(row["hidden"] for row in rows),
        answers=len(rows),
        unsure=found.unsure,
        tied=found.tied,
        undecided=found.undecided,
        samples=_samples(rows),
        reviewers=tuple(Counter(row["reviewer"] for row in rows).most_common()),
        counts=(table[True, True], table[True, False], table[False, True], table[False, False]),
        errors=errors(strata) if strata else None,
        strata=strata,
        judged_rate=judged_rate(judged) if judged else None,
        corrected_rate=corrected_rate(strata) if strata and judged else None,
        false_passes=_disagreements(found.outputs, judge=True),
        false_failures=_disagreements(found.outputs, judge=False),
        between=_between(rows),
    )


def _disagreements(outputs: Sequence[ReviewedOutput], *, judge: bool) -> tuple[Disagreement, ...]:
    wrong = [each for each in outputs if each.judge is judge and each.people is not judge]
    return tuple(Disagreement(each.address, each.reviewers, each.comment, each.drawn) for each in wrong)


def _samples(rows: Sequence[ReviewRow]) -> tuple[SampleReviewed, ...]:
    groups: dict[tuple[str, str, int | None], list[ReviewRow]] = {}
    for row in rows:
        groups.setdefault((parse(row["address"]).run, row["drawn"], row["seed"]), []).append(row)
    return tuple(
        SampleReviewed(*key, len({row["address"] for row in found}), max((row["sample"] or 0 for row in found), default=0) or None, found[0]["population"])
        for key, found in groups.items()
    )


def _between(rows: Sequence[ReviewRow]) -> tuple[ReviewerPair, ...]:
    said: dict[str, dict[tuple[str, str], bool]] = {}
    for row in rows:
        if row["met"] is not None:
            said.setdefault(row["reviewer"], {})[parse(row["address"]).task, row["output_digest"]] = row["met"]
    pairs = []
    for one, other in combinations(sorted(said), 2):
        common = [(said[one][key], said[other][key]) for key in said[one] if key in said[other]]
        if common:
            counts = Counter(common)
            met, unmet = counts[True, True] + counts[True, False], counts[False, True] + counts[False, False]
            strata = Strata((unmet, met), (unmet, met), (counts[False, True], counts[True, True]))
            pairs.append(ReviewerPair(one, other, len(common), counts[True, True] + counts[False, False], errors(strata).kappa))
    return tuple(pairs)


def document_of(report: JudgeReport) -> JudgeReportDocument:
    """The report as a JSON document."""
    found = report.errors
    return {
        "node": report.node,
        "criterion": report.criterion,
        "text": report.text,
        "version": report.version,
        "judge": report.judge,
        "judge_version": report.judge_version,
        "outputs": report.outputs,
        "drawn": report.drawn,
        "answers": report.answers,
        "hidden": report.hidden,
        "unsure": report.unsure,
        "tied": report.tied,
        "undecided": report.undecided,
        "samples": [
            {"run_id": each.run_id, "how": each.how, "seed": each.seed, "reviewed": each.reviewed, "sample": each.sample, "population": each.population}
            for each in report.samples
        ],
        "reviewers": dict(report.reviewers),
        "passed_rightly": report.counts[0],
        "passed_falsely": report.counts[1],
        "failed_falsely": report.counts[2],
        "failed_rightly": report.counts[3],
        "agreement": figure(found.agreement if found else None),
        "kappa": figure(found.kappa if found else None),
        "constant": round(found.constant, 12) if found else None,
        "sensitivity": figure(found.sensitivity if found else None),
        "specificity": figure(found.specificity if found else None),
        "judged_rate": figure(report.judged_rate),
        "corrected_rate": figure(report.corrected_rate),
        "precision": _precision(report.precision),
        "false_passes": [_disagreement(each) for each in report.false_passes],
        "false_failures": [_disagreement(each) for each in report.false_failures],
        "between_reviewers": [
            {"one": each.one, "other": each.other, "outputs": each.outputs, "same": each.same, "kappa": figure(each.kappa)} for each in report.between
        ],
    }


def _precision(found: JudgePrecision | None) -> PrecisionDocument | None:
    if found is None:
        return None
    return {"half_width": round(found.half_width, 12), "wanted": found.wanted, "reached": found.reached, "reviews": found.reviews}


def figure(found: Figure | None) -> FigureDocument | None:
    """The figure as JSON, to twelve digits."""
    return None if found is None else {"value": round(found.value, 12), "low": round(found.low, 12), "high": round(found.high, 12)}


def _disagreement(each: Disagreement) -> DisagreementDocument:
    return {"address": each.address, "reviewers": list(each.reviewers), "comment": each.comment, "drawn": each.drawn}
