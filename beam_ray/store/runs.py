"""
Runs: what is to be done, what is done so far, and the finished tables.

    runs/<run_id>/run.json                          what is to be done
    runs/<run_id>/tasks.parquet                     the tasks, as given
    runs/<run_id>/cut.json                          after how many shards the run ended, if it may end early and did
    runs/<run_id>/lease/<epoch>.json                the highest epoch owns the run
    runs/<run_id>/progress.json                     how far the driver is, see ``live``
    runs/<run_id>/parts/<node>/<shard>.parquet      one step of one shard with its calls, written once
    runs/<run_id>/spool/<runner>-<n>.parquet        finished rows whose shard is not finished
    runs/<run_id>/batches/                          batches that are out, and their answers: see ``batches``
    runs/<run_id>/steps/<node>-<n>.parquet          when finished: the parts merged
    runs/<run_id>/calls/<node>-<n>.parquet          their calls, of nodes that have recorded any
    runs/<run_id>/outcome.parquet                   one row per task and trial
    runs/<run_id>/manifest.json                     its presence means that the run is finished
    runs/<run_id>/repair/                           mended files on their way to their places, see ``damage``
    open/<key>.json                                 the unfinished run that the same command resumes
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING

import pyarrow as pa

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import Damaged, RunIsTaken, Unusable
from beam_ray.store.call_table import CALLS, CARRIED, attachments_in, calls_of
from beam_ray.store.checksummed_json import read_document, seal, unseal
from beam_ray.store.manifest import CutDocument, Manifest, RunSummary
from beam_ray.store.objects import NotThere, Objects, at_once
from beam_ray.store.parquet import columns_of, decode, encode, encode_batches, footer_of, only, require_whole
from beam_ray.store.tables import OUTCOME, PART, STEPS, TASKS, FileEntry, OutcomeRow, StepRow

if TYPE_CHECKING:
    from beam_ray.store.run_record import RunRecord

FILE_BYTES = 128_000_000
"""Size from which a merged file is closed and the next begun."""

READ_AHEAD = 8
"""Parts that are read at once while they are merged."""


class Run:
    """One run in the store, finished or not."""

    def __init__(self, objects: Objects, run_id: str):
        self.objects, self.run_id = objects, run_id
        self.prefix = f"runs/{run_id}"

    @cached_property
    def record(self) -> "RunRecord":
        """
        What is to be done.

        Raises:
            Unusable: there is no such run.
        """
        from beam_ray.store.run_record import RunRecord  # loads pydantic, which lists of finished runs need not

        try:
            record = RunRecord.model_validate(self.written)
        except NotThere:
            if self.manifest:
                raise Damaged(f"{self.prefix}/run.json is missing, though the run is finished") from None
            raise Unusable(f"there is no run {self.run_id!r} in {self.objects.uri}") from None
        except ValueError as error:
            raise Damaged(f"{self.prefix}/run.json is damaged: {str(error).splitlines()[0]}") from None
        return self.shortened(record)

    @property
    def created_at(self) -> str:
        """When it was begun: ISO 8601, UTC."""
        return self.record.created_at

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self.record.workflow

    @property
    def definition_digest(self) -> str:
        """Identifies the definition."""
        return self.record.definition_digest

    @property
    def origin(self) -> str | None:
        """The run that this one redoes or borrows from."""
        return self.record.origin

    @property
    def changed_inputs(self) -> JsonObject:
        """What differs from the input of the origin's tasks: field to its new value."""
        return self.record.changed_inputs

    def shortened(self, record: "RunRecord") -> "RunRecord":
        """*record*, and where the run ended early, only what it did."""
        if not record.early:
            return record
        tasks = self._merged_tasks()
        if tasks is None:
            try:
                tasks = record.shards[self.cut_after - 1][1] // record.trials
            except NotThere:
                return record
        return cut_to(record, tasks)

    def _merged_tasks(self) -> int | None:
        """How many tasks the manifest says were done: once it is there, a lost cut.json may not lengthen the run."""
        try:
            files = self.manifest["files"] if self.manifest else ()
        except Damaged:
            return None
        return next((int(entry["rows"]) for entry in files if entry["name"] == "tasks.parquet"), None)

    @property
    def cut_after(self) -> int:
        """
        After how many shards the run ended early, by cut.json.

        Raises:
            NotThere: it did not.
        """
        return read_document(self.objects, f"{self.prefix}/cut.json", CutDocument)["shards"]

    def cut(self, shards: int) -> None:
        """End an early run after its first *shards*; of several who say so the first one counts."""
        document: CutDocument = {"shards": shards}
        self.objects.create(f"{self.prefix}/cut.json", seal(document))
        self.__dict__.pop("record", None)

    @cached_property
    def written(self) -> JsonObject:
        """What run.json says, in full also where the run ended early; the manifest has a copy of it."""
        return unseal(self.objects.read(f"{self.prefix}/run.json"), f"{self.prefix}/run.json")

    def tasks(self, columns: list[str] | None = None) -> pa.Table:
        """The tasks, as the table TASKS; of a run that ended early, those it did."""
        try:
            tasks = self.read("tasks.parquet", TASKS, columns)
        except NotThere:
            if next(self.objects.keys(f"{self.prefix}/lease/"), None) is None:
                raise Unusable(
                    f"run {self.run_id} was never started: the process that planned it died before its tasks were stored; run its command again"
                ) from None
            raise Damaged(f"{self.prefix}/tasks.parquet is missing") from None
        return tasks.slice(0, self.record.tasks) if self.record.early else tasks

    # -- while it goes on ------------------------------------------------------------------

    def part(self, node: str, shard: int) -> pa.Table | None:
        """The committed rows of one step of one shard, with their calls, if they are."""
        try:
            return self.read(f"parts/{node}/{shard:06d}.parquet", PART)
        except NotThere:
            return None

    def commit_part(self, node: str, shard: int, rows: Sequence[StepRow]) -> bool:
        """Keep the rows of one step of one shard; whether ours are the ones that were kept."""
        return self.objects.create(f"{self.prefix}/parts/{node}/{shard:06d}.parquet", _encoded_part(rows))

    def commit_outcome(self, shard: int, rows: Sequence[OutcomeRow]) -> bool:
        """Keep the outcome of one shard."""
        return self.objects.create(f"{self.prefix}/parts/_outcome/{shard:06d}.parquet", encode(OUTCOME, rows))

    def names(self) -> list[str]:
        """The names of everything that the run has now."""
        return [key.removeprefix(f"{self.prefix}/") for key, _ in self.objects.keys(f"{self.prefix}/")]

    def parts(self, names: Iterable[str] | None = None) -> set[tuple[str, int]]:
        """
        (node, shard) of every part that is committed; the outcome's node is '_outcome'.

        Args:
            names: What the run has, where that is known; None lists it.

        Raises:
            Damaged: the parts were merged and deleted, and the manifest that says so is gone.
        """
        found, merged = set[tuple[str, int]](), False
        for written in self.names() if names is None else names:
            folder, _, rest = written.partition("/")
            merged = merged or folder == "steps"
            if folder == "parts":
                node, _, name = rest.partition("/")
                found.add((node, int(name.removesuffix(".parquet"))))
        # parts are merged when all of them are there, and deleted when the manifest is
        if merged and not self.manifest and not self._all_parts(found):
            raise Damaged(f"{self.prefix}/manifest.json is missing, though the run is finished\n  beam-ray repair {self.run_id}  restores it")
        return found

    def _all_parts(self, found: set[tuple[str, int]]) -> bool:
        record = self.record
        return {(node, shard) for node in (*record.plan.order, "_outcome") for shard in range(len(record.shards))} <= found

    def spool(self, runner: str, number: int, rows: Sequence[StepRow]) -> None:
        """Keep finished rows whose shard is not finished."""
        self.objects.create(f"{self.prefix}/spool/{runner}-{number:06d}.parquet", _encoded_part(rows))

    def unspool(self, runner: str, numbers: Iterable[int]) -> None:
        """Delete spool files: their rows are all in parts."""
        self.objects.delete_all(f"{self.prefix}/spool/{runner}-{number:06d}.parquet" for number in numbers)

    def spooled(self) -> Iterator[pa.Table]:
        """The rows kept so, file by file, in a fixed order."""
        for key, _ in self.objects.keys(f"{self.prefix}/spool/"):
            try:
                yield self.read(key.removeprefix(f"{self.prefix}/"), PART)
            except NotThere:
                continue

    # -- finishing --------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the manifest is there."""
        return bool(self.manifest)

    @property
    def merged(self) -> bool:
        """Whether the run is finished, or was before it was damaged."""
        try:
            if self.finished:
                return True
            self.parts()
        except Damaged:
            return True
        return False

    @cached_property
    def _manifest(self) -> Manifest:
        return read_document(self.objects, f"{self.prefix}/manifest.json", Manifest)

    @property
    def manifest(self) -> Manifest | None:
        """Every file with rows, bytes and sha256, usage, times, and a copy of run.json; None while the run goes on."""
        try:
            return self._manifest
        except NotThere:
            return None

    @property
    def usage(self) -> RunSummary | None:
        """The finished run in numbers; None while it goes on."""
        return self.manifest["usage"] if self.manifest else None

    def encode_merged(self, node: str, shards: int) -> list[tuple[bytes, int]]:
        """What ``merge`` writes of a node that records no calls, with numbers of rows: to be encoded while there is time."""
        tables = (decode(body, PART, where, STEPS.names) for where, body in self._part_bodies(node, range(shards)))
        return list(encode_batches(STEPS, tables, FILE_BYTES))

    def merge(self, node: str, shards: int, encoded: Sequence[tuple[bytes, int]] | None = None) -> list[FileEntry]:
        """
        Merge a node's parts into files of about 128 MB; the files' names, rows, bytes and sha256.

        Equal parts give equal bytes, so that two drivers that finish the same run agree.

        Args:
            encoded: What ``encode_merged`` gave since all parts are there.
        """
        if encoded is not None:
            return self._write(encoded, f"steps/{node}")
        if node == "_outcome":
            return self._create(OUTCOME, (decode(body, OUTCOME, where) for where, body in self._part_bodies(node, range(shards))), "outcome")
        recorded: list[int] = []

        def steps() -> Iterator[pa.Table]:
            for shard, (where, body) in enumerate(self._part_bodies(node, range(shards))):
                # most nodes have none, and the names of a file's columns take as long to read as the file
                if b"call_rows" in footer_of(body, where) and "call_rows" in columns_of(body):
                    recorded.append(shard)
                yield decode(body, PART, where, STEPS.names)

        files = self._create(STEPS, steps(), f"steps/{node}")
        attachments: set[str] = set()

        def calls() -> Iterator[pa.Table]:
            for where, body in self._part_bodies(node, recorded):
                table = calls_of(decode(body, PART, where, CARRIED))
                attachments.update(attachments_in(table))
                yield table

        return [*files, *with_attachments(self._create(CALLS, calls(), f"calls/{node}"), attachments)]

    def _part_bodies(self, node: str, shards: Iterable[int]) -> Iterator[tuple[str, bytes]]:
        for where, reading in self._read_ahead(f"{self.prefix}/parts/{node}/{shard:06d}.parquet" for shard in shards):
            try:
                yield where, reading.result()
            except NotThere:
                if self.finished:
                    raise RunIsTaken(
                        f"run {self.run_id} was finished by another driver in the meantime; run the same command again to see its result"
                    ) from None
                raise Damaged(f"{where} is missing") from None

    def _read_ahead(self, keys: Iterable[str]) -> Iterator[tuple[str, Future[bytes]]]:
        """The files, of which a few are read at once: a store on S3 answers late, and many requests at a time."""
        waiting = deque[tuple[str, Future[bytes]]]()
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            for key in keys:
                waiting.append((key, pool.submit(self.objects.read, key)))
                if len(waiting) == READ_AHEAD:
                    yield waiting.popleft()
            yield from waiting

    def _create(self, schema: pa.Schema, tables: Iterable[pa.Table], start: str) -> list[FileEntry]:
        """Write the tables as merged files whose names begin with *start*."""
        return self._write(encode_batches(schema, tables, FILE_BYTES), start)

    def _write(self, encoded: Iterable[tuple[bytes, int]], start: str) -> list[FileEntry]:
        files = []
        for number, (body, rows) in enumerate(encoded):
            name = "outcome.parquet" if start == "outcome" and number == 0 else f"{start}-{number:03d}.parquet"
            where = f"{self.prefix}/{name}"
            if not self.objects.create(where, body) and not self.finished and self.objects.read(where) != body:
                # merged by a driver that died before its manifest, from parts that were damaged and done again since, or from more of them
                self.objects.put(where, body)
            files.append(self.entry(name, body, rows))
        return files

    @staticmethod
    def entry(name: str, body: bytes, rows: int) -> FileEntry:
        """What the manifest says of a file."""
        footer = hashlib.sha256(footer_of(body, name)).hexdigest()
        return {"name": name, "rows": rows, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "footer": footer}

    def finish(
        self, files: list[FileEntry], usage: RunSummary, beside: Callable[[], None] = lambda: None, meanwhile: Callable[[], None] = lambda: None
    ) -> Manifest:
        """
        Write the manifest, the last act but tidying up; the manifest that counts.

        Args:
            beside: Called before or while it is written; returns when nobody writes the run's progress any more.
            meanwhile: Called once it is written, before or while the run is tidied up.
        """
        from beam_ray.store.run_record import now

        manifest: Manifest = {
            "format": 1,
            "run_id": self.run_id,
            "finished_at": now(),
            "files": [*files, self.tasks_entry],
            "usage": usage,
            "record": self.written,
        }
        # what is listed before the manifest is there is deleted after it; what a late writer adds is garbage either way
        written = partial(self.objects.create, f"{self.prefix}/manifest.json", seal(manifest))
        _, names, is_ours = at_once(self.objects, beside, self.names, written)
        if is_ours:
            self._manifest = manifest
        # the progress may have been written since
        at_once(self.objects, meanwhile, lambda: self.tidy(dict.fromkeys([*names, "progress.json"])))
        return self.manifest or manifest

    @cached_property
    def tasks_entry(self) -> FileEntry:
        """What the manifest says of the tasks."""
        body = self.objects.read(f"{self.prefix}/tasks.parquet")
        require_whole(body, f"{self.prefix}/tasks.parquet")
        return self.entry("tasks.parquet", body, self.record.tasks)

    def tidy(self, names: Iterable[str] | None = None) -> None:
        """Delete the parts, the spool, the batches and the progress of a finished run; of *names* those, where it is known what it has."""
        gone = ("progress.json", "parts/", "spool/", "batches/")
        self.objects.delete_all([f"{self.prefix}/{name}" for name in (self.names() if names is None else names) if name.startswith(gone)])

    # -- reading ----------------------------------------------------------------------------

    def steps(self, nodes: Iterable[str] | None = None, columns: list[str] | None = None) -> pa.Table:
        """
        The steps of a finished run, verified against the manifest; of an unfinished one, those committed so far.

        Args:
            columns: Of lists of structs also single fields, named ``column.list.element.field``.

        Raises:
            Damaged: a file is not what was written.
        """
        wanted = None if nodes is None else set(nodes)
        tables = []
        if self.manifest:
            for entry in self.manifest["files"]:
                node = entry["name"].removeprefix("steps/").rpartition("-")[0]
                if entry["name"].startswith("steps/") and (wanted is None or node in wanted):
                    tables.append(self.read(entry["name"], STEPS, columns, entry))
        else:
            tables = [
                self.read(f"parts/{node}/{shard:06d}.parquet", PART, columns or STEPS.names)
                for node, shard in sorted(self.parts())
                if node != "_outcome" and (wanted is None or node in wanted)
            ]
        schema = STEPS if columns is None else only(STEPS, columns)
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def calls(self, nodes: Iterable[str] | None = None, columns: list[str] | None = None) -> pa.Table:
        """
        The calls that agents and programs made to models and tools; of an unfinished run, those of the steps committed so far.

        A borrowed step has none: its calls are those of the step that it is borrowed from.

        Raises:
            Damaged: a file is not what was written.
        """
        wanted = None if nodes is None else set(nodes)
        if self.manifest:
            entries = [entry for entry in self.manifest["files"] if entry["name"].startswith("calls/")]
            named = [(entry["name"].removeprefix("calls/").rpartition("-")[0], entry) for entry in entries]
            tables = [self.read(entry["name"], CALLS, columns, entry) for node, entry in named if wanted is None or node in wanted]
        else:
            parts = [part for part in sorted(self.parts()) if part[0] != "_outcome" and (wanted is None or part[0] in wanted)]
            tables = [calls_of(self.read(f"parts/{node}/{shard:06d}.parquet", PART, CARRIED)) for node, shard in parts]
        found = pa.concat_tables(tables) if tables else CALLS.empty_table()
        return found if columns is None else found.select(columns)

    def attachments_of_calls(self) -> set[str]:
        """The sha256 of the attachments that are requests and replies of the run's calls, spooled ones included."""
        if self.manifest:
            return {sha256 for entry in self.manifest["files"] for sha256 in entry.get("attachments", ())}
        return attachments_in(self.calls()).union(*(attachments_in(calls_of(table)) for table in self.spooled()))

    def outcome(self, columns: list[str] | None = None) -> pa.Table:
        """The outcome of each task and trial; of an unfinished run, of those shards that are done."""
        if self.manifest:
            tables = [self.read(entry["name"], OUTCOME, columns, entry) for entry in self.manifest["files"] if entry["name"].startswith("outcome")]
        else:
            tables = [self.read(f"parts/_outcome/{shard:06d}.parquet", OUTCOME, columns) for node, shard in sorted(self.parts()) if node == "_outcome"]
        schema = OUTCOME if columns is None else pa.schema([OUTCOME.field(name) for name in columns])
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def read(self, name: str, schema: pa.Schema, columns: list[str] | None = None, entry: FileEntry | None = None) -> pa.Table:
        """
        The run's table of that name, verified against its *entry* in the manifest if given.

        Raises:
            NotThere: it is not there, and no manifest says that it should be.
            Damaged: it is not what was written.
        """
        where = f"{self.prefix}/{name}"
        try:
            body = self.objects.read(where)
        except NotThere:
            if entry is None:
                raise
            raise Damaged(f"{where} is missing, though the run's manifest names it") from None
        if entry is not None and (len(body) != entry["bytes"] or hashlib.sha256(body).hexdigest() != entry["sha256"]):
            raise Damaged(f"{where} is damaged: its sha256 is not the one in the manifest")
        return decode(body, schema, where, columns)


def cut_to(record: "RunRecord", tasks: int) -> "RunRecord":
    """The record of a run that ended after its first *tasks*."""
    shards = [shard for shard in record.shards if shard[1] <= tasks * record.trials]
    return record if tasks == record.tasks else record.model_copy(update={"shards": shards, "tasks": tasks, "cut_from": record.tasks})


def with_attachments(files: list[FileEntry], attachments: set[str]) -> list[FileEntry]:
    """The entries of a node's files of calls; the first one names the attachments of all."""
    if files and attachments:
        files[0]["attachments"] = sorted(attachments)
    return files


def _encoded_part(rows: Sequence[StepRow]) -> bytes:
    """The rows as a part; without the column of calls where none has any, as most nodes have none."""
    return encode(PART if any(row.get("call_rows") for row in rows) else STEPS, rows)
