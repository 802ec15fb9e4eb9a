"""Permits to have calls in flight at an endpoint, as a model sees them."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from beam_ray.errors import BeamRayError


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What an endpoint's reply says of its limits."""

    requests: "Left | None"
    """None where the endpoint does not say."""
    tokens: "Left | None"


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of one limit."""

    remaining: int
    limit: int | None
    """None where the endpoint does not say."""
    reset_s: float
    """Seconds until the whole limit is available again; 0 where the endpoint does not say."""

    @property
    def per_second(self) -> float:
        """How fast it refills, as far as can be told."""
        if self.reset_s <= 0:
            return 0.0
        return max((self.limit or self.remaining + 1) - self.remaining, 1) / self.reset_s


class Permits(Protocol):
    """Permits to have calls in flight at one endpoint."""

    def hold(self, tokens: int) -> AbstractAsyncContextManager[float]:
        """Wait for a permit for a call of about *tokens* and hold it; gives the seconds waited."""

    def throttled(self, seconds: float) -> None:
        """The endpoint reported a rate limit and asked to wait for *seconds* (0 where it did not say)."""

    def answered(self, estimated: int, actual: int) -> None:
        """A call that was estimated at *estimated* tokens used *actual*."""

    def observed(self, limits: RateLimits) -> None:
        """A reply reported what is left of the endpoint's limits."""

    def refuse(self, error: BeamRayError) -> None:
        """The endpoint would refuse every call: whoever waits for a permit, or asks for one, gets *error*."""


class Unlimited:
    """Permits without a limit."""

    def hold(self, tokens: int) -> AbstractAsyncContextManager[float]:
        """Immediately."""
        return _Immediate()

    def throttled(self, seconds: float) -> None:
        """Nothing to slow down."""

    def answered(self, estimated: int, actual: int) -> None:
        """Nothing to count."""

    def observed(self, limits: RateLimits) -> None:
        """Nothing to limit."""

    def refuse(self, error: BeamRayError) -> None:
        """Nobody waits."""


class _Immediate(AbstractAsyncContextManager[float]):
    async def __aenter__(self) -> float:
        return 0.0

    async def __aexit__(self, *error: object) -> None:
        return None
