"""Limits over many runners, on a clock of their own: an hour of waiting takes a second."""

import asyncio
import random
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest

from beam_ray.errors import Stopped
from beam_ray.llm.permits import Left, RateLimits
from beam_ray.run.limiter import EXPIRY_S, Grant, Limiter, Limits, PermitRequest
from beam_ray.run.permits import PermitLease

CALL_S = 0.2


class Dream(asyncio.SelectorEventLoop):
    """A loop whose clock leaps to the next thing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


def dream(work: Coroutine[Any, Any, Any]) -> None:
    """Run it in leaps."""
    with asyncio.Runner(loop_factory=Dream) as runner:
        runner.run(work)


class Cluster:
    """Runners over one limiter, and what an endpoint would see of them."""

    def __init__(self, runners: int, *limits: Limits, way_s: float = 0.001, together: int = 1):
        self.limiter, self.way_s = Limiter(), way_s
        self.leased = [PermitLease(self._renew(f"r{number}"), limits[number % len(limits)], together) for number in range(runners)]
        self.begun: list[float] = []
        self.in_flight = self.most = 0
        self.messages = 0

    def _renew(self, name: str):
        async def renew(report: PermitRequest) -> Grant:
            await asyncio.sleep(self.way_s)
            self.messages += 1
            grant = self.limiter.renew(name, report, asyncio.get_running_loop().time())
            await asyncio.sleep(self.way_s)
            return grant

        return renew

    async def call(self, runner: int, tokens: int = 1, used: int | None = None, takes_s: float = CALL_S) -> float:
        """One call; the seconds that it waited for its permit."""
        leased = self.leased[runner]
        async with leased.hold(tokens) as waited:
            self.begun.append(asyncio.get_running_loop().time())
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            await asyncio.sleep(takes_s)
            self.in_flight -= 1
        leased.answered(tokens, tokens if used is None else used)
        return waited

    async def spread(self, calls: int, **how: Any) -> float:
        """As many calls as there are, dealt out to all runners; the seconds that they took."""
        await asyncio.gather(*(self.call(number % len(self.leased), **how) for number in range(calls)))
        return asyncio.get_running_loop().time()

    async def close(self) -> None:
        for leased in self.leased:
            await leased.close()


@pytest.mark.parametrize("runners", [1, 8, 64])
def test_calls_in_flight_stay_within_the_limit_and_use_it(runners):
    """Never more than 64 over all runners, and at least 90 % of what 64 can do."""

    async def work() -> None:
        cluster = Cluster(runners, Limits(64))
        took = await cluster.spread(64 * 60)
        await cluster.close()
        assert cluster.most == 64
        assert took <= 60 * CALL_S / 0.9

    dream(work())


@pytest.mark.parametrize("longest_s", [0.3, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_permits_that_go_from_one_runner_to_another_are_not_used_by_both(seed, longest_s):
    """Calls end and begin while a runner is on its way to the limiter and back: there are never more than sixteen."""

    async def work() -> None:
        chance, cluster = random.Random(seed), Cluster(4, Limits(16), way_s=0.02)

        async def row(runner: int) -> None:
            await asyncio.sleep(chance.uniform(0, 10 * longest_s))
            for _ in range(10):
                await asyncio.sleep(chance.uniform(0, 0.05))
                await cluster.call(runner, takes_s=chance.uniform(0.01, longest_s))

        await asyncio.gather(*(row(number % 4) for number in range(100)))
        await cluster.close()
        assert cluster.most == 16

    dream(work())


@pytest.mark.parametrize(("runners", "per_minute"), [(1, 1_200.0), (8, 30.0), (64, 1_200.0)])
def test_requests_per_minute_hold_and_are_used(runners, per_minute):
    """No minute has more than the limit and a second's worth, and a minute has at least 90 % of it."""

    async def work() -> None:
        cluster = Cluster(runners, Limits(64, requests_per_minute=per_minute))
        calls = int(per_minute)
        took = await cluster.spread(calls)
        await cluster.close()
        most = max(sum(start <= at < start + 60 for at in cluster.begun) for start in cluster.begun[:: max(calls // 100, 1)])
        assert most <= per_minute + max(per_minute / 60, 1)
        assert took <= 60 / 0.9

    dream(work())


@pytest.mark.parametrize("runners", [1, 8, 64])
def test_tokens_per_minute_hold_and_are_used_also_where_calls_use_less_than_was_asked(runners):
    """Of 60,000 tokens a minute at 300 a call, half of which are used: about 400 calls a minute, as used tokens count."""

    async def work() -> None:
        cluster = Cluster(runners, Limits(64, tokens_per_minute=60_000.0))
        took = await cluster.spread(400, tokens=300, used=150)
        await cluster.close()
        most = max(sum(start <= at < start + 60 for at in cluster.begun) for start in cluster.begun[::10])
        # what was asked counts until the answer is there, for at most as many calls as a burst and the runners' first ones hold
        assert most * 150 <= 60_000 + 1_000 + runners * 300
        assert took <= 60 / 0.9

    dream(work())


def test_a_call_that_asks_for_more_tokens_than_a_burst_is_made_and_paid_off():
    """Ten calls of a minute's tokens each take nine minutes and not for ever."""

    async def work() -> None:
        cluster = Cluster(2, Limits(4, tokens_per_minute=6_000.0))
        took = await cluster.spread(10, tokens=6_000)
        await cluster.close()
        assert 8 * 60 <= took <= 10.5 * 60

    dream(work())


def test_after_a_429_nobody_begins_for_as_long_as_the_endpoint_asks():
    """All runners wait, also those that were not told; later all calls are made."""

    async def work() -> None:
        cluster = Cluster(4, Limits(16))
        working = asyncio.create_task(cluster.spread(1_600))
        await asyncio.sleep(2)
        cluster.leased[0].throttled(10.0)
        # the others hear of it at their next renewal
        await asyncio.sleep(2)
        quiet = len(cluster.begun)
        await asyncio.sleep(7.5)
        assert len(cluster.begun) == quiet
        await working
        await cluster.close()
        assert len(cluster.begun) == 1_600

    dream(work())


def test_a_429_shrinks_by_a_fifth_once_a_second_and_answers_let_it_grow_again():
    """64, 51, 51 in the same second, 40; and 64 after enough answers."""
    limiter, limits = Limiter(), Limits(64)
    assert limiter.renew("r", PermitRequest(limits, 0, 100), 0.0).permits == 64
    assert limiter.renew("r", PermitRequest(limits, 0, 100, throttled=True), 1.0).permits == 51
    assert limiter.renew("r", PermitRequest(limits, 0, 100, throttled=True), 1.5).permits == 51
    assert limiter.renew("r", PermitRequest(limits, 0, 100, throttled=True), 2.1).permits == 40
    assert [limiter.renew("r", PermitRequest(limits, 0, 100, answered=40), 3.0 + number).permits for number in (0, 1)] == [41, 42]
    for number in range(30):
        grant = limiter.renew("r", PermitRequest(limits, 0, 100, answered=60), 5.0 + number)
    assert grant.permits == 64


def test_of_two_limits_for_one_endpoint_the_tighter_holds_while_its_run_lives():
    """A run that was told 8 is not drowned by one that was told 64, which has its 64 back when the other is gone."""
    limiter = Limiter()
    limiter.renew("careful", PermitRequest(Limits(8), 0, 4), 0.0)
    turns = [("bold", Limits(64), 100), ("careful", Limits(8), 4), ("bold", Limits(64), 100)]
    assert [limiter.renew(name, PermitRequest(limits, 0, wanted), 0.1).permits for name, limits, wanted in turns] == [0, 4, 4]
    limiter.release("careful")
    for second in range(1, 100):
        grant = limiter.renew("bold", PermitRequest(Limits(64), 8, 100, answered=100), float(second))
    assert grant.permits == 64


def test_a_runner_that_is_silent_gives_its_permits_back():
    """Half of the permits after 29 seconds, all after 31."""
    limiter, limits = Limiter(), Limits(10)
    limiter.renew("alive", PermitRequest(limits, 5, 5), 0.0)
    limiter.renew("dead", PermitRequest(limits, 5, 5), 0.0)
    assert limiter.renew("alive", PermitRequest(limits, 5, 5), EXPIRY_S - 1).permits == 5
    assert limiter.renew("alive", PermitRequest(limits, 5, 5), EXPIRY_S + 1).permits == 10


def test_a_limiter_that_is_lost_is_replaced_by_one_that_knows_nothing():
    """The reports tell it all that it needs: every call is made, and soon within the limit."""

    async def work() -> None:
        cluster = Cluster(8, Limits(16))
        working = asyncio.create_task(cluster.spread(1_600))
        await asyncio.sleep(3)
        cluster.limiter = Limiter()
        await asyncio.sleep(2)
        cluster.most = 0
        took = await working
        await cluster.close()
        assert cluster.most == 16
        assert took <= 100 * CALL_S / 0.9

    dream(work())


def test_a_slow_call_holds_no_other_back():
    """One call of a hundred that takes ten seconds: the others are done when they would be without it."""

    async def work() -> None:
        cluster = Cluster(2, Limits(10))
        slow = asyncio.create_task(cluster.call(0, takes_s=10.0))
        await asyncio.sleep(0.1)
        took = await cluster.spread(90)
        assert took <= 0.1 + 10 * CALL_S * 1.25
        await slow
        await cluster.close()

    dream(work())


def test_runners_that_come_and_go_leave_no_permit_unused():
    """Whoever has work at the end has all permits."""

    async def work() -> None:
        cluster = Cluster(8, Limits(32))
        for runner in range(7):
            await cluster.call(runner)
        await asyncio.gather(*(cluster.call(7) for _ in range(32)))
        await asyncio.sleep(2)
        cluster.most, began = 0, asyncio.get_running_loop().time()
        await asyncio.gather(*(cluster.call(7) for _ in range(32 * 20)))
        assert cluster.most == 32
        assert asyncio.get_running_loop().time() - began <= 20 * CALL_S / 0.9
        await cluster.close()

    dream(work())


def test_who_comes_second_soon_has_what_was_lent_to_the_first():
    """Both have work for 25 calls of a limit of 64, and calls take long: nobody waits for one of them to end."""

    async def work() -> None:
        cluster = Cluster(2, Limits(64))
        calls = [asyncio.create_task(cluster.call(0, takes_s=20)) for _ in range(25)]
        await asyncio.sleep(0.01)
        waited = await asyncio.gather(*(cluster.call(1, takes_s=20) for _ in range(25)), *calls)

        assert max(waited) < 0.25
        await cluster.close()

    dream(work())


def test_runners_that_begin_together_share_from_the_first_call():
    """The first one to ask would have all permits, which it gives back only as its calls of 20 seconds end."""

    async def work() -> None:
        cluster = Cluster(2, Limits(64), together=2)
        calls = [asyncio.create_task(cluster.call(0, takes_s=20)) for _ in range(64)]
        await asyncio.sleep(0.02)
        waited = await asyncio.gather(*(cluster.call(1, takes_s=20) for _ in range(32)), *calls)

        assert sum(seconds < 0.2 for seconds in waited[:32]) == sum(seconds < 0.2 for seconds in waited[32:]) == 32
        await cluster.close()

    dream(work())


def test_permits_of_a_runner_that_never_asks_are_kept_for_half_a_second():
    """Its process may take long to start, or have no calls to make."""

    async def work() -> None:
        cluster = Cluster(1, Limits(64), together=2)
        waited = await asyncio.gather(*(cluster.call(0, takes_s=20) for _ in range(64)))

        assert sum(seconds < 0.2 for seconds in waited) == 32
        assert max(waited) < 1.0
        await cluster.close()

    dream(work())


@pytest.mark.parametrize("takes_s", [0.0, 0.001])
def test_quick_calls_do_not_wait_for_every_answer_of_the_limiter(takes_s):
    """Its answers take as long as the time between two of them, and the rows lose less than half as much again."""

    async def work() -> None:
        cluster = Cluster(2, Limits(64), way_s=0.05)

        async def row(runner: int) -> None:
            for _ in range(500):
                async with cluster.leased[runner].hold(1):
                    if takes_s:
                        await asyncio.sleep(takes_s)
                await asyncio.sleep(0.005)

        await asyncio.gather(*(row(number % 2) for number in range(16)))
        assert asyncio.get_running_loop().time() < 1.5 * 500 * (takes_s + 0.005)
        await cluster.close()

    dream(work())


def test_who_was_silent_for_long_asks_before_it_begins():
    """Permits of two minutes ago are others' by now."""

    async def work() -> None:
        cluster = Cluster(2, Limits(4))
        await cluster.call(0)
        await asyncio.sleep(4 * EXPIRY_S)
        before = cluster.messages
        await cluster.call(0)
        assert cluster.messages > before
        await cluster.close()

    dream(work())


def test_many_runners_come_more_seldom():
    """Eight hundred runners do not ask their limiter more than five hundred times a second."""

    async def work() -> None:
        cluster = Cluster(800, Limits(1_600))
        began = cluster.messages
        working = asyncio.create_task(cluster.spread(1_600 * 12))
        await asyncio.sleep(2)
        began = cluster.messages
        await asyncio.sleep(3)
        assert cluster.messages - began <= 3 * 550
        working.cancel()
        assert cluster.most <= 1_600
        await cluster.close()

    dream(work())


def test_the_time_waited_for_a_permit_is_told_apart():
    """Of four calls through one permit the last waited for three."""

    async def work() -> None:
        cluster = Cluster(1, Limits(1))
        waited = await asyncio.gather(*(cluster.call(0) for _ in range(4)))
        assert [pytest.approx(CALL_S, abs=0.15) == later - before for before, later in pairwise(waited)] == [True] * 3
        await cluster.close()

    dream(work())


def test_a_call_that_is_given_up_while_it_waits_takes_no_permit():
    """Nine of ten that wait are given up; the tenth and all later ones are served."""

    async def work() -> None:
        cluster, dice = Cluster(1, Limits(2)), random.Random(3)
        calls = [asyncio.create_task(cluster.call(0)) for _ in range(40)]
        await asyncio.sleep(0.15)
        for call in dice.sample(calls[4:], 30):
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        cluster.most = 0
        await cluster.spread(20)
        assert cluster.most == 2
        await cluster.close()

    dream(work())


def test_a_call_that_is_given_up_when_it_is_refused_gives_no_permit_back():
    """The call that is in flight still counts: the permit was its own."""
    reports: list[PermitRequest] = []

    async def renew(report: PermitRequest) -> Grant:
        reports.append(report)
        return Grant(1, None, None, 0.1)

    async def wait(lease: PermitLease) -> None:
        async with lease.hold(1):
            raise AssertionError("there was no permit")

    async def work() -> None:
        lease = PermitLease(renew, Limits(1))
        async with lease.hold(1):
            waiting = asyncio.create_task(wait(lease))
            await asyncio.sleep(0.5)
            lease.refuse(Stopped("no more"))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await asyncio.sleep(5)
        await lease.close()
        assert max(report.in_flight for report in reports[-2:]) == 1

    dream(work())


def test_whoever_waits_for_a_permit_is_told_when_nobody_gives_them_any_more():
    """The run stops and can go on, where it would have waited for ever."""

    async def gone(report: PermitRequest) -> Grant:
        raise ConnectionError("the actor died")

    async def ask() -> None:
        async with PermitLease(gone, Limits(4)).hold(10):
            raise AssertionError("there was no permit")

    with pytest.raises(Stopped, match="run the same command again"):
        asyncio.run(asyncio.wait_for(ask(), 10))


def test_headers_teach_the_limiter_before_the_first_429():
    """An endpoint that allows 10 calls at once and one more every half second never has to refuse one, whoever asks."""

    async def work() -> None:
        cluster = Cluster(2, Limits(64))
        left, refilled_at, refused = 10.0, 0.0, 0

        async def call(runner: int) -> None:
            nonlocal left, refilled_at, refused
            lease = cluster.leased[runner]
            async with lease.hold(1):
                now = asyncio.get_running_loop().time()
                left, refilled_at = min(left + (now - refilled_at) * 2, 10.0), now
                refused += left < 1
                left -= 1
                lease.observed(RateLimits(Left(max(int(left), 0), 10, (10 - left) / 2), None))
                await asyncio.sleep(CALL_S)
            lease.answered(1, 1)

        await call(0)
        await asyncio.gather(*(call(number % 2) for number in range(100)))

        assert refused <= 3
        assert 40 < asyncio.get_running_loop().time() < 60

    dream(work())


def test_plenty_left_limits_nothing():
    """Headers that report thousands of calls change nothing for runners with a few."""
    limiter = Limiter()
    plenty = RateLimits(Left(5_000, 10_000, 30.0), Left(1_000_000, 2_000_000, 30.0))

    grant = limiter.renew("r", PermitRequest(Limits(8), 0, 20, 2_000, observed=plenty), 0.0)

    assert (grant.permits, grant.requests, grant.tokens) == (8, None, None)


def test_nothing_left_starts_nothing_until_it_refills():
    """The pause is as long as the endpoint needs for one call, not until its whole limit is back."""
    limiter = Limiter()
    empty = RateLimits(Left(0, 60, 60.0), None)

    first = limiter.renew("r", PermitRequest(Limits(8), 0, 20, observed=empty), 0.0)
    later = limiter.renew("r", PermitRequest(Limits(8), 0, 20), 1.5)

    assert (first.requests, later.requests) == (0, 1)
