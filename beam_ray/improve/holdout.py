"""
Split a library into tasks that a search may use and a holdout set.

    libraries/<name>/split/<version>.json   task ids of both sides; written once, never changed

A task keeps its side in later versions of the library, and its content keeps it in libraries of
other names. New tasks are assigned by a digest of their id, so the split is deterministic and
nobody chooses it. Tasks of one cluster are on one side where a search names the field. Which drafts were tried on held-out tasks is in ``exposure``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from beam_ray.compare.grouping import Clusters, require_clusters
from beam_ray.define.fingerprint import digest
from beam_ray.errors import Unusable
from beam_ray.improve.exposure import MOST_DRAFTS, SplitDocument, count_drafts, record_test, stored_splits
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.libraries import Library
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.run_record import now
from beam_ray.tasks.fields import field_values
from beam_ray.tasks.sources import only

LEAST = 10
"""Minimum number of tasks per side: fewer holdout tasks show nothing, fewer search tasks mislead."""

SEARCHED = 0.4
"""Fraction of a library used for the search. The larger part is held out, because the final decision needs more tasks."""


@dataclass(frozen=True)
class Split:
    """Both sides of a library version."""

    search: pa.Table
    held: pa.Table


def split(objects: Objects, library: Library, cluster: str | None = None) -> Split:
    """
    Both sides of *library*, as first assigned.

    Args:
        cluster: A field of tasks such as ``variables.customer``: tasks that have the same value there are on the same side.

    Raises:
        Unusable: The library is too small to split, or was split through a cluster before.
    """
    ids = library.tasks["task_id"].to_pylist()
    if len(ids) < 2 * LEAST:
        raise Unusable(
            f"the library {library} has {len(ids)} tasks; a search needs at least {2 * LEAST}: {LEAST} to search on and {LEAST} held out\n"
            f"  add tasks with: beam-ray library add {library.name} TASK…"
        )
    clusters = Clusters(cluster, field_values(library.tasks, cluster)) if cluster is not None else None
    sides = _stored_split(objects, library) or _assign(objects, library, ids, clusters)
    if clusters:
        _require_whole(library, sides, clusters)
    if min(len(tasks) for tasks in sides.values()) < LEAST:
        raise Unusable(
            f"the library {library} has {len(sides['search'])} tasks to search on and {len(sides['held'])} held out; at least {LEAST} of each are needed"
        )
    return Split(only(library.tasks, sides["search"]), only(library.tasks, sides["held"]))


def require_fresh_holdout(objects: Objects, held: pa.Table) -> None:
    """
    Require that the holdout set can still decide something.

    Raises:
        Unusable: Too many drafts were tried on it.
    """
    if count_drafts(objects, held["inputs"].to_pylist()) >= MOST_DRAFTS:
        raise Unusable(
            f"{MOST_DRAFTS} drafts were tried on tasks of this holdout set, under this or another library's name; another result could be chance\n"
            "  save new tasks in a library with another name and search on that"
        )


def drafts_before(objects: Objects, held: pa.Table, backtest_id: str, draft: str) -> int:
    """Number of drafts tried on the holdout set before *draft*, which is recorded as tested by the backtest."""
    return count_drafts(objects, held["inputs"].to_pylist(), record_test(objects, held, backtest_id, draft))


def _stored_split(objects: Objects, library: Library) -> dict[str, list[str]] | None:
    key = f"libraries/{library.name}/split/{library.version:06d}.json"
    try:
        found = read_document(objects, key, SplitDocument)
    except NotThere:
        return None
    return {"search": found["search"], "held": found["held"]}


def _require_whole(library: Library, sides: Mapping[str, list[str]], clusters: Clusters) -> None:
    cut = {clusters.of[task] for task in sides["search"] if task in clusters.of} & {clusters.of[task] for task in sides["held"] if task in clusters.of}
    if cut:
        raise Unusable(
            f"the split of library {library} was made without --cluster {clusters.field}, or by another one, and cuts {len(cut)} of its clusters, such as {min(cut)!r}\n"
            "  what a search has seen cannot be held out any more; save tasks of other clusters in a library of their own and search on that"
        )
    require_clusters(clusters, sides["held"])


def _assign(objects: Objects, library: Library, ids: list[str], clusters: Clusters | None) -> dict[str, list[str]]:
    sides: dict[str, list[str]] = {"search": [], "held": []}
    inputs = dict(zip(library.tasks["task_id"].to_pylist(), library.tasks["inputs"].to_pylist(), strict=True))
    before = _sides_before(objects, library, inputs)
    for task in ids:
        if task in before:
            sides[before[task]].append(task)
    searched = max(LEAST, round(SEARCHED * len(ids)))
    if clusters:
        _assign_whole(sides, [task for task in ids if task not in before], clusters, searched)
    else:
        for task in sorted((task for task in ids if task not in before), key=lambda task: digest("split/1", task)):
            sides["search" if len(sides["search"]) < searched else "held"].append(task)
    document: SplitDocument = {
        "at": now(),
        "search": sides["search"],
        "held": sides["held"],
        "search_inputs": [inputs[task] for task in sides["search"]],
        "held_inputs": [inputs[task] for task in sides["held"]],
    }
    objects.create(f"libraries/{library.name}/split/{library.version:06d}.json", seal(document))
    return _stored_split(objects, library) or sides


def _assign_whole(sides: dict[str, list[str]], tasks: list[str], clusters: Clusters, searched: int) -> None:
    """Add new tasks to the side that their cluster has, and clusters without one whole, in an order that nobody chooses."""
    known = {clusters.of[task]: side for side in ("held", "search") for task in sides[side] if task in clusters.of}
    groups: dict[str, list[str]] = {}
    for task in tasks:
        if side := known.get(clusters.of.get(task, "")):
            sides[side].append(task)
        else:
            groups.setdefault(f"cluster {clusters.of[task]}" if task in clusters.of else f"task {task}", []).append(task)
    for name in sorted(groups, key=lambda name: digest("split/2", name)):
        sides["search" if len(sides["search"]) < searched else "held"] += groups[name]


def _sides_before(objects: Objects, library: Library, inputs: Mapping[str, str]) -> dict[str, str]:
    """The side of each task that has one: by its id in this library, else by its content in any library; where a search has seen it, it stays there."""
    sides: dict[str, str] = {}
    splits = stored_splits(objects)
    for side in ("held", "search"):
        known = {entry for split in splits for entry in getattr(split, side)}
        sides |= {task: side for task, content in inputs.items() if content in known}
    for key, _ in sorted(objects.keys(f"libraries/{library.name}/split/")):
        found = read_document(objects, key, SplitDocument)
        sides |= dict.fromkeys(found["search"], "search") | dict.fromkeys(found["held"], "held")
    return sides
