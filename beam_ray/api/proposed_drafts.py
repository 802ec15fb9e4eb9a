"""Drafts of the store with a prompt that a model proposed."""

from collections.abc import Mapping, Sequence
from itertools import count

from beam_ray.address import parse
from beam_ray.api.drafts import Draft, DraftEdit, create_draft, draft, drafts, edit_draft
from beam_ray.api.location import Location
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.improve.drafts import with_prompt
from beam_ray.improve.prompt_text import turns_of, written
from beam_ray.publish import current
from beam_ray.store.runs import Run as StoredRun

Turns = Sequence[Mapping[str, str]]


def save_proposed(store: Location, step: str, prompt: Turns, name: str, *, by: str = "") -> Draft:
    """See ``PromptProposal.save_draft``."""
    address = parse(step)
    failed, node = StoredRun(store.existing(), address.run).record.plan, address.node
    there = {each.name: each for each in drafts(store, failed.name)}
    chosen = name or _free_name(store, failed.name, f"optimised-{node}"[:56], there, node, prompt)
    found = draft(store, failed.name, chosen) if chosen in there else create_draft(store, failed.name, chosen, by=by)
    if _prompt(found.definition, node) == tuple(prompt):
        return found
    if _prompt(found.definition, node) != written(turns_of(failed, node)):
        where = f"the draft {found.reference}" if chosen in there else f"version {found.base}" if found.base else "the newest definition"
        raise _changed_since(where, node, address.run)
    return edit_draft(store, found, [DraftEdit(f"nodes.{node}.{failed.nodes[node].kind}.prompt", list(prompt))], by=by)


def proposed_definition(store: Location, step: str, prompt: Turns) -> Workflow:
    """
    The definition that a draft with the proposed prompt would have; nothing is saved.

    Raises:
        Unusable: the prompt has changed since the failed run.
    """
    address = parse(step)
    failed = StoredRun(store.existing(), address.run).record.plan
    latest = current(store.existing(), failed.name)
    present = latest.plan if latest else failed
    if _prompt(present, address.node) not in (written(turns_of(failed, address.node)), tuple(prompt)):
        raise _changed_since(f"version {latest.version}" if latest else "the newest definition", address.node, address.run)
    return with_prompt(present, address.node, prompt)


def _changed_since(where: str, node: str, run: str) -> Unusable:
    return Unusable(
        f"{where} has another prompt of {node!r} than the one that failed in run {run}\n"
        "  test the present prompt with a rerun before it is optimised, or name another draft"
    )


def _prompt(workflow: Workflow | None, node: str) -> tuple[Mapping[str, str], ...] | None:
    """The prompt of *node* as plain data; None where the workflow has none there."""
    call = workflow.nodes[node].call if workflow and node in workflow.nodes else None
    return written(call.prompt) if call else None


def _free_name(store: Location, workflow: str, base: str, there: Mapping[str, Draft], node: str, prompt: Turns) -> str:
    """*base*, or with a number: the first that is free, or that is a draft of the published version with this very prompt."""
    latest = current(store.existing(), workflow)
    for name in (base if number == 1 else f"{base}-{number}" for number in count(1)):
        found = there.get(name)
        if found is None or (_prompt(found.definition, node) == tuple(prompt) and found.base == (latest.version if latest else None)):
            return name
    raise AssertionError("unreachable: numbers do not end")
