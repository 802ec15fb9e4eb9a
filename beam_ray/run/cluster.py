"""
Ray: the only importer of it.

Runners are actors that are never restarted by Ray, and steps are calls that Ray never
repeats: our driver does both, so that attempts, crashes and money are counted.
"""

import asyncio
import atexit
import contextlib
import gc
import logging
import os
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from beam_ray.run import jobs

os.environ.setdefault("RAY_task_oom_retries", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.update(jobs.auth_mode())
# calls of a run that was stopped have no one left to read their errors
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

import ray
import ray.actor
import stamina
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from beam_ray.errors import BeamRayError, Stopped, Unusable
from beam_ray.run.limiter import FORGET_S, MOST_S, Grant, Limiter
from beam_ray.run.limiter import Report as Need
from beam_ray.run.runner import Assignment, Runner
from beam_ray.run.shard import Report

NAMESPACE = "beam_ray"
LIMITER = "limiter/1"
"""One that understands other messages has another name, so that jobs with another version of us have their own."""
HEAD = "node:__internal_head__"
"""What Ray calls a resource that the head alone has."""


def _on_standard_error(data: dict[str, Any], *rest: Any, **more: Any) -> None:
    _print({**data, "is_err": True}, *rest, **more)


# Ray tells of a lost node on standard output, which is for our results alone
_print = ray._private.worker.print_to_stdstream
ray._private.worker.print_to_stdstream = _on_standard_error

_RESTING: dict[str, list["Handle"]] = {}
"""By Ray job, which is one for each time that a process connects."""

PATIENCE_S = 20.0
"""Seconds that a limiter may take to answer, or to start."""

RELEASE_S = 0.5
"""Seconds that a runner which stops waits until its permits are known to be free."""

LOST_S = 40.0
"""Seconds without a word from the head after which the cluster is given up; at 60 Ray would end our process itself, without a word on how to go on."""


class RunnerDied(BeamRayError):
    """The process of a runner is gone."""


class _RunnerActor:
    """A runner as a Ray actor; every method is a coroutine on its one loop."""

    def __init__(self) -> None:
        self._assignment: Assignment | None = None
        self._permits: _Permits | None = None
        self._runner: Runner | None = None
        self._assigned = asyncio.Event()

    async def assign(self, assignment: Assignment, limited: bool) -> None:
        """Begin a run. Calls may overtake each other on their way: until it is here, all others wait."""
        self._assignment, self._runner = assignment, None
        self._permits = _Permits(assignment.runner) if limited else None
        self._assigned.set()

    async def _get(self) -> Runner:
        await self._assigned.wait()
        assert self._assignment is not None
        if self._runner is None:
            self._runner = Runner(self._assignment, self._permits.renew if self._permits else None, self._outside)
            if not gc.get_freeze_count():
                # a full collection would look at all that was ever imported: a tenth of a second in which no row moves
                gc.freeze()
        return self._runner

    async def step(self, shard: int, node: str) -> Report:
        return await (await self._get()).step(shard, node)

    async def settle(self, shard: int, start: int, stop: int) -> None:
        await (await self._get()).settle(shard, start, stop)

    async def merge(self, node: str) -> list[dict[str, Any]]:
        return await (await self._get()).merge(node)

    async def progress(self) -> dict[str, Any]:
        return await (await self._get()).progress()

    async def drop(self, shard: int) -> None:
        await (await self._get()).drop(shard)

    async def stop(self) -> None:
        await (await self._get()).stop()
        if self._permits:
            await self._permits.release()
        self._assigned.clear()
        self._runner = None

    async def _outside(self, node: str, shard: int) -> None:
        runner = await self._get()
        needs = runner.workflow.nodes[node].resources
        assert needs is not None
        options: dict[str, Any] = {name: value for name, value in needs.model_dump().items() if value is not None}
        task = ray.remote(_one_node).options(name=f"{runner.workflow.name}/{node}", max_retries=0, **options)
        await task.remote(self._assignment, self._permits is not None, shard, node)


def _one_node(assignment: Assignment, limited: bool, shard: int, node: str) -> None:
    """One node of one shard, where its resources are."""

    async def work() -> None:
        name = f"{assignment.runner}-{node}-{shard}"
        permits = _Permits(name) if limited else None
        runner = Runner(replace(assignment, runner=name), permits.renew if permits else None)
        try:
            await runner.only(shard, node)
        finally:
            await runner.stop()
            if permits:
                await permits.release()

    asyncio.run(work())


class _LimiterActor:
    """The limits of all endpoints, in one place for all runners of a cluster, whoever drives them."""

    def __init__(self) -> None:
        self._limiters: dict[str, Limiter] = {}
        self._heard = 0.0
        self._watch: asyncio.Task[None] | None = None

    async def renew(self, endpoint: str, runner: str, need: Need) -> Grant:
        self._heard = time.monotonic()
        self._watch = self._watch or asyncio.create_task(self._look_about())
        return self._limiters.setdefault(endpoint, Limiter()).renew(runner, need, self._heard)

    async def release(self, runner: str) -> None:
        for limiter in self._limiters.values():
            limiter.release(runner)

    async def leave(self) -> None:
        """End, unless there is a runner still."""
        if not any(limiter.serves(time.monotonic()) for limiter in self._limiters.values()):
            ray.actor.exit_actor()

    async def _look_about(self) -> None:
        # drivers that were killed say no good-bye
        while True:
            await asyncio.sleep(FORGET_S)
            if time.monotonic() - self._heard > FORGET_S:
                ray.get_runtime_context().current_actor.leave.remote()


class _Permits:
    """A runner's way to its cluster's limiter."""

    def __init__(self, runner: str):
        self._name = runner
        self._limiter: ActorHandle | None = None
        self._had = False

    async def renew(self, endpoint: str, need: Need) -> Grant:
        again = stamina.retry_context(
            on=(RayActorError, TimeoutError), attempts=4, timeout=None, wait_initial=0.2, wait_max=5.0, wait_jitter=0.1, wait_exp_base=5
        )
        async for attempt in again:
            with attempt:
                try:
                    return await self._ask(endpoint, need)
                except (RayActorError, TimeoutError):
                    # it is gone, and another takes its place
                    self._limiter = None
                    raise
        raise AssertionError("unreachable")

    async def _ask(self, endpoint: str, need: Need) -> Grant:
        limiter: Any = self._limiter or await asyncio.to_thread(_limiter)
        if self._had and not self._limiter:
            # everybody shall have told it of the calls that they have in flight before it grants any
            await asyncio.wait_for(limiter.renew.remote(endpoint, self._name, Need(need.limits, need.in_flight, 0)), PATIENCE_S)
            await asyncio.sleep(MOST_S)
        self._limiter, self._had = limiter, True
        grant: Grant = await asyncio.wait_for(limiter.renew.remote(endpoint, self._name, need), PATIENCE_S)
        return grant

    async def release(self) -> None:
        """Give all permits back."""
        with contextlib.suppress(RayError, TimeoutError):
            if self._limiter is not None:
                await asyncio.wait_for(self._limiter.release.remote(self._name), RELEASE_S)


def _limiter() -> ActorHandle:
    """The cluster's limiter; it outlives whoever was first to need it, and is lost only with the head, as all is."""
    options = {"num_cpus": 0, "resources": {HEAD: 0.001}, "max_restarts": 0, "max_concurrency": 1_000}
    return ray.remote(_LimiterActor).options(name=LIMITER, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", **options).remote()


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """
    Start a local Ray without what nobody would ask: the dashboard's server, the autoscaler and the log's monitor.

    Ray waits for them at its start and its end, for longer than for all else, and has no option to leave them out.
    """
    # one worker for each CPU, of which a small run uses one
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    node = ray._private.node.Node
    kept = {name: getattr(node, name) for name in ("start_api_server", "start_monitor", "start_log_monitor") if hasattr(node, name)}
    for name in kept:
        setattr(node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(node, name, method)


def _leave() -> None:
    # Ray's own good-bye to a cluster that is gone takes a minute, or a crash; whoever comes here was told to stop
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(Stopped.exit_code)


@dataclass(eq=False)
class Handle:
    """A runner as the driver sees it."""

    name: str
    actor: ActorHandle
    node: str
    """Where it was put; elsewhere if that node was lost meanwhile."""


class Cluster:
    """A connection to a Ray cluster, or to a local one that ends with it."""

    def __init__(self, address: str | None = None):
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        self.local = address == "local"
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        already = ray.is_initialized()
        self._ours = not already
        if not already:
            named = ":" in address and "//" not in address
            if self.local:
                jobs.keep_token()
            elif named:
                jobs.require_closed(address)
            options: dict[str, Any] = {"include_dashboard": False} if self.local else {}
            try:
                with _lean() if self.local else contextlib.nullcontext():
                    ray.init(address=address, namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, configure_logging=True, **options)
            except (ConnectionError, RuntimeError, ValueError, RayError) as error:
                first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise Unusable(f"no Ray cluster at {address}: {first}\n  ray start --head  starts one; without --address a local one is started") from None
            except BaseException:
                # a signal came while it was starting
                ray.shutdown()
                raise
            if not (self.local or named):
                try:
                    jobs.require_closed(ray.get_runtime_context().gcs_address)
                except Unusable:
                    self.close()
                    raise
        context = ray.get_runtime_context()
        self._head, self._node, self._seen, self._gone = context.gcs_address, context.get_node_id(), time.monotonic(), False
        self.cpus = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        self._limiter: ActorHandle | None = None
        self._driven: set[str] = set()
        # who connects again in this process, to a Ray that stays, finds the runners of the last time
        self._resting = _RESTING.setdefault(context.get_job_id(), []) if already else []
        self._placed = Counter(handle.node for handle in self._resting)
        """Node to its runners; where one died, which may be all that is known yet of a lost node, it counts for two."""

    def require(self) -> None:
        """
        See that there is a cluster still: calls to one that is gone would be waited for without end.

        Raises:
            Stopped: our node is gone, or the head has not answered for LOST_S.
        """
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), 2.0).close()
            self._seen = time.monotonic()
        except OSError as error:
            if time.monotonic() - self._seen < LOST_S:
                return  # a head that is restarted keeps its cluster
            self._lost(f"Ray's head at {self._head} is gone ({error.strerror or error})")
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._node):
            self._lost("the Ray node of this process is gone")

    def _lost(self, what: str) -> NoReturn:
        self._gone = True
        atexit.register(_leave)
        raise Stopped(f"{what}; run the same command again, on a cluster that lives")

    def runner(self, assignment: Assignment, *, alone: bool) -> Handle:
        """A new runner, on its way up; one that is *alone* in a cluster of ours need ask nobody for permits."""
        if assignment.run_id not in self._driven:
            jobs.began(assignment.store, assignment.run_id)
            self._driven.add(assignment.run_id)
        actor, node = self._process()
        limited = bool(assignment.models) and not (alone and self.local)
        if limited and self._limiter is None:
            self._limiter = _limiter()
        actor.assign.remote(assignment, limited)
        return Handle(assignment.runner, actor, node)

    def _process(self) -> tuple[ActorHandle, str]:
        """A runner's process, and its node: one that rests, or a new one where most CPUs have none."""
        if self._resting:
            rested = self._resting.pop()
            return rested.actor, rested.node
        cpus = {node["NodeID"]: node["Resources"]["CPU"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
        # by chance among those that are alike, as drivers do not know of each other
        node = min(cpus or {self._node: 1}, key=lambda node: (self._placed[node] + random.random()) / cpus.get(node, 1))
        self._placed[node] += 1
        # runners hold no CPU; one that asked for nothing, not a byte, Ray would put on any node, whatever it is told
        # as many calls as there are nodes times shards in flight wait in a runner at once
        options = {"num_cpus": 0, "memory": 1, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 1_000}
        strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        return ray.remote(_RunnerActor).options(**options, scheduling_strategy=strategy).remote(), node

    def rest(self, runner: Handle) -> None:
        """The runner has stopped: its process is kept for the next run, which then need not wait for one to start."""
        if len(self._resting) < self.cpus:
            self._resting.append(runner)

    def call(self, runner: Handle, title: str, method: str, *arguments: Any) -> Any:
        """Begin a call, shown as *title* on the dashboard; a reference to its result."""
        reference = getattr(runner.actor, method).options(name=title).remote(*arguments)
        return reference

    def wait(self, references: list[Any], timeout_s: float) -> list[Any]:
        """Those of the references whose result is there, after at most *timeout_s* seconds."""
        done, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if not done:
            done, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        return list(done)

    def result(self, reference: Any, timeout_s: float | None = None) -> Any:
        """
        What a call returned.

        Raises:
            RunnerDied: its process is gone.
            BeamRayError: whatever the call raised, as itself.
        """
        try:
            return ray.get(reference, timeout=timeout_s)
        except RayTaskError as error:
            cause = error.cause
            while isinstance(cause, RayTaskError):
                cause = cause.cause
            if isinstance(cause, BeamRayError):
                raise cause from None
            raise
        except RayActorError as error:
            raise RunnerDied(str(error).strip().splitlines()[0]) from None
        except GetTimeoutError:
            raise TimeoutError from None
        except RayError as error:
            raise Stopped(f"Ray: {str(error).strip().splitlines()[0]}; run the same command again") from None

    def forget(self, runner: Handle) -> None:
        """The runner died: its permits go back."""
        self._placed[runner.node] += 1
        self._release(runner)

    def _release(self, runner: Handle) -> None:
        if self._limiter is not None:
            self._limiter.release.remote(runner.name)

    def end(self, runner: Handle) -> None:
        """Kill the runner's process."""
        ray.kill(runner.actor, no_restart=True)
        self._placed[runner.node] -= 1
        self._release(runner)

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        if self._limiter is not None and not self._gone:
            with contextlib.suppress(ValueError, RayError):
                # it may be another than the one that we began with
                ray.get_actor(LIMITER, NAMESPACE).leave.remote()
        if self._gone:
            node = ray._private.worker._global_node
            if self._ours and node is not None:
                node.kill_all_processes(check_alive=False, allow_graceful=False)
        elif self._ours and ray.is_initialized():
            ray.shutdown()
