"""Outputs for people to review, each with the criteria that are asked about it, and what becomes of the answers."""

import datetime
import getpass
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from beam_ray.address import Address, parse
from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import Json
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.review.sample import DRAWN, How, Sample, StoredOutput, draw, reviewed_criteria
from beam_ray.review.version import criterion_version, judge_version, output_digest
from beam_ray.store.lookup import resolve
from beam_ray.store.newest_run import newest_run
from beam_ray.store.objects import Objects
from beam_ray.store.review_table import ReviewRow
from beam_ray.store.reviews import add_reviews, newest_reviews
from beam_ray.store.run_index import all_runs
from beam_ray.store.runs import Run
from beam_ray.store.tables import TaskRow

MAX_COMMENT = 10_000
"""Characters of a comment."""

MAX_REVIEWER = 100
"""Characters of a reviewer's name."""


@dataclass(frozen=True)
class ReviewQuestion:
    """One criterion that a person is asked about an output."""

    criterion: str
    """Its id within the node."""
    text: str
    """What must hold."""
    kind: str
    """plain for a judge, or the kind of rule."""
    version: str
    """Identifies what must hold."""
    judge: str | None
    """The model or models that judged; None for a rule."""
    judge_version: str
    judge_met: bool | None
    """What the judge or the rule said; None when it could not decide. Hide it until the person has answered."""
    judge_reason: str


@dataclass(frozen=True)
class ReviewItem:
    """One output to review."""

    address: str
    """``RUN/TASK/NODE``."""
    workflow: str
    node: str
    task_query: Json
    """The task as it was given."""
    variables: Json
    expected: Json
    """The task's expected outcome; None without one."""
    output: Json
    output_digest: str
    questions: tuple[ReviewQuestion, ...]
    how: How
    seed: int | None
    sample: int | None
    """Outputs in the sample; None where nothing was drawn at random."""
    population: int | None
    """Outputs that it was drawn from; None where nothing was drawn at random."""
    probability: float | None
    """Chance of this output to be in the sample; None where nothing was drawn at random."""

    def question(self, criterion: str) -> ReviewQuestion:
        """
        The question about one criterion.

        Raises:
            Unusable: the item does not ask about it.
        """
        found = next((each for each in self.questions if each.criterion == criterion), None)
        if found is None:
            raise Unusable(
                f"{self.address}: the criterion {criterion!r} is not reviewed here\n  criteria: {', '.join(each.criterion for each in self.questions)}"
            )
        return found


@dataclass(frozen=True)
class ReviewAnswer:
    """What a person says of one criterion."""

    met: bool | None
    """None when they cannot tell."""
    comment: str = ""


def run_to_review(objects: Objects, workflow: str, name: str | None = None) -> Run:
    """
    The finished run whose outputs are reviewed: the one named, or the workflow's newest.

    Raises:
        Unusable: there is none, or it is not finished or of another workflow.
    """
    if name:
        run = Run(objects, resolve(objects, name))
        if not run.finished:
            raise Unusable(f"run {run.run_id} is not finished, so nothing can be drawn from it\n  beam-ray resume {run.run_id}  finishes it")
        if run.record.workflow != workflow:
            raise Unusable(f"run {run.run_id} is of the workflow {run.record.workflow!r}, not {workflow!r}")
        return run
    found = newest_run(objects, workflow)
    if found:
        return found
    known = sorted({run.workflow for run in all_runs(objects)})
    raise Unusable(f"there is no finished run of a workflow named {workflow!r}\n  workflows with runs: {', '.join(known) or 'none'}")


def node_to_review(workflow: Workflow, node: str | None, wanted: Sequence[str] = ()) -> str:
    """
    The node whose outputs are reviewed: the one named, or the only one that a judge decides about.

    Raises:
        Unusable: there is no such node, or it must be named.
    """
    if node:
        if node not in workflow.nodes:
            raise Unusable(f"the workflow {workflow.name!r} has no node {node!r}\n  it has: {', '.join(workflow.order)}")
        return node
    having = {name: found for name in workflow.order if (found := workflow.nodes[name].evaluate)}
    judged = [name for name, found in having.items() if set(wanted) & {each.id for each in found.criteria} or (not wanted and workflow.judges_of(name))]
    if len(judged) == 1:
        return judged[0]
    raise Unusable(
        f"name the node to review: {', '.join(judged)}"
        if judged
        else f"no criterion of {workflow.name!r} is decided by a judge\n  name a node and its criteria"
    )


def items_of(run: Run, node: str, criteria: Sequence[Criterion], sample: Sample) -> list[ReviewItem]:
    """The outputs of a sample, as they are shown to a person."""
    names = {each.output.task_id for each in sample.outputs}
    tasks: dict[str, TaskRow] = {row["task_id"]: row for row in run.tasks().to_pylist() if row["task_id"] in names}
    judges = {each.id: judge_version(run.record, node, each) for each in criteria}
    drawn = sample.how in DRAWN
    return [
        ReviewItem(
            address=str(Address(run.run_id, output.task_id, output.trial, node)),
            workflow=run.record.workflow,
            node=node,
            task_query=json.loads(task["task_query"]) if task["query_is_json"] else task["task_query"],
            variables=json.loads(task["variables"] or "{}"),
            expected=json.loads(task["expected"]) if task["expected"] else None,
            output=json.loads(output.output),
            output_digest=output_digest(output.output),
            questions=tuple(_question(each, output, judges[each.id]) for each in criteria),
            how=sample.how,
            seed=sample.seed,
            sample=len(sample.outputs) if drawn else None,
            population=sample.population if drawn else None,
            probability=probability,
        )
        for output, probability in sample.outputs
        for task in (tasks[output.task_id],)
    ]


def _question(criterion: Criterion, output: StoredOutput, version: str) -> ReviewQuestion:
    found = output.criteria.get(criterion.id)
    return ReviewQuestion(
        criterion.id,
        criterion.text,
        criterion.kind,
        criterion_version(criterion),
        found["judge"] if found else None,
        version,
        found["met"] if found else None,
        (found["reason"] or "") if found else "",
    )


def drawn_items(
    objects: Objects, run: Run, node: str, wanted: Sequence[str], *, how: How, count: int, seed: int, addresses: Sequence[str] = ()
) -> list[ReviewItem]:
    """
    The items of a sample; equal arguments give equal items.

    Args:
        wanted: ids of the criteria; by default those that a judge decides.
        addresses: for ``chosen``, the outputs, each as RUN/TASK or as a task's id.

    Raises:
        Unusable: a criterion or a task is not there.
    """
    evaluate = run.record.plan.nodes[node].evaluate
    criteria = reviewed_criteria(evaluate.criteria if evaluate else (), wanted)
    tasks = [_task_in(objects, run, address) for address in addresses]
    return items_of(run, node, criteria, draw(run, node, [each.id for each in criteria], how=how, count=count, seed=seed, tasks=tasks))


def _task_in(objects: Objects, run: Run, written: str) -> str:
    if "/" not in written:
        return written
    address = parse(written)
    if resolve(objects, address.run) != run.run_id:
        raise Unusable(f"{written} is of another run than {run.run_id}; review the outputs of one run at a time")
    return address.task


def unanswered(objects: Objects, workflow: str, items: Iterable[ReviewItem], reviewer: str) -> list[ReviewItem]:
    """Those of *items* that the reviewer has not answered in full."""
    said = {(row["address"], row["output_digest"], row["criterion_version"]) for row in newest_reviews(objects, workflow) if row["reviewer"] == reviewer}
    return [item for item in items if any((item.address, item.output_digest, each.version) not in said for each in item.questions)]


def reviewer_of(name: str) -> str:
    """
    The reviewer's name; the user of this machine where it is empty.

    Raises:
        Unusable: it cannot be a name.
    """
    found = name.strip() or getpass.getuser()
    if len(found) > MAX_REVIEWER or not found.isprintable():
        raise Unusable(f"the reviewer's name must be at most {MAX_REVIEWER} printable characters")
    return found


def record_answers(
    objects: Objects, answered: Iterable[tuple[ReviewItem, Mapping[str, ReviewAnswer]]], *, reviewer: str, hidden: bool
) -> tuple[list[ReviewRow], int]:
    """
    Keep the answers about items of one workflow; the new reviews, and how many of the answers were there already.

    Raises:
        Unusable: an item does not ask about a criterion, or a comment is too long; nothing was kept.
    """
    moment = datetime.datetime.now(datetime.UTC)
    rows: list[ReviewRow] = []
    for item, answers in answered:
        for criterion, answer in answers.items():
            question = item.question(criterion)
            if len(answer.comment) > MAX_COMMENT:
                raise Unusable(f"{item.address}: the comment has {len(answer.comment):,} characters; at most {MAX_COMMENT:,} are kept")
            rows.append(_row(item, question, answer, reviewer, hidden, moment))
    if not rows:
        return [], 0
    workflow = rows[0]["workflow"]
    known = {_said(row) for row in newest_reviews(objects, workflow)}
    fresh = [row for row in rows if _said(row) not in known]
    if fresh:
        add_reviews(objects, workflow, fresh)
    return fresh, len(rows) - len(fresh)


def _said(row: ReviewRow) -> tuple[object, ...]:
    return row["reviewer"], row["address"], row["output_digest"], row["criterion"], row["criterion_version"], row["met"], row["comment"]


def _row(item: ReviewItem, question: ReviewQuestion, answer: ReviewAnswer, reviewer: str, hidden: bool, moment: datetime.datetime) -> ReviewRow:
    return {
        "review_id": secrets.token_hex(8),
        "workflow": item.workflow,
        "node": item.node,
        "criterion": question.criterion,
        "criterion_version": question.version,
        "text": question.text,
        "address": item.address,
        "output_digest": item.output_digest,
        "met": answer.met,
        "comment": answer.comment.strip() or None,
        "reviewer": reviewer,
        "reviewed_at": moment,
        "drawn": item.how,
        "seed": item.seed,
        "sample": item.sample,
        "population": item.population,
        "probability": item.probability,
        "hidden": hidden,
        "judge": question.judge,
        "judge_version": question.judge_version,
        "judge_met": question.judge_met,
    }
