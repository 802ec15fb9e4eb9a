"""
Places where a test makes a process die, fail or wait: every call by which a store reads or writes.

    BEAM_RAY_FAIL="part.link:3:kill"                      the third time that a part is about to get its name
    BEAM_RAY_FAIL="*.read:1:EIO, spool.write:2:ENOSPC"    the first read of anything, and the second spool file

A point is named ``what.call``: what is read or written, from OBJECTS, and at which call, from
CALLS; either may be a pattern. Then come which hit it is, counted per process, and the
action: kill, EIO, ENOSPC, or delay (DELAY_S, or ``delay=0.2``).
"""

import errno
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase

from beam_ray.errors import Unusable

DELAY_S = 5.0

OBJECTS = {
    "proof": ("store.json", "that the store honours put-if-absent"),
    "tasks": ("runs/*/tasks.parquet", "what a run is given"),
    "run": ("runs/*/run.json", "what a run is to do"),
    "open": ("open/*.json", "that the same command resumes a run"),
    "lease": ("runs/*/lease/*.json", "who drives a run"),
    "beat": ("runs/*/lease/*", "that the driver lives"),
    "outcome-part": ("runs/*/parts/_outcome/*", "the tasks of a shard that is done"),
    "part": ("runs/*/parts/*", "a step of a shard: the commit"),
    "spool": ("runs/*/spool/*", "paid rows of a shard that is not done"),
    "outbox": ("runs/*/batches/outbox/*", "requests that wait for a batch"),
    "wave": ("runs/*/batches/*/wave.json", "that a wave of batches is to be submitted"),
    "input": ("runs/*/batches/*.jsonl", "an input file, as it is uploaded"),
    "batch": ("runs/*/batches/*.batch-*.json", "which batch was created for an input file"),
    "answers": ("runs/*/batches/answers/*", "what a batch brought"),
    "ended": ("runs/*/batches/*.ended.json", "that all of a batch is in the store"),
    "steps": ("runs/*/steps/*", "a node's parts, merged"),
    "outcome": ("runs/*/outcome*.parquet", "the tasks of a run, merged"),
    "cut": ("runs/*/cut.json", "where a run that may end early ended"),
    "manifest": ("runs/*/manifest.json", "that a run is finished"),
    "side": ("backtests/*/sides/*", "which run is a side of a backtest"),
    "verdict": ("backtests/*/verdict.json", "that a backtest is finished"),
    "report": ("backtests/*", "what a backtest shows"),
    "version": ("workflows/*", "a published version"),
    "used": ("libraries/*/used/*", "that a library was used"),
    "library": ("libraries/*", "a version of a task library"),
    "attachment": ("attachments/*", "a file that a task brings"),
    "job": ("jobs/*", "a Ray job's words"),
    "other": ("*", "anything else"),
}
"""What there is in a store: name to the pattern of its keys, and what it guards. The first that fits counts."""

ADVISORY = ("runs/*/progress.json", "runs/*/lease/*.stop")
"""What no result depends on; it is written by the clock, so no test could count its calls."""

CALLS = {
    "open": "disk: nothing is written yet",
    "write": "disk: the temporary file is there, and empty",
    "fsync": "disk: the temporary file is whole, and may be lost with the power",
    "link": "disk: the temporary file is durable, and has not got its name",
    "sync": "disk: the object is there, and may be lost with the power",
    "kept": "disk: the object is durable, and its writer does not know yet",
    "put": "S3: nothing is sent yet",
    "answered": "S3: the object is kept, and its writer does not know yet",
    "recall": "S3: what became of a doubtful create is about to be asked",
    "read": "an object is about to be read",
    "list": "keys are about to be listed",
    "delete": "an object is about to be deleted",
    "deleted": "an object was deleted",
    "upload": "batch endpoint: an input file is about to be uploaded",
    "uploaded": "batch endpoint: it is there, and no batch is created yet",
    "create": "batch endpoint: a batch is about to be created",
    "created": "batch endpoint: it is there, and the store does not know yet",
    "poll": "batch endpoint: it is about to be asked how far a batch is",
    "fetch": "batch endpoint: an ended batch is about to be read",
}

ACTIONS = ("kill", "EIO", "ENOSPC", "delay")


@dataclass
class _Fault:
    pattern: str
    hit: int
    action: str
    seconds: float = DELAY_S
    seen: int = 0


_armed: list[_Fault] = []
hits: Counter[str] = Counter()
"""How often each point was reached since faults were armed."""


def reach(call: str, key: str) -> None:
    """Say that *call* is about to happen to the object under *key*."""
    if _armed and not any(fnmatchcase(key, pattern) for pattern in ADVISORY):
        _happen(f"{what(key)}.{call}")


def what(key: str) -> str:
    """The name of what lies under *key*."""
    return next(name for name, (pattern, _) in OBJECTS.items() if fnmatchcase(key, pattern))


def arm(written: str) -> None:
    """
    Let the faults happen that *written* names, in place of those armed before.

    Raises:
        Unusable: it names no fault.
    """
    _armed[:] = [_read(each.strip()) for each in written.split(",") if each.strip()]
    hits.clear()


def _read(written: str) -> _Fault:
    point, _, rest = written.partition(":")
    number, _, action = rest.partition(":")
    action, _, seconds = action.partition("=")
    thing, _, call = point.partition(".")
    known = any(fnmatchcase(name, thing) for name in OBJECTS) and any(fnmatchcase(name, call) for name in CALLS)
    try:
        if known and action in ACTIONS:
            return _Fault(point, int(number), action, float(seconds or DELAY_S))
    except ValueError:
        pass
    raise Unusable(f"BEAM_RAY_FAIL: {written!r} is no fault; one is WHAT.CALL:HIT:ACTION, such as part.link:3:kill\n  it is for tests: unset it")


def _happen(point: str) -> None:
    hits[point] += 1
    for fault in _armed:
        if not fnmatchcase(point, fault.pattern):
            continue
        fault.seen += 1
        if fault.seen != fault.hit:
            continue
        if fault.action == "kill":
            os.write(2, f"killed at {point}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.action == "delay":
            time.sleep(fault.seconds)
        else:
            number = getattr(errno, fault.action)
            raise OSError(number, os.strerror(number), point)


arm(os.environ.get("BEAM_RAY_FAIL", ""))
