"""
Killing and failing at random for as long as one likes: ``make soak``.

    make soak SOAK_SECONDS=600        or SOAK_KILLS=5000; the first of them that is reached ends it
    make soak SOAK_SEED=17            begins with this seed; a failure prints the one to begin with
    make soak SOAK_KINDS=agents       only these kinds of scenario, by commas
"""

import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.batch_endpoint import batch_endpoint
from tests.endpoint import endpoint
from tests.faults import batches, test_calls
from tests.faults.conftest import Bench, Forge, answer, make_bench
from tests.faults.journeys import JOURNEYS, travel
from tests.faults.test_crash import STRUCK, again

TASKS = 16
LATENCIES_S = (0.0, 0.01, 0.05)


class Soak:
    """What every scenario is held against: the same, undisturbed."""

    def __init__(self, folder: Path, forge: Forge):
        self.folder, self.forge = folder, forge
        self.oldest = 0.0
        """The age of the oldest answer that was asked for again."""
        with endpoint(answer) as model:
            self.calm = make_bench(folder / "calm", forge, model, TASKS)
            self.points = list(self.calm.run(fail="*.*:0:kill").hits)
            model.journal.clear()
            self.journeys: dict[str, Any] = {}
            for name, journey in JOURNEYS.items():
                bench = make_bench(folder / f"calm-{name}", forge, model, journey.tasks)
                self.journeys[name] = travel(bench, journey), bench.journey()
        with endpoint(test_calls.answer) as model:
            desk = test_calls.make_desk(folder / "calm-agents", forge, model)
            assert desk.run().code == 0
            self.agents_found = desk.outputs()
        with batch_endpoint(answer) as server:
            self.post = batches.make_post(folder / "calm-batches", forge, server, TASKS)
            batches.backtest(self.post, "interactive")
        self.kinds: dict[str, Callable[[random.Random, Path], int]] = {
            "killed": self.killed,
            "points": self.at_points,
            **{name: lambda dice, folder, name=name: self.journey(dice, folder, name) for name in JOURNEYS},
            "agents": self.agents,
            "batches": self.batches,
        }

    def killed(self, dice: random.Random, folder: Path) -> int:
        """A run is killed at random; how often."""
        with endpoint(answer, latency_s=dice.choice(LATENCIES_S)) as model:
            bench = make_bench(folder, self.forge, model, TASKS)
            again(bench, dice, self.calm)
        return self._struck(bench)

    def at_points(self, dice: random.Random, folder: Path) -> int:
        """A run is killed, or its disk fails, at points."""
        with endpoint(answer, latency_s=dice.choice(LATENCIES_S)) as model:
            bench = make_bench(folder, self.forge, model, TASKS)
            for _ in range(12):
                if bench.run(fail=f"{dice.choice(self.points)}:{dice.randint(1, 3)}:{dice.choice(list(STRUCK))}").code == 0 or bench.over:
                    bench.finish(self.calm)
            bench.finish(self.calm)
        return self._struck(bench)

    def journey(self, dice: random.Random, folder: Path, name: str) -> int:
        """The commands of a journey are killed."""
        with endpoint(answer, latency_s=dice.choice(LATENCIES_S)) as model:
            bench = make_bench(folder, self.forge, model, JOURNEYS[name].tasks)
            assert (travel(bench, JOURNEYS[name], dice), bench.journey()) == self.journeys[name]
        return self._struck(bench)

    def agents(self, dice: random.Random, folder: Path) -> int:
        """A run of agents that call tools is killed."""
        with endpoint(test_calls.answer, latency_s=dice.choice(LATENCIES_S)) as model:
            desk, killed = test_calls.make_desk(folder, self.forge, model), 0
            while killed < 10:
                killed += desk.kill_until_done(dice)
                assert desk.outputs() == self.agents_found
                desk.begin_anew()
        self.oldest = max(self.oldest, desk.oldest)
        return killed

    def batches(self, dice: random.Random, folder: Path) -> int:
        """A backtest in the batch lane is killed."""
        with batch_endpoint(answer) as server:
            post = batches.make_post(folder, self.forge, server, TASKS)
            killed = batches.backtest(post, "batch", dice, kills=12)
            batches.assert_half_the_price(post, self.post)
        return killed

    def _struck(self, bench: Bench) -> int:
        self.oldest = max(self.oldest, bench.oldest)
        return bench.struck


def main() -> int:
    """Scenario after scenario, each from a seed of its own."""
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1_000_000))
    seconds, most = float(os.environ.get("SOAK_SECONDS") or 600), int(os.environ.get("SOAK_KILLS") or 1_000_000)
    forge, done = Forge(), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        soak = Soak(Path(name), forge)
        kinds, started = (os.environ.get("SOAK_KINDS") or ",".join(soak.kinds)).split(","), time.monotonic()
        while time.monotonic() - started < seconds and sum(done.values()) < most:
            dice = random.Random(seed)
            kind = dice.choice(kinds)
            try:
                done[kind] += soak.kinds[kind](dice, Path(name) / str(seed))
            except BaseException:
                _say(f"seed {seed} fails ({kind}); replay it with:  make soak SOAK_SEED={seed} SOAK_KILLS=1 SOAK_KINDS={','.join(kinds)}")
                raise
            seed += 1
            if not seed % 10:
                _say(f"{time.monotonic() - started:.0f} s, next seed {seed}: {_counted(done)}")
    forge.close()
    _say(f"{sum(done.values())} commands were struck ({_counted(done)}) in {time.monotonic() - started:.0f} s; last seed {seed - 1}")
    _say(f"rows lost 0, counted twice 0, torn reads 0, paid for again without need 0; the oldest answer that was asked for again: {soak.oldest:.2f} s")
    return 0


def _counted(done: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in done.items())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
