"""Maintenance of a store: repairing damaged runs, and deleting what nothing needs."""

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.runs import finish, probe_models
from beam_ray.errors import Damaged, Stopped
from beam_ray.store.gc import ABANDONED_S, Kept, collect, remove
from beam_ray.store.gc import Garbage as StoredGarbage
from beam_ray.store.lookup import resolve
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run as StoredRun

if TYPE_CHECKING:
    from beam_ray.diagnosis import Diagnosis as Engine
    from beam_ray.llm.scripted import Models


class DamageDocument(TypedDict):
    """A damaged file as ``--json`` prints it."""

    name: str
    rows: int
    why: str


class NodeRepairDocument(TypedDict):
    """What a repair does at one node, as ``--json`` prints it."""

    node: str
    redo: int
    follow: int


class RepairedDocument(TypedDict):
    """What a repair did, as ``--json`` prints it."""

    run_id: str
    files: list[str]
    repair_run: str | None
    rows: int
    calls: int
    usd: float | None


class DiagnosisDocument(TypedDict):
    """The damage of a run, and its repair, as ``--json`` prints them."""

    run_id: str
    finished: bool
    damaged: list[DamageDocument]
    nodes: list[NodeRepairDocument]
    calls: int
    calls_at_most: int
    usd_at_most: float | None
    hopeless: str
    repaired: RepairedDocument | None
    """None before the repair."""


class GarbageDocument(TypedDict):
    """Objects that can be deleted, as ``--json`` prints them."""

    kind: str
    place: str
    keys: list[str]
    bytes: int
    why: str


class KeptDocument(TypedDict):
    """What was spared, as ``--json`` prints it."""

    place: str
    why: str


class GarbageReportDocument(TypedDict):
    """A garbage report as ``--json`` prints it."""

    garbage: list[GarbageDocument]
    bytes: int
    deleted: list[str]
    kept: list[KeptDocument]


@dataclass(frozen=True)
class DamagedFile:
    """A damaged file of a run."""

    name: str
    rows: int
    """Rows that cannot be read."""
    why: str


@dataclass(frozen=True)
class NodeRepair:
    """What a repair does at one node, in rows."""

    node: str
    redo: int
    """Rows that cannot be read and are executed again."""
    follow: int
    """Intact rows after them: executed again if their inputs change, else kept."""


@dataclass(frozen=True, repr=False)
class Diagnosis(Displayed):
    """What is damaged in a run, and what repairing it takes. Nothing was changed for it."""

    run_id: str
    finished: bool
    files: tuple[DamagedFile, ...]
    nodes: tuple[NodeRepair, ...]
    calls: int
    """Model calls for the rows to execute again."""
    max_calls: int
    """Model calls if all rows after them change too."""
    max_usd: float | None
    """US dollars at most; None when a model has no price."""
    beyond_repair: str
    """Why the run cannot be repaired; empty when it can."""
    _engine: "Engine" = field(compare=False)

    @property
    def intact(self) -> bool:
        """Whether no file is damaged."""
        return not self.files

    def display(self) -> Display:
        facts = (("damaged files", len(self.files)), ("model calls", self.calls), ("beyond repair", self.beyond_repair))
        return Display(self.run_id, facts, ("file", "rows lost", "damage"), [(each.name, each.rows, each.why) for each in self.files])

    def document(self) -> DiagnosisDocument:
        """The diagnosis as a JSON document."""
        found = self._engine
        return {
            "run_id": found.run_id,
            "finished": found.finished,
            "damaged": [{"name": damage.name, "rows": damage.rows, "why": damage.why} for damage in found.damaged],
            "nodes": [{"node": node.node, "redo": node.redo, "follow": node.follow} for node in found.nodes],
            "calls": found.calls,
            "calls_at_most": found.most_calls,
            "usd_at_most": found.usd,
            "hopeless": found.hopeless,
            "repaired": None,
        }


@dataclass(frozen=True, repr=False)
class Repair(Displayed):
    """A repaired run."""

    diagnosis: Diagnosis
    """What was damaged before."""
    files: tuple[str, ...]
    """Files that were replaced."""
    repair_run: str | None
    """The run that executed rows again; None where no row was lost."""
    rows: int
    """Rows that were executed again."""
    calls: int
    usd: float | None

    def display(self) -> Display:
        return Display(self.diagnosis.run_id, (("replaced files", self.files), ("rows executed again", self.rows), ("model calls", self.calls)))

    def document(self) -> DiagnosisDocument:
        """The repair as a JSON document."""
        done: RepairedDocument = {
            "run_id": self.diagnosis.run_id,
            "files": list(self.files),
            "repair_run": self.repair_run,
            "rows": self.rows,
            "calls": self.calls,
            "usd": self.usd,
        }
        return {**self.diagnosis.document(), "repaired": done}


@dataclass(frozen=True)
class Garbage:
    """Objects that nothing in the store needs, of one kind and in one place."""

    kind: str
    place: str
    objects: int
    bytes: int
    why: str


@dataclass(frozen=True, repr=False)
class GarbageReport(Displayed):
    """What can be deleted from a store, what was deleted, and what is kept although it may look unused."""

    garbage: tuple[Garbage, ...]
    deleted: tuple[str, ...]
    """Places that were deleted; empty unless deletion was requested."""
    spared: tuple[tuple[str, str], ...]
    """Place and reason of what looks unused and was kept."""
    _found: tuple[StoredGarbage, ...] = field(compare=False)
    _kept: tuple[Kept, ...] = field(compare=False)

    @property
    def bytes(self) -> int:
        """Bytes of everything that can be deleted."""
        return sum(each.bytes for each in self.garbage)

    def display(self) -> Display:
        facts = (("bytes", self.bytes), ("deleted", len(self.deleted)))
        return Display("", facts, ("kind", "place", "objects", "bytes", "why"), [(g.kind, g.place, g.objects, g.bytes, g.why) for g in self.garbage])

    def document(self) -> GarbageReportDocument:
        """The report as a JSON document."""
        return {
            "garbage": [{"kind": g.kind, "place": g.place, "keys": list(g.keys), "bytes": g.bytes, "why": g.why} for g in self._found],
            "bytes": self.bytes,
            "deleted": list(self.deleted),
            "kept": [{"place": each.place, "why": each.why} for each in self._kept],
        }


def diagnosis(store: Location, run: str) -> Diagnosis:
    """See ``Store.diagnose``."""
    from beam_ray.diagnosis import diagnose

    stored = StoredRun(store.existing(), resolve(store.objects, run))
    found = diagnose(stored)
    if found.nodes:
        found = diagnose(stored, store.known_models)
    return Diagnosis(
        found.run_id,
        found.finished,
        tuple(DamagedFile(each.name, each.rows, each.why) for each in found.damaged),
        tuple(NodeRepair(node.node, node.redo, node.follow) for node in found.nodes),
        found.calls,
        found.most_calls,
        found.usd,
        found.hopeless,
        found,
    )


def repair(store: Location, run: str | Diagnosis, *, allow_writes: bool = False, takeover: bool = False, progress: ProgressOption = None) -> Repair:
    """See ``Store.repair``."""
    from beam_ray.repair import repair as repair_run  # loads Ray

    found = run if isinstance(run, Diagnosis) else diagnosis(store, run)
    if found.beyond_repair:
        raise Damaged(f"{found.beyond_repair}\n  restore the file from a copy of the store; everything else of the run can still be read")
    if found.intact:
        return Repair(found, (), None, 0, 0, 0.0)
    models: Models = store.known_models if found.nodes else {}
    if found.nodes:
        probe_models(store, StoredRun(store.objects, found.run_id).record.plan)
    with contextlib.ExitStack() as stack:
        callback = stack.enter_context(progress_callback(progress))

        def execute(record: RunRecord) -> None:
            finish(store, record, takeover=takeover, callback=callback)

        try:
            done = repair_run(store.objects, found.run_id, models, execute, allow_writes=allow_writes, takeover=takeover)
        except Stopped as error:
            error.resume = f"beam-ray repair {found.run_id}{store.option}"
            raise
    return Repair(found, tuple(done.files), done.repair_run, done.rows, done.calls, done.usd)


def gc(store: Location, *, delete: bool = False, abandoned: bool = False, older_than_days: float = ABANDONED_S / 86_400) -> GarbageReport:
    """See ``Store.gc``."""
    objects = store.existing()
    kept: list[Kept] = []
    found = collect(objects, abandoned=abandoned, older_than_s=older_than_days * 86_400, kept=kept.append)
    deleted = tuple(each.place for each in found if remove(objects, each)) if delete else ()
    garbage = tuple(Garbage(each.kind, each.place, len(each.keys), each.bytes, each.why) for each in found)
    return GarbageReport(garbage, deleted, tuple((each.place, each.why) for each in kept), tuple(found), tuple(kept))
