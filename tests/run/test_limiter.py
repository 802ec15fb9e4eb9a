"""Permits that nobody gives any more."""

import asyncio

import pytest

from beam_ray.errors import Stopped
from beam_ray.run.limiter import Grant, Leased, Limits, Report


def test_whoever_waits_for_a_permit_is_told_when_nobody_gives_them_any_more():
    """The run stops and can go on, where it would have waited for ever."""

    async def gone(report: Report) -> Grant:
        raise ConnectionError("the actor died")

    async def ask() -> None:
        async with Leased(gone, Limits(4)).hold(10):
            raise AssertionError("there was no permit")

    with pytest.raises(Stopped, match="run the same command again"):
        asyncio.run(asyncio.wait_for(ask(), 10))
