"""
Which tasks of a library a search may see, and which are held out.

    libraries/<name>/split/<version>.json   the ids of both; made once, never changed
    libraries/<name>/held/<backtest>.json   that a draft was tried on what is held out

A task keeps its side in later versions, and a new one is dealt by a digest of its id: so
nobody chooses, and whoever deals again deals the same.
"""

from dataclasses import dataclass

import pyarrow as pa

from beam_ray.define.fingerprint import digest
from beam_ray.errors import Unusable
from beam_ray.store.checksummed_json import seal, unseal
from beam_ray.store.libraries import Library
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.runs import now
from beam_ray.tasks.sources import only

LEAST = 10
"""Tasks on each side at least: fewer held out show nothing, and fewer to search on mislead."""

SEARCHED = 0.4
"""The share of a library to search on. More tasks are held out: the decision is taken once, and needs them more."""

MOST_DRAFTS = 8
"""Drafts tried on the same held-out tasks; the interval that a ninth would need cannot be drawn."""


@dataclass(frozen=True)
class Split:
    """The two parts of a library's version."""

    search: pa.Table
    held: pa.Table


def split(objects: Objects, library: Library) -> Split:
    """
    The two parts of *library*, as they were first dealt.

    Raises:
        Unusable: it is too small to be divided.
    """
    ids = library.tasks["task_id"].to_pylist()
    if len(ids) < 2 * LEAST:
        raise Unusable(
            f"the library {library} has {len(ids)} tasks; a search needs {2 * LEAST} at least: {LEAST} to search on, and {LEAST} that are held out\n"
            f"  beam-ray library add {library.name} …  adds some"
        )
    sides = _kept(objects, library) or _deal(objects, library, ids)
    if min(len(tasks) for tasks in sides.values()) < LEAST:
        raise Unusable(
            f"of the tasks that are left in {library}, {len(sides['held'])} are held out and {len(sides['search'])} are not; {LEAST} of each are needed"
        )
    return Split(only(library.tasks, sides["search"]), only(library.tasks, sides["held"]))


def require_unworn(objects: Objects, library: Library) -> None:
    """
    See that the held-out tasks can still decide something.

    Raises:
        Unusable: too many drafts were tried on them.
    """
    if len(list(objects.keys(f"libraries/{library.name}/held/"))) >= MOST_DRAFTS:
        raise Unusable(
            f"{MOST_DRAFTS} drafts were tried on the held-out tasks of {library.name!r}; whatever they say of another one may be luck\n"
            "  save other tasks as a library of another name"
        )


def drafts_before(objects: Objects, library: Library, backtest_id: str) -> int:
    """How many other drafts were tried on the held-out tasks before this one, which is noted as tried."""
    prefix = f"libraries/{library.name}/held"
    objects.create(f"{prefix}/{backtest_id}.json", seal({"at": now(), "backtest_id": backtest_id}))
    found = [unseal(objects.read(key), key) for key, _ in objects.keys(f"{prefix}/")]
    mine = next(entry for entry in found if entry["backtest_id"] == backtest_id)
    return sum((entry["at"], entry["backtest_id"]) < (mine["at"], mine["backtest_id"]) for entry in found)


def _kept(objects: Objects, library: Library) -> dict[str, list[str]] | None:
    key = f"libraries/{library.name}/split/{library.version:06d}.json"
    try:
        found = unseal(objects.read(key), key)
    except NotThere:
        return None
    return {"search": found["search"], "held": found["held"]}


def _deal(objects: Objects, library: Library, ids: list[str]) -> dict[str, list[str]]:
    sides: dict[str, list[str]] = {"search": [], "held": []}
    before: dict[str, str] = {}
    for key, _ in sorted(objects.keys(f"libraries/{library.name}/split/")):
        found = unseal(objects.read(key), key)
        before |= {task: side for side in sides for task in found[side]}
    for task in ids:
        if task in before:
            sides[before[task]].append(task)
    searched = max(LEAST, round(SEARCHED * len(ids)))
    for task in sorted((task for task in ids if task not in before), key=lambda task: digest("split/1", task)):
        sides["search" if len(sides["search"]) < searched else "held"].append(task)
    objects.create(f"libraries/{library.name}/split/{library.version:06d}.json", seal({"at": now(), **sides}))
    return _kept(objects, library) or sides
