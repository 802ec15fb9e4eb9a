"""
What a driver tells those who watch its run, and hears from them.

A thread of its own does it, so that a store that answers slowly holds up no row. Nothing
depends on it: what cannot be written is left out.
"""

import contextlib
import threading
import time

from beam_ray.errors import BeamRayError
from beam_ray.run.progress import Progress
from beam_ray.store.live import StoredProgress, stop_requested, write_progress
from beam_ray.store.runs import Run

PAUSE_S = 1.0
"""Seconds between two reports, and between two looks whether somebody wants the run to stop."""
CLOSE_S = 2.0
"""Seconds for which the last report may be waited for."""


class Broadcast:
    """Puts the progress of a run into the store, and sees when it is to stop."""

    def __init__(self, run: Run, epoch: int):
        self._run, self._epoch = run, epoch
        self._latest: Progress | None = None
        self.used_up: dict[str, float] = {}
        """The limit of the budget that stopped the run, and its amount."""
        self._stop = self._told = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def update(self, progress: Progress) -> None:
        """Let this be what is reported next."""
        self._latest = progress
        if self._thread is None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._report, name="progress", daemon=True)
            self._thread.start()

    def stop_reason(self) -> str:
        """Why the run is to stop, once: empty where nobody asked for it, or the driver knows it already."""
        if not self._stop or self._told:
            return ""
        self._told = True
        return f"run {self._run.run_id} was stopped by 'beam-ray stop'; all finished results are kept"

    def close(self, *, finished: bool = False) -> None:
        """Report for the last time; nothing more of a run that is *finished*."""
        if finished:
            self._latest = None
        self._ended.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _report(self) -> None:
        told: Progress | None = None
        ended = False
        while not ended:
            latest, ended = self._latest, self._ended.is_set()
            with contextlib.suppress(BeamRayError, OSError):
                if latest is not None and latest is not told:
                    write_progress(self._run, {**_stored(latest), "used_up": self.used_up})
                    told = latest
                self._stop = self._stop or (not self._ended.is_set() and stop_requested(self._run, self._epoch))
            self._ended.wait(PAUSE_S)


def _stored(progress: Progress) -> StoredProgress:
    return {
        "at": time.time(),
        "title": progress.title,
        "waits_for": progress.waits_for,
        "steps": progress.steps,
        "steps_done": progress.steps_done,
        "steps_failed": progress.steps_failed,
        "tasks": progress.tasks,
        "tasks_done": progress.tasks_done,
        "calls": progress.calls,
        "tokens": progress.tokens,
        "usd": progress.usd,
        "seconds": progress.seconds,
    }
