"""
Limits that hold over the whole cluster: calls in flight, requests and tokens per minute.

One ``Limiter`` per endpoint knows the limits and leases them to runners in blocks; each
runner's ``Leased`` permits serve its own rows. Pure logic on both sides: who carries the
messages, and what time it is, is told from outside.

A 429 shrinks the concurrency by a fifth, at most once a second, and pauses for as long as
the endpoint asks; answers let it grow again. A 5xx changes nothing.
"""

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from beam_ray.errors import Stopped

RENEW_S = 0.1
"""Seconds between two renewals while something is to be told."""

FORGET_S = 30.0
"""Seconds without a word after which a runner's permits go back."""


@dataclass(frozen=True)
class Limits:
    """What an endpoint allows."""

    concurrency: int
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass(frozen=True)
class Report:
    """What a runner tells: calls in flight and wanted, and what it used since it last told."""

    in_flight: int
    waiting: int
    waiting_tokens: int = 0
    answered: int = 0
    tokens_over: int = 0
    """Tokens used beyond what was asked for; negative when fewer."""
    throttled: bool = False
    pause_s: float = 0.0
    requests_unused: int = 0
    tokens_unused: int = 0


@dataclass(frozen=True)
class Grant:
    """What a runner may do until it hears again."""

    permits: int
    requests: int | None
    """How many calls it may begin; None without a limit."""
    tokens: int | None
    pause_s: float


@dataclass
class _Bucket:
    """A rate: fills evenly, holds a few seconds' worth."""

    per_minute: float
    level: float = 0.0
    at: float | None = None

    def fill(self, now: float) -> None:
        # a burst of two seconds lets a renewal every tenth of a second use the whole rate
        burst = max(self.per_minute / 30, 1.0)
        if self.at is None:
            self.level = burst
        else:
            self.level = min(burst, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now

    def take(self, wanted: float, whole: bool = True) -> int:
        given = int(min(max(self.level, 0), wanted)) if whole else int(wanted) if self.level > 0 else 0
        self.level -= given
        return given


@dataclass
class Limiter:
    """Leases the limits of one endpoint to runners."""

    limits: Limits
    capacity: float = 0.0
    held: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    paused_until: float = 0.0
    shrunk_at: float = -1e9

    def __post_init__(self) -> None:
        self.capacity = float(self.limits.concurrency)
        self._requests = _Bucket(self.limits.requests_per_minute) if self.limits.requests_per_minute else None
        self._tokens = _Bucket(self.limits.tokens_per_minute) if self.limits.tokens_per_minute else None

    def renew(self, runner: str, report: Report, now: float) -> Grant:
        """What *runner* may do from *now* (seconds on any steady clock)."""
        self.heard[runner] = now
        for other in [name for name, at in self.heard.items() if now - at > FORGET_S]:
            self.release(other)
        self._adapt(report, now)
        self.wanted[runner] = report.in_flight + report.waiting
        fair = self._fair(runner)
        free = int(self.capacity) - sum(count for name, count in self.held.items() if name != runner)
        # calls in flight keep their permits; more than the fair share is given back as they end
        self.held[runner] = max(report.in_flight, min(fair, max(free, 0)))
        pause = max(self.paused_until - now, 0.0)
        begin = max(self.held[runner] - report.in_flight, 0) if not pause else 0
        requests = tokens = None
        if self._requests:
            self._requests.fill(now)
            self._requests.level += report.requests_unused
            requests = self._requests.take(min(begin, report.waiting))
        if self._tokens:
            self._tokens.fill(now)
            self._tokens.level += report.tokens_unused - report.tokens_over
            tokens = self._tokens.take(report.waiting_tokens if begin else 0, whole=False)
        return Grant(self.held[runner] if not pause else report.in_flight, requests, tokens, pause)

    def release(self, runner: str) -> None:
        """*runner* is gone; its permits go back."""
        for table in (self.held, self.wanted, self.heard):
            table.pop(runner, None)

    def _adapt(self, report: Report, now: float) -> None:
        if report.throttled:
            if now - self.shrunk_at >= 1.0:
                self.capacity = max(1.0, self.capacity * 0.8)
                self.shrunk_at = now
            self.paused_until = max(self.paused_until, now + report.pause_s)
        elif report.answered:
            self.capacity = min(float(self.limits.concurrency), self.capacity + report.answered / self.capacity)

    def _fair(self, runner: str) -> int:
        """
        The runner's share: what it wants, or an equal part where not everyone can have what they want.

        Permits that nobody wants are lent out equally, so that a row that comes does not wait for a renewal.
        """
        left, waiting, shares = int(self.capacity), dict(self.wanted), dict.fromkeys(self.wanted, 0)
        while waiting:
            each = left // len(waiting)
            small = {name: count for name, count in waiting.items() if count <= each} or dict.fromkeys(waiting, each)
            for name, count in small.items():
                shares[name] = count
                left -= count
                del waiting[name]
        spare, odd = divmod(max(left, 0), len(shares))
        return shares[runner] + spare + (1 if sorted(shares).index(runner) < odd else 0)


Renew = Callable[[Report], Awaitable[Grant]]


class Leased:
    """A runner's permits at one endpoint."""

    def __init__(self, renew: Renew, limits: Limits):
        self._renew = renew
        self._limits = limits
        self._grant = Grant(0, 0 if limits.requests_per_minute else None, 0 if limits.tokens_per_minute else None, 0.0)
        self._in_flight = self._answered = self._over = 0
        self._throttled, self._pause = False, 0.0
        self._requests, self._tokens = 0, 0
        self._waiting: collections.deque[tuple[asyncio.Future[None], int]] = collections.deque()
        self._news = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def hold(self, tokens: int) -> AsyncIterator[float]:
        """Wait for a permit and keep it for one call; gives the seconds waited."""
        started = time.monotonic()
        if self._waiting or not self._may_begin(tokens):
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
            yield time.monotonic() - started
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

    async def close(self) -> None:
        """Stop renewing."""
        if self._loop:
            self._loop.cancel()

    def _may_begin(self, tokens: int) -> bool:
        grant = self._grant
        return self._in_flight < grant.permits and (grant.requests is None or self._requests > 0) and (grant.tokens is None or self._tokens > 0)

    def _begin(self, tokens: int) -> None:
        self._in_flight += 1
        self._requests -= 1
        self._tokens -= tokens

    def _give_back(self) -> None:
        self._in_flight -= 1
        self._serve()
        if self._waiting:
            self._ask()

    def _serve(self) -> None:
        while self._waiting and self._may_begin(self._waiting[0][1]):
            turn, tokens = self._waiting.popleft()
            if not turn.done():
                self._begin(tokens)
                turn.set_result(None)

    def _ask(self) -> None:
        self._news.set()
        if self._loop is None or self._loop.done():
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
        idle_since = time.monotonic()
        while True:
            waiting = [tokens for turn, tokens in self._waiting if not turn.done()]
            report = Report(
                self._in_flight,
                len(waiting),
                sum(waiting),
                self._answered,
                self._over if self._limits.tokens_per_minute else 0,
                self._throttled,
                self._pause,
                max(self._requests, 0),
                max(self._tokens, 0),
            )
            self._answered = self._over = 0
            self._throttled, self._pause = False, 0.0
            self._requests = self._tokens = 0
            self._news.clear()
            try:
                self._grant = await self._renew(report)
            except Exception as error:
                self._lost(error)
                return
            self._requests += self._grant.requests or 0
            self._tokens += self._grant.tokens or 0
            self._serve()
            if self._in_flight or self._waiting:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > 2 * FORGET_S:
                return
            starved = bool(self._waiting) and not self._in_flight
            try:
                # with calls in flight their ends serve those who wait; a word is due all the same
                await asyncio.wait_for(self._news.wait(), RENEW_S if starved else 1.0)
            except TimeoutError:
                pass
            await asyncio.sleep(min(max(self._grant.pause_s, RENEW_S), 1.0) if self._waiting else RENEW_S)
