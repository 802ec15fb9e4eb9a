"""What if this prompt were another one: an editor that says what a try costs and can show, and its paired result beside it."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from collections.abc import Sequence
from typing import Any

import beam_ray
from beam_ray.console.commands import new_key
from beam_ray.console.formatting import as_text, visible
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import address_path, flow_path, what_if_path
from beam_ray.console.pages.reruns import change_of, flipped, try_more
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.console.word_diff import Piece, word_diff
from beam_ray.errors import BeamRayError, Unusable

FIELDS = ("task", "step", "draft", "count")
COUNT = 12
"""Tasks that are drawn unless somebody chooses another number."""
SHOWN = 60
"""Tasks of a result that are named one by one."""

Turns = list[dict[str, str]]


def what_if(site: Site, path: str, fields: Fields) -> Page:
    """The page: of the prompt to change, or of the try that the address names."""
    return _page(site, fields, None)


def check(site: Site, path: str, fields: Fields) -> Page:
    """The same page for a prompt that is being typed; nothing is saved."""
    return _page(site, _known(fields), _typed(fields))


def run(site: Site, path: str, fields: Fields) -> str:
    """Keep the prompt as a draft and start the rerun with it; the page of this try."""
    task, step = _step(site, fields)
    wanted, turns, count = _known(fields), _typed(fields), _count(fields)
    if (before := site.commands.started_by(one(fields, "key"))) is not None:
        return _link(task, step, before.words[before.words.index("--using") + 1], count)
    tried = site.store.try_prompt(task.address, step.node, turns, base=one(wanted, "draft"), count=count)
    if tried.faults or tried.plan is None:
        raise Unusable("\n  ".join(["this prompt cannot be run", *tried.faults]))
    site.commands.require_within([tried.plan])
    reference = one(wanted, "draft")
    if tried.changed or not reference:
        if not tried.changed:
            raise Unusable("the prompt is unchanged\n  edit it, or re-run the task as it is")
        reference = site.store.save_try(task.address, step.node, turns, base=reference).reference
    plans = site.store.plan_rerun(list(tried.tasks), from_node=step.node, using=reference)
    words = ["rerun", *tried.tasks, "--from", step.node, "--using", reference, "--because", f"tried another prompt of {step.node}"]
    site.commands.start(one(fields, "key"), words, f"Try {reference}", plans=plans, subject=task.address)
    return _link(task, step, reference, count)


def drop(site: Site, path: str, fields: Fields) -> str:
    """Go back to the prompt that was changed: the draft ends, and its revisions stay in the store."""
    task, step = _step(site, fields)
    workflow, _, rest = one(fields, "draft").partition("@")
    site.store.drop_draft(workflow, rest.partition(":")[0])
    return _link(task, step, "", _count(fields))


def _known(fields: Fields) -> Fields:
    return {name: values for name, values in fields.items() if name in FIELDS}


def _typed(fields: Fields) -> Turns:
    """The turns of the form."""
    roles, texts = fields.get("role", []), fields.get("turn", [])
    if len(roles) != len(texts) or not roles:
        raise Unusable("the form has no prompt; reload the page")
    # a browser sends line ends of its own
    return [{"role": role, "content": text.replace("\r\n", "\n")} for role, text in zip(roles, texts, strict=True)]


def _count(fields: Fields) -> int:
    written = one(fields, "count", str(COUNT))
    if not written.isdecimal() or len(written) > 6:
        raise Unusable(f"count: {written[:20]!r} is not a number of tasks")
    return int(written)


def _step(site: Site, fields: Fields) -> tuple[beam_ray.Task, beam_ray.Step]:
    word, node = one(fields, "task"), one(fields, "step")
    if not word or not node:
        raise Unusable("name a task and a step of it\n  the address is /what-if?task=RUN/TASK&step=NODE")
    task = site.reader.named_task(word)
    step = task.step(node)
    if step.definition.call is None:
        raise Unusable(f"the step {step.address} is a tool and has no prompt to change")
    return task, step


def _link(task: beam_ray.Task, step: beam_ray.Step, draft: str, count: int) -> str:
    return what_if_path(task.address, step.node, draft=draft, count=count if count != COUNT else "")


def _page(site: Site, fields: Fields, typed: Turns | None) -> Page:
    task, step = _step(site, fields)
    draft, count = one(fields, "draft"), _count(fields)
    base = _turns(site.store.prompt_of(task.address, step.node, draft))
    first = _turns(site.store.prompt_of(task.address, step.node))
    tried = site.store.try_prompt(task.address, step.node, typed if typed is not None else base, base=draft, count=count)
    fault = "; ".join(tried.faults)
    if tried.plan is not None and not fault:
        try:
            site.commands.require_within([tried.plan])
        except BeamRayError as error:
            fault = str(error)
    turns = typed if typed is not None else base
    pieces = [word_diff(before["content"], after["content"]) for before, after in zip(first, turns, strict=False)]
    started = [(each, each.code) for each in site.commands.of("rerun") if each.subject == task.address and draft and draft in each.words]
    runs = _runs(site, task, step, base) if draft else []  # after it: what a command leaves as it ends is then either read or waited for
    command = ["beam-ray", "rerun", task.address, "--from", step.node, "--using", draft or "DRAFT"]
    values: dict[str, Any] = {
        "task": task,
        "step": step,
        "draft": draft,
        "count": min(count, tried.available),
        "turns": turns,
        "rows": [min(max(each["content"].count("\n") + len(each["content"]) // 60 + 2, 4), 24) for each in turns],
        "tried": tried,
        "fault": fault,
        "added": sum(_words(each, "added") for each in pieces),
        "removed": sum(_words(each, "removed") for each in pieces),
        "against": "the prompt of this run" if task.run.version is None and first == _own(step) else "the published prompt",
        "sent": _sent(task, step, tried),
        "revisions": _revisions(site, task, step, draft, count),
        "results": runs,
        "starting": next((each for each, code in started if code is None), None),
        "failed": next((each for each, code in started if code not in (None, 0)), None),
        "key": new_key(),
        "back": address_path(task.address, step=step.node),
        "variables": sorted({name for turn in step.template for part in turn.parts for name in part.names}),
        "keep": flow_path(task.run.record.workflow, draft=draft.partition("@")[2].partition(":")[0], node=step.node) if draft else "",
        "backtest": try_more(site, draft, task.run),
    }
    document = {
        "step": step.address,
        "draft": draft or None,
        "prompt": turns,
        "faults": list(tried.faults),
        "tasks": list(tried.tasks),
        "available": tried.available,
        "detectable": {"success_rate": tried.detectable.success_rate, "score": tried.detectable.score, "runs": list(tried.detectable.runs)},
        "plan": tried.plan.document() if tried.plan else None,
        "results": [each["rerun"].document() for each in runs],
    }
    line, address = f"{shlex.join(command)}{site.option}", _link(task, step, draft, count)
    return Page("what_if", f"Try a change of {step.node}", values, document, section="tasks", command=line, address=address if typed is not None else "")


def _turns(prompt: Sequence[Any]) -> Turns:
    return [{"role": turn["role"], "content": turn["content"]} for turn in prompt]


def _own(step: beam_ray.Step) -> Turns:
    """The prompt that the step's run has."""
    return [{"role": turn.role, "content": turn.content} for turn in step.definition.call.prompt] if step.definition.call else []


def _words(pieces: Sequence[Piece], kind: str) -> int:
    return sum(len(piece.text.split()) for piece in pieces if piece.kind == kind)


def _sent(task: beam_ray.Task, step: beam_ray.Step, tried: beam_ray.PromptTry) -> list[dict[str, Any]]:
    """What the model would get for this task, with what differs from what it got."""
    if tried.sent is None or not tried.sent.turns:
        return []
    before = task.prompt(step.node).turns
    offset = len(tried.sent.turns) - len(before)
    found = []
    for number, turn in enumerate(tried.sent.turns):
        old = before[number - offset].text if 0 <= number - offset < len(before) else ""
        found.append({"role": turn.role, "pieces": word_diff(old, turn.text)})
    return found


def _revisions(site: Site, task: beam_ray.Task, step: beam_ray.Step, draft: str, count: int) -> list[tuple[int, str, bool]]:
    """The tries of the draft, each with its address."""
    if not draft:
        return []
    name, _, number = draft.partition(":")
    workflow, _, short = name.partition("@")
    try:
        newest = site.store.draft(workflow, short).number
    except Unusable:
        return []  # it was dropped; what was tried can still be looked at
    return [(n, _link(task, step, f"{name}:{n}", count), str(n) == (number or str(newest))) for n in range(max(1, newest - 9), newest + 1)]


def _runs(site: Site, task: beam_ray.Task, step: beam_ray.Step, prompt: Turns) -> list[dict[str, Any]]:
    """The reruns of the task with this prompt, the newest first, each with its pairs as far as they are done."""
    found = []
    for row in reversed(site.store.task_family(task.address)):
        run = site.reader.run(row["run_id"])
        call = run.workflow.nodes[step.node].call if step.node in run.workflow.nodes else None
        if run.record.origin != task.run.id or call is None or [{"role": turn.role, "content": turn.content} for turn in call.prompt] != prompt:
            continue
        rerun = site.store.get_rerun(run.id)
        own = next((each for each in rerun.changes if each["task"].rpartition("/")[2] == task.address.rpartition("/")[2]), None)
        others = [each for each in rerun.changes if each is not own]
        after = site.reader.task(beam_ray.Address(run.id, task.id, task.trial)) if own else None
        found.append(
            {
                "rerun": rerun,
                "progress": site.store.progress(run.id),
                "own": own,
                "output": _output(task, after, step.node) if after else (),
                "flipped": flipped(task, after) if after else [],
                "paired": rerun.paired([task.id]) if run.record.tasks > 1 else None,
                "changes": [change_of(site, each) for each in others if each["word"] in ("solved", "newly failing")][:SHOWN],
                "same": sum(each["word"] not in ("solved", "newly failing") for each in others),
            }
        )
    return found


def _output(before: beam_ray.Task, after: beam_ray.Task, node: str) -> tuple[Piece, ...]:
    sides = [as_text(each.output) if each.output is not None else visible(each.error or "") for each in (before.step(node), after.step(node))]
    return word_diff(*sides)
