"""Reviews: what people say of outputs, drawn so that it tells how often a judge errs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from beam_ray.address import parse
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.errors import BadDefinition, Unusable
from beam_ray.review.answers_file import Draw, FileAnswer, read_answers, write_items
from beam_ray.review.queue import (
    ReviewAnswer,
    ReviewItem,
    drawn_items,
    node_to_review,
    record_answers,
    reviewer_of,
    run_to_review,
    unanswered,
)
from beam_ray.review.sample import DRAWN, How
from beam_ray.store.lookup import resolve
from beam_ray.store.review_table import ReviewRow
from beam_ray.store.reviews import newest_reviews, read_reviews
from beam_ray.store.runs import Run

if TYPE_CHECKING:
    import pyarrow as pa

    from beam_ray.review.judge_report import JudgeReport
    from beam_ray.review.waiting import ReviewSource

Met = bool | None | ReviewAnswer
"""What a person says of a criterion: met or not, None when they cannot tell, or an ``ReviewAnswer`` with a comment."""


@dataclass(frozen=True)
class ReviewSample:
    """Which outputs of a run are reviewed."""

    how: How = "random"
    """``random``; ``balanced``: as many outputs that the judge passed as outputs that it did not; ``flagged`` for a person by
    the workflow; ``disagreed``: the judges of a panel disagree; ``chosen``: those of *tasks*."""
    count: int = 50
    """How many outputs at most."""
    seed: int = 0
    """Another seed draws another sample; a larger count with the same seed extends the sample."""
    tasks: tuple[str, ...] = ()
    """For ``chosen``: RUN/TASK or ids of tasks."""


@dataclass(frozen=True, repr=False)
class ReviewQueue(Displayed):
    """Outputs for people to review, in order. The same draw gives the same queue; nothing of it is stored but the answers."""

    workflow: str
    node: str
    run_id: str
    """The run whose outputs are reviewed."""
    criteria: tuple[str, ...]
    """Ids of the criteria that are asked about each output."""
    sample: ReviewSample
    items: tuple[ReviewItem, ...]
    population: int
    """Outputs that the sample was drawn from."""
    _store: Location = field(compare=False)

    def open(self, reviewer: str = "") -> tuple[ReviewItem, ...]:
        """The items that the reviewer has not answered in full, in order."""
        return tuple(unanswered(self._store.objects, self.workflow, self.items, reviewer_of(reviewer)))

    def next(self, reviewer: str = "") -> ReviewItem | None:
        """The first item that the reviewer has not answered in full; None at the end."""
        return next(iter(self.open(reviewer)), None)

    def answers(self, reviewer: str = "") -> dict[str, dict[str, ReviewRow]]:
        """What the reviewer has answered of these items: address to criterion to the newest answer."""
        name, asked = reviewer_of(reviewer), {(item.address, item.output_digest): {each.version for each in item.questions} for item in self.items}
        found: dict[str, dict[str, ReviewRow]] = {}
        for row in newest_reviews(self._store.objects, self.workflow):
            if row["reviewer"] == name and row["criterion_version"] in asked.get((row["address"], row["output_digest"]), ()):
                found.setdefault(row["address"], {})[row["criterion"]] = row
        return found

    def item(self, address: str) -> ReviewItem:
        """
        The item with that address, ``RUN/TASK/NODE``.

        Raises:
            Unusable: it is not in the queue.
        """
        found = next((item for item in self.items if item.address == address), None)
        if found is None:
            raise Unusable(f"{address} is not in this sample")
        return found

    def write(self, file: str | Path, *, show_judge: bool = False) -> Path:
        """
        Write the items to a new .csv or .jsonl file to be answered in its column ``met``; ``Store.import_reviews`` reads it.

        Raises:
            Unusable: the file exists, or cannot be written.
        """
        write_items(self.items, Path(file), count=self.sample.count, show_judge=show_judge)
        return Path(file)

    def display(self) -> Display:
        rows = [(item.address, str(item.task_query)[:80], str(item.output)[:80]) for item in self.items]
        facts = (("outputs", len(self.items)), ("of", self.population), ("drawn", self.sample.how), ("criteria", self.criteria))
        return Display(f"{self.workflow}/{self.node}", facts, ("output of", "task query", "output"), rows)


@dataclass(frozen=True, repr=False)
class RecordedReviews(Displayed):
    """Reviews that were recorded."""

    reviews: tuple[ReviewRow, ...]
    """The new reviews, as the store has them."""
    unchanged: int
    """Answers that were recorded before, and not again."""

    def display(self) -> Display:
        rows = [(row["address"], row["criterion"], row["met"], row["comment"]) for row in self.reviews]
        return Display("", (("recorded", len(rows)), ("unchanged", self.unchanged)), ("output of", "criterion", "met", "comment"), rows)


def review_queue(
    store: Location,
    workflow: str,
    node: str | None = None,
    *,
    run: str | None = None,
    criteria: Iterable[str] = (),
    sample: ReviewSample | None = None,
) -> ReviewQueue:
    """See ``Store.review_queue``."""
    chosen, wanted, objects = sample or ReviewSample(), tuple(criteria), store.existing()
    if chosen.count < 1:
        raise Unusable("the number of outputs to review must be at least 1")
    if (chosen.how == "chosen") != bool(chosen.tasks):
        raise Unusable("a chosen sample names its tasks" if chosen.how == "chosen" else f"a {chosen.how} sample names no tasks")
    if chosen.how == "chosen" and run is None and "/" in chosen.tasks[0]:
        run = parse(chosen.tasks[0]).run
    found = run_to_review(objects, workflow, run)
    place = node_to_review(found.record.plan, node, wanted)
    items = drawn_items(objects, found, place, wanted, how=chosen.how, count=chosen.count, seed=chosen.seed, addresses=chosen.tasks)
    asked = tuple(each.criterion for each in items[0].questions) if items else wanted
    population = (items[0].population or len(items)) if items else 0
    return ReviewQueue(workflow, place, found.run_id, asked, chosen, tuple(items), population, store)


def review_sources(store: Location) -> "list[ReviewSource]":
    """See ``Store.review_sources``."""
    from beam_ray.review.waiting import review_sources as sources

    return sources(store.existing(), store.index.table())


def tasks_to_review(store: Location, patience: float | None = None) -> int:
    """See ``Store.tasks_to_review``."""
    from beam_ray.review.waiting import flagged_tasks

    return flagged_tasks(store.existing(), store.index.find(patience=patience).table)


def record_review(
    store: Location, item: ReviewItem, answers: Mapping[str, Met], *, reviewer: str = "", comment: str = "", hidden: bool = True
) -> RecordedReviews:
    """See ``Store.record_review``."""
    said = {name: met if isinstance(met, ReviewAnswer) else ReviewAnswer(met, comment) for name, met in answers.items()}
    rows, unchanged = record_answers(store.objects, [(item, said)], reviewer=reviewer_of(reviewer), hidden=hidden)
    return RecordedReviews(tuple(rows), unchanged)


def review_agreement(store: Location, workflow: str, node: str | None = None) -> "list[JudgeReport]":
    """See ``Store.review_agreement``."""
    from beam_ray.review.judge_report import judge_reports

    return judge_reports(store.existing(), workflow, node)


def reviews(store: Location, workflow: str | None = None) -> "pa.Table":
    """See ``Store.reviews``."""
    return read_reviews(store.existing(), workflow)


def import_reviews(store: Location, file: str | Path, *, reviewer: str = "") -> RecordedReviews:
    """See ``Store.import_reviews``."""
    answers = read_answers(str(file))
    if not answers:
        raise Unusable(f"{file}: no row is answered\n  write yes, no or ? into the column 'met'")
    answered = _matched(store, answers)
    groups: dict[tuple[str, str, bool], list[tuple[ReviewItem, dict[str, ReviewAnswer]]]] = {}
    for answer, item in answered:
        who = reviewer_of(reviewer or answer.reviewer)
        groups.setdefault((who, item.workflow, answer.hidden), []).append((item, {answer.criterion: answer.answer}))
    rows: list[ReviewRow] = []
    unchanged = 0
    for (who, _, hidden), entries in groups.items():
        fresh, known = record_answers(store.objects, entries, reviewer=who, hidden=hidden)
        rows += fresh
        unchanged += known
    return RecordedReviews(tuple(rows), unchanged)


def _matched(store: Location, answers: list[FileAnswer]) -> list[tuple[FileAnswer, ReviewItem]]:
    """Each answer with the output that it is about, drawn again as the file says."""
    objects = store.existing()
    draws: dict[Draw, dict[str, ReviewItem]] = {}
    matched, problems = [], []
    for answer in answers:
        drawn = answer.draw
        try:
            address = parse(answer.address)
            run = run_to_review(objects, Run(objects, resolve(objects, address.run)).record.workflow, address.run)
            node_to_review(run.record.plan, address.node)
            if drawn.how in DRAWN and drawn not in draws:
                found = drawn_items(objects, run, address.node, drawn.criteria, how=drawn.how, count=drawn.count, seed=drawn.seed)
                draws[drawn] = {item.address: item for item in found}
            item = draws.get(drawn, {}).get(answer.address)
            if item is None:
                how: How = drawn.how if drawn.how not in DRAWN else "chosen"
                [item] = drawn_items(objects, run, address.node, (answer.criterion,), how="chosen", count=1, seed=0, addresses=(address.task,))
                item = replace(item, how=how)
            item.question(answer.criterion)
            if answer.output_digest not in ("", item.output_digest):
                raise Unusable(f"the output of {answer.address} is another one now than when this file was written\n  draw again to review it")
            matched.append((answer, item))
        except Unusable as error:
            first, *notes = str(error).splitlines()
            problems.append(answer.row.problem(first, *(note.strip() for note in notes), field="address"))
    if problems:
        raise BadDefinition(problems=problems[:20])
    return matched
