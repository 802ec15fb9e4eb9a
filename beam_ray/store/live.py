"""
How far an unfinished run is, and the request to stop it: what a driver and everybody who watches it tell each other.

    runs/<run_id>/progress.json          how far the driver is, at most once a second; deleted when the run is finished
    runs/<run_id>/lease/<epoch>.stop     somebody wants the driver of that epoch to stop

Both are advisory: no result depends on them, and a run whose progress cannot be written goes on.
"""

import json
import time
from typing import NotRequired, TypedDict

from beam_ray.store.lease import driver_of, last_epoch
from beam_ray.store.objects import NotThere
from beam_ray.store.runs import Run


class StoredProgress(TypedDict):
    """The content of progress.json."""

    at: float
    """When it was written, in seconds since 1970."""
    title: str
    waits_for: str
    steps: int
    steps_done: int
    steps_failed: int
    tasks: int
    tasks_done: int
    calls: int
    tokens: int
    usd: float | None
    seconds: float
    used_up: NotRequired[dict[str, float]]
    """The limit of the budget that stopped the driver, and its amount; empty while nothing has."""


def write_progress(run: Run, progress: StoredProgress) -> None:
    """Put down how far the run is."""
    run.objects.put(f"{run.prefix}/progress.json", json.dumps(progress).encode())


def read_progress(run: Run) -> StoredProgress | None:
    """How far the run's driver was when it last said so; None where it has not said it."""
    try:
        found: StoredProgress = json.loads(run.objects.read(f"{run.prefix}/progress.json"))
        return found if isinstance(found, dict) and "steps_done" in found else None
    except (NotThere, ValueError):
        return None


def request_stop(run: Run) -> bool:
    """Ask the driver of the run to stop; whether there is one that looks alive."""
    epoch = last_epoch(run)
    alive = driver_of(run) is not None
    if alive:
        run.objects.create(f"{run.prefix}/lease/{epoch:06d}.stop", json.dumps({"at": time.time()}).encode())
    return alive


def stop_requested(run: Run, epoch: int) -> bool:
    """Whether somebody asked the driver of this epoch to stop."""
    try:
        run.objects.read(f"{run.prefix}/lease/{epoch:06d}.stop")
    except NotThere:
        return False
    return True
