"""A cluster without Ray whose runners are processes that can be killed one by one."""

import asyncio
import os
import signal
import threading
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from beam_ray.run.assignment import Assignment
from beam_ray.run.cluster import RunnerDied
from beam_ray.run.runner import Runner


class Forked:
    """A runner in a forked process, and the calls that it has not answered."""

    def __init__(self, assignment: Assignment):
        self.here, there = Pipe()
        self.open: dict[int, Future[Any]] = {}
        self.lock, self.number, self.dead = threading.Lock(), 0, False
        self.pid = os.fork()
        if not self.pid:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self.here.close()
            asyncio.run(_serve(assignment, there))
            os._exit(0)
        there.close()
        threading.Thread(target=self._read, daemon=True).start()

    def call(self, method: str, *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        with self.lock:
            self.number += 1
            self.open[self.number] = future
            try:
                self.here.send((self.number, method, arguments))
            except OSError:
                self.dead = True
            if self.dead:
                self.open.pop(self.number)
                future.set_exception(RunnerDied("its process is gone"))
        return future

    def _read(self) -> None:
        try:
            while True:
                number, value, error = self.here.recv()
                future = self.open.pop(number)
                future.set_exception(error) if error else future.set_result(value)
        except (EOFError, OSError):
            os.waitpid(self.pid, 0)
            with self.lock:
                self.dead = True
                for future in self.open.values():
                    future.set_exception(RunnerDied("its process is gone"))
                self.open.clear()


async def _serve(assignment: Assignment, line: Connection) -> None:
    runner, tasks = Runner(assignment), set()

    async def one(number: int, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            said = number, await getattr(runner, method)(*arguments), None
        except BaseException as error:
            said = number, None, error
        line.send(said)

    while True:
        try:
            asked = await asyncio.to_thread(line.recv)
        except (EOFError, OSError):
            os._exit(0)  # the driver is gone
        task = asyncio.create_task(one(*asked))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


class Apart:
    """What the driver asks of ``beam_ray.run.cluster.Cluster``, done by runners in forked processes."""

    def __init__(self, address: str | None = None):
        self.cpus = 2

    def require_alive(self) -> None:
        """It is there as long as its process is."""

    def start_runner(self, assignment: Assignment, *, alone: bool) -> Forked:
        made = Forked(assignment)
        with Path(os.environ["RUNNERS"]).open("a") as told:
            told.write(f"{made.pid}\n")
        return made

    def call(self, runner: Forked, title: str, method: str, *arguments: Any) -> "Future[Any]":
        return runner.call(method, *arguments)

    def wait(self, references: "list[Future[Any]]", timeout_s: float) -> "list[Future[Any]]":
        return list(wait(references, 0, ALL_COMPLETED).done or wait(references, timeout_s, FIRST_COMPLETED).done)

    def result(self, reference: "Future[Any]", timeout_s: float | None = None) -> Any:
        return reference.result(timeout_s)

    def discard(self, runner: Forked) -> None:
        """No permits to give back."""

    def keep_idle(self, runner: Forked) -> None:
        """Each run has runners of its own."""

    def kill(self, runner: Forked) -> None:
        if not runner.dead:
            os.kill(runner.pid, signal.SIGKILL)

    def disconnect(self) -> None:
        """Nothing is connected."""

    def close(self) -> None:
        """Runners end when their driver does."""
