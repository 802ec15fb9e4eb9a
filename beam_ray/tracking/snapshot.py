"""
The job for the MLflow worker process: JSON, Parquet and plain files in a folder.

No pickle, so reading a job never executes code.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.workflow import Workflow
from beam_ray.store.run_record import RunRecord
from beam_ray.tracking.backtest_log import BacktestLog, SideLog


class SideSnapshot(TypedDict):
    """A side in work.json; its tables are files beside it."""

    name: str
    role: str
    record: str
    """The run's record, as JSON text."""
    metrics: dict[str, float]
    started_at: str
    ended_at: str


class LogSnapshot(TypedDict):
    """A backtest in work.json; its tables and artifacts are files beside it."""

    backtest_id: str
    name: str
    workflow: str
    note: str
    verdict: str
    sides: list[SideSnapshot]
    files: list[str]
    """Names of the artifacts; number n is the content of file-<n>."""
    changed: list[str]
    tasks: bool
    """Whether the tasks are there."""


def write(folder: Path, work: str, uri: str, subject: BacktestLog | Workflow) -> None:
    """Write a job into *folder*: the function to call, MLflow's URI, and the function's argument."""
    about = subject.document() if isinstance(subject, Workflow) else _log(folder, subject)
    (folder / "work.json").write_text(json.dumps({"work": work, "uri": uri, "about": about}), encoding="utf-8")


def write_request(folder: Path, work: str, uri: str, request: Mapping[str, object]) -> None:
    """Write a job into *folder* whose function takes plain values."""
    (folder / "work.json").write_text(json.dumps({"work": work, "uri": uri, "request": dict(request)}), encoding="utf-8")


def read(folder: Path) -> tuple[str, str, BacktestLog | Workflow | JsonObject]:
    """The job in *folder*: the function to call, MLflow's URI, and the function's argument."""
    found = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    if "request" in found:
        return found["work"], found["uri"], found["request"]
    about = found["about"]
    return found["work"], found["uri"], _read_log(folder, about) if "sides" in about else Workflow.model_validate(about)


def _log(folder: Path, log: BacktestLog) -> LogSnapshot:
    for index, body in enumerate(log.files.values()):
        (folder / f"file-{index}").write_bytes(body)
    return {
        "backtest_id": log.backtest_id,
        "name": log.name,
        "workflow": log.workflow,
        "note": log.note,
        "verdict": log.verdict,
        "sides": [_side(folder, index, side) for index, side in enumerate(log.sides)],
        "files": list(log.files),
        "changed": list(log.changed),
        "tasks": log.tasks is not None and _keep(folder, "tasks", log.tasks),
    }


def _side(folder: Path, index: int, side: SideLog) -> SideSnapshot:
    _keep(folder, f"outcome-{index}", side.outcome)
    _keep(folder, f"steps-{index}", side.steps)
    _keep(folder, f"calls-{index}", side.calls)
    return {
        "name": side.name,
        "role": side.role,
        "record": side.record.model_dump_json(),
        "metrics": dict(side.metrics),
        "started_at": side.started_at.isoformat(),
        "ended_at": side.ended_at.isoformat(),
    }


def _read_log(folder: Path, about: LogSnapshot) -> BacktestLog:
    sides = tuple(
        SideLog(
            side["name"],
            side["role"],
            RunRecord.model_validate_json(side["record"]),
            _table(folder, f"outcome-{index}"),
            _table(folder, f"steps-{index}"),
            side["metrics"],
            datetime.fromisoformat(side["started_at"]),
            datetime.fromisoformat(side["ended_at"]),
            _table(folder, f"calls-{index}"),
        )
        for index, side in enumerate(about["sides"])
    )
    files = {name: (folder / f"file-{index}").read_bytes() for index, name in enumerate(about["files"])}
    return BacktestLog(
        backtest_id=about["backtest_id"],
        name=about["name"],
        workflow=about["workflow"],
        note=about["note"],
        verdict=about["verdict"],
        sides=sides,
        files=files,
        changed=tuple(about["changed"]),
        tasks=_table(folder, "tasks") if about["tasks"] else None,
    )


def _keep(folder: Path, name: str, table: pa.Table) -> bool:
    pq.write_table(table, folder / f"{name}.parquet")
    return True


def _table(folder: Path, name: str) -> pa.Table:
    return pq.read_table(folder / f"{name}.parquet")
