"""A runner's side of the limits: its rows wait here for permits, which it renews at the endpoint's limiter."""

import asyncio
import collections
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable

from beam_ray.errors import Stopped
from beam_ray.llm.permits import RateLimits
from beam_ray.run.limiter import FORGET_S, MOST_S, Grant, Limits, Report

NOTHING = Grant(0, 0, 0, 0.0)

Renew = Callable[[Report], Awaitable[Grant]]


def _now() -> float:
    return asyncio.get_running_loop().time()


class Leased:
    """The permits of one endpoint, renewed at its limiter wherever that is."""

    def __init__(self, renew: Renew, limits: Limits):
        self._renew = renew
        self._limits = limits
        self._grant = NOTHING
        self._told = math.inf
        """While the limiter is asked, the calls that it was told of: what is above may be somebody else's by now."""
        self._in_flight = self._answered = self._over = 0
        self._throttled, self._pause, self._begun = False, 0.0, False
        self._requests, self._tokens = 0, 0
        self._waiting: collections.deque[tuple[asyncio.Future[None], int]] = collections.deque()
        self._news = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def hold(self, tokens: int) -> AsyncIterator[float]:
        """Wait for a permit and keep it for one call; gives the seconds waited."""
        started = _now()
        if self._waiting or not self._may_begin():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((turn, tokens))
            self._ask()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back()
                raise
        else:
            self._begin(tokens)
        try:
            yield _now() - started
        finally:
            self._give_back()

    def throttled(self, seconds: float) -> None:
        """The endpoint said: too fast."""
        self._throttled, self._pause = True, max(self._pause, seconds)
        self._ask()

    def answered(self, estimated: int, actual: int) -> None:
        """A call of about *estimated* tokens used *actual*."""
        self._answered += 1
        self._over += actual - estimated

    def observed(self, limits: RateLimits) -> None:
        """A reply reported what is left of the endpoint's limits."""

    async def close(self) -> None:
        """Stop renewing."""
        if self._loop:
            self._loop.cancel()

    def _may_begin(self) -> bool:
        grant = self._grant
        return (
            self._in_flight < min(grant.permits, self._told) and (grant.requests is None or self._requests > 0) and (grant.tokens is None or self._tokens > 0)
        )

    def _begin(self, tokens: int) -> None:
        self._begun = True
        self._in_flight += 1
        self._requests -= 1
        self._tokens -= tokens
        # what is lent and not used may be waited for elsewhere
        self._news.set()

    def _give_back(self) -> None:
        self._in_flight -= 1
        self._serve()
        # also where nobody waits here: someone may elsewhere
        self._ask()

    def _serve(self) -> None:
        while self._waiting and self._may_begin():
            turn, tokens = self._waiting.popleft()
            if not turn.done():
                self._begin(tokens)
                turn.set_result(None)

    def _ask(self) -> None:
        self._news.set()
        if self._loop is None or (self._loop.done() and not self._loop.cancelled()):
            self._loop = asyncio.get_running_loop().create_task(self._renewing())

    def _lost(self, error: Exception) -> None:
        """Nobody gives permits any more: whoever waits for one would wait for ever."""
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(
                    Stopped(f"the limits of the cluster's models are kept by nobody any more ({type(error).__name__}); run the same command again")
                )

    async def _renewing(self) -> None:
        idle_since = _now()
        while True:
            waiting = [tokens for turn, tokens in self._waiting if not turn.done()]
            # quick calls would wait for every answer of the limiter, were their permits not kept meanwhile
            keeps = self._grant.permits if self._grant.requests is self._grant.tokens is None and not self._throttled else 0
            told = self._told = max(self._in_flight, min(keeps, max(self._in_flight + len(waiting), int(self._begun))))
            waiting = waiting[self._told - self._in_flight :]
            report = Report(
                self._limits,
                told,
                len(waiting),
                sum(waiting),
                self._answered,
                self._over,
                self._throttled,
                self._pause,
                self._requests,
                self._tokens,
            )
            self._answered = self._over = 0
            self._throttled, self._pause, self._begun = False, 0.0, False
            self._requests = self._tokens = 0
            self._news.clear()
            try:
                self._grant = await self._renew(report)
                self._told = math.inf
            except Exception as error:
                self._lost(error)
                return
            self._requests += self._grant.requests or 0
            self._tokens += self._grant.tokens or 0
            self._serve()
            if self._in_flight or self._waiting:
                idle_since = _now()
            elif _now() - idle_since > 2 * FORGET_S:
                # who is silent is forgotten, and what it held given to others
                self._grant = NOTHING
                return
            # with calls in flight their ends serve those who wait; a word is due all the same
            idle, starved, heard = not (self._in_flight or self._waiting or told), not self._in_flight, _now()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._grant.again_s if starved and not idle else MOST_S)
            if idle:
                continue  # who had no use for permits was given none, and waits for the first
            pause = min(self._grant.pause_s, MOST_S) if self._waiting else 0.0
            await asyncio.sleep(max(heard + max(self._grant.again_s, pause) - _now(), 0))
