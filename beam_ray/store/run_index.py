"""
The index of finished runs: what lists, borrowing and the ledger need of a run, without reading thousands of runs.

    index/<pack>.runs.parquet             record, numbers and manifest digest of some finished runs
    index/<pack>.tasks.parquet            their tasks: see ``outcome_index``
    index/repaired/<run>.<n>.<digest>     a repair gave the run another manifest, with this digest

A finished run never changes, so a pack is made once, by whoever had to read so many runs, and is created if absent
under a name that says what it covers. It is never believed over the runs: a run that is gone is in no list, one
whose manifest was replaced is read itself, one pack entry is compared with its run at every look, and whatever
reads the rows of a run reads them from the run. The whole folder can be deleted at any time.
"""

import contextlib
import hashlib
import json
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import BeamRayError, Damaged
from beam_ray.store.index_cache import IndexCache
from beam_ray.store.manifest import Manifest, RunSummary
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.parquet import decode, encode, to_table
from beam_ray.store.runs import Run, cut_to

if TYPE_CHECKING:
    from beam_ray.store.run_record import RunRecord

PREFIX = "index/"
LOOSE_RUNS = 16
"""Finished runs outside packs from which a pack is made."""
SMALL_PACKS = 16
"""Small packs from which they are made into larger ones."""
PACK_RUNS = 1_024
PACK_BYTES = 64_000_000
"""Runs of a pack, and bytes of their tables of outcomes and tasks, at which it is full."""
_EACH_TIME = "each time"
IN_PARALLEL = 16
"""Runs that are read at once from a store on S3."""

RUNS = pa.schema(
    [
        pa.field("run_id", pa.string()),
        pa.field("manifest", pa.string()),
        pa.field("created_at", pa.string()),
        pa.field("workflow", pa.string()),
        pa.field("definition_digest", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("table_bytes", pa.int64()),
        pa.field("tasks", pa.int64()),
        pa.field("record", pa.string()),
        pa.field("definition", pa.string()),
        pa.field("usage", pa.string()),
    ],
    metadata={"beam_ray": "index-runs/1"},
)


class PackedRun(TypedDict):
    """A row of RUNS."""

    run_id: str
    manifest: str
    """Digest of the manifest."""
    created_at: str
    workflow: str
    definition_digest: str
    origin: str | None
    table_bytes: int
    """Of its tables of outcomes and tasks."""
    tasks: int | None
    """The tasks that it did, by its manifest."""
    record: str
    """run.json as it was written, without the definition."""
    definition: str
    usage: str


def manifest_digest(manifest: Manifest) -> str:
    """Identifies a finished run's content."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, default=str).encode()).hexdigest()


class IndexedRun(Run):
    """A finished run whose record and numbers are known from the index; its rows are read from the run, and verified as ever."""

    def __init__(self, objects: Objects, row: PackedRun):
        super().__init__(objects, row["run_id"])
        self.row = row

    @cached_property
    def record(self) -> "RunRecord":
        from beam_ray.store.run_record import RunRecord  # loads pydantic

        record = RunRecord.model_validate({**json.loads(self.row["record"]), "definition": _definition(self.row["definition"])})
        return cut_to(record, self.row["tasks"]) if record.early and self.row["tasks"] is not None else record

    @property
    def created_at(self) -> str:
        return self.row["created_at"]

    @property
    def workflow(self) -> str:
        return self.row["workflow"]

    @property
    def definition_digest(self) -> str:
        return self.row["definition_digest"]

    @property
    def origin(self) -> str | None:
        return self.row["origin"]

    @property
    def changed_inputs(self) -> JsonObject:
        found: JsonObject = json.loads(self.row["record"]).get("changed_inputs") or {}
        return found

    @property
    def finished(self) -> bool:
        return True

    @property
    def usage(self) -> RunSummary | None:
        found: RunSummary = json.loads(self.row["usage"])
        return found


@lru_cache(maxsize=256)
def _definition(written: str) -> JsonObject:
    """A definition, which many runs share."""
    found: JsonObject = json.loads(written)
    return found


@dataclass(frozen=True)
class Pack:
    """Some finished runs."""

    name: str
    runs: tuple[IndexedRun, ...]
    """The newest first."""

    @property
    def bytes(self) -> int:
        """Of their tables of outcomes and tasks."""
        return sum(run.row["table_bytes"] for run in self.runs)

    @property
    def small(self) -> bool:
        """Whether it may be made part of a larger one."""
        return len(self.runs) <= PACK_RUNS // 2 and self.bytes <= PACK_BYTES // 2


@dataclass(frozen=True)
class Listing:
    """All runs of a store."""

    packs: tuple[tuple[Pack, tuple[IndexedRun, ...]], ...]
    """Each pack with those of its runs for which it holds."""
    loose: tuple[IndexedRun, ...]
    """Finished runs that no pack has."""
    others: tuple[Run, ...]
    """Unfinished runs, and those that cannot be read."""

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [*(run for _, runs in self.packs for run in runs), *self.loose, *self.others]


class RunIndex:
    """The runs of a store; for any number of threads."""

    def __init__(self, objects: Objects, folder: Path | None = None):
        self.objects = objects
        self.cache = IndexCache(objects.uri, folder)
        self._lock = threading.Lock()
        self._packs: dict[str, Pack] = {}
        self._loose: dict[str, IndexedRun] = {}
        self._doubted: set[str] = set()
        """Runs that are not what their pack says."""
        self._dice = random.Random()
        self._first = threading.local()
        """What a thread found at its first look, while it is to look once."""

    @contextlib.contextmanager
    def looking_once(self) -> Iterator[None]:
        """Let this thread list the runs once, and then find them as they were: a plan is of one moment."""
        self._first.listing, before = None, getattr(self._first, "listing", _EACH_TIME)
        try:
            yield
        finally:
            self._first.listing = before

    def listing(self) -> Listing:
        """All runs, as they are now."""
        found: Listing | str | None = getattr(self._first, "listing", _EACH_TIME)
        if isinstance(found, Listing):
            return found
        listed = self._listed()
        if found is None:
            self._first.listing = listed
        return listed

    def _listed(self) -> Listing:
        with self._lock:
            ids = self.objects.folders("runs")
            repaired = self._refresh()
            packed = {run.run_id: (pack, run) for pack in self._packs.values() for run in pack.runs if self._holds(run, repaired)}
            self._compare_one([packed[run_id][1] for run_id in ids if run_id in packed])
            known, loose, unread = dict[str, list[IndexedRun]](), list[IndexedRun](), list[str]()
            for run_id in ids:
                if run_id in packed and run_id not in self._doubted:
                    pack, run = packed[run_id]
                    known.setdefault(pack.name, []).append(run)
                elif run_id in self._loose and self._holds(self._loose[run_id], repaired):
                    loose.append(self._loose[run_id])
                else:
                    unread.append(run_id)
            others = list[Run]()
            for found in self._read(unread):
                if isinstance(found, IndexedRun):
                    loose.append(found)
                else:
                    others.append(found)
            self._loose = {run.run_id: run for run in loose}
            if len(loose) >= LOOSE_RUNS:
                known, loose = self._pack(known, loose)
            packs = tuple((self._packs[name], tuple(runs)) for name, runs in known.items())
            return Listing(packs, tuple(loose), tuple(others))

    # -- packs ---------------------------------------------------------------------------------

    def _refresh(self) -> dict[str, tuple[int, str]]:
        """Read the packs that are new; the repaired runs, each with the number of its repairs and how its manifest's digest begins."""
        names, repaired = set[str](), dict[str, tuple[int, str]]()
        for key, _ in self.objects.keys(PREFIX):
            name = key.removeprefix(PREFIX)
            if name.startswith("repaired/"):
                run_id, number, digest = [*name.removeprefix("repaired/").split("."), "", ""][:3]
                if number.isdecimal():  # else a file that something else has put there
                    repaired[run_id] = max(repaired.get(run_id, (0, "")), (int(number), digest))
            elif name.endswith(".runs.parquet"):
                names.add(name.removesuffix(".runs.parquet"))
        self._packs = {name: pack for name, pack in self._packs.items() if name in names}
        for name in sorted(names - set(self._packs)):
            pack = self._opened(name)
            if pack:
                self._packs[name] = pack
        return repaired

    def _opened(self, name: str) -> Pack | None:
        key = f"{PREFIX}{name}.runs.parquet"
        kept = self.cache.read(f"{name}.runs.parquet") if self.cache.remote else None
        for body in (kept, None):
            try:
                found = body or self.objects.read(key)
                rows: list[PackedRun] = decode(found, RUNS, key).to_pylist()
            except NotThere:
                return None
            except Damaged:
                if body is None:
                    self._forget(name)  # it is made again from the runs
                continue
            if self.cache.remote and body is None:
                self.cache.write(f"{name}.runs.parquet", found)
            return Pack(name, tuple(IndexedRun(self.objects, row) for row in rows))
        return None

    def _holds(self, run: IndexedRun, repaired: dict[str, tuple[int, str]]) -> bool:
        return run.run_id not in repaired or run.row["manifest"].startswith(repaired[run.run_id][1])

    def _compare_one(self, runs: Sequence[IndexedRun]) -> None:
        """Compare one entry with its run: an earlier version of beam_ray repairs runs without saying so here."""
        if not runs:
            return
        run = self._dice.choice(runs)
        try:
            manifest = Run(self.objects, run.run_id).manifest
        except Damaged:
            manifest = None
        if manifest is None:
            self._doubted.add(run.run_id)
        elif manifest_digest(manifest) != run.row["manifest"]:
            self._doubted.add(run.run_id)
            with contextlib.suppress(BeamRayError):
                note_repair(run, manifest)

    def _pack(self, known: dict[str, list[IndexedRun]], loose: list[IndexedRun]) -> tuple[dict[str, list[IndexedRun]], list[IndexedRun]]:
        """Make packs of the loose runs, and of small packs where there are many."""
        small = [name for name in known if self._packs[name].small]
        merged = small if len(small) >= SMALL_PACKS else []
        runs = [*loose, *(run for name in merged for run in known[name])]
        for chunk in _chunks(sorted(runs, key=lambda run: (run.created_at, run.run_id), reverse=True)):
            name = hashlib.sha256("".join(f"{run.run_id} {run.row['manifest']}\n" for run in chunk).encode()).hexdigest()[:32]
            with contextlib.suppress(BeamRayError):  # a store that cannot be written is read run by run
                self.objects.create(f"{PREFIX}{name}.runs.parquet", encode(RUNS, to_table(RUNS, [{**run.row} for run in chunk])))
            self._packs[name] = Pack(name, tuple(chunk))
            known[name] = list(chunk)
        for name in merged:
            self._forget(name)
            del known[name], self._packs[name]
        self._loose = {}
        return known, []

    def _forget(self, name: str) -> None:
        with contextlib.suppress(BeamRayError):
            for kind in ("runs", "tasks"):
                self.objects.delete(f"{PREFIX}{name}.{kind}.parquet")

    # -- runs ----------------------------------------------------------------------------------

    def _read(self, ids: Sequence[str]) -> Iterator[Run]:
        if len(ids) > 1 and self.cache.remote:
            with ThreadPoolExecutor(IN_PARALLEL) as threads:
                yield from threads.map(self._read_one, ids)
        else:
            yield from map(self._read_one, ids)

    def _read_one(self, run_id: str) -> Run:
        run = Run(self.objects, run_id)
        try:
            manifest = run.manifest
            if manifest is None:
                return run
            record = run.record
        except BeamRayError:
            return run  # whoever asks it for anything is told why not
        written = dict(manifest["record"])
        definition = written.pop("definition")
        files = {entry["name"]: entry for entry in manifest["files"]}
        row: PackedRun = {
            "run_id": run_id,
            "manifest": manifest_digest(manifest),
            "created_at": record.created_at,
            "workflow": record.workflow,
            "definition_digest": record.definition_digest,
            "origin": record.origin,
            "table_bytes": sum(entry["bytes"] for name, entry in files.items() if name == "tasks.parquet" or name.startswith("outcome")),
            "tasks": files["tasks.parquet"]["rows"] if "tasks.parquet" in files else None,
            "record": json.dumps(written),
            "definition": json.dumps(definition),
            "usage": json.dumps(manifest["usage"]),
        }
        found = IndexedRun(self.objects, row)
        found.__dict__["record"] = record
        return found


def _chunks(runs: Iterable[IndexedRun]) -> Iterator[list[IndexedRun]]:
    chunk, size = list[IndexedRun](), 0
    for run in runs:
        if chunk and (len(chunk) == PACK_RUNS or size + run.row["table_bytes"] > PACK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(run)
        size += run.row["table_bytes"]
    if chunk:
        yield chunk


def note_repair(run: Run, manifest: Manifest) -> None:
    """Say that the run's manifest is now *manifest*, so that no pack with another one is believed."""
    number = len(manifest.get("repairs", ()))
    run.objects.create(f"{PREFIX}repaired/{run.run_id}.{number}.{manifest_digest(manifest)[:16]}", b"{}")


@lru_cache(maxsize=8)
def run_index(objects: Objects) -> RunIndex:
    """The index of these objects, of which what was read is kept."""
    return RunIndex(objects)


def all_runs(objects: Objects) -> list[Run]:
    """All runs; of finished ones the record is known without reading them."""
    return run_index(objects).listing().runs
