"""
What a Ray job records in the store, and how a job ended by those records.

The store is the only channel between a job and whoever waits for it: the state that Ray
reports can be wrong, and a log can end early.

    jobs/<submission>/<run_id>.json   the job drives this run; written before any model is called
    jobs/<submission>.json            the job has ended: its command and its exit code

Both are written once, if absent. How a job ended is decided in this order: the verdict of the
backtest or search whose runs it drove; the manifest of the run that it drove; its recorded
exit code. So a job that dies after its verdict, and before recording its exit code, still
has its verdict.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from beam_ray.errors import Unusable
from beam_ray.store.checksummed_json import read_document
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.run_record import now
from beam_ray.store.runs import Run

NOT_ACCEPTED = 5
"""Exit code of optimise when the holdout set does not support its draft."""


def submission_id() -> str | None:
    """The id under which this process was submitted as a Ray job; None outside a job."""
    try:
        return str(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])
    except (KeyError, ValueError, TypeError):
        return None


def require_shared_store(store: str) -> None:
    """
    Check that the store outlives a job's working folder.

    Raises:
        Unusable: its path is relative.
    """
    if "://" not in store and not Path(store).is_absolute():
        raise Unusable(
            f"the store {store!r} would be deleted with the Ray job's temporary folder; "
            "use --store s3://BUCKET/PREFIX, or an absolute path that every node can access"
        )


def record_run(store: str, run_id: str) -> None:
    """Record in the store that this Ray job drives the run; does nothing outside a job."""
    name = submission_id()
    if name:
        start: JobStart = {"began_at": now()}
        open_objects(store, proven=True).create(f"jobs/{name}/{run_id}.json", json.dumps(start).encode())


def record_exit(objects: Objects, submission: str, command: str, exit_code: int) -> None:
    """Record in the store how the job's command exited."""
    ended: JobExit = {"command": command, "exit_code": exit_code, "ended_at": now()}
    objects.create(_exit_key(submission), json.dumps(ended).encode())


def exit_recorded(objects: Objects, submission: str) -> bool:
    """Whether the job has recorded its exit code."""
    return _read_exit(objects, submission) is not None


class VerdictExit(TypedDict):
    """What of the verdict of a backtest or search decides how its job ended."""

    exit_code: int


class JobStart(TypedDict):
    """The content of jobs/<submission>/<run_id>.json."""

    began_at: str


class JobExit(TypedDict):
    """The content of jobs/<submission>.json."""

    command: str
    exit_code: int
    ended_at: str


@dataclass(frozen=True)
class JobResult:
    """How a job ended, according to the store."""

    exit_code: int
    runs: tuple[str, ...]
    """The runs that it drove; empty when everything was finished before."""
    backtest: str = ""


def job_result(objects: Objects, submission: str, command: str) -> JobResult | None:
    """How the job ended; None if the store has no record of it."""
    runs = tuple(key.rpartition("/")[2].removesuffix(".json") for key, _ in objects.keys(f"jobs/{submission}/"))
    found = [Run(objects, run_id) for run_id in runs]
    names = dict.fromkeys(run.record.backtest for run in found if run.record.backtest)
    found_codes = {name: _verdict_exit_code(objects, f"backtests/{name}/verdict.json") for name in names}
    verdicts = {name: code for name, code in found_codes.items() if code is not None}
    # the runs of a search carry the search's id, which is no backtest's
    backtest = next(iter(verdicts or (names if command != "optimise" else ())), "")
    if command == "backtest" and verdicts:
        return JobResult(verdicts[backtest], runs, backtest)
    if command == "optimise" and verdicts:
        return JobResult(0 if verdicts[backtest] == 0 else NOT_ACCEPTED, runs, backtest)
    if command == "run" and found and all(run.finished for run in found):
        return JobResult(0, runs)
    recorded = _read_exit(objects, submission)
    return JobResult(recorded["exit_code"], runs, backtest) if recorded else None


def _exit_key(submission: str) -> str:
    return f"jobs/{submission}.json"


def _verdict_exit_code(objects: Objects, key: str) -> int | None:
    try:
        return read_document(objects, key, VerdictExit)["exit_code"]
    except NotThere:
        return None


def _read_exit(objects: Objects, submission: str) -> JobExit | None:
    try:
        recorded: JobExit = json.loads(objects.read(_exit_key(submission)))
    except NotThere:
        return None
    return recorded
