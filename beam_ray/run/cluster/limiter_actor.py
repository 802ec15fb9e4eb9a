"""
The cluster's rate limits, kept by one named actor on the head for all jobs.

The actor outlives the driver that started it and ends when no runner has renewed for a
while. Where it dies, runners start another and report their calls in flight before it
grants any, so the limit holds.
"""

import asyncio
import contextlib
import time
from typing import Any

import ray
import ray.actor
import stamina
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from beam_ray.run.limiter import EXPIRY_S, MAX_RENEWAL_S, Grant, Limiter, PermitRequest

NAMESPACE = "beam_ray"
LIMITER_NAME = "limiter/1"
"""Changes with the messages that it understands, so that jobs with another version of beam_ray have an actor of their own."""
HEAD_RESOURCE = "node:__internal_head__"
"""Ray's name for a resource that only the head has."""

TIMEOUT_S = 20.0
"""Seconds that a limiter may take to answer, or to start."""

RELEASE_TIMEOUT_S = 0.5
"""Seconds that a stopping runner waits for the confirmation that its permits were released."""


class LimiterActor:
    """The limits of all endpoints, in one place for all runners of a cluster, whichever driver started them."""

    def __init__(self) -> None:
        self._limiters: dict[str, Limiter] = {}
        self._last_renewal = 0.0
        self._idle_check: asyncio.Task[None] | None = None

    async def renew(self, endpoint: str, runner: str, request: PermitRequest) -> Grant:
        self._last_renewal = time.monotonic()
        self._idle_check = self._idle_check or asyncio.create_task(self._exit_when_idle())
        return self._limiters.setdefault(endpoint, Limiter()).renew(runner, request, self._last_renewal)

    async def release(self, runner: str) -> None:
        for limiter in self._limiters.values():
            limiter.release(runner)

    async def exit_if_unused(self) -> None:
        """End the actor, unless a runner still uses it."""
        if not any(limiter.in_use(time.monotonic()) for limiter in self._limiters.values()):
            ray.actor.exit_actor()

    async def _exit_when_idle(self) -> None:
        # a driver that was killed does not ask the actor to end
        while True:
            await asyncio.sleep(EXPIRY_S)
            if time.monotonic() - self._last_renewal > EXPIRY_S:
                ray.get_runtime_context().current_actor.exit_if_unused.remote()


def limiter_actor() -> ActorHandle:
    """The cluster's limiter, started if there is none; it is lost only with the head, as everything is."""
    options = {"num_cpus": 0, "resources": {HEAD_RESOURCE: 0.001}, "max_restarts": 0, "max_concurrency": 1_000}
    return ray.remote(LimiterActor).options(name=LIMITER_NAME, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", **options).remote()


def exit_limiter_if_unused() -> None:
    """Ask the cluster's limiter to end unless another job uses it."""
    with contextlib.suppress(ValueError, RayError):
        # it may be another than the one that this driver began with
        ray.get_actor(LIMITER_NAME, NAMESPACE).exit_if_unused.remote()


class LimiterClient:
    """One runner's connection to the cluster's limiter."""

    def __init__(self, runner: str):
        self._runner = runner
        self._limiter: ActorHandle | None = None
        self._connected_before = False

    async def connect(self) -> None:
        """Find the limiter before the first permits are asked for, while nothing else takes the processor."""
        with contextlib.suppress(RayError, ValueError):
            self._limiter = self._limiter or await asyncio.to_thread(limiter_actor)

    async def renew(self, endpoint: str, request: PermitRequest) -> Grant:
        retries = stamina.retry_context(
            on=(RayActorError, TimeoutError), attempts=4, timeout=None, wait_initial=0.2, wait_max=5.0, wait_jitter=0.1, wait_exp_base=5
        )
        async for attempt in retries:
            with attempt:
                try:
                    return await self._renew_once(endpoint, request)
                except (RayActorError, TimeoutError):
                    # the actor is gone, and another is started
                    self._limiter = None
                    raise
        raise AssertionError("unreachable")

    async def _renew_once(self, endpoint: str, request: PermitRequest) -> Grant:
        limiter: Any = self._limiter or await asyncio.to_thread(limiter_actor)
        if self._connected_before and not self._limiter:
            # a new actor must hear of all calls in flight before it grants any
            await asyncio.wait_for(limiter.renew.remote(endpoint, self._runner, PermitRequest(request.limits, request.in_flight, 0)), TIMEOUT_S)
            await asyncio.sleep(MAX_RENEWAL_S)
        self._limiter, self._connected_before = limiter, True
        grant: Grant = await asyncio.wait_for(limiter.renew.remote(endpoint, self._runner, request), TIMEOUT_S)
        return grant

    async def release(self) -> None:
        """Release all permits of this runner."""
        with contextlib.suppress(RayError, TimeoutError):
            if self._limiter is not None:
                await asyncio.wait_for(self._limiter.release.remote(self._runner), RELEASE_TIMEOUT_S)
