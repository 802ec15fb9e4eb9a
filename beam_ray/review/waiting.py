"""Which outputs wait for a person: flagged by the workflow, disputed by a panel of judges, or of a judge that may be measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import parse
from beam_ray.define.workflow import Workflow
from beam_ray.review.sample import How, draw
from beam_ray.run.context import RAN
from beam_ray.store.newest_run import newest_run
from beam_ray.store.objects import Objects
from beam_ray.store.review_table import ReviewRow
from beam_ray.store.reviews import newest_reviews, read_reviews
from beam_ray.store.runs import Run

FLAGGING = ("run", "rerun")
"""Modes of runs whose flagged steps wait for a person; those of a backtest's sides and of experiments do not."""


@dataclass(frozen=True)
class ReviewSource:
    """Outputs of a node in one run that people can review."""

    workflow: str
    node: str
    run_id: str
    how: How
    """``flagged`` for a person by the workflow, ``disagreed``: the judges of a panel disagree, ``random``: to measure the judge."""
    criteria: tuple[str, ...]
    """Ids of the criteria that are asked about each output."""
    outputs: int
    reviewed: int
    """Those that somebody has reviewed."""

    @property
    def waiting(self) -> int:
        """Outputs that nobody has reviewed."""
        return self.outputs - self.reviewed

    def document(self) -> "ReviewSourceDocument":
        """The source as a JSON document."""
        return {
            "workflow": self.workflow,
            "node": self.node,
            "run_id": self.run_id,
            "how": self.how,
            "criteria": list(self.criteria),
            "outputs": self.outputs,
            "reviewed": self.reviewed,
        }


class ReviewSourceDocument(TypedDict):
    """Outputs to review, as JSON."""

    workflow: str
    node: str
    run_id: str
    how: str
    criteria: list[str]
    outputs: int
    reviewed: int


def flagged_tasks(objects: Objects, index: pa.Table) -> int:
    """How many tasks of the index have a step that waits for a person and that nobody has reviewed. No run is read."""
    flagged = _flagged(index)
    if not flagged:
        return 0
    addresses = (parse(written) for written in pc.unique(read_reviews(objects)["address"]).to_pylist())
    return len(set(flagged) - {(address.run, address.task) for address in addresses})


def _flagged(index: pa.Table) -> list[tuple[str, str]]:
    """Run and task of those that the workflow has flagged, by their first trials."""
    mask = pc.and_(pc.fill_null(index["review"], False), pc.is_in(index["mode"], value_set=pa.array(FLAGGING)))
    found = index.filter(pc.and_(mask, pc.equal(index["trial"], 1)))
    return list(zip(found["run_id"].to_pylist(), found["task_id"].to_pylist(), strict=True))


def review_sources(objects: Objects, index: pa.Table) -> list[ReviewSource]:
    """What people can review: flagged outputs of all runs, then of each workflow's newest run what its judges disagree on and what measures them."""
    newest = [run for name in pc.unique(index["workflow"]).to_pylist() if (run := newest_run(objects, name))]
    runs = {run_id: Run(objects, run_id) for run_id, _ in _flagged(index)} | {run.run_id: run for run in newest}
    said = {name: _reviewed(newest_reviews(objects, name)) for name in {run.record.workflow for run in runs.values()}}
    flagged = [source for run_id in dict.fromkeys(run_id for run_id, _ in _flagged(index)) for source in _of_flagged(runs[run_id], said)]
    return [*flagged, *(source for run in newest for source in _of_judges(run, said))]


Reviewed = dict[str, set[tuple[str, str, str]]]
"""Workflow to run, task and node of the outputs that somebody has reviewed."""


def _reviewed(rows: Sequence[ReviewRow]) -> set[tuple[str, str, str]]:
    addresses = (parse(row["address"]) for row in rows)
    return {(address.run, address.task, address.node) for address in addresses}


def _of_flagged(run: Run, said: Reviewed) -> Iterator[ReviewSource]:
    columns = ["task_id", "node", "trial", "review"]
    rows = run.steps(None, columns).to_pylist() if run.finished else []
    names = {node: [row["task_id"] for row in rows if row["node"] == node and row["review"] and row["trial"] == 1] for node in run.record.plan.order}
    for node, tasks in names.items():
        if tasks:
            reviewed = sum((run.run_id, task, node) in said[run.record.workflow] for task in tasks)
            yield ReviewSource(run.record.workflow, node, run.run_id, "flagged", _criteria(run.record.plan, node), len(tasks), reviewed)


def _of_judges(run: Run, said: Reviewed) -> Iterator[ReviewSource]:
    record = run.record
    for node in record.plan.order:
        judges, criteria = record.plan.judges_of(node), _criteria(record.plan, node)
        here = {task for run_id, task, name in said[record.workflow] if run_id == run.run_id and name == node}
        if len(judges) > 1:
            disputed = [each.output.task_id for each in draw(run, node, criteria, how="disagreed", count=record.tasks).outputs]
            if disputed:
                yield ReviewSource(record.workflow, node, run.run_id, "disagreed", criteria, len(disputed), len(here & set(disputed)))
        if judges:
            outputs = pc.sum(pc.cast(_has_output(run.steps([node], ["trial", "outcome"])), pa.int64())).as_py() or 0
            yield ReviewSource(record.workflow, node, run.run_id, "random", criteria, outputs, len(here))


def _has_output(steps: pa.Table) -> pa.Array:
    return pc.and_(pc.equal(steps["trial"], 1), pc.is_in(steps["outcome"], value_set=pa.array(RAN)))


def _criteria(workflow: Workflow, node: str) -> tuple[str, ...]:
    """What is asked about an output: what a judge decides, or where there is no such criterion all of them."""
    evaluate = workflow.nodes[node].evaluate
    every = evaluate.criteria if evaluate else ()
    return tuple(each.id for each in every if each.kind == "plain") or tuple(each.id for each in every)
