"""Today's judge beside what people said: the outputs that they reviewed are judged again, where that has not been done."""

from collections.abc import Mapping, Sequence

from beam_ray.address import Address, parse
from beam_ray.define.criterion import Criterion
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Damaged, Unusable
from beam_ray.improve.criteria import criteria_of, present_criteria, rescoring_plan
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.review.judge_report import JudgeReport, report_of
from beam_ray.review.reviewed import judged_in
from beam_ray.review.sample import DRAWN
from beam_ray.review.version import criterion_version, judge_version, output_digest
from beam_ray.run.context import RAN
from beam_ray.run.plan import Plan
from beam_ray.store.objects import Objects
from beam_ray.store.review_table import ReviewRow
from beam_ray.store.reviews import newest_reviews
from beam_ray.store.runs import Run

Reviewed = Mapping[str, Sequence[ReviewRow]]
"""Id of a criterion to the reviews of its present version."""


def reviews_of(objects: Objects, workflow: Workflow, node: str) -> dict[str, list[ReviewRow]]:
    """The reviews of the node's criteria as they are now; those of other wordings are of other questions."""
    rows = [row for row in newest_reviews(objects, workflow.name) if row["node"] == node]
    found = {each.id: [row for row in rows if row["criterion_version"] == criterion_version(each)] for each in criteria_of(workflow, node)}
    return {name: said for name, said in found.items() if said}


def plans_of(executor: PlanExecutor, workflow: Workflow, node: str, reviewed: Reviewed) -> list[Plan]:
    """What judges the reviewed outputs by the node's criteria: one plan per run that they are of. Runs that cannot be read are left out."""
    tasks: dict[str, dict[str, None]] = {}
    for row in (row for rows in reviewed.values() for row in rows):
        address = parse(row["address"])
        tasks.setdefault(address.run, {})[address.task] = None
    plans = []
    for run_id, names in tasks.items():
        run = Run(executor.objects, run_id)
        try:
            if run.finished and node in run.record.plan.nodes:
                plans.append(rescoring_plan(executor, run, node, present_criteria(workflow, node), list(names), source=workflow))
        except (Unusable, Damaged):
            continue
    return plans


def reports_of(executor: PlanExecutor, workflow: Workflow, node: str, reviewed: Reviewed) -> list[JudgeReport]:
    """
    The workflow's judges beside what people said, per criterion of the node.

    Raises:
        Stopped: Interrupted; the same call resumes.
    """
    runs = [executor(plan) for plan in plans_of(executor, workflow, node, reviewed)]
    criteria = {each.id: each for each in criteria_of(workflow, node)}
    return [_report(executor.objects, runs, node, criteria[name], rows) for name, rows in reviewed.items() if runs]


def _report(objects: Objects, runs: Sequence[Run], node: str, criterion: Criterion, rows: Sequence[ReviewRow]) -> JudgeReport:
    words: dict[tuple[str, str], bool] = {}
    judge: str | None = None
    for run in runs:
        for row in run.steps([node]).to_pylist():
            said = next((entry for entry in row["criteria"] or () if entry["id"] == criterion.id), None)
            if said and said["met"] is not None and row["outcome"] in RAN and row["trial"] == 1:
                words[str(Address(str(run.record.origin), row["task_id"], 1, node)), output_digest(row["output"])] = said["met"]
                judge = said["judge"]
    version = judge_version(runs[-1].record, node, criterion)
    judged = None
    if all(row["judge_version"] == version for row in rows):
        # the judge has not changed, so it has judged all outputs of the reviewed runs
        judged = judged_in(objects, [parse(row["address"]).run for row in rows if row["drawn"] in DRAWN], node, criterion.id)
    return report_of(rows, judged=judged, words=words, judge=(judge, version))
