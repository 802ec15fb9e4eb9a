"""
Rates of a backtest's two sides, corrected for the judge's errors by reviews of these criteria and this judge.

Where outputs of both sides were reviewed, each side is corrected by its own reviews. Otherwise the
judge's sensitivity and specificity are taken over from wherever it was reviewed. Only outputs that
were drawn at random count. The success rate is corrected where all judged criteria belong to one node
and all of them were reviewed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from beam_ray.address import parse
from beam_ray.compare.verdict_json import CorrectedBy, CorrectedRateDocument, FigureDocument
from beam_ray.define.criterion import Criterion
from beam_ray.errors import Damaged, Unusable
from beam_ray.review.correction import Figure, corrected_change, corrected_rate, judged_rate, transported_change, transported_rate
from beam_ray.review.reviewed import Resolved, ReviewedOutput, resolved, strata_of
from beam_ray.review.sample import StoredOutput, outputs_of
from beam_ray.review.version import criterion_version, judge_version, output_digest
from beam_ray.store.objects import Objects
from beam_ray.store.review_table import ReviewRow
from beam_ray.store.reviews import newest_reviews
from beam_ray.store.runs import Run

FEWEST_REVIEWS = 20
"""Outputs that must have been reviewed of a side, or of the judge elsewhere, before a rate is corrected."""


@dataclass(frozen=True)
class CorrectedRate:
    """A rate of both sides as judged, and corrected for the judge's errors; shares from 0 to 1, each with a 95% interval."""

    name: str
    """``node/criterion``, or ``success_rate``."""
    tasks: int
    """Tasks that are judged on both sides, by their first trial."""
    judged_before: Figure
    judged_after: Figure
    before: Figure
    after: Figure
    change: Figure
    by: CorrectedBy
    """Whether each side was corrected by reviews of its own outputs, or both by the judge's errors elsewhere."""
    reviews: tuple[int, int]
    """Outputs reviewed of each side; of errors elsewhere, all that they stand on, twice."""

    def words(self, names: tuple[str, str]) -> str:
        """The rate in a sentence."""
        sides = [
            f"{name} {100 * corrected.value:.1f}% ({_span(corrected)}; as judged {100 * judged.value:.1f}%)"
            for name, judged, corrected in zip(names, (self.judged_before, self.judged_after), (self.before, self.after), strict=True)
        ]
        stands = (
            f"{self.reviews[0]} and {self.reviews[1]} reviewed outputs"
            if self.by == "own reviews"
            else f"its errors on {self.reviews[0]} reviewed outputs elsewhere"
        )
        return f"{self.name} corrected for the judge's errors: {', '.join(sides)}, change {100 * self.change.value:+.1f} ({_span(self.change, sign='+')}); from {stands}."

    def document(self) -> CorrectedRateDocument:
        """The rate as a JSON document."""
        return {
            "name": self.name,
            "tasks": self.tasks,
            "judged_before": _document(self.judged_before),
            "judged_after": _document(self.judged_after),
            "before": _document(self.before),
            "after": _document(self.after),
            "change": _document(self.change),
            "by": self.by,
            "reviews": list(self.reviews),
        }


def corrected_rates(objects: Objects, before: Run, after: Run) -> list[CorrectedRate]:
    """
    Every rate of the two finished runs that reviews can correct; none without reviews.

    Raises:
        Damaged: a file of reviews is not what was written.
    """
    workflow = after.record.plan
    rows = newest_reviews(objects, workflow.name)
    if not rows:
        return []
    found, nodes = list[CorrectedRate](), list[tuple[_Side, _Side]]()
    for name in workflow.order:
        if not workflow.judges_of(name) or name not in before.record.plan.nodes:
            continue
        here = [row for row in rows if row["node"] == name]
        sides = _Side(before, name, here), _Side(after, name, here)
        nodes.append(sides)
        found += [rate for criterion in sides[1].judged if (rate := _of_criterion(sides, criterion, here))]
    success = _of_success(*nodes[0]) if len(nodes) == 1 else None
    return [*([success] if success else []), *found]


class _Side:
    """A node of one side: what its judge says, and what people said of these very outputs."""

    def __init__(self, run: Run, node: str, rows: Sequence[ReviewRow]) -> None:
        self.run, self.node, self.rows = run, node, rows

    @cached_property
    def judged(self) -> tuple[Criterion, ...]:
        evaluate = self.run.record.plan.nodes[self.node].evaluate
        return tuple(each for each in (evaluate.criteria if evaluate else ()) if each.kind == "plain")

    @cached_property
    def outputs(self) -> dict[str, StoredOutput]:
        return {each.task_id: each for each in outputs_of(self.run, self.node)}

    @cached_property
    def sources(self) -> set[str]:
        """The reviewed runs of which a random sample is one of this side's outputs: itself, and those with the same outputs, borrowed or made again."""
        return {run_id for run_id in {parse(row["address"]).run for row in self.rows} if self._has_same_outputs(run_id)}

    def _has_same_outputs(self, run_id: str) -> bool:
        if run_id == self.run.run_id:
            return True
        try:
            other = {each.task_id: each.output for each in outputs_of(Run(self.run.objects, run_id), self.node)}
        except (Unusable, Damaged):
            return False
        return other == {task: each.output for task, each in self.outputs.items()}

    def words(self, criterion: str) -> dict[str, bool]:
        """Task to the judge's word."""
        found = {task: each.criteria[criterion]["met"] for task, each in self.outputs.items() if criterion in each.criteria}
        return {task: met for task, met in found.items() if met is not None}

    def reviewed(self, criterion: Criterion) -> Resolved:
        """What people said of this side's outputs by the criterion, beside what its judge says."""
        words, version = self.words(criterion.id), criterion_version(criterion)
        own = [row for row in self.rows if row["criterion_version"] == version and self._is_own(row)]
        return resolved(own, {(row["address"], row["output_digest"]): words[task] for row in own if (task := parse(row["address"]).task) in words})

    def _is_own(self, row: ReviewRow) -> bool:
        address = parse(row["address"])
        output = self.outputs.get(address.task)
        return address.run in self.sources and output is not None and output_digest(output.output) == row["output_digest"]

    # -- success ----------------------------------------------------------------------------

    @cached_property
    def passed(self) -> dict[str, bool]:
        """Task to whether it passes."""
        columns = ["task_id", "trial", "passed"]
        return {row["task_id"]: bool(row["passed"]) for row in self.run.outcome(columns).to_pylist() if row["trial"] == 1}

    @cached_property
    def others_pass(self) -> dict[str, bool]:
        """Task to whether all of its other steps pass."""
        columns = ["task_id", "trial", "node", "outcome", "passed"]
        found = dict.fromkeys(self.passed, True)
        for row in self.run.steps(None, columns).to_pylist():
            if row["trial"] == 1 and row["node"] != self.node and (row["passed"] is False or row["outcome"] == "failed"):
                found[row["task_id"]] = False
        return found

    def reviewed_success(self) -> list[ReviewedOutput]:
        """Of tasks all of whose judged criteria were reviewed: whether they pass as judged, and by what people said."""
        said: dict[str, dict[str, ReviewedOutput]] = {}
        for criterion in self.judged:
            for each in self.reviewed(criterion).drawn:
                said.setdefault(parse(each.address).task, {})[criterion.id] = each
        found = []
        for task, answers in said.items():
            if len(answers) == len(self.judged) and task in self.passed:
                one = next(iter(answers.values()))
                people = self.others_pass[task] and self._passes(task, {name: each.people for name, each in answers.items()})
                found.append(ReviewedOutput(one.address, one.output_digest, self.passed[task], people, one.reviewers, "", True, one.how, one.weight))
        return found

    def _passes(self, task: str, people: Mapping[str, bool]) -> bool:
        """Whether the step reaches its threshold by what people say; rules keep their word, and those that do not apply do not count."""
        evaluate = self.run.record.plan.nodes[self.node].evaluate
        assert evaluate
        entries = [(people.get(name, entry["met"]), entry["weight"]) for name, entry in self.outputs[task].criteria.items()]
        total = sum(weight for met, weight in entries if met is not None)
        return not total or 100 * sum(weight for met, weight in entries if met) / total >= evaluate.threshold - 1e-9


def _of_criterion(sides: tuple[_Side, _Side], criterion: Criterion, rows: Sequence[ReviewRow]) -> CorrectedRate | None:
    before, after = sides
    version = judge_version(after.run.record, after.node, criterion)
    if (
        all(each.id != criterion.id or each.text != criterion.text for each in before.judged)
        or judge_version(before.run.record, before.node, criterion) != version
    ):
        return None
    name, words = f"{after.node}/{criterion.id}", _paired(before.words(criterion.id), after.words(criterion.id))
    own = _by_own(name, words, before.reviewed(criterion).drawn, after.reviewed(criterion).drawn)
    if own or not sum(words):
        return own
    elsewhere = resolved(row for row in rows if row["criterion_version"] == criterion_version(criterion) and row["judge_version"] == version)
    return _by_reference(name, words, elsewhere.drawn)


def _of_success(before: _Side, after: _Side) -> CorrectedRate | None:
    return _by_own("success_rate", _paired(before.passed, after.passed), before.reviewed_success(), after.reviewed_success())


def _by_own(name: str, words: tuple[int, int, int, int], before: Sequence[ReviewedOutput], after: Sequence[ReviewedOutput]) -> CorrectedRate | None:
    judged = _margins(words)
    strata = [strata_of(outputs, counts) for outputs, counts in zip((before, after), judged, strict=True)]
    if min(len(before), len(after)) < FEWEST_REVIEWS or strata[0] is None or strata[1] is None or not sum(words):
        return None
    rates = [corrected_rate(strata[0]), corrected_rate(strata[1])]
    change = corrected_change(strata[0], strata[1], words)
    return CorrectedRate(name, sum(words), judged_rate(judged[0]), judged_rate(judged[1]), rates[0], rates[1], change, "own reviews", (len(before), len(after)))


def _by_reference(name: str, words: tuple[int, int, int, int], reviewed: Sequence[ReviewedOutput]) -> CorrectedRate | None:
    reference, judged = strata_of(reviewed, None), _margins(words)
    if len(reviewed) < FEWEST_REVIEWS or reference is None:
        return None
    before, after, change = transported_rate(judged[0], reference), transported_rate(judged[1], reference), transported_change(words, reference)
    if before is None or after is None or change is None:
        return None
    count = len(reviewed)
    return CorrectedRate(name, sum(words), judged_rate(judged[0]), judged_rate(judged[1]), before, after, change, "reviews elsewhere", (count, count))


def _paired(before: Mapping[str, bool], after: Mapping[str, bool]) -> tuple[int, int, int, int]:
    """Tasks by their words before and after: not met, not met; not met, met; met, not met; met, met."""
    counts = Counter((before[task], after[task]) for task in before if task in after)
    return counts[False, False], counts[False, True], counts[True, False], counts[True, True]


def _margins(words: tuple[int, int, int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    neither, gained, lost, both = words
    return (neither + gained, lost + both), (neither + lost, gained + both)


def _document(found: Figure) -> FigureDocument:
    return {"value": round(found.value, 12), "low": round(found.low, 12), "high": round(found.high, 12)}


def _span(found: Figure, sign: str = "") -> str:
    return f"{100 * found.low:{sign}.1f} … {100 * found.high:{sign}.1f}"


def sentences(rates: Iterable[CorrectedRate], names: tuple[str, str]) -> tuple[str, ...]:
    """The rates as a report says them."""
    return tuple(rate.words(names) for rate in rates)
