"""optimise: a better prompt for a failed step, or a search over a library."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
from click.core import ParameterSource

import beam_ray
from beam_ray.cli.backtests import log_to_mlflow
from beam_ray.cli.options import MLFLOW, Execution, Place, executes, grouped, runs_on_ray
from beam_ray.cli.screen import clean, emit, money, number, plural, progress, say, show, table

NO_PROPOSAL = 5
"""Exit code where nothing came that can be used, or that was shown to be better."""


@dataclass(frozen=True)
class Wanted:
    """What is to be improved."""

    subject: str
    node: str | None
    library: str | None


@dataclass(frozen=True)
class Proposing:
    """Who proposes, and where the draft goes."""

    model: str | None
    using: str | None
    to: str | None
    draft: str | None
    apply_: bool
    again: bool
    only_plan: bool
    proposal: int | None


@dataclass(frozen=True)
class Searching:
    """How prompts are searched for."""

    nodes: tuple[str, ...]
    rounds: int
    seed: int
    cluster: str | None


@click.command()
@grouped(
    Wanted,
    "wanted",
    click.argument("subject", metavar="TASK|WORKFLOW"),
    click.option("--step", "node", metavar="NODE", help="With TASK: the failed step whose prompt is improved."),
    click.option("--library", metavar="NAME[@V]", help="With WORKFLOW: search its prompts on the tasks of this library."),
)
@grouped(
    Searching,
    "searching",
    click.option("--node", "nodes", multiple=True, metavar="NODE", help="With --library: only the prompt of this node. Default: all nodes that fail."),
    click.option("--rounds", default=20, show_default=True, type=click.IntRange(min=1), help="With --library: maximum number of proposals."),
    click.option("--seed", default=0, show_default=True, help="With --library: seed of the search."),
    click.option("--cluster", metavar="FIELD", help="With --library: tasks with the same FIELD, such as variables.customer, stay on one side of the split."),
)
@grouped(
    Proposing,
    "proposing",
    click.option("--model", metavar="NAME", help="Proposing model. Default: the judge, or the step's own model."),
    click.option("--using", metavar="FILE", help="With TASK: workflow file, if no file in the folder of the run's tools has its definition."),
    click.option("--to", metavar="FILE", help="Path of the draft. Default: next to the original, with -draft in its name."),
    click.option("--draft", metavar="NAME", help="With TASK: keep the proposed prompt in the store as WORKFLOW@NAME instead of a file."),
    click.option("--apply", "apply_", is_flag=True, help="With TASK: write the draft, rerun the step and what follows, show scores before and after."),
    click.option("--again", is_flag=True, help="With TASK: request a new proposal instead of the stored one."),
    click.option("--plan", "only_plan", is_flag=True, help="With TASK: only show which model would be asked, and what that costs."),
    click.option("--proposal", metavar="N", type=click.IntRange(min=1), help="With TASK: the kept proposal number N; no model is asked for one."),
)
@MLFLOW
@executes
@runs_on_ray
@click.pass_context
def optimise(
    context: click.Context, wanted: Wanted, searching: Searching, proposing: Proposing, mlflow_uri: str | None, execution: Execution, place: Place
) -> None:
    """
    Propose a better prompt: for the failed --step of TASK, or for WORKFLOW, searched over a --library.

    Nothing is published and no file is changed; the result is a draft.
    """
    if bool(wanted.node) == bool(wanted.library):
        raise click.UsageError("name the failed step (optimise TASK --step NODE) or a library (optimise WORKFLOW --library NAME)")
    others = {"nodes": "--node", "budget": "--budget", "rounds": "--rounds", "seed": "--seed", "cluster": "--cluster", "mlflow_uri": "--mlflow"}
    refuse_options(context, others if wanted.node else _OF_A_STEP, "--library" if wanted.node else "--step")
    if wanted.node:
        context.exit(_optimise_step(wanted.subject, wanted.node, proposing, execution, place))
    context.exit(_search(wanted, searching, proposing, execution, mlflow_uri, place))


_OF_A_STEP = {"using": "--using", "apply_": "--apply", "again": "--again", "only_plan": "--plan", "proposal": "--proposal", "draft": "--draft"}


def refuse_options(context: click.Context, options: Mapping[str, str], wanted: str) -> None:
    """Refuse *options*, parameter to option, that mean nothing without *wanted*: whoever gives one relies on it."""
    for parameter, option in options.items():
        if context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} goes with {wanted}")


def _optimise_step(subject: str, node: str, proposing: Proposing, execution: Execution, place: Place) -> int:
    if proposing.proposal and (proposing.again or proposing.model or proposing.only_plan):
        raise click.UsageError("--proposal names one that is kept; leave out --again, --model and --plan")
    if proposing.only_plan:
        return _show_plan(place.opened.plan_optimise(subject, node, model=proposing.model, again=proposing.again), place)
    if proposing.draft and (proposing.using or proposing.to):
        raise click.UsageError("--draft keeps the prompt in the store; leave out --using and --to")
    draft = None
    if proposing.apply_ or proposing.draft:
        draft = proposing.draft or beam_ray.DraftFile(proposing.using, proposing.to)
    made = place.opened.optimise(subject, node, model=proposing.model, again=proposing.again, proposal=proposing.proposal, draft=draft)
    if made.held_out:
        say(made.held_out)
    if not place.as_json:
        _show_proposal(made)
    if made.workflow is None or draft is None:
        if place.as_json:
            emit(made.document())
        elif made.workflow:
            show(f"try it:  beam-ray optimise {subject} --step {node} --apply{place.option}")
        return 0 if made.workflow else NO_PROPOSAL
    if not proposing.apply_:
        saved = made.save_draft(str(proposing.draft))
        if place.as_json:
            emit({**made.document(), "draft": saved.reference})
            return 0
        show(f"draft:      {saved.reference}")
        show(f"try it:     beam-ray rerun {made.step.rpartition('/')[0]} --from {node} --using {saved.reference}{place.option}")
        return 0
    with progress(quiet=place.as_json) as callback:
        found = made.apply(takeover=execution.takeover, progress=callback)
    if place.as_json:
        emit(found.document())
        return 0
    _show_applied(found)
    show(f"draft:      {found.draft}")
    show(f"show step:  beam-ray show {found.after.address}{place.option}")
    show("one task proves nothing: backtest the draft before you publish it")
    return 0


def _show_plan(plan: beam_ray.OptimisePlan, place: Place) -> int:
    if place.as_json:
        emit(plan.document())
    elif plan.kept:
        show(f"{plan.step} · the answer of {plan.model} is stored, so the proposal costs nothing")
    else:
        show(f"{plan.step} · would ask {plan.model} once, at most {plan.max_calls} times")
        tokens = f"about {plan.input_tokens:,} input tokens and at most {plan.max_output_tokens:,} output tokens per call"
        show(f"  {tokens}; {'unpriced' if plan.max_usd is None else f'{money(plan.max_usd)} at most'}")
    return 0


def _show_proposal(made: beam_ray.PromptProposal) -> None:
    show(f"{made.step} · proposed by {made.model}")
    show_tries(made.tries)
    if made.workflow is None:
        show("no proposal can be used; --again asks again, --model NAME asks another model")
        return
    show("weaknesses of the prompt:")
    for text in made.weaknesses:
        show(f"  - {text}")
    show("changes:")
    for change, reason in made.changes:
        show(f"  - {change}")
        show(f"    because: {reason}")
    _show_diff(made.diff)


def _show_diff(changes: Sequence[beam_ray.Change]) -> None:
    for change in changes:
        show(f"{change}:")
        for line in change.text_diff.splitlines():
            show(f"  {line}")


def _show_applied(found: beam_ray.AppliedProposal) -> None:
    before, after, numbers = found.before, found.after, found.run.summary
    show()
    task = found.proposal.step.split("/")[1]
    rows = [
        [f"step {after.node}", number(before.score), number(after.score), _word(before.score, after.score)],
        [f"task {task}", number(found.task_before), number(found.task_after), _word(found.task_before, found.task_after)],
    ]
    met = [{item.id: item.met for item in step.criteria} for step in (before, after)]
    marks = {True: "met", False: "NOT MET", None: "undecided"}
    rows += [[f"  {name}", marks[met[0].get(name)], marks[met[1].get(name)], ""] for name in dict.fromkeys([*met[0], *met[1]])]
    show(table(["", "before", "after", ""], rows, right=[1, 2]))
    for step, side in ((before, "before"), (after, "after")):
        said = f"{step.error_type}: {step.error}" if step.error else step.record["output"]
        show(f"  {side}: {' '.join(clean(str(said)).split())[:300]}")
    executed, asked = plural(numbers["steps_done"], "step"), plural(numbers["calls"], "model call")
    show(f"  {executed} executed, {numbers['steps_borrowed']} borrowed, {asked}, {money(numbers['usd'])}")


def _word(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "cannot be compared"
    return "better" if after > before else "worse" if after < before else "no better"


def _search(wanted: Wanted, searching: Searching, proposing: Proposing, execution: Execution, mlflow_uri: str | None, place: Place) -> int:
    options = beam_ray.SearchOptions(searching.nodes, proposing.model, searching.rounds, searching.seed, proposing.to, searching.cluster)
    with progress(quiet=place.as_json) as callback:
        done = place.opened.search_prompts(
            wanted.subject, str(wanted.library), options=options, budget=execution.limits, takeover=execution.takeover, progress=callback
        )
    if place.as_json:
        emit(done.document())
    else:
        _show_search(done, place)
    log_to_mlflow(done.id, mlflow_uri, place)
    return 0 if done.accepted else NO_PROPOSAL


def _show_search(done: beam_ray.PromptSearch, place: Place) -> None:
    found = done.found
    show(f"{done.id} · search set {plural(done.tasks, 'task')}, holdout set {plural(done.held_out, 'task')}")
    rows = []
    for one, score in zip(found.candidates, found.scores, strict=True):
        note = "best" if one is found.best else ""
        if score is None:
            note = f"only tried on {plural(len(one.tried), 'task')}" if one.tried else "not tried"
        rows.append([one.name, number(score), note])
    show(table(["prompts", "score", ""], rows, right=[1]))
    for text in found.refused:
        show(f"  refused: {' '.join(text.split())[:200]}")
    show(f"  {found.ended}")
    show(f"  cost of the search: {_cost(found.paid.calls, found.paid.input_tokens + found.paid.output_tokens, found.paid.usd)}")
    if found.best is None or found.verdict is None:
        show("no prompt did better on the search set; there is no draft, and the holdout set was not used")
        return
    _show_diff(done.diff)
    comparison = found.verdict["candidates"][0]["comparison"]
    metric = next(entry for entry in comparison["metrics"] if entry["name"] == "score")
    show(f"on the holdout set ({plural(done.held_out, 'task')}): score {number(metric['before'])} -> {number(metric['after'])}")
    change, low, high = (f"{metric[name]:+.1f}" if metric[name] is not None else "-" for name in ("change", "low", "high"))
    again = f"; draft number {found.tests + 1} on this holdout set" if found.tests else ""
    show(f"  change {change}, {comparison['confidence']:g}% confidence interval {low} … {high}{again}")
    held = found.paid_held_out
    show(f"  cost: {_cost(held.calls, held.input_tokens + held.output_tokens, held.usd)}")
    if done.draft:
        show(f"accepted: the whole interval is above 0. Draft: {done.draft}")
        show(f"publish it:  beam-ray publish {done.draft} --evidence {done.evidence}{place.option}")
    else:
        show("not accepted: the interval is not above 0, so the gain may be chance. No draft was written")
    show(f"evidence:    beam-ray report {done.evidence}{place.option}")


def _cost(calls: int, tokens: int, usd: float | None) -> str:
    return f"{plural(calls, 'call')}, {tokens:,} tokens, {money(usd)}"


def show_tries(tries: Sequence[beam_ray.ModelTry]) -> None:
    """Each answer of a proposing model, what it cost, and why it was refused."""
    for index, one in enumerate(tries, 1):
        paid = "from the store, not paid again" if one.from_store else "paid now"
        show(f"  try {index}: {_cost(one.calls, one.tokens, one.usd)} ({paid})")
        for line in f"refused: {one.refused}".splitlines() if one.refused else []:
            show(f"    {line}")
