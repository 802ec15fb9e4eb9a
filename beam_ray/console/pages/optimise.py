"""A better prompt for a failed step: its weaknesses, a diff with reasons, and the step before and after it was applied."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import beam_ray
from beam_ray.console.commands import new_key
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import address_path, optimise_path
from beam_ray.console.pages.compare import step_pairs
from beam_ray.console.pages.reruns import draft_of, try_more
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.console.word_diff import word_diff
from beam_ray.errors import BeamRayError, Unusable

FIELDS = ("task", "step", "model", "proposal")
ASK_FIELDS = (*FIELDS, "again")


def optimise(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    task, step = _step(site, fields)
    asking = next(iter(site.commands.of("optimise", task.address, "--step", step.node)), None)
    applying = next(iter(site.commands.of("rerun", task.address, "--from", step.node, "--using")), None)
    # before the store is read: what a command leaves as it ends is then either read or waited for
    asking_code, applying_code = asking.code if asking else None, applying.code if applying else None
    proposals = site.store.proposals(task.address, step.node)
    chosen = _chosen(proposals, one(fields, "proposal"))
    plan, fault = _plan(site, task, step, one(fields, "model"), again=bool(proposals))
    values: dict[str, Any] = {
        "task": task,
        "step": step,
        "unmet": [item for item in step.criteria if item.met is False],
        "why_not": step.not_optimisable,
        "turns": step.definition.call.prompt if step.definition.call else (),
        "proposals": [(each, optimise_path(task.address, step.node, proposal=each.number)) for each in reversed(proposals)],
        "chosen": chosen,
        "turn_diff": _turn_diff(step, chosen.prompt) if chosen and chosen.workflow else [],
        "applying": applying if applying_code is None else None,
        "not_applied": applying if applying_code not in (None, 0) else None,
        "running": asking is not None and asking_code is None,
        "failed": asking if asking_code not in (None, 0, 5) and not proposals else None,
        "plan": plan,
        "fault": fault,
        "models": [each.name for each in site.store.list_models()] if plan else [],
        "model": one(fields, "model"),
        "key": new_key(),
        "apply": _application(site, task, step, chosen) if chosen and chosen.workflow else None,
        "results": _results(site, task, step, chosen) if chosen and chosen.workflow else [],
        "back": address_path(task.address, step=step.node),
    }
    words = ["beam-ray", "optimise", task.address, "--step", step.node]
    command = f"{shlex.join([*words, *(['--proposal', str(chosen.number)] if chosen else [])])}{site.option}"
    document = {
        "step": step.address,
        "why_not": step.not_optimisable or None,
        "plan": plan.document() if plan else None,
        "refused": fault or None,
        "proposals": [each.document() for each in proposals],
        "reruns": [each["run"].id for each in values["results"]],
    }
    going_on = values["running"] or values["applying"] is not None or any(not each["run"].finished for each in values["results"])
    return Page("optimise", f"Optimise {step.node} of {task.id}", values, document, section="tasks", command=command, live=going_on)


def _step(site: Site, fields: Fields) -> tuple[beam_ray.Task, beam_ray.Step]:
    word, node = one(fields, "task"), one(fields, "step")
    if not word or not node:
        raise Unusable("name a task and its failed step\n  the address is /optimise?task=RUN/TASK&step=NODE")
    task = site.reader.named_task(word)
    return task, task.step(node)


def _chosen(proposals: Sequence[beam_ray.PromptProposal], written: str) -> beam_ray.PromptProposal | None:
    """The proposal that is shown: the one asked for, else the newest that can be used, else the newest."""
    if written:
        found = next((each for each in proposals if str(each.number) == written), None)
        if found is None:
            raise Unusable(f"the step has no proposal {written[:20]!r}; it has {len(proposals)}")
        return found
    return next((each for each in proposals if each.workflow), proposals[0] if proposals else None)


def _plan(site: Site, task: beam_ray.Task, step: beam_ray.Step, model: str, *, again: bool) -> tuple[beam_ray.OptimisePlan | None, str]:
    """What asking costs, or why nobody can be asked."""
    if step.not_optimisable or not task.run.finished:
        return None, ""
    try:
        plan = site.store.plan_optimise(task.address, step.node, model=model or None, again=again)
        site.commands.require_usd(plan.max_usd)
        return plan, ""
    except BeamRayError as error:
        return None, str(error)


def _turn_diff(step: beam_ray.Step, prompt: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The turns of the present prompt beside the proposed ones; a system turn that was added has none beside it."""
    call = step.definition.call
    before = [(turn.role, turn.content) for turn in call.prompt] if call else []
    after = [(turn["role"], turn["content"]) for turn in prompt]
    if len(after) > len(before) and after[0][0] == "system" and (not before or before[0][0] != "system"):
        before = [("system", ""), *before]
    pairs = zip_longest(before, after, fillvalue=("", ""))
    return [{"role": new[0] or old[0], "pieces": word_diff(old[1], new[1]), "differs": old[1] != new[1]} for old, new in pairs]


def _application(site: Site, task: beam_ray.Task, step: beam_ray.Step, chosen: beam_ray.PromptProposal) -> dict[str, Any]:
    """What applying the proposal would do and cost, or why it cannot be applied."""
    try:
        [plan] = site.store.plan_rerun([task.address], from_node=step.node, using=chosen.drafted())
        site.commands.require_within([plan])
    except BeamRayError as error:
        return {"fault": str(error), "plan": None}
    words = ["beam-ray", "optimise", task.address, "--step", step.node, "--proposal", str(chosen.number), "--apply", "--draft", f"optimised-{step.node}"]
    return {"fault": "", "plan": plan, "command": f"{shlex.join(words)}{site.option}"}


def _results(site: Site, task: beam_ray.Task, step: beam_ray.Step, chosen: beam_ray.PromptProposal) -> list[dict[str, Any]]:
    """The reruns of the task with the proposed prompt, the newest first, each with the step before and after."""
    found = []
    wanted = [(turn["role"], turn["content"]) for turn in chosen.prompt]
    for row in reversed(site.store.task_family(task.address)):
        run = site.reader.run(row["run_id"])
        call = run.workflow.nodes[step.node].call if step.node in run.workflow.nodes else None
        if run.id == task.run.id or call is None or [(turn.role, turn.content) for turn in call.prompt] != wanted:
            continue
        result: dict[str, Any] = {"run": run, "progress": site.store.progress(run.id), "after": None, "steps": []}
        if run.finished:
            after = site.reader.task(beam_ray.Address(run.id, task.id, task.trial))
            pairs = step_pairs(task, after)
            draft = draft_of(site, run)
            result |= {"after": after, "step": after.step(step.node), "criteria": next(each["criteria"] for each in pairs if each["node"] == step.node)}
            result |= {"steps": [each for each in pairs if each["differs"]], "draft": draft, "try_more": try_more(site, draft, task.run)}
        found.append(result)
    return found


def ask(site: Site, path: str, fields: Fields) -> str:
    """Start the command that asks for a proposal; the page that shows it."""
    fields = {name: values for name, values in fields.items() if name in ASK_FIELDS or name == "key"}
    task, step = _step(site, fields)
    model, again = one(fields, "model"), bool(site.store.proposals(task.address, step.node))
    plan = site.store.plan_optimise(task.address, step.node, model=model or None, again=again)
    site.commands.require_usd(plan.max_usd)
    words = ["optimise", task.address, "--step", step.node, *(["--model", model] if model else []), *(["--again"] if again else [])]
    site.commands.start(one(fields, "key"), words, f"Optimise the prompt of {step.node}", subject=task.address)
    return optimise_path(task.address, step.node, model=model)


def apply(site: Site, path: str, fields: Fields) -> str:
    """Keep the proposed prompt as a draft and start the rerun with it; the page that shows the scores before and after."""
    task, step = _step(site, fields)
    chosen = _chosen(site.store.proposals(task.address, step.node), one(fields, "proposal"))
    if chosen is None:
        raise Unusable(f"the step {step.address} has no proposal to apply")
    draft = chosen.save_draft()
    plans = site.store.plan_rerun([task.address], from_node=step.node, using=draft.reference)
    words = ["rerun", task.address, "--from", step.node, "--using", draft.reference, "--because", f"optimised the prompt of {step.node}"]
    site.commands.start(one(fields, "key"), words, f"Re-run {task.id} from {step.node} with {draft.reference}", plans=plans, subject=task.address)
    return optimise_path(task.address, step.node, proposal=chosen.number)
