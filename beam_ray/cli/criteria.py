"""criteria: proposed by a model and tried on stored outputs, or checked for how reliable they are."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass

import click

import beam_ray
from beam_ray.cli.judge_reports import show_judge_report, show_variance
from beam_ray.cli.optimise import NO_PROPOSAL, refuse_options, show_tries
from beam_ray.cli.options import TAKEOVER, Place, grouped, runs_on_ray
from beam_ray.cli.screen import at_most, emit, number, plural, progress, show, table


@dataclass(frozen=True)
class Wanted:
    """What is done with which criteria."""

    workflow: str
    node: str | None
    generate: bool
    check_: bool
    repeats: int
    plan: bool


@dataclass(frozen=True)
class Which:
    """Which outputs are judged."""

    run_id: str | None
    outputs: int


@dataclass(frozen=True)
class Draft:
    """How criteria are proposed."""

    add: bool
    model: str | None
    to: str | None
    again: bool


@click.command()
@grouped(
    Wanted,
    "wanted",
    click.argument("workflow", metavar="WORKFLOW"),
    click.option("--node", metavar="NODE", help="Node to propose or check criteria for. With --check, default: all nodes with criteria."),
    click.option("--generate", is_flag=True, help="Propose criteria for the node, test them on stored outputs, and write a draft."),
    click.option("--check", "check_", is_flag=True, help="Judge stored outputs again: how often each criterion is met, and how reliable its judge is."),
    click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 10), help="With --check: how often each output is judged."),
    click.option("--plan", is_flag=True, help="Only show what models would be asked, and what that costs at most."),
)
@grouped(
    Which,
    "which",
    click.option("--run", "run_id", metavar="RUN", help="Run whose outputs are judged. Default: the newest run with enough of them."),
    click.option("--outputs", default=20, show_default=True, type=click.IntRange(min=1), help="How many outputs to judge."),
)
@grouped(
    Draft,
    "draft",
    click.option("--add", is_flag=True, help="With --generate: keep the existing criteria and add new ones."),
    click.option("--model", metavar="NAME", help="With --generate: proposing model. Default: the judge, or the step's own model."),
    click.option("--to", metavar="FILE", help="With --generate: path of the draft. Default: next to the original, with -criteria in its name."),
    click.option("--again", is_flag=True, help="With --generate: request new proposals instead of the stored ones."),
)
@TAKEOVER
@runs_on_ray
@click.pass_context
def criteria(context: click.Context, wanted: Wanted, which: Which, draft: Draft, takeover: bool, place: Place) -> None:
    """
    Propose criteria for a node of WORKFLOW, or check those that it has. No step is executed: stored outputs are judged.
    """
    if wanted.generate == wanted.check_ or (wanted.generate and not wanted.node):
        raise click.UsageError("write --generate --node NODE, or --check")
    others = {"add": "--add", "again": "--again", "model": "--model", "to": "--to"}
    refuse_options(context, others if wanted.check_ else {"repeats": "--repeats"}, "--generate" if wanted.check_ else "--check")
    outputs = beam_ray.Outputs(which.run_id, which.outputs)
    if wanted.plan and wanted.generate:
        how = beam_ray.CriteriaDraft(draft.add, draft.model, draft.to, draft.again)
        _show_proposal_plan(place.opened.plan_criteria_proposal(wanted.workflow, str(wanted.node), draft=how, outputs=outputs), place)
        return
    if wanted.plan:
        _show_plans(place.opened.plan_criteria(wanted.workflow, wanted.node, outputs=outputs, repeats=wanted.repeats), place)
        return
    with progress(quiet=place.as_json) as callback:
        if wanted.generate:
            how = beam_ray.CriteriaDraft(draft.add, draft.model, draft.to, draft.again)
            made = place.opened.propose_criteria(wanted.workflow, str(wanted.node), draft=how, outputs=outputs, takeover=takeover, progress=callback)
        else:
            checks = place.opened.criteria(wanted.workflow, wanted.node, outputs=outputs, repeats=wanted.repeats, takeover=takeover, progress=callback)
    if wanted.check_:
        _show_checks(checks, place)
        return
    if place.as_json:
        emit(made.document())
    else:
        _show_proposal(made, draft.add, wanted.workflow)
    context.exit(0 if made.draft or (any(not each.useless for each in made.criteria) and _in_store(wanted.workflow)) else NO_PROPOSAL)


def _in_store(workflow: str) -> bool:
    """Whether the name is that of a draft in the store, beside which no file is written."""
    _, at, rest = workflow.partition("@")
    return bool(at) and not rest.isdecimal()


def _show_proposal_plan(plan: beam_ray.CriteriaProposalPlan, place: Place) -> None:
    if place.as_json:
        emit(plan.document())
        return
    asked = "its answer is stored already" if plan.kept else f"at most {plural(plan.max_calls, 'call')}"
    show(f"{plan.node}: {plan.model} proposes criteria, {asked}")
    show(f"tried on {plural(plan.outputs, 'output')} of run {plan.run_id}: at most {plural(plan.judge_calls, 'judge call')}")
    show(f"cost: {at_most(plan.max_usd)}")


def _show_proposal(made: beam_ray.CriteriaProposal, add: bool, workflow: str) -> None:
    show(f"{made.workflow}/{made.node} · proposed by {made.model} · tried on {plural(made.outputs, 'output')} of run {made.run_id}")
    show_tries(made.tries)
    for text in made.dropped:
        show(f"  dropped: {' '.join(text.split())[:200]}")
    if made.criteria:
        show("criteria:")
    for one, written in zip(made.criteria, made.written, strict=True):
        text, rule = (written, "") if isinstance(written, str) else (written["text"], written["check"])
        show(f"  - {text or rule}")
        if text and rule:
            show(f"    computed: {rule}")
        show(f"    because: {one.reason}")
    if made.criteria:
        rows = [
            [one.text, one.kind, number(one.met_percent), _of(one.good), _of(one.bad), one.undecided or "", one.useless and f"useless: {one.useless}"]
            for one in made.criteria
        ]
        show(table(["criterion", "", "met %", "of good", "of bad", "undecided", ""], rows, right=[2, 3, 4, 5], width=70))
    if made.draft:
        show(f"draft:  {made.draft}   ({'with' if add else 'instead of'} the existing criteria)")
    elif any(not each.useless for each in made.criteria) and _in_store(workflow):
        show(f"{workflow} is a draft in the store and stays as it is; add one with:")
        show(f"  beam-ray draft set {workflow.partition(':')[0]} 'nodes.{made.node}.evaluate.criteria[N]=CRITERION'")
    elif made.criteria:
        show("every criterion is useless; there is no draft")
    else:
        show("no criterion can be used; --again asks again, --model NAME asks another model")


def _show_plans(plans: list[beam_ray.CriteriaPlan], place: Place) -> None:
    if place.as_json:
        emit([plan.document() for plan in plans])
        return
    rows = [[plan.node, plan.run_id, plan.outputs, plan.repeats, plan.reviewed or "", f"{plan.judge_calls:,}", at_most(plan.max_usd)] for plan in plans]
    show(table(["node", "run", "outputs", "times", "reviewed", "judge calls", "cost"], rows, right=[2, 3, 4, 5, 6]))
    show("at most: what was judged before is not judged again")


def _show_checks(checks: list[beam_ray.CriteriaCheck], place: Place) -> None:
    if place.as_json:
        emit([check.document() for check in checks])
        return
    for check in checks:
        times = f"{check.repeats} times" if check.repeats > 1 else "once"
        show(f"{check.node} · {plural(check.outputs, 'output')} of run {check.run_id}, judged {times}")
        rows = [
            [
                one.text,
                number(one.met_percent),
                one.undecided or "",
                f"{one.same}/{one.repeated}" if one.repeated else "",
                number(one.agreement, 2) if one.agreement is not None else one.agreement_note,
                number(one.expected, 2) if one.expected is not None else one.expected_note,
                one.labelled or "",
                one.useless,
            ]
            for one in check.criteria
        ]
        show(table(["criterion", "met %", "undecided", "same", "kappa", "expected", "of", ""], rows, right=[1, 2, 3, 4, 5, 6], width=60))
        if check.variance:
            show_variance(check.variance)
        for report in check.judges:
            show()
            show_judge_report(report)
    show("kappa: agreement of the judge with itself (Fleiss); expected: with the task's expected outcome (Cohen). 1 is perfect, 0 is chance")


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]}/{counts[1]}" if counts[1] else ""
