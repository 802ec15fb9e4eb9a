"""flips and prove: which tasks of a backtest flipped, where the sides part, and whether that node made them flip."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass

import click

import beam_ray
from beam_ray.cli.options import Execution, Place, executes, grouped, reads_store, runs_in_lane
from beam_ray.cli.plans import plan_table, totals
from beam_ray.cli.screen import at_most, emit, plural, progress, show, table

SHOWN = 20
_CANDIDATE = click.option("--candidate", metavar="NAME", help="Candidate. Default: the best one.")


@dataclass(frozen=True)
class Which:
    """Which flipped tasks."""

    candidate: str | None
    group: str
    node: str | None
    tasks: tuple[str, ...]

    @property
    def chosen(self) -> beam_ray.FlippedTasks:
        """The tasks as the API takes them."""
        return beam_ray.FlippedTasks(self.candidate, self.group, self.node, self.tasks)

    def words(self, backtest: str) -> str:
        """The options as they are typed."""
        words = [backtest, *(["--candidate", self.candidate] if self.candidate else []), *(["--group", self.group] if self.group != "newly-failing" else [])]
        words += ["--node", self.node] if self.node else []
        return " ".join([*words, *(word for task in self.tasks for word in ("--task", task))])


@click.command()
@click.argument("backtest")
@_CANDIDATE
@reads_store
def flips(backtest: str, candidate: str | None, place: Place) -> None:
    """List the tasks of BACKTEST that flipped, grouped by the node where the sides part, the criteria and the route."""
    verdict = place.opened.verdict(backtest)
    pairs = verdict.pairs_of(candidate)
    if place.as_json:
        emit(pairs.group_documents())
        return
    counts = pairs.counts
    show(f"{pairs.candidate.name} of {verdict.id}: {plural(counts['newly failing'], 'task')} newly failing, {counts['newly passing']} newly passing")
    rows, marks = [], pairs.marks_by_group()
    for group in pairs.groups:
        criteria = "unknown" if group.criteria is None else ", ".join(group.criteria) or "none"
        route = "" if group.routes is None else " => ".join(" > ".join(side) or "none" for side in group.routes)
        rows.append([group.id, group.flip, group.pairs, group.node or "only scores", criteria, route, ", ".join(group.tasks[:3])])
        if marks:
            rows[-1].append(", ".join(f"{count} {mark}" for mark, count in marks.get(group.id, {}).items()))
    if rows:
        heads = ["group", "flip", "pairs", "parts at", "criteria that changed", "route", "tasks", *(["marks"] if marks else [])]
        show(table(heads, rows, right=[2], width=60))
    if counts["newly failing"]:
        show(f"which node made them flip:  beam-ray prove {verdict.id} --plan{place.option}")


@click.command()
@click.argument("backtest")
@grouped(
    Which,
    "which",
    _CANDIDATE,
    click.option("--group", default="newly-failing", show_default=True, metavar="GROUP", help="newly-failing, newly-passing, or a group that flips lists."),
    click.option("--node", metavar="NODE", help="Only tasks whose sides part first at this node."),
    click.option("--task", "tasks", multiple=True, metavar="ID", help="Only this task."),
)
@click.option("--control", is_flag=True, help="Also run the tasks with the candidate's own output pinned, to measure chance.")
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would be done and what it would cost.")
@executes
@runs_in_lane
def prove(backtest: str, which: Which, control: bool, only_plan: bool, execution: Execution, place: Place) -> None:
    """
    Run flipped tasks of BACKTEST again with the baseline's output pinned where the sides part.

    A task that then has the baseline's result was flipped by the output of that node. Only the steps after it are
    executed; tools that write are not called. Tasks that were tried before are not run again.
    """
    if only_plan:
        plan = place.opened.plan_prove(backtest, which.chosen, control=control)
        if place.as_json:
            emit(plan.document())
        else:
            _show_plan(plan)
        return
    with progress(quiet=place.as_json) as callback:
        proof = place.opened.prove(backtest, which.chosen, control=control, budget=execution.limits, takeover=execution.takeover, progress=callback)
    if place.as_json:
        emit(proof.document())
    else:
        _show(proof, which, place)


def _show_plan(plan: beam_ray.ProofPlan) -> None:
    show(f"{plan.candidate} of {plan.backtest}: {plural(plan.tasks, 'flipped task')}, {plan.known} tried before, {len(plan.barred)} cannot be pinned")
    for each in plan.experiments:
        whose = "the baseline's" if each.arm == "pinned" else "control: the candidate's own"
        show(f"{plural(each.plan.tasks.num_rows, 'task')}, {whose} output pinned at {each.node}")
        show(plan_table(each.plan))
        show(totals(each.plan))
    if len(plan.experiments) > 1:
        show(f"in all: {plural(plan.calls, 'model call')}, {at_most(plan.max_usd)}")
    if not plan.experiments:
        show("there is nothing to run")
    _show_barred([(task, why) for task, why in plan.barred])


def _show_barred(barred: list[tuple[str, str]]) -> None:
    for task, why in barred[:SHOWN]:
        show(f"  {task} cannot be pinned: {why}")
    if len(barred) > SHOWN:
        show(f"  … and {len(barred) - SHOWN} more")


def _show(proof: beam_ray.Proof, which: Which, place: Place) -> None:
    show(f"{proof.candidate} of {proof.backtest}: {plural(len(proof.tasks), 'task')} that are {proof.flip}")
    tried = [each for each in proof.tasks if each.tried]
    rows = []
    for each in tried[:SHOWN]:
        control = "" if each.control is None else "passes" if each.control else "fails"
        rows.append([each.task, each.node, each.executed, each.result, control, str(each.address)])
    if rows:
        show(table(["task", "pinned at", "steps after it", "result", "control", "address"], rows, right=[2]))
    if len(tried) > SHOWN:
        show(f"  … and {len(tried) - SHOWN} more (--json has them all)")
    _show_barred([(each.task, each.why) for each in proof.tasks if each.why])
    for sentence in proof.sentences:
        show(sentence)
    if tried and not any(each.control is not None for each in tried):
        show(f"measure chance:  beam-ray prove {which.words(proof.backtest)} --control{place.option}")
