"""criteria: proposed by a model and tried on stored outputs, or checked for what they tell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beam_ray.cli.engine import probe_models, workflow_of
from beam_ray.cli.optimise import NO_PROPOSAL, executing, proposer_of, refuse_options, show_tries, workflow_file
from beam_ray.cli.screen import emit, existing, model_options, number, run_options, say, show, store_options, table
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.llm.settings import ModelSettings, load_models
from beam_ray.store.objects import Objects

if TYPE_CHECKING:
    from beam_ray.improve.criteria import Proposed


@click.command()
@click.argument("workflow", metavar="WORKFLOW")
@click.option("--node", metavar="NODE", help="Whose criteria; with --check all nodes that have some, unless given.")
@click.option("--generate", is_flag=True, help="Propose criteria for the node, try them on stored outputs, write a draft.")
@click.option("--add", is_flag=True, help="With --generate: keep the present criteria, and add to them.")
@click.option("--check", "check_", is_flag=True, help="Judge stored outputs again: how often each criterion holds, and how far its judge can be relied on.")
@click.option("--run", "run_id", metavar="RUN", help="Whose outputs; default: the newest run with enough of them.")
@click.option("--outputs", default=20, show_default=True, type=click.IntRange(min=1), help="How many outputs to judge.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 10), help="With --check: how often to judge each output.")
@click.option("--model", metavar="NAME", help="With --generate: who proposes; default: the judge, or the step's own model.")
@click.option("--to", metavar="FILE", help="Where the draft goes; default: beside the original, with -criteria in its name.")
@click.option("--again", is_flag=True, help="With --generate: ask for other proposals than the kept ones.")
@run_options
@model_options
@store_options
@click.pass_context
def criteria(context: click.Context, /, workflow: str, node: str | None, generate: bool, check_: bool, **how: Any) -> None:
    """
    Propose criteria for a node of WORKFLOW, or check those that it has. No step is executed: stored outputs are judged.
    """
    if generate == check_ or (generate and not node):
        raise click.UsageError("write --generate --node NODE, or --check")
    others = {"add": "--add", "again": "--again", "model": "--model", "to": "--to"}
    refuse_options(context, others if check_ else {"repeats": "--repeats"}, "--generate" if check_ else "--check")
    objects = existing(how["store"])
    file = workflow_file(objects, workflow) if generate else None
    found, _, warnings = workflow_of(objects, str(file or workflow))
    for warning in warnings:
        say(str(warning))
    if node and node not in found.nodes:
        raise Unusable(f"the workflow {found.name!r} has no node {node!r}\n  it has: {', '.join(found.order)}")
    models = load_models(Path(how["models"]))
    if file:
        context.exit(_generate(objects, found, file, str(node), models, how))
    _check(objects, found, node, models, how)


def _generate(objects: Objects, workflow: Workflow, file: Path, node: str, models: Mapping[str, ModelSettings], how: Mapping[str, Any]) -> int:
    from beam_ray.improve.criteria import propose_criteria, stored_outputs, try_out, written_present
    from beam_ray.improve.drafts import criteria_text, require_place, with_criteria, write_draft
    from beam_ray.improve.execute_plan import Player
    from beam_ray.improve.model_query import Asker

    as_json = how["as_json"]
    place = require_place(file, how["to"], "criteria")
    run, tasks = stored_outputs(objects, workflow, node, how["outputs"], how["run_id"])
    proposer = proposer_of(models, how["model"], workflow, node)
    ask = Asker(objects, proposer, models[proposer], again=how["again"])
    proposed, tries, dropped = propose_criteria(ask, workflow, node, run, tasks, keep=how["add"])
    if not as_json:
        show(f"{workflow.name}/{node} · proposed by {proposer} · tried on {len(tasks)} outputs of run {run.run_id}")
        show_tries(tries)
        for text in dict.fromkeys(dropped):
            show(f"  dropped: {' '.join(text.split())[:200]}")
        _show_proposed(proposed)
    fared = []
    if proposed:
        probe_models(models, with_criteria(workflow, node, [one.written for one in proposed]))
        with executing(how) as execute:
            fared = try_out(Player(objects, models, execute), run, node, [one.written for one in proposed], tasks, source=workflow)
    draft = None
    good = [one for one, how_it_fared in zip(proposed, fared, strict=True) if not how_it_fared.useless]
    if good:
        notes = [f"left out, {seen.useless} ({seen.met} of {seen.met + seen.unmet}): {seen.text}" for seen in fared if seen.useless]
        added = [one.written for one in good]
        wanted = with_criteria(workflow, node, [*(written_present(workflow, node) if how["add"] else ()), *added])
        draft = write_draft(place, criteria_text(file, node, added, notes, wanted, keep=how["add"]))
    if as_json:
        emit(
            {
                "node": node,
                "run_id": run.run_id,
                "outputs": len(tasks),
                "criteria": [
                    {**vars(seen), "share": seen.share, "useless": seen.useless, "reason": one.reason} for one, seen in zip(proposed, fared, strict=True)
                ],
                "dropped": dropped,
                "tries": [vars(one) for one in tries],
                "draft": str(draft) if draft else None,
            }
        )
        return 0 if good else NO_PROPOSAL
    if fared:
        rows = [
            [seen.text, seen.kind, number(seen.share), _of(seen.good), _of(seen.bad), seen.undecided or "", seen.useless and f"useless: {seen.useless}"]
            for seen in fared
        ]
        show(table(["criterion", "", "holds %", "of good", "of bad", "open", ""], rows, right=[2, 3, 4, 5], width=70))
    if not good:
        show("all of them are useless; there is no draft" if proposed else "no criterion can be used; --again asks anew, --model NAME asks another model")
    else:
        show(f"the draft:  {draft}   ({'with' if how['add'] else 'instead of'} the present criteria)")
    return 0 if good else NO_PROPOSAL


def _show_proposed(proposed: "Sequence[Proposed]") -> None:
    if proposed:
        show("criteria:")
    for one in proposed:
        text, check = (one.written, "") if isinstance(one.written, str) else (one.written["text"], one.written["check"])
        show(f"  - {text or check}")
        if text and check:
            show(f"    computed: {check}")
        show(f"    because: {one.reason}")


def _check(objects: Objects, workflow: Workflow, node: str | None, models: Mapping[str, ModelSettings], how: Mapping[str, Any]) -> None:
    from beam_ray.improve.criteria import stored_outputs, try_out, written_present
    from beam_ray.improve.execute_plan import Player

    as_json = how["as_json"]
    nodes = [node] if node else [name for name in workflow.order if workflow.nodes[name].evaluate]
    if not nodes or (node and not workflow.nodes[node].evaluate):
        raise Unusable(f"{node or workflow.name!r} has no criteria\n  --generate --node NODE  proposes some")
    chosen = {name: stored_outputs(objects, workflow, name, how["outputs"], how["run_id"]) for name in nodes}
    probe_models(models, workflow)
    document = []
    with executing(how) as execute:
        player = Player(objects, models, execute)
        for name, (run, tasks) in chosen.items():
            fared = try_out(player, run, name, written_present(workflow, name), tasks, source=workflow, repeats=how["repeats"])
            document.append({"node": name, "run_id": run.run_id, "outputs": len(tasks), "criteria": [{**vars(one), "share": one.share} for one in fared]})
            if as_json:
                continue
            again = how["repeats"] > 1 and any(one.kind == "plain" for one in fared)
            times = f"{how['repeats']} times" if again else "once"
            show(f"{name} · {len(tasks)} outputs of run {run.run_id}, judged {times}")
            rows = [
                [
                    one.text,
                    number(one.share),
                    one.undecided or "",
                    f"{one.alike}/{one.repeated}" if one.repeated else "",
                    number(one.itself, 2) if one.itself is not None else one.itself_word,
                    number(one.expected, 2) if one.expected is not None else one.expected_word,
                    one.labelled or "",
                    one.useless,
                ]
                for one in fared
            ]
            show(table(["criterion", "met %", "open", "alike", "kappa", "expected", "of", ""], rows, right=[1, 2, 3, 4, 5, 6], width=60))
    if as_json:
        emit(document)
    else:
        show("kappa: the judge with itself (Fleiss); expected: with the task's expected outcome (Cohen). 1 is always alike, 0 as often as by chance")


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]}/{counts[1]}" if counts[1] else ""
