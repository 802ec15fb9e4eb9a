"""
What the MLflow worker process can be asked to do: log a backtest, mark published prompts, copy traces, export a dataset.

Each call waits for the worker to end. Nothing here imports mlflow.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Stopped, TrackingUnavailable, Unusable
from beam_ray.tracking.backtest_log import BacktestLog, Logged, TaskRequest, trimmed
from beam_ray.tracking.location import exists, shown
from beam_ray.tracking.snapshot import write, write_request
from beam_ray.tracking.watchdog import PATIENCE_S, run_worker


class TraceSearchRequest(TypedDict):
    """Which traces the worker process copies, and where to."""

    experiment: str
    """Name or id."""
    filter: str
    """In MLflow's search syntax; may be empty."""
    file: str


class TraceSearchResult(TypedDict):
    """Numbers of traces."""

    traces: int
    left_out: int


class TaskRecord(TypedDict):
    """A task as a record of an evaluation dataset."""

    inputs: TaskRequest
    expectations: JsonObject
    tags: dict[str, str]


class DatasetRequest(TypedDict):
    """What the worker process makes of a dataset."""

    dataset: str
    library: str
    version: int
    file: str
    """A ``TaskRecord`` per line."""


class DatasetChanges(TypedDict):
    """Numbers of records."""

    added: int
    changed: int
    removed: int
    unchanged: int


class DatasetResult(DatasetChanges):
    """What the worker process made of a dataset."""

    dataset_id: str
    url: str


class Refused(TypedDict):
    """Why the worker process did nothing, and what the user can correct."""

    refused: str


@dataclass(frozen=True)
class FoundTraces:
    """Traces that were copied from MLflow."""

    file: Path
    """One trace as JSON per line; it is deleted when the context ends."""
    left_out: int
    """Traces that are still in progress, or have no spans."""


@dataclass(frozen=True)
class ExportedDataset:
    """An MLflow evaluation dataset that is now what a library is."""

    dataset_id: str
    url: str
    added: int
    changed: int
    removed: int
    unchanged: int


def log_backtest(uri: str, log: BacktestLog, *, patience_s: float = PATIENCE_S) -> Logged:
    """
    Log a backtest to the MLflow at *uri*. It is safe to log it again: nothing is duplicated.

    Raises:
        TrackingUnavailable: MLflow is unreachable, refuses, or did not answer for *patience_s* seconds.
            What was logged stays logged; ``beam-ray mlflow-sync`` logs the rest.
    """
    found = run_worker(
        lambda folder: write(folder, "log_backtest", uri, trimmed(log)),
        uri=uri,
        patience_s=patience_s,
        retry=f"the results are in the store; log them later with: beam-ray mlflow-sync {log.backtest_id}",
    )
    return Logged(found["experiment_id"], found["run_ids"], found["url"])


def production_alias(uri: str, workflow: Workflow, *, patience_s: float = PATIENCE_S) -> dict[str, int]:
    """
    Point the alias ``production`` at the prompts of *workflow*, which was just published.

    Returns:
        Prompt name to version number in MLflow's registry.

    Raises:
        TrackingUnavailable: As for ``log_backtest``.
    """
    found = run_worker(
        lambda folder: write(folder, "production_alias", uri, workflow), uri=uri, patience_s=patience_s, retry="the version is published nevertheless"
    )
    return {name: int(version) for name, version in found.items()}


@contextlib.contextmanager
def copied_traces(uri: str, experiment: str, filter_string: str = "", *, patience_s: float = PATIENCE_S) -> Iterator[FoundTraces]:
    """
    The traces of an experiment, given by name or id, that match the filter, in a temporary file.

    Raises:
        Unusable: there is no such experiment or database, or MLflow does not accept the filter.
        Stopped: MLflow is unreachable, or did not answer for *patience_s* seconds.
    """
    _require_place(uri)
    if not exists(uri):
        raise Unusable(f"there is no MLflow database at {shown(uri)}\n  --mlflow URI names a server or a database")
    with tempfile.TemporaryDirectory(prefix="beam-ray-traces-") as folder:
        file = Path(folder) / "traces.jsonl"
        request: TraceSearchRequest = {"experiment": experiment, "filter": filter_string, "file": str(file)}
        found: TraceSearchResult = _ask(uri, "search_traces", request, "no trace was imported", patience_s)
        yield FoundTraces(file, found["left_out"])


def export_dataset(uri: str, name: str, records: Iterable[TaskRecord], *, library: str, version: int, patience_s: float = PATIENCE_S) -> ExportedDataset:
    """
    Make the evaluation dataset *name* hold exactly *records*, beside those that people added. It is safe to repeat.

    Args:
        records: The library's tasks.

    Raises:
        Unusable: the dataset holds another library, or MLflow has no place for datasets.
        Stopped: MLflow is unreachable, or did not answer for *patience_s* seconds. The same call completes the dataset.
    """
    _require_place(uri)
    with tempfile.TemporaryDirectory(prefix="beam-ray-dataset-") as folder:
        file = Path(folder) / "records.jsonl"
        with file.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        request: DatasetRequest = {"dataset": name, "library": library, "version": version, "file": str(file)}
        found: DatasetResult = _ask(uri, "export_dataset", request, "the dataset is not complete", patience_s)
    return ExportedDataset(**found)


def _require_place(uri: str) -> None:
    if not uri or uri == "none":
        raise Unusable("there is no MLflow to use: a store on S3 has no local database\n  --mlflow URI or MLFLOW_TRACKING_URI names a server")


def _ask(uri: str, work: str, request: Mapping[str, object], failed: str, patience_s: float) -> Any:
    try:
        found = run_worker(
            lambda folder: write_request(folder, work, uri, request), uri=uri, retry="run the same command again", patience_s=patience_s, failed=failed
        )
    except TrackingUnavailable as error:
        raise Stopped(str(error)) from None
    if "refused" in found:
        raise Unusable(str(found["refused"]))
    return found
