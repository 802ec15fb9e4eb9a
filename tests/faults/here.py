"""A cluster of one process: the real driver and the real runner, without Ray between them."""

import asyncio
import threading
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from contextlib import suppress
from typing import Any

from beam_ray.run.assignment import Assignment
from beam_ray.run.runner import Runner


class Here:
    """What the driver asks of ``beam_ray.run.cluster.Cluster``, done by runners on a loop in a thread."""

    def __init__(self, address: str | None = None):
        self.cpus = 1
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def require_alive(self) -> None:
        """It is there as long as its process is."""

    def start_runner(self, assignment: Assignment, *, alone: bool) -> Runner:
        return Runner(assignment)

    def call(self, runner: Runner, title: str, method: str, *arguments: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(getattr(runner, method)(*arguments), self._loop)

    def wait(self, references: "list[Future[Any]]", timeout_s: float) -> "list[Future[Any]]":
        done = wait(references, 0, ALL_COMPLETED).done or wait(references, timeout_s, FIRST_COMPLETED).done
        return list(done)

    def result(self, reference: "Future[Any]", timeout_s: float | None = None) -> Any:
        return reference.result(timeout_s)

    def discard(self, runner: Runner) -> None:
        """No permits to give back."""

    def keep_idle(self, runner: Runner) -> None:
        """Each run has runners of its own."""

    def release_idle(self) -> None:
        """Each run has runners of its own."""

    def kill(self, runner: Runner) -> None:
        asyncio.run_coroutine_threadsafe(runner.stop(), self._loop)

    def disconnect(self) -> None:
        """Nothing is connected."""

    def close(self) -> None:
        """What is being written comes to its end, if that is soon."""
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop).result(10)


class Brief(Here):
    """One whose thread ends with it, for tests that make many."""

    def close(self) -> None:
        super().close()
        self._loop.set_exception_handler(lambda loop, context: None)  # of calls that were given up
        self._loop.call_soon_threadsafe(self._loop.stop)
