"""optimise: a proposal of a model, tried out before anyone believes it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from beam_ray.address import Address
from beam_ray.cli.engine import limits_of, probe_models
from beam_ray.cli.screen import Meter, clean, emit, existing, model_options, money, number, run_options, say, show, store_options, store_words, table
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Stopped, TrackingUnavailable, Unusable
from beam_ray.llm.settings import ModelSettings, load_models
from beam_ray.store.lookup import find_task
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run

if TYPE_CHECKING:
    from beam_ray.improve.model_query import Try
    from beam_ray.improve.search_result import Candidate, Found
    from beam_ray.llm.usage import Usage

NO_PROPOSAL = 5
"""The exit code where nothing came that can be used, or that was shown to be better."""


@click.command()
@click.argument("subject", metavar="TASK|WORKFLOW")
@click.option("--step", "node", metavar="NODE", help="With TASK: the failed step whose prompt is to be improved.")
@click.option("--library", metavar="NAME[@V]", help="With WORKFLOW: search over its prompts on the tasks of this library.")
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="With --library: only the prompt of this node; default: of all nodes that fail.")
@click.option("--model", metavar="NAME", help="Who proposes; default: the judge, or the step's own model.")
@click.option("--using", metavar="FILE", help="With TASK: the workflow file, where none beside the run's tools says what was run.")
@click.option("--to", metavar="FILE", help="Where the draft goes; default: beside the original, with -draft in its name.")
@click.option("--apply", "apply_", is_flag=True, help="With TASK: write the draft, rerun the step and all after it, show both scores.")
@click.option("--again", is_flag=True, help="With TASK: ask for another proposal than the kept one.")
@click.option("--budget", multiple=True, metavar="LIMIT=VALUE", help="With --library: max_usd, max_tokens or max_calls; for search and hold-out together.")
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(min=1), help="With --library: proposals at most.")
@click.option("--seed", default=0, show_default=True, help="With --library: another number is another search.")
@click.option("--mlflow", "mlflow_uri", envvar="MLFLOW_TRACKING_URI", metavar="URI", help="With --library: where to show it; 'none' for nowhere.")
@run_options
@model_options
@store_options
@click.pass_context
def optimise(context: click.Context, /, subject: str, node: str | None, library: str | None, **how: Any) -> None:
    """
    Propose a better prompt: for the failed --step of TASK, or for WORKFLOW, searched over a --library.

    Nothing is published, and no file is changed: what comes of it is a draft.
    """
    if bool(node) == bool(library):
        raise click.UsageError("name the failed step (optimise TASK --step NODE) or a library (optimise WORKFLOW --library NAME)")
    others = {"nodes": "--node", "budget": "--budget", "rounds": "--rounds", "seed": "--seed", "mlflow_uri": "--mlflow"}
    refuse_options(context, others if node else {"using": "--using", "apply_": "--apply", "again": "--again"}, "--library" if node else "--step")
    known = load_models(Path(how["models"]))
    if node:
        context.exit(_optimise_step(subject, node, known, how))
    context.exit(_search(subject, str(library), known, how))


def refuse_options(context: click.Context, options: Mapping[str, str], wanted: str) -> None:
    """Refuse *options*, parameter to option, that say nothing without *wanted*: who gives one relies on it."""
    for parameter, option in options.items():
        if context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} goes with {wanted}")


def _optimise_step(subject: str, node: str, models: Mapping[str, ModelSettings], how: Mapping[str, Any]) -> int:
    from beam_ray.improve.drafts import file_of, load_same, require_place
    from beam_ray.improve.execute_plan import Player
    from beam_ray.improve.model_query import Asker
    from beam_ray.improve.optimise import apply, failure_of, propose
    from beam_ray.rerun import require_start

    objects, store, as_json = existing(how["store"]), how["store"], how["as_json"]
    task = find_task(objects, subject)
    address = Address(task.run, task.task, task.trial, node)
    failure = failure_of(objects, address)
    origin = Run(objects, address.run)
    workflow = origin.record.plan
    file = place = None
    if how["apply_"]:
        file = file_of(workflow, how["using"])
        workflow = load_same(file, workflow, node)
        place = require_place(file, how["to"], "draft")
        require_start(origin, workflow, node, [address.task])
    proposer = proposer_of(models, how["model"], workflow, node)
    ask = Asker(objects, proposer, models[proposer], again=how["again"])
    made = propose(ask, workflow, node, [failure], file=file)
    document: dict[str, Any] = {
        "step": str(address),
        "model": proposer,
        "weaknesses": list(made.weaknesses),
        "changes": [{"change": change, "reason": reason} for change, reason in made.changes],
        "prompt": list(made.turns),
        "tries": [vars(one) for one in made.tries],
    }
    if not as_json:
        _show_proposal(address, workflow, node, proposer, made)
    if made.workflow is None:
        emit(document) if as_json else None
        return NO_PROPOSAL
    if file is None or place is None:
        if as_json:
            emit(document)
        else:
            show(f"try it:  beam-ray optimise {subject} --step {node} --apply{store_words(store)}")
        return 0
    probe_models(models, made.workflow)
    with executing(how) as execute:
        found = apply(objects, address, made, file, place, Player(objects, models, execute))
    if as_json:
        after = {"run_id": found.run_id, **{f"{name}_{side}": value for name, side, value in _scores(found)}}
        emit({**document, "draft": str(found.draft), "rerun": after})
        return 0
    _show_outcome(address, found, Run(objects, found.run_id))
    show(f"the draft:  {found.draft}")
    show(f"look at it: beam-ray show {found.run_id}/{address.task} --step {node}{store_words(store)}")
    show("one task proves nothing: backtest the draft before it is published")
    return 0


def proposer_of(models: Mapping[str, Any], name: str | None, workflow: Workflow, node: str) -> str:
    """The model that proposes: the one named, the judge's, or the step's own; it must answer before anything is spent."""
    from beam_ray.errors import did_you_mean
    from beam_ray.llm.model import probe

    name = name or workflow.judge_of(node) or workflow.judge or workflow.model_of(node) or workflow.model
    if not name or name not in models:
        raise Unusable(
            "\n  ".join([f"the models file has no {name!r} to propose with", f"it has: {', '.join(models)}", *did_you_mean(str(name), models), "--model NAME"])
        )
    if isinstance(models[name], ModelSettings):
        probe(models[name], name)
    return name


@contextlib.contextmanager
def executing(how: Mapping[str, Any]) -> Iterator[Any]:
    """What brings runs to their end, all on one Ray, which is started when the first of them needs it."""
    from beam_ray.run.connection import Connection
    from beam_ray.run.execute import execute

    with contextlib.closing(Connection(how["address"])) as connection:

        def one(objects: Objects, record: Any, models: Mapping[str, Any], **more: Any) -> Any:
            meter = Meter(f"run {record.run_id}", quiet=how["as_json"])
            try:
                return execute(objects, record, models, connection=connection, takeover=how["takeover"], progress=meter)
            finally:
                meter.done()

        yield one


def _show_proposal(address: Address, workflow: Workflow, node: str, proposer: str, made: Any) -> None:
    show(f"{address} · proposed by {proposer}")
    show_tries(made.tries)
    if made.workflow is None:
        show("no proposal can be used; --again asks anew, --model NAME asks another model")
        return
    show("weaknesses of the prompt:")
    for text in made.weaknesses:
        show(f"  - {text}")
    show("changes:")
    for change, reason in made.changes:
        show(f"  - {change}")
        show(f"    because: {reason}")
    show_diff(workflow, made.workflow)


def show_diff(before: Workflow, after: Workflow) -> None:
    """What differs, line by line."""
    from beam_ray.define.diff import changes

    for change in changes(before, after):
        show(f"{change}:")
        for line in change.text_diff.splitlines():
            show(f"  {line}")


def _scores(found: Any) -> list[tuple[str, str, float | None]]:
    return [
        ("step", "before", found.before["score"]),
        ("step", "after", found.after["score"]),
        ("task", "before", found.task_before),
        ("task", "after", found.task_after),
    ]


def _show_outcome(address: Address, found: Any, rerun: Run) -> None:
    from beam_ray.compare.formatting import plural

    assert rerun.manifest
    usage = rerun.manifest["usage"]
    show()
    rows = [
        [f"step {address.node}", number(found.before["score"]), number(found.after["score"]), _word(found.before["score"], found.after["score"])],
        [f"task {address.task}", number(found.task_before), number(found.task_after), _word(found.task_before, found.task_after)],
    ]
    met = [{item["id"]: item["met"] for item in row["criteria"] or ()} for row in (found.before, found.after)]
    marks = {True: "met", False: "NOT MET", None: "open"}
    rows += [[f"  {name}", marks[met[0].get(name)], marks[met[1].get(name)], ""] for name in dict.fromkeys([*met[0], *met[1]])]
    show(table(["", "before", "after", ""], rows, right=[1, 2]))
    for row, side in ((found.before, "before"), (found.after, "after")):
        said = f"{row['error_type']}: {row['error']}" if row["error"] else row["output"]
        show(f"  {side}: {' '.join(clean(str(said)).split())[:300]}")
    executed, asked = plural(usage["steps_done"], "step"), plural(usage["calls"], "model call")
    show(f"  {executed} executed, {usage['steps_borrowed']} borrowed, {asked}, {money(usage['usd'])}")


def _word(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "cannot be compared"
    return "better" if after > before else "worse" if after < before else "no better"


def _search(subject: str, name: str, models: Mapping[str, ModelSettings], how: Mapping[str, Any]) -> int:
    from beam_ray.improve.drafts import require_place, write_draft
    from beam_ray.improve.execute_plan import Player
    from beam_ray.improve.model_query import Asker
    from beam_ray.improve.search import Search
    from beam_ray.improve.search_tracking import tell_search
    from beam_ray.run.plan import load_workflow
    from beam_ray.store.libraries import library_at
    from beam_ray.tracking import default_uri

    objects, store, as_json = existing(how["store"]), how["store"], how["as_json"]
    file = workflow_file(objects, subject)
    place = require_place(file, how["to"], "draft")
    workflow, warnings = load_workflow(file)
    for warning in warnings:
        say(str(warning))
    library, version = library_at(objects, name), _version(objects, workflow, file)
    asking = next((node for node in workflow.order if workflow.nodes[node].llm), None)
    if asking is None:
        raise Unusable(f"{file}: no step of {workflow.name!r} has a prompt")
    proposer = proposer_of(models, how["model"], workflow, asking)
    budget = limits_of(how["budget"])
    probe_models(models, workflow)
    with executing(how) as execute:
        search = Search(
            objects,
            workflow,
            file,
            library,
            models,
            Player(objects, models, execute),
            Asker(objects, proposer, models[proposer]),
            budget,
            version=version,
            nodes=how["nodes"],
            rounds=how["rounds"],
            seed=how["seed"],
            say=say,
        )
        try:
            found = search.run()
        except Stopped as error:
            error.resume = "the same command"
            raise
    draft = write_draft(place, search.draft(found.best)) if found.accepted and found.best else None
    if as_json:
        emit({**found.document(), "draft": str(draft) if draft else None})
    else:
        _show_search(found, workflow, draft, store)
    if how["mlflow_uri"] != "none":
        try:
            logged = tell_search(objects, found.document(), how["mlflow_uri"] or default_uri(store))
            say(f"MLflow:           {logged.url}" + ("" if how["mlflow_uri"] else f"   (beam-ray ui{store_words(store)}  opens it)"))
        except TrackingUnavailable as error:
            say(f"warning: {error}")
    return 0 if found.accepted else NO_PROPOSAL


def workflow_file(objects: Objects, written: str) -> Path:
    """
    The workflow file that is named, or the one that a published ``NAME`` or ``NAME@VERSION`` was made from.

    Raises:
        Unusable: there is none; a draft is made from a file.
    """
    from beam_ray.improve.drafts import file_of
    from beam_ray.publish import find_workflow

    file, version = find_workflow(objects, written)
    if file:
        return Path(written)
    assert version
    try:
        return file_of(version.plan, None)
    except Unusable:
        raise Unusable(f"no file here says what version {version.version} of {version.workflow!r} says\n  name the file: the draft lies beside it") from None


def _version(objects: Objects, workflow: Workflow, file: Path) -> int | None:
    """The published version that the workflow is; a draft can only be published on evidence against the current one."""
    from beam_ray.publish import current

    latest = current(objects, workflow.name)
    if latest and latest.digest != workflow.digest:
        raise Unusable(
            f"{file} is not version {latest.version} of {workflow.name!r}, which is published: evidence against it would be of no use\n"
            f"  beam-ray diff {workflow.name} {file}  shows what differs"
        )
    return latest.version if latest else None


def _show_search(found: "Found", workflow: Workflow, draft: Path | None, store: str) -> None:
    where = store_words(store)
    show(f"{found.search_id} · {found.tasks} tasks searched on, {found.held} held out")
    rows = [[one.name, number(score), _how_far(found, one, score)] for one, score in zip(found.candidates, found.scores, strict=True)]
    show(table(["prompts", "score", ""], rows, right=[1]))
    for text in found.refused:
        show(f"  refused: {' '.join(text.split())[:200]}")
    show(f"  {found.ended}")
    show(f"  the search took {_cost(found.paid)}")
    if found.best is None or found.verdict is None:
        show("no prompt did better on the search tasks; there is no draft, and the held-out tasks were not touched")
        return
    show_diff(workflow, found.best.workflow)
    from beam_ray.compare.formatting import amount

    comparison = found.verdict["candidates"][0]["comparison"]
    metric = next(entry for entry in comparison["metrics"] if entry["name"] == "score")
    show(f"on the {found.held} held-out tasks: score {number(metric['before'])} -> {number(metric['after'])}")
    change, low, high = (amount(metric[name], "points", signed=True) for name in ("change", "low", "high"))
    again = f"; draft number {found.tests + 1} on these tasks" if found.tests else ""
    show(f"  change {change}, {comparison['confidence']:g} % interval {low} … {high}{again}")
    show(f"  this took {_cost(found.paid_held_out)}")
    evidence = found.verdict["backtest_id"]
    if draft:
        show(f"accepted: the whole interval is above 0. The draft: {draft}")
        show(f"publish it:   beam-ray publish {draft} --evidence {evidence}{where}")
    else:
        show("not accepted: the interval is not above 0, so it may have been luck. No draft is written")
    show(f"the evidence: beam-ray report {evidence}{where}")


def _how_far(found: "Found", one: "Candidate", score: float | None) -> str:
    if score is not None:
        return "best" if one is found.best else ""
    return f"only tried on {len(one.tried)} tasks" if one.tried else "not tried"


def _cost(paid: "Usage | Try") -> str:
    from beam_ray.compare.formatting import plural

    return f"{plural(paid.calls, 'call')}, {paid.input_tokens + paid.output_tokens:,} tokens, {money(paid.usd)}"


def show_tries(tries: "Sequence[Try]") -> None:
    """Each answer, what it cost, and why it was refused."""
    for index, one in enumerate(tries, 1):
        paid = "kept from before, not paid again" if one.kept else "paid now"
        show(f"  try {index}: {_cost(one)} ({paid})")
        for line in f"refused: {one.refused}".splitlines() if one.refused else []:
            show(f"    {line}")
