"""
Rate limits that hold over the whole cluster: concurrency, requests and tokens per minute.

One ``Limiter`` per endpoint leases its limits to runners in blocks; ``permits`` is the runners'
side. Every request carries the limits that its runner knows: where they differ, the tightest
holds. Pure logic: the time is an argument.

A 429 reduces the concurrency by a fifth, at most once a second, and pauses for as long as
the endpoint asks; answers let it grow again. A 5xx changes nothing.
"""

import functools
from dataclasses import dataclass

from beam_ray.llm.permits import Left, RateLimits

MIN_RENEWAL_S = 0.1
"""Seconds between two renewals of a runner that has something to report, where runners are few."""
RENEWAL_COST_S = 0.002
"""Seconds of the limiter's time per renewal: with more runners, each renews less often."""
MAX_RENEWAL_S = 1.5
"""Longest interval between two renewals."""
SHARE = 0.98
"""The part of a rate that is leased."""
BEGINNING_S = 0.5
"""Seconds for which permits are kept for the other runners of a run whose first one has asked."""
EXPIRY_S = 10.0
"""Seconds without a renewal after which a runner's permits are released."""


@dataclass(frozen=True)
class Limits:
    """Rate limits of an endpoint."""

    concurrency: int
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def tightest(self, other: "Limits") -> "Limits":
        """The limits that satisfy both."""
        return Limits(
            min(self.concurrency, other.concurrency),
            _least(self.requests_per_minute, other.requests_per_minute),
            _least(self.tokens_per_minute, other.tokens_per_minute),
        )


UNLIMITED = Limits(10**9)


def _least(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)


@dataclass(frozen=True)
class PermitRequest:
    """
    What a runner asks for: the limits it knows, its calls in flight and waiting, and what it used since its last request.

    Calls that it may start before it is answered count as in flight.
    """

    limits: Limits
    in_flight: int
    waiting: int
    waiting_tokens: int = 0
    answered: int = 0
    tokens_over: int = 0
    """Tokens used beyond the estimates; negative when fewer."""
    throttled: bool = False
    pause_s: float = 0.0
    requests_unused: int = 0
    tokens_unused: int = 0
    """Negative when calls were started that needed more than was left."""
    observed: RateLimits | None = None
    """What the newest reply said of the endpoint's limits, where it said anything."""
    runners: int = 1
    """Runners of its run that are about to ask for permits, itself included."""


@dataclass(frozen=True)
class Grant:
    """What a runner may use until its next renewal."""

    permits: int
    requests: int | None
    """Calls that it may start; None without a limit."""
    tokens: int | None
    pause_s: float
    renew_in_s: float = MIN_RENEWAL_S
    """Seconds until it should renew, while it has something to report."""


@dataclass
class _Bucket:
    """
    A token bucket that fills evenly and holds a second's worth.

    It starts empty and fills a little slower than allowed: an endpoint whose seconds start at
    other moments would refuse calls at their edges, and a refusal pauses everybody.
    """

    at: float
    level: float = 0.0

    def fill(self, per_minute: float, now: float) -> None:
        self.level = min(max(per_minute / 60, 1.0), self.level + (now - self.at) * SHARE * per_minute / 60)
        self.at = now


@dataclass
class _Remaining:
    """What an endpoint's newest reply said is left of a limit; it refills until then."""

    level: float
    per_second: float
    at: float
    until: float

    @classmethod
    def of(cls, left: Left, now: float) -> "_Remaining":
        """From a reply that came at about *now*; without a time of reset it counts for a second."""
        return cls(left.remaining, left.per_second, now, now + max(left.reset_s, 1.0))

    def left(self, now: float) -> float | None:
        """What is left at *now*; None where that is no longer known."""
        return max(self.level + (now - self.at) * self.per_second, 0.0) if now < self.until else None


@dataclass
class _Lease:
    """The state of one runner."""

    limits: Limits
    since: float
    runners: int
    renewed_at: float = 0.0
    held: int = 0
    wanted: int = 0
    waiting: int = 0

    def expired(self, now: float) -> bool:
        """Whether it has not renewed for so long that it is taken for dead."""
        return now - self.renewed_at > EXPIRY_S


class Limiter:
    """Leases the limits of one endpoint to runners."""

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}
        self._limits = UNLIMITED
        self._capacity = float("inf")
        """Estimated concurrency that the endpoint can take; never more than the limit."""
        self._paused_until = self._shrunk_at = float("-inf")
        self._requests: _Bucket | None = None
        self._tokens: _Bucket | None = None
        self._requests_left: _Remaining | None = None
        self._tokens_left: _Remaining | None = None

    def renew(self, runner: str, request: PermitRequest, now: float) -> Grant:
        """What *runner* may use from *now* (seconds on any monotonic clock)."""
        lease = self._lease(runner, request, now)
        self._adapt(request, now)
        pause = max(self._paused_until - now, 0.0)
        free = int(self._capacity) - sum(each.held for each in self._leases.values() if each is not lease)
        permits = min(self._share(runner, now), max(free, 0)) if not pause else 0
        # calls in flight count even above the share: they return it as they end
        lease.held = max(request.in_flight, permits)
        renew_in_s = min(max(MIN_RENEWAL_S, len(self._leases) * RENEWAL_COST_S), MAX_RENEWAL_S)
        return Grant(permits, *self._rates(request, lease.held - request.in_flight, now), pause, renew_in_s)

    def in_use(self, now: float) -> bool:
        """Whether any runner has renewed recently."""
        return not all(lease.expired(now) for lease in self._leases.values())

    def release(self, runner: str) -> None:
        """Release the permits of *runner*, which is gone."""
        if self._leases.pop(runner, None):
            self._limits = self._tightest()

    def _lease(self, runner: str, request: PermitRequest, now: float) -> _Lease:
        expired = [name for name, lease in self._leases.items() if lease.expired(now)]
        for name in expired:
            del self._leases[name]
        known = self._leases.get(runner)
        lease = self._leases[runner] = known or _Lease(request.limits, now, request.runners)
        if expired or known is None or known.limits != request.limits:
            lease.limits = request.limits
            self._limits = self._tightest()
        lease.renewed_at, lease.waiting, lease.wanted = now, request.waiting, request.in_flight + request.waiting
        return lease

    def _tightest(self) -> Limits:
        return functools.reduce(Limits.tightest, (lease.limits for lease in self._leases.values()), UNLIMITED)

    def _adapt(self, request: PermitRequest, now: float) -> None:
        if request.throttled:
            if now - self._shrunk_at >= 1.0:
                self._capacity = max(1.0, min(self._capacity, self._limits.concurrency) * 0.8)
                self._shrunk_at = now
            self._paused_until = max(self._paused_until, now + request.pause_s)
        elif request.answered:
            self._capacity += request.answered / self._capacity
        self._capacity = min(self._capacity, self._limits.concurrency)

    def _share(self, runner: str, now: float) -> int:
        """
        What the runner wants, or an equal share where there is not enough for everyone.

        Permits that nobody wants are leased to runners that have work, so that a new row does not wait for a renewal.
        """
        wanting = sorted((lease.wanted, name) for name, lease in self._leases.items() if lease.wanted)
        left, large = int(self._capacity) - self._kept(now), wanting[:0]
        for index, (wanted, _) in enumerate(wanting):
            if wanted > left // (len(wanting) - index):
                large = wanting[index:]
                break
            left -= wanted
        sharing, wanted = sorted(name for _, name in large or wanting), self._leases[runner].wanted
        if runner not in sharing:
            return wanted
        each, odd = divmod(left, len(sharing))
        # the remainder rotates
        part = each + ((sharing.index(runner) + int(now)) % len(sharing) < odd)
        return part if large else wanted + part

    def _kept(self, now: float) -> int:
        """Permits for runners that begin now and have not asked yet."""
        beginning = max((lease.runners for lease in self._leases.values() if now - lease.since < BEGINNING_S), default=0)
        missing = max(beginning - len(self._leases), 0)
        return int(self._capacity) * missing // (len(self._leases) + missing)

    def _rates(self, request: PermitRequest, free: int, now: float) -> tuple[int | None, int | None]:
        """How many calls and tokens may start with *free* free permits."""
        self._requests = _filled(self._requests, self._limits.requests_per_minute, now)
        self._tokens = _filled(self._tokens, self._limits.tokens_per_minute, now)
        wanting = max(sum(lease.waiting > 0 for lease in self._leases.values()), 1)
        requests = tokens = None
        if self._requests:
            self._requests.level += request.requests_unused
            whole = max(int(self._requests.level), 0)
            requests = min(max(whole // wanting, min(whole, 1)), free, request.waiting)
            self._requests.level -= requests
        if self._tokens:
            self._tokens.level += request.tokens_unused - request.tokens_over
            asked = request.waiting_tokens * min(free / request.waiting, 1) if request.waiting else 0
            # a call may need more tokens than the bucket ever holds: it starts with one, and the debt is worked off
            tokens = max(int(min(asked, self._tokens.level / wanting)), 1) if asked and self._tokens.level > 0 else 0
            self._tokens.level -= tokens
        return self._within_remaining(request, free, requests, tokens, wanting, now)

    def _within_remaining(
        self, request: PermitRequest, free: int, requests: int | None, tokens: int | None, wanting: int, now: float
    ) -> tuple[int | None, int | None]:
        """The same, but no more than the endpoint's replies say is left: so that it never has to answer 429."""
        if request.observed and request.observed.requests:
            self._requests_left = _Remaining.of(request.observed.requests, now)
        if request.observed and request.observed.tokens:
            self._tokens_left = _Remaining.of(request.observed.tokens, now)
        if self._requests_left:
            if self._requests is None:
                self._requests_left.level += request.requests_unused
            left = self._requests_left.left(now)
            if left is None:
                self._requests_left = None
            else:
                start = min(free, request.waiting) if requests is None else requests
                if left < start or requests is not None or left < 2 * self._capacity:
                    start = requests = min(start, max(int(left) // wanting, min(int(left), 1)))
                self._requests_left.level -= start
        if self._tokens_left:
            if self._tokens is None:
                self._tokens_left.level += request.tokens_unused - request.tokens_over
            left = self._tokens_left.left(now)
            if left is None:
                self._tokens_left = None
            else:
                asked = int(request.waiting_tokens * min(free / request.waiting, 1)) if request.waiting else 0
                start = asked if tokens is None else tokens
                if left < start or tokens is not None:
                    start = tokens = max(min(start, int(left / wanting)), 1 if left >= 1 and asked else 0)
                self._tokens_left.level -= start
        return requests, tokens


def _filled(bucket: _Bucket | None, per_minute: float | None, now: float) -> _Bucket | None:
    if per_minute is None:
        return None
    bucket = bucket or _Bucket(now)
    bucket.fill(per_minute, now)
    return bucket
