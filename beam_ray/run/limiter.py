"""
Limits that hold over the whole cluster: calls in flight, requests and tokens per minute.

One ``Limiter`` per endpoint leases its limits to runners in blocks; ``permits`` is the runners'
side. What the limits are stands in every report: where reports differ, the tightest holds.
Pure logic: what time it is is told from outside.

A 429 shrinks the concurrency by a fifth, at most once a second, and pauses for as long as
the endpoint asks; answers let it grow again. A 5xx changes nothing.
"""

import functools
from dataclasses import dataclass

RENEW_S = 0.1
"""Seconds between two renewals while something is to be told, where runners are few."""
RENEWAL_S = 0.002
"""Seconds that a renewal may take the limiter: with more runners each comes more seldom."""
MOST_S = 1.5
"""No runner comes more seldom."""
SHARE = 0.98
"""The part of a rate that is lent out."""

FORGET_S = 10.0
"""Seconds without a word after which a runner's permits go back."""


@dataclass(frozen=True)
class Limits:
    """What an endpoint allows."""

    concurrency: int
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def tightest(self, other: "Limits") -> "Limits":
        """What both allow."""
        return Limits(
            min(self.concurrency, other.concurrency),
            _least(self.requests_per_minute, other.requests_per_minute),
            _least(self.tokens_per_minute, other.tokens_per_minute),
        )


UNLIMITED = Limits(10**9)


def _least(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)


@dataclass(frozen=True)
class Report:
    """
    What a runner tells: the limits it knows of, calls in flight and wanted, and what it used since it last told.

    Calls that it may begin before it hears are among those in flight.
    """

    limits: Limits
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
    """Negative when calls began that needed more than there was."""


@dataclass(frozen=True)
class Grant:
    """What a runner may do until it hears again."""

    permits: int
    requests: int | None
    """How many calls it may begin; None without a limit."""
    tokens: int | None
    pause_s: float
    again_s: float = RENEW_S
    """When to come again, while something is to be told."""


@dataclass
class _Bucket:
    """
    A rate: fills evenly, and holds a second's worth.

    It begins empty and fills a little slower than is allowed: an endpoint that counts its seconds
    elsewhere would refuse what is sent at their edges, and a refusal stops everybody.
    """

    at: float
    level: float = 0.0

    def fill(self, per_minute: float, now: float) -> None:
        self.level = min(max(per_minute / 60, 1.0), self.level + (now - self.at) * SHARE * per_minute / 60)
        self.at = now


@dataclass
class _Lease:
    """What is known of a runner."""

    limits: Limits
    heard: float = 0.0
    held: int = 0
    wanted: int = 0
    waiting: int = 0

    def silent(self, now: float) -> bool:
        """Whether it was last heard of so long ago that it is taken for gone."""
        return now - self.heard > FORGET_S


class Limiter:
    """Leases the limits of one endpoint to runners."""

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}
        self._limits = UNLIMITED
        self._capacity = float("inf")
        """Calls in flight that the endpoint is thought to bear; never more than the limit."""
        self._paused_until = self._shrunk_at = float("-inf")
        self._requests: _Bucket | None = None
        self._tokens: _Bucket | None = None

    def renew(self, runner: str, report: Report, now: float) -> Grant:
        """What *runner* may do from *now* (seconds on any steady clock)."""
        lease = self._lease(runner, report, now)
        self._adapt(report, now)
        pause = max(self._paused_until - now, 0.0)
        free = int(self._capacity) - sum(each.held for each in self._leases.values() if each is not lease)
        permits = min(self._share(runner, now), max(free, 0)) if not pause else 0
        # calls in flight are counted, also those above the share: it is given back as they end
        lease.held = max(report.in_flight, permits)
        again_s = min(max(RENEW_S, len(self._leases) * RENEWAL_S), MOST_S)
        return Grant(permits, *self._rates(report, lease.held - report.in_flight, now), pause, again_s)

    def serves(self, now: float) -> bool:
        """Whether there is a runner that has told of itself lately."""
        return not all(lease.silent(now) for lease in self._leases.values())

    def release(self, runner: str) -> None:
        """*runner* is gone; its permits go back."""
        if self._leases.pop(runner, None):
            self._limits = self._tightest()

    def _lease(self, runner: str, report: Report, now: float) -> _Lease:
        silent = [name for name, lease in self._leases.items() if lease.silent(now)]
        for name in silent:
            del self._leases[name]
        known = self._leases.get(runner)
        lease = self._leases[runner] = known or _Lease(report.limits)
        if silent or known is None or known.limits != report.limits:
            lease.limits = report.limits
            self._limits = self._tightest()
        lease.heard, lease.waiting, lease.wanted = now, report.waiting, report.in_flight + report.waiting
        return lease

    def _tightest(self) -> Limits:
        return functools.reduce(Limits.tightest, (lease.limits for lease in self._leases.values()), UNLIMITED)

    def _adapt(self, report: Report, now: float) -> None:
        if report.throttled:
            if now - self._shrunk_at >= 1.0:
                self._capacity = max(1.0, min(self._capacity, self._limits.concurrency) * 0.8)
                self._shrunk_at = now
            self._paused_until = max(self._paused_until, now + report.pause_s)
        elif report.answered:
            self._capacity += report.answered / self._capacity
        self._capacity = min(self._capacity, self._limits.concurrency)

    def _share(self, runner: str, now: float) -> int:
        """
        What the runner wants, or an equal part where not everyone can have what they want.

        Permits that nobody wants are lent to those who have work, so that a row that comes does not wait for a renewal.
        """
        hungry = sorted((lease.wanted, name) for name, lease in self._leases.items() if lease.wanted)
        left, large = int(self._capacity), hungry[:0]
        for index, (wanted, _) in enumerate(hungry):
            if wanted > left // (len(hungry) - index):
                large = hungry[index:]
                break
            left -= wanted
        sharing, wanted = sorted(name for _, name in large or hungry), self._leases[runner].wanted
        if runner not in sharing:
            return wanted
        each, odd = divmod(left, len(sharing))
        # what cannot be shared goes round
        part = each + ((sharing.index(runner) + int(now)) % len(sharing) < odd)
        return part if large else wanted + part

    def _rates(self, report: Report, begin: int, now: float) -> tuple[int | None, int | None]:
        """How many calls and tokens may begin with *begin* free permits."""
        self._requests = _filled(self._requests, self._limits.requests_per_minute, now)
        self._tokens = _filled(self._tokens, self._limits.tokens_per_minute, now)
        hungry = max(sum(lease.waiting > 0 for lease in self._leases.values()), 1)
        requests = tokens = None
        if self._requests:
            self._requests.level += report.requests_unused
            whole = max(int(self._requests.level), 0)
            requests = min(max(whole // hungry, min(whole, 1)), begin, report.waiting)
            self._requests.level -= requests
        if self._tokens:
            self._tokens.level += report.tokens_unused - report.tokens_over
            asked = report.waiting_tokens * min(begin / report.waiting, 1) if report.waiting else 0
            # a call may need more than there ever is at once: with one token it begins, and is paid off
            tokens = max(int(min(asked, self._tokens.level / hungry)), 1) if asked and self._tokens.level > 0 else 0
            self._tokens.level -= tokens
        return requests, tokens


def _filled(bucket: _Bucket | None, per_minute: float | None, now: float) -> _Bucket | None:
    if per_minute is None:
        return None
    bucket = bucket or _Bucket(now)
    bucket.fill(per_minute, now)
    return bucket
