"""Permits to have calls in flight at an endpoint, as a model sees them."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Permits(Protocol):
    """Permits to have calls in flight at one endpoint."""

    def hold(self, tokens: int) -> AbstractAsyncContextManager[float]:
        """Wait for a permit for a call of about *tokens* and hold it; gives the seconds waited."""

    def throttled(self, seconds: float) -> None:
        """The endpoint reported a rate limit and asked to wait for *seconds* (0 where it did not say)."""

    def answered(self, estimated: int, actual: int) -> None:
        """A call that was estimated at *estimated* tokens used *actual*."""


class Unlimited:
    """Permits without a limit."""

    def hold(self, tokens: int) -> AbstractAsyncContextManager[float]:
        """Immediately."""
        return _Immediate()

    def throttled(self, seconds: float) -> None:
        """Nothing to slow down."""

    def answered(self, estimated: int, actual: int) -> None:
        """Nothing to count."""


class _Immediate(AbstractAsyncContextManager[float]):
    async def __aenter__(self) -> float:
        return 0.0

    async def __aexit__(self, *error: object) -> None:
        return None
