"""
Proposed prompts, kept with the step that they were made for: what was paid for is found again.

    proposals/<run>/<step>/<id>.json     step: digest of task, trial and node; created if absent
"""

import getpass
from collections.abc import Mapping
from typing import TypedDict

from beam_ray.address import Address
from beam_ray.define.fingerprint import Json, digest
from beam_ray.improve.model_query import QueryAttempt, QueryAttemptDocument
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import now


class PromptChangeDocument(TypedDict):
    """A change to a prompt, and why."""

    change: str
    reason: str


class StoredProposal(TypedDict):
    """The content of proposals/<run>/<step>/<id>.json; without a usable answer only *tries*."""

    at: str
    by: str
    step: str
    """Address of the step."""
    model: str
    weaknesses: list[str]
    changes: list[PromptChangeDocument]
    prompt: list[Mapping[str, str]]
    """The proposed turns, with role and content."""
    tries: list[QueryAttemptDocument]


def keep_proposal(objects: Objects, proposal: StoredProposal) -> None:
    """Keep a proposal; of several that say the same the first is kept."""
    objects.create(f"{_folder(proposal['step'])}/{_id(proposal)}.json", seal(proposal))


def said_same(one: StoredProposal, other: StoredProposal) -> bool:
    """Whether two proposals for a step say the same."""
    return _id(one) == _id(other)


def _id(proposal: StoredProposal) -> str:
    refused: list[Json] = [] if proposal["prompt"] else [one["refused"] for one in proposal["tries"]]
    changes: list[Json] = [dict(each) for each in proposal["changes"]]
    return digest("proposal/1", proposal["model"], list(proposal["weaknesses"]), changes, [dict(turn) for turn in proposal["prompt"]], refused)


def kept_proposals(objects: Objects, step: str) -> list[StoredProposal]:
    """The proposals for the step at that address, the oldest first."""
    found = [read_document(objects, key, StoredProposal) for key, _ in objects.keys(f"{_folder(step)}/")]
    return sorted(found, key=lambda each: (each["at"], each["model"], str(each["prompt"])))


def stored_proposal(
    step: Address, model: str, answer: tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[dict[str, str], ...]], tries: tuple[QueryAttempt, ...]
) -> StoredProposal:
    """A proposal as it is kept: *answer* has its weaknesses, changes and turns."""
    weaknesses, changes, turns = answer
    return {
        "at": now(),
        "by": getpass.getuser(),
        "step": str(step),
        "model": model,
        "weaknesses": list(weaknesses),
        "changes": [{"change": change, "reason": reason} for change, reason in changes],
        "prompt": list(turns),
        "tries": [one.document() for one in tries],
    }


def _folder(step: str) -> str:
    run = step.partition("/")[0]
    return f"proposals/{run}/{digest('step/1', step)}"
