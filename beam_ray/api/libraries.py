"""Libraries: named, versioned sets of saved tasks."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa

from beam_ray.address import parse
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.define.fingerprint import Json, JsonObject, strict_json
from beam_ray.errors import Unusable
from beam_ray.library.check import Check as Engine
from beam_ray.library.check import check_library
from beam_ray.library.coverage import EDGE_LABELS, size_class
from beam_ray.library.export import export
from beam_ray.library.report import CheckDocument, advice, document, fill_all_command, measures
from beam_ray.store.libraries import Library as StoredLibrary
from beam_ray.store.libraries import Use, UseDocument, library_at, library_names, library_versions, uses
from beam_ray.store.runs import Run as StoredRun
from beam_ray.store.tables import AttachmentRow, TaskRow
from beam_ray.tracking import ExportedDataset, default_uri, export_dataset
from beam_ray.tracking.backtest_log import TaskRequest
from beam_ray.tracking.worker_calls import TaskRecord

if TYPE_CHECKING:
    from beam_ray.api.library_coverage import CoverageGrid
    from beam_ray.store.run_record import RunRecord


class _LibraryFacts(TypedDict):
    library: str
    version: int
    size_class: str
    saved_at: str | None
    saved_by: str | None
    change: str
    last_used: UseDocument | None


class LibrarySummary(_LibraryFacts):
    """A library as ``--json`` prints it in a list."""

    tasks: int


class SavedTaskDocument(TypedDict):
    """A saved task as ``--json`` prints it."""

    id: str
    task_query: Json
    variables: JsonObject
    expected: JsonObject | None
    labels: list[str]
    attachments: list[AttachmentRow]
    tests: str | None
    notes: str | None
    origin: str | None
    inputs: str
    messages: list[JsonObject] | None
    since: str | None
    """When its inputs came into the library."""


class LibraryDocument(_LibraryFacts):
    """A library as ``--json`` prints it."""

    versions: list[int]
    tasks: list[SavedTaskDocument]


@dataclass(frozen=True, repr=False)
class Library(Displayed):
    """One version of a library."""

    store: Location = field(compare=False)
    name: str
    version: int
    tasks: pa.Table = field(compare=False)
    """The tasks, with the columns of ``tasks.parquet``."""
    saved_at: str
    """ISO 8601, UTC; empty when unknown."""
    saved_by: str
    change: str
    """What this version changed."""
    since: Mapping[str, str] = field(compare=False)
    """Task id to when its inputs came into the library."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def size(self) -> int:
        """How many tasks."""
        return int(self.tasks.num_rows)

    @property
    def size_class(self) -> str:
        """What this number of tasks is enough to judge."""
        return size_class(self.size)

    @property
    def versions(self) -> list[int]:
        """The numbers of all versions."""
        return library_versions(self.store.objects, self.name)

    @cached_property
    def workflow(self) -> str:
        """The workflow that the newest of these tasks ran with; empty where none is known."""
        record = self.origin_record
        return record.workflow if record else ""

    @cached_property
    def origin_record(self) -> "RunRecord | None":
        """The record of the run that the newest of these tasks was saved from (internal)."""
        origin = next((row["origin"] for row in reversed(self.tasks.select(["origin"]).to_pylist()) if row["origin"]), None)
        try:
            return StoredRun(self.store.objects, parse(origin).run).record if origin else None
        except Unusable:
            return None

    @cached_property
    def last_used(self) -> Use | None:
        """The newest backtest over this library: its ``backtest_id``, the library's ``version``, and when (``at``)."""
        return max(uses(self.store.objects, self.name), default=None)

    def export(self, path: str | Path) -> int:
        """
        Write the tasks to a .jsonl, .csv or .parquet file, and their attachments into a folder next to it. Returns the number of attachments.

        Raises:
            Unusable: the file exists, or cannot hold the tasks.
        """
        rows = self.tasks.to_pylist()
        export(self.store.objects, rows, Path(path))
        return sum(len(row["attachments"] or ()) for row in rows)

    def export_file(self) -> tuple[str, bytes]:
        """
        A file's name and content with the tasks: JSON lines, in a .zip with their attachments where there are any.

        Raises:
            Unusable: the library is empty.
        """
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"{self.name}-{self.version}.jsonl"
            if not self.export(file):
                return file.name, file.read_bytes()
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for each in sorted(Path(folder).rglob("*")):
                    if each.is_file():
                        archive.write(each, each.relative_to(folder))
            return f"{file.stem}.zip", packed.getvalue()

    def export_to_mlflow(self, dataset: str, uri: str | None = None) -> ExportedDataset:
        """
        Make an MLflow evaluation dataset hold the tasks; what people added to it stays. It is safe to repeat.

        Inputs are the task's id, query and variables, expectations the expected outcome. The library
        and its version are tags of the dataset.

        Args:
            dataset: The dataset's name.
            uri: MLflow's URI. None for ``MLFLOW_TRACKING_URI``, or else the database in the store.

        Raises:
            Unusable: the dataset holds another library, or there is no MLflow to use.
            Stopped: MLflow cannot be reached; the same call completes the dataset.
        """
        records = (_record(row) for row in self.tasks.to_pylist())
        return export_dataset(uri or default_uri(self.store.uri), dataset, records, library=self.name, version=self.version)

    def check(self, workflow: WorkflowOption, *, edge_labels: Iterable[str] = EDGE_LABELS) -> "LibraryCheck":
        """
        Measure how good the library is for backtesting a workflow, and find past tasks that fill its gaps.

        Args:
            workflow: As for ``Store.check``.
            edge_labels: Labels that mark edge cases.
        """
        found = check(workflow, self.store)
        library = StoredLibrary(self.name, self.version, self.tasks, self.saved_at, self.saved_by, self.change, self.since)
        made = check_library(self.store.objects, library, found.workflow, edge_labels=tuple(dict.fromkeys(edge_labels)))
        return LibraryCheck(self, found.workflow.name, found.version, workflow if isinstance(workflow, str) else found.workflow.name, made)

    def display(self) -> Display:
        rows = [(row["task_id"], row["task_query"][:80], ", ".join(row["labels"] or ())) for row in self.tasks.slice(0, 20).to_pylist()]
        return Display(str(self), (("tasks", self.size), ("size", self.size_class), ("saved", self.saved_at[:10])), ("task", "query", "labels"), rows)

    def summary(self) -> LibrarySummary:
        """The library as a JSON document, without its tasks."""
        used = self.last_used
        last: UseDocument | None = {"backtest_id": used.backtest_id, "version": used.version, "at": used.at} if used else None
        return {
            "library": self.name,
            "version": self.version,
            "tasks": self.size,
            "size_class": self.size_class,
            "saved_at": self.saved_at or None,
            "saved_by": self.saved_by or None,
            "change": self.change,
            "last_used": last,
        }

    def document(self) -> LibraryDocument:
        """The library as a JSON document, with its tasks."""
        return {**self.summary(), "versions": self.versions, "tasks": [_task(row, self.since) for row in self.tasks.to_pylist()]}


@dataclass(frozen=True, repr=False)
class LibraryCheck(Displayed):
    """How good a library is for backtesting a workflow."""

    library: Library
    workflow: str
    version: int | None
    """Number of the workflow's published version; None for a draft."""
    _written: str
    _engine: Engine = field(compare=False)

    @property
    def good(self) -> bool:
        """Whether there are no gaps."""
        return not self._engine.gaps

    @property
    def measures(self) -> list[tuple[str, str, str]]:
        """Name, value and meaning of each measure."""
        return measures(self.document())

    @property
    def gaps(self) -> list[tuple[str, str]]:
        """Each gap, and the command or advice that fills it."""
        return advice(self._engine, written=self._written, where=self.library.store.option)

    @property
    def fill_all(self) -> str:
        """The command that adds past tasks for all gaps at once; empty where there are none."""
        return fill_all_command(self._engine, self.library.store.option) if self._engine.smallest_fill else ""

    @cached_property
    def grid(self) -> "CoverageGrid":
        """The library's tasks by route and label, with how many past tasks would fill each empty cell."""
        from beam_ray.api.library_coverage import coverage_grid

        return coverage_grid(self)

    @property
    def misplaced(self) -> Mapping[str, str]:
        """Task to the reason why it does not test the node or route that it was saved for."""
        return self.document()["misplaced"]

    def display(self) -> Display:
        return Display(f"{self.library} for {self.workflow}", (("gaps", len(self._engine.gaps)),), ("measure", "value", ""), self.measures)

    def document(self) -> CheckDocument:
        """The check as a JSON document."""
        return document(self._engine, version=self.version, written=self._written, where=self.library.store.option)


def libraries(store: Location) -> list[Library]:
    """See ``Store.libraries``."""
    objects = store.existing()
    return [_library(store, library_at(objects, name)) for name in library_names(objects) if library_versions(objects, name)]


def library(store: Location, name: str) -> Library:
    """See ``Store.library``."""
    return _library(store, library_at(store.existing(), name))


def _library(store: Location, found: StoredLibrary) -> Library:
    return Library(store, found.name, found.version, found.tasks, found.saved_at, found.saved_by, found.change, found.since)


def _record(row: TaskRow) -> TaskRecord:
    """The task as a record of an MLflow evaluation dataset."""
    variables = strict_json(row["variables"])
    query = strict_json(row["task_query"]) if row["query_is_json"] else row["task_query"]
    inputs: TaskRequest = {"task": row["task_id"], "task_query": query}
    if variables:
        inputs["variables"] = variables
    if row["messages"]:
        inputs["messages"] = strict_json(row["messages"])
    return {
        "inputs": inputs,
        "expectations": strict_json(row["expected"]) if row["expected"] is not None else {},
        "tags": {"beam_ray.task": row["task_id"], **({"labels": ", ".join(row["labels"])} if row["labels"] else {})},
    }


def _task(row: TaskRow, since: Mapping[str, str]) -> SavedTaskDocument:
    return {
        "id": row["task_id"],
        "task_query": strict_json(row["task_query"]) if row["query_is_json"] else row["task_query"],
        "variables": strict_json(row["variables"]),
        "expected": strict_json(row["expected"]) if row["expected"] is not None else None,
        "labels": row["labels"],
        "attachments": row["attachments"],
        "tests": row["tests"],
        "notes": row["notes"],
        "origin": row["origin"],
        "inputs": row["inputs"],
        "messages": strict_json(row["messages"]) if row["messages"] else None,
        "since": since.get(row["task_id"]),
    }
