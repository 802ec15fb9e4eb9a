"""
What a store holds that nothing needs, and deleting it.

Nothing that a finished run, a rerun, a backtest, a library or a version needs is ever listed: a
finished run is not garbage, whoever redid it or borrowed from it. Reviews by people are never listed. Nor is the mark of a
finished run under open/, by which the same command finds its result. What is young
is left alone, since its writer may be at work: a file is older than YOUNG_S by the store's own
clock before it counts. A run that a driver may be driving is not touched, and an
abandoned run is taken under our own lease before it is deleted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from beam_ray.errors import Damaged, RunIsTaken, Unusable
from beam_ray.store.beginning import close
from beam_ray.store.checksummed_json import RunMark, read_document
from beam_ray.store.lease import Lease, driver_of
from beam_ray.store.libraries import library_at, library_names, library_versions
from beam_ray.store.lookup import find_runs
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.runs import Run

YOUNG_S = 86_400.0
"""Seconds for which nothing counts as left behind."""

ABANDONED_S = 7 * 86_400.0
"""Seconds without a sign of life after which an unfinished run may be taken for abandoned, where that is asked for."""


@dataclass(frozen=True)
class Garbage:
    """Objects that nothing needs, of one kind and in one place."""

    kind: str
    """temporary files, merged parts, attachments, open marks, run never begun or abandoned run"""
    place: str
    keys: tuple[str, ...]
    bytes: int
    why: str


@dataclass(frozen=True)
class Kept:
    """Something that would have been listed, and why it is not."""

    place: str
    why: str


def collect(objects: Objects, *, abandoned: bool = False, older_than_s: float = ABANDONED_S, kept: Callable[[Kept], None] = lambda each: None) -> list[Garbage]:
    """
    Everything in the store that nothing needs; *kept* is called with what was spared, and why.

    Unfinished runs are only listed if *abandoned*: what they have paid for goes with them.
    """
    found = [*_strays(objects)]
    for run_id in find_runs(objects):
        found += _of_run(objects, Run(objects, run_id), abandoned, older_than_s, kept)
    return [*found, *_open_marks(objects, kept), *_attachments(objects, kept)]


def remove(objects: Objects, garbage: Garbage) -> bool:
    """Delete it; False where somebody has begun to use it since it was listed."""
    if garbage.kind in ("abandoned run", "run never begun"):
        return _remove_run(objects, Run(objects, garbage.place.removeprefix("runs/")))
    if garbage.kind == "merged parts" and driver_of(Run(objects, garbage.place.split("/")[1])):
        return False
    for key in garbage.keys:
        if garbage.kind != "attachments" or _old(objects, key):
            objects.delete(key)
    return True


def _strays(objects: Objects) -> Iterator[Garbage]:
    old = [(key, size) for key, size in objects.strays() if _old(objects, key)]
    if old:
        yield Garbage("temporary files", objects.uri, tuple(key for key, _ in old), sum(size for _, size in old), "their writers died")


def _old(objects: Objects, key: str, seconds: float = YOUNG_S) -> bool:
    try:
        return objects.age(key) > seconds
    except NotThere:
        return False


def _of_run(objects: Objects, run: Run, abandoned: bool, older_than_s: float, kept: Callable[[Kept], None]) -> Iterator[Garbage]:
    try:
        finished, record = run.finished, run.record
        if not finished:
            run.parts()  # raises where the run was finished, and only the word that it was is lost
    except Damaged as error:
        kept(Kept(run.prefix, str(error).splitlines()[0]))
        return
    except Unusable:
        finished, record = False, None
    driver = driver_of(run)
    if driver:
        kept(Kept(run.prefix, f"process {driver['pid']} on {driver['host']} drives it"))
        return
    if finished:
        left = [(key, size) for folder in ("parts/", "spool/", "batches/") for key, size in objects.keys(f"{run.prefix}/{folder}")]
        if left:
            yield Garbage("merged parts", run.prefix, tuple(key for key, _ in left), sum(size for _, size in left), "the run is finished, and has their rows")
        return
    everything = list(objects.keys(f"{run.prefix}/"))
    keys, size = tuple(key for key, _ in everything), sum(size for _, size in everything)
    paid = any(key.startswith((f"{run.prefix}/parts/", f"{run.prefix}/spool/", f"{run.prefix}/steps/", f"{run.prefix}/batches/")) for key in keys)
    marked = record is not None and _named(objects, record.key) == run.run_id
    user = _user(objects, run.run_id)
    if user:
        kept(Kept(run.prefix, f"unfinished, and {user} needs it"))
    elif not paid and not marked and all(_old(objects, key) for key in keys):
        yield Garbage("run never begun", run.prefix, keys, size, "nothing was done in it, and no command resumes it")
    elif abandoned and record and all(_old(objects, key, older_than_s) for key in keys):
        yield Garbage("abandoned run", run.prefix, keys, size, f"unfinished, and inactive for more than {older_than_s / 86_400:g} days")
    else:
        kept(Kept(run.prefix, f"unfinished; beam-ray resume {run.run_id}  resumes it" if record else f"{run.prefix}/run.json is missing"))


def _named(objects: Objects, key: str) -> str:
    """The run that the mark names."""
    try:
        return read_document(objects, f"open/{key}.json", RunMark)["run_id"]
    except (NotThere, Damaged):
        return ""


def _user(objects: Objects, run_id: str) -> str:
    """What needs the run although it is not finished: a backtest of which it is a side or a proof, or a repair."""
    for backtest in objects.folders("backtests"):
        for key, _ in (*objects.keys(f"backtests/{backtest}/sides/"), *objects.keys(f"backtests/{backtest}/proofs/")):
            try:
                named = read_document(objects, key, RunMark)["run_id"]
            except (NotThere, Damaged):
                return f"backtest {backtest}, whose sides cannot be read,"
            if named == run_id:
                return f"backtest {backtest}"
    for other in find_runs(objects):
        for key, _ in objects.keys(f"runs/{other}/repair/"):
            if key.count("/") == 3 and _repairs(objects, key, run_id):
                return f"the repair of run {other}"
    return ""


def _repairs(objects: Objects, key: str, run_id: str) -> bool:
    try:
        return read_document(objects, key, RunMark)["run_id"] == run_id
    except (NotThere, Damaged):
        return True  # who knows


def _open_marks(objects: Objects, kept: Callable[[Kept], None]) -> Iterator[Garbage]:
    ids = set(find_runs(objects))
    for key, size in objects.keys("open/"):
        try:
            named = read_document(objects, key, RunMark)["run_id"]
        except NotThere:
            continue
        except Damaged as error:
            kept(Kept(key, str(error)))
            continue
        if named not in ids and _old(objects, key):
            yield Garbage("open marks", key, (key,), size, f"there is no run {named}")


def _attachments(objects: Objects, kept: Callable[[Kept], None]) -> Iterator[Garbage]:
    there = [(key, size) for key, size in objects.keys("attachments/") if _old(objects, key)]
    if not there:
        return
    try:
        used = {entry["sha256"] for table in _tasks(objects) for entries in table["attachments"].to_pylist() for entry in entries or ()}
        used |= set().union(*(Run(objects, run_id).attachments_of_calls() for run_id in find_runs(objects)))
    except (Damaged, Unusable, NotThere) as error:
        kept(Kept("attachments/", f"it is not known which ones are used: {str(error).splitlines()[0]}"))
        return
    unused = [(key, size) for key, size in there if key.removeprefix("attachments/") not in used]
    if unused:
        yield Garbage(
            "attachments",
            "attachments/",
            tuple(key for key, _ in unused),
            sum(size for _, size in unused),
            "no task of any run or library has them, and no recorded call",
        )


def _tasks(objects: Objects) -> Iterator[pa.Table]:
    for run_id in find_runs(objects):
        try:
            yield Run(objects, run_id).tasks()
        except Unusable:
            continue  # it was never begun, and has none
    for name in library_names(objects):
        for number in library_versions(objects, name):
            yield library_at(objects, f"{name}@{number}").tasks


def _remove_run(objects: Objects, run: Run) -> bool:
    try:
        lease = Lease(run)
    except RunIsTaken:
        return False
    if run.merged:
        lease.release()
        return False
    try:
        if _named(objects, run.record.key) == run.run_id:
            close(objects, run.record)
    except Unusable:
        pass  # an earlier removal came as far as run.json
    # what a cut-off merge left goes first: without its parts the run would look finished. run.json goes after all that
    # was paid, so that a removal that is cut off is seen by the next one; the lease goes last
    names = [key.removeprefix(f"{run.prefix}/") for key, _ in objects.keys(f"{run.prefix}/")]
    for name in sorted(names, key=lambda name: (name.startswith("lease/"), name == "run.json", not name.startswith(("steps/", "calls/", "outcome")))):
        objects.delete(f"{run.prefix}/{name}")
    return True
