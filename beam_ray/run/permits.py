"""A runner's side of the rate limits: its calls wait here for permits, which are leased from the endpoint's limiter."""

import asyncio
import collections
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable

from beam_ray.errors import BeamRayError, Stopped
from beam_ray.llm.permits import RateLimits
from beam_ray.run.limiter import BEGINNING_S, EXPIRY_S, MAX_RENEWAL_S, Grant, Limits, PermitRequest

NO_GRANT = Grant(0, 0, 0, 0.0)

Renew = Callable[[PermitRequest], Awaitable[Grant]]


def _now() -> float:
    return asyncio.get_running_loop().time()


class PermitLease:
    """The permits of one endpoint that this process holds, renewed at its limiter wherever that is."""

    def __init__(self, renew: Renew, limits: Limits, runners: int = 1):
        """
        Args:
            runners: Runners that begin together with this one and share the limits, itself included.
        """
        self._renew = renew
        self._limits, self._runners = limits, runners
        self._grant = NO_GRANT
        self._reported = math.inf
        """While a renewal is under way, the calls in flight that it reported: permits above may belong to another runner by now."""
        self._in_flight = self._answered = self._extra_tokens = 0
        self._throttled, self._pause_s, self._started_any = False, 0.0, False
        self._requests, self._tokens = 0, 0
        self._queue: collections.deque[tuple[asyncio.Future[None], int]] = collections.deque()
        self._changed = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None
        self._refused: BeamRayError | None = None
        self._observed: RateLimits | None = None

    @contextlib.asynccontextmanager
    async def hold(self, tokens: int) -> AsyncIterator[float]:
        """Wait for a permit and hold it for one call; gives the seconds waited."""
        started = _now()
        if self._refused:
            raise self._refused
        if self._queue or not self._may_start():
            permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append((permit, tokens))
            self._request_renewal()
            try:
                await permit
            except asyncio.CancelledError:
                if permit.done() and not permit.cancelled() and permit.exception() is None:
                    self._release()
                raise
        else:
            self._start(tokens)
        try:
            yield _now() - started
        finally:
            self._release()

    def throttled(self, seconds: float) -> None:
        """The endpoint answered 429 and asked for a pause of *seconds*."""
        self._throttled, self._pause_s = True, max(self._pause_s, seconds)
        self._request_renewal()

    def answered(self, estimated: int, actual: int) -> None:
        """A call whose estimate was *estimated* tokens used *actual*."""
        self._answered += 1
        self._extra_tokens += actual - estimated

    def observed(self, limits: RateLimits) -> None:
        """A reply reported what is left of the endpoint's limits; the limiter learns of it with the next renewal."""
        self._observed = limits
        if any(left and left.remaining == 0 for left in (limits.requests, limits.tokens)):
            self._request_renewal()

    def refuse(self, error: BeamRayError) -> None:
        """Start no more calls: whoever waits for a permit, or asks for one, gets *error*."""
        self._refused = error
        while self._queue:
            permit, _ = self._queue.popleft()
            if not permit.done():
                permit.set_exception(error)

    async def close(self) -> None:
        """Stop renewing."""
        if self._renewal:
            self._renewal.cancel()

    def _may_start(self) -> bool:
        grant = self._grant
        return (
            self._in_flight < min(grant.permits, self._reported)
            and (grant.requests is None or self._requests > 0)
            and (grant.tokens is None or self._tokens > 0)
        )

    def _start(self, tokens: int) -> None:
        self._started_any = True
        self._in_flight += 1
        self._requests -= 1
        self._tokens -= tokens
        # another runner may be waiting for what is leased here and not used
        self._changed.set()

    def _release(self) -> None:
        self._in_flight -= 1
        self._start_waiting()
        # even where nothing waits here: another runner may be waiting
        self._request_renewal()

    def _start_waiting(self) -> None:
        """Start one call per turn of the event loop, so that its request goes out before the next call begins."""
        while self._queue and self._may_start():
            permit, tokens = self._queue.popleft()
            if not permit.done():
                self._start(tokens)
                permit.set_result(None)
                asyncio.get_running_loop().call_soon(self._start_waiting)
                return

    def _request_renewal(self) -> None:
        self._changed.set()
        if self._renewal is None or (self._renewal.done() and not self._renewal.cancelled()):
            self._renewal = asyncio.get_running_loop().create_task(self._renew_forever())

    def _fail_waiting(self, error: Exception) -> None:
        """The limiter cannot be reached: calls that wait for a permit would wait forever."""
        while self._queue:
            permit, _ = self._queue.popleft()
            if not permit.done():
                permit.set_exception(Stopped(f"the cluster's rate limiter cannot be reached ({type(error).__name__}); run the same command again to resume"))

    async def _renew_forever(self) -> None:
        idle_since = began_at = _now()
        while True:
            waiting = [tokens for permit, tokens in self._queue if not permit.done()]
            # fast calls would wait for every renewal if their permits were not kept meanwhile
            keeps = self._grant.permits if self._grant.requests is self._grant.tokens is None and not self._throttled else 0
            reported = self._reported = max(self._in_flight, min(keeps, max(self._in_flight + len(waiting), int(self._started_any))))
            waiting = waiting[self._reported - self._in_flight :]
            request = PermitRequest(
                self._limits,
                reported,
                len(waiting),
                sum(waiting),
                self._answered,
                self._extra_tokens,
                self._throttled,
                self._pause_s,
                self._requests,
                self._tokens,
                self._observed,
                self._runners,
            )
            self._answered = self._extra_tokens = 0
            self._throttled, self._pause_s, self._started_any = False, 0.0, False
            self._requests = self._tokens = 0
            self._observed = None
            self._changed.clear()
            try:
                self._grant = await self._renew(request)
                self._reported = math.inf
            except Exception as error:
                self._fail_waiting(error)
                return
            self._requests += self._grant.requests or 0
            self._tokens += self._grant.tokens or 0
            self._start_waiting()
            if self._in_flight or self._queue:
                idle_since = _now()
            elif _now() - idle_since > 2 * EXPIRY_S:
                # leases that are not renewed expire, and their permits go to other runners
                self._grant = NO_GRANT
                return
            # calls that end start those that wait; a renewal is due all the same
            idle, starved, renewed_at = not (self._in_flight or self._queue or reported), not self._in_flight, _now()
            # what is kept for the other runners at the beginning is free if they do not come
            longest_s = BEGINNING_S if self._runners > 1 and renewed_at - began_at < BEGINNING_S else MAX_RENEWAL_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._grant.renew_in_s if starved and not idle else longest_s)
            if idle:
                continue  # a runner without work has no permits, and waits for the first
            pause = min(self._grant.pause_s, MAX_RENEWAL_S) if self._queue else 0.0
            await asyncio.sleep(max(renewed_at + max(self._grant.renew_in_s, pause) - _now(), 0))
