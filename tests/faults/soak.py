"""
Killing and failing at random for as long as one likes: ``make soak``.

    make soak SOAK_SECONDS=600        or SOAK_KILLS=5000; the first of them that is reached ends it
    make soak SOAK_SEED=17            begins with this seed; a failure prints the one to begin with
"""

import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.endpoint import endpoint
from tests.faults.conftest import Bench, Forge, answer, make_bench
from tests.faults.test_crash import STRUCK, again, travel

TASKS = 16


def main() -> int:
    """Scenario after scenario, each from a seed of its own."""
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1_000_000))
    seconds, most = float(os.environ.get("SOAK_SECONDS") or 600), int(os.environ.get("SOAK_KILLS") or 1_000_000)
    forge, done, started = Forge(), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with endpoint(answer) as model:
            calm = make_bench(folder / "calm", forge, model, TASKS)
            points = list(calm.run(fail="*.*:0:kill").hits)
            journey = make_bench(folder / "journey", forge, model, TASKS)
            travel(journey)
        while time.monotonic() - started < seconds and sum(done.values()) < most:
            try:
                with endpoint(answer, latency_s=random.Random(seed).choice([0.0, 0.01, 0.05])) as model:
                    bench = make_bench(folder / str(seed), forge, model, TASKS)
                    done.update(_scenario(random.Random(seed), bench, calm, journey, points))
            except BaseException:
                _say(f"seed {seed} fails; replay it with:  make soak SOAK_SEED={seed} SOAK_KILLS=1")
                raise
            seed += 1
            if not seed % 10:
                _say(f"{time.monotonic() - started:.0f} s, next seed {seed}: {dict(done)}")
    forge.close()
    _say(
        f"{sum(done.values())} commands were struck ({', '.join(f'{word} {count}' for word, count in done.items())}) in {time.monotonic() - started:.0f} s; last seed {seed - 1}"
    )
    _say("rows lost 0, counted twice 0, torn reads 0, paid for again without need 0")
    return 0


def _scenario(dice: random.Random, bench: Bench, calm: Bench, journey: Bench, points: list[str]) -> Counter[str]:
    """One store with many deaths, and the rules at its end; what was done to it."""
    kind = dice.choice(["killed", "points", "journey"])
    if kind == "killed":
        again(bench, dice, calm)
    elif kind == "journey":
        travel(bench, dice)
        assert bench.journey() == journey.journey()
        bench.assert_nothing_paid_twice()
    else:
        for _ in range(12):
            action = dice.choice(list(STRUCK))
            if bench.run(fail=f"{dice.choice(points)}:{dice.randint(1, 3)}:{action}").code == 0 or bench.over:
                bench.finish(calm)
        bench.finish(calm)
    return Counter({kind: bench.struck})


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
