"""
Split a library into tasks that a search may use and a holdout set.

    libraries/<name>/split/<version>.json   task ids of both sides; written once, never changed
    libraries/<name>/held/<backtest>.json   records that a draft was tested on the holdout set

A task keeps its side in later versions of the library. New tasks are assigned by a digest of
their id, so the split is deterministic and nobody chooses it.
"""

from dataclasses import dataclass
from typing import TypedDict

import pyarrow as pa

from beam_ray.define.fingerprint import digest
from beam_ray.errors import Unusable
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.libraries import Library
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.run_record import now
from beam_ray.tasks.sources import only

LEAST = 10
"""Minimum number of tasks per side: fewer holdout tasks show nothing, fewer search tasks mislead."""

SEARCHED = 0.4
"""Fraction of a library used for the search. The larger part is held out, because the final decision needs more tasks."""

MOST_DRAFTS = 8
"""Maximum number of drafts tested on one holdout set: the confidence level that a ninth would need is not available."""


@dataclass(frozen=True)
class Split:
    """Both sides of a library version."""

    search: pa.Table
    held: pa.Table


class SplitDocument(TypedDict):
    """The content of split/<version>.json: ids of the tasks of both sides."""

    at: str
    search: list[str]
    held: list[str]


class HoldoutTest(TypedDict):
    """The content of held/<backtest>.json."""

    at: str
    backtest_id: str


def split(objects: Objects, library: Library) -> Split:
    """
    Both sides of *library*, as first assigned.

    Raises:
        Unusable: The library is too small to split.
    """
    ids = library.tasks["task_id"].to_pylist()
    if len(ids) < 2 * LEAST:
        raise Unusable(
            f"the library {library} has {len(ids)} tasks; a search needs at least {2 * LEAST}: {LEAST} to search on and {LEAST} held out\n"
            f"  add tasks with: beam-ray library add {library.name} TASK…"
        )
    sides = _stored_split(objects, library) or _assign(objects, library, ids)
    if min(len(tasks) for tasks in sides.values()) < LEAST:
        raise Unusable(
            f"the library {library} has {len(sides['search'])} tasks to search on and {len(sides['held'])} held out; at least {LEAST} of each are needed"
        )
    return Split(only(library.tasks, sides["search"]), only(library.tasks, sides["held"]))


def require_fresh_holdout(objects: Objects, library: Library) -> None:
    """
    Require that the holdout set can still decide something.

    Raises:
        Unusable: Too many drafts were tested on it.
    """
    if len(list(objects.keys(f"libraries/{library.name}/held/"))) >= MOST_DRAFTS:
        raise Unusable(
            f"{MOST_DRAFTS} drafts were tested on the holdout set of {library.name!r}; another result could be chance\n"
            "  save new tasks in a library with another name and search on that"
        )


def drafts_before(objects: Objects, library: Library, backtest_id: str) -> int:
    """Number of drafts tested on the holdout set before this one, which is recorded as tested."""
    prefix = f"libraries/{library.name}/held"
    test: HoldoutTest = {"at": now(), "backtest_id": backtest_id}
    objects.create(f"{prefix}/{backtest_id}.json", seal(test))
    found = [read_document(objects, key, HoldoutTest) for key, _ in objects.keys(f"{prefix}/")]
    mine = next(entry for entry in found if entry["backtest_id"] == backtest_id)
    return sum((entry["at"], entry["backtest_id"]) < (mine["at"], mine["backtest_id"]) for entry in found)


def _stored_split(objects: Objects, library: Library) -> dict[str, list[str]] | None:
    key = f"libraries/{library.name}/split/{library.version:06d}.json"
    try:
        found = read_document(objects, key, SplitDocument)
    except NotThere:
        return None
    return {"search": found["search"], "held": found["held"]}


def _assign(objects: Objects, library: Library, ids: list[str]) -> dict[str, list[str]]:
    sides: dict[str, list[str]] = {"search": [], "held": []}
    before: dict[str, str] = {}
    for key, _ in sorted(objects.keys(f"libraries/{library.name}/split/")):
        found = read_document(objects, key, SplitDocument)
        before |= dict.fromkeys(found["search"], "search") | dict.fromkeys(found["held"], "held")
    for task in ids:
        if task in before:
            sides[before[task]].append(task)
    searched = max(LEAST, round(SEARCHED * len(ids)))
    for task in sorted((task for task in ids if task not in before), key=lambda task: digest("split/1", task)):
        sides["search" if len(sides["search"]) < searched else "held"].append(task)
    document: SplitDocument = {"at": now(), "search": sides["search"], "held": sides["held"]}
    objects.create(f"libraries/{library.name}/split/{library.version:06d}.json", seal(document))
    return _stored_split(objects, library) or sides
