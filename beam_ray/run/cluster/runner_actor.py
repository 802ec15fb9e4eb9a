"""A runner as a Ray actor, and nodes with resources of their own as Ray tasks."""

import asyncio
import contextlib
import gc
import importlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import ray

from beam_ray.define.fingerprint import JsonObject
from beam_ray.memory import spare_pandas
from beam_ray.run.assignment import Assignment
from beam_ray.run.cluster.limiter_actor import LimiterClient
from beam_ray.run.progress import Counts
from beam_ray.run.runner import Runner
from beam_ray.run.tool_imports import MissingCommand, MissingModule
from beam_ray.store.tables import FileEntry

if TYPE_CHECKING:
    import httpx2

# runners hold no CPU; an actor that asks for no resource at all, Ray puts on any node and ignores the strategy
# as many calls as there are nodes times shards in flight wait in a runner at once
RUNNER_OPTIONS: JsonObject = {"num_cpus": 0, "memory": 1, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 1_000}
"""What Ray is told of every runner's process."""

STORE_THREADS = 32
"""Requests to a store on S3 that a runner has in flight at most."""


class RunnerActor:
    """A runner as a Ray actor; every method is a coroutine on its one event loop."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """
        Args:
            environment: The driver's, for a runner of a Ray that another process started.
        """
        spare_pandas()
        self._environment = environment
        if environment is not None:
            _adopt(environment)
        self._assignment: Assignment | None = None
        self._limiter: LimiterClient | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._runner: Runner | None = None
        self._assigned = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._idle: asyncio.Task[None] | None = None
        self._parent: int | None = None
        self._frozen = False
        self._http: httpx2.AsyncClient | None = None

    async def preload(self) -> None:
        """Load what a run needs, before there is one."""
        await asyncio.to_thread(importlib.import_module, "beam_ray.llm.client")

    async def take(self, driver: int, environment: Mapping[str, str]) -> bool:
        """
        Belong to the process *driver* of this machine until ``give_back``, with its environment; False for a runner that belongs to another.

        The runner of a driver that dies ends too, as one does that the driver itself started.
        """
        if self._driver is not None:
            return False
        self._environment = environment
        _adopt(environment)
        self._driver = asyncio.create_task(_exit_with(driver))
        return True

    async def give_back(self) -> None:
        """Belong to nobody: the next driver may take it, with proxies of its own."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None
        if self._driver is not None:
            self._driver.cancel()
            self._driver = None

    async def assign(self, assignment: Assignment, limited: bool, parent: int | None = None) -> None:
        """
        Begin a run. Calls may arrive out of order: until the assignment is here, all others wait.

        Args:
            parent: The driver's process, where its end is this runner's once the run has ended.
        """
        self._parent = parent
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._assignment, self._runner = assignment, None
        self._limiter = LimiterClient(assignment.runner) if limited else None
        self._connecting = asyncio.create_task(self._limiter.connect()) if self._limiter else None
        self._assigned.set()

    async def _get(self) -> Runner:
        await self._assigned.wait()
        assert self._assignment is not None
        if self._runner is None:
            if self._assignment.store.startswith("s3://"):
                # its threads wait for the store, and take no CPU meanwhile
                asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(STORE_THREADS))
            self._runner = Runner(self._assignment, self._limiter.renew if self._limiter else None, self._run_elsewhere, self._http_client)
            if not self._frozen:
                # a full collection would visit everything ever imported: a tenth of a second in which no row moves
                gc.freeze()
                # what calls in flight hold is no garbage; at Python's threshold, looking through it takes 5% of a step's CPU time
                gc.set_threshold(5_000)
                self._frozen = True
        return self._runner

    def _http_client(self) -> "httpx2.AsyncClient":
        """The HTTP client of all runs of this process, so that the next run finds open connections."""
        from beam_ray.llm.client import http_client  # loads openai, which a run of tools alone does not need

        if self._http is None:
            self._http = http_client()
        return self._http

    async def step(self, shard: int, node: str) -> bool:
        return await (await self._get()).step(shard, node)

    async def run_rows(self, shard: int, start: int, stop: int) -> None:
        await (await self._get()).run_rows(shard, start, stop)

    async def missing_modules(self) -> list[MissingModule | MissingCommand]:
        return await (await self._get()).missing_modules()

    async def encode(self, node: str) -> None:
        await (await self._get()).encode(node)

    async def merge(self, node: str) -> list[FileEntry]:
        return await (await self._get()).merge(node)

    async def progress(self) -> Counts:
        return await (await self._get()).progress()

    async def drop(self, shard: int) -> None:
        await (await self._get()).drop(shard)

    async def drain(self, reason: str) -> None:
        await (await self._get()).drain(reason)

    async def stop(self) -> None:
        await (await self._get()).stop()
        if self._limiter:
            await self._limiter.release()
        self._assigned.clear()
        self._runner = None
        if self._parent is not None:
            # a local Ray that was killed leaves its processes for seconds
            self._idle = asyncio.create_task(_exit_with(self._parent))

    async def _run_elsewhere(self, node: str, shard: int) -> bool:
        runner = await self._get()
        needs = runner.workflow.nodes[node].resources
        assert needs is not None
        options: JsonObject = {name: value for name, value in needs.model_dump().items() if value is not None}
        task = ray.remote(_run_node).options(name=f"{runner.workflow.name}/{node}", max_retries=0, **options)
        return bool(await task.remote(self._assignment, self._limiter is not None, shard, node, self._environment))


def _adopt(environment: Mapping[str, str]) -> None:
    """Take over a driver's environment; Ray's own variables stay."""
    for name in [name for name in os.environ if name not in environment and not name.startswith("RAY_")]:
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if not name.startswith("RAY_")})


async def _exit_with(driver: int) -> None:
    """End this process when the process *driver* ends."""
    try:
        handle = os.pidfd_open(driver)
    except ProcessLookupError:
        os._exit(1)
    except (AttributeError, OSError):  # not every system has it
        while True:
            await asyncio.sleep(0.5)
            try:
                os.kill(driver, 0)
            except ProcessLookupError:
                os._exit(1)
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, os._exit, 1)
    try:
        await asyncio.Event().wait()
    finally:
        loop.remove_reader(handle)
        with contextlib.suppress(OSError):
            os.close(handle)


def _run_node(assignment: Assignment, limited: bool, shard: int, node: str, environment: Mapping[str, str] | None) -> bool:
    """Run one node of one shard, on a machine that has its resources."""
    if environment is not None:
        _adopt(environment)

    async def work() -> bool:
        name = f"{assignment.runner}-{node}-{shard}"
        limiter = LimiterClient(name) if limited else None
        runner = Runner(replace(assignment, runner=name, tool_processes=2), limiter.renew if limiter else None)
        try:
            return await runner.run_node(shard, node)
        finally:
            await runner.stop()
            if limiter:
                await limiter.release()

    return asyncio.run(work())
