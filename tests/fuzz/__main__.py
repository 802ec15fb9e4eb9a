"""
``make fuzz``: each target for FUZZ_SECONDS (600), half of it by the grammar and half by coverage where atheris is installed.

    FUZZ_SECONDS=60 FUZZ_SEED=7 FUZZ_TARGETS=loader,answer make fuzz

Leaves with 1 when anything but our own errors came out, and prints the text that did it.
"""

import importlib.util
import os
import random
import subprocess
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.grammar import TEXTS
from tests.fuzz.targets import TARGETS, holds

ROUND = 200
"""Examples between two looks at the clock."""


def by_grammar(target: str, seconds: float, first: int) -> tuple[int, str]:
    """How many texts were tried, and what was found, if anything."""
    ends, count, number = time.monotonic() + seconds, 0, first
    while time.monotonic() < ends:

        @seed(number)
        @settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
        @given(st.data())
        def holds_for(data: st.DataObject) -> None:
            nonlocal count
            count += 1
            holds(target, data.draw(TEXTS[target]))

        try:
            holds_for()
        except Exception:
            return count, f"seed {number}\n{traceback.format_exc()}"
        number += 1
    return count, ""


def by_coverage(target: str, seconds: float, first: int) -> tuple[int, str]:
    """The same by atheris, in a process of its own: it replaces imports and never returns."""
    command = [sys.executable, "-m", "tests.fuzz.coverage", target, str(int(seconds)), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    executed = [line for line in done.stderr.splitlines() if "stat::number_of_executed_units" in line]
    count = int(executed[-1].split()[-1]) if executed else 0
    return count, "" if done.returncode == 0 else f"seed {first}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def main() -> int:
    """Fuzz every target; how it went."""
    seconds, first = float(os.environ.get("FUZZ_SECONDS", "600")), int(os.environ.get("FUZZ_SEED", random.randrange(2**31)))
    names = os.environ.get("FUZZ_TARGETS", ",".join(TARGETS)).split(",")
    covered = importlib.util.find_spec("atheris") is not None
    print(f"seed {first}; {seconds:g} s a target" + ("" if covered else "; atheris is not installed here, so by the grammar alone"), flush=True)
    found = 0
    for name in names:
        for how, run in (("grammar", by_grammar), ("coverage", by_coverage))[: 1 + covered]:
            count, finding = run(name, seconds / (1 + covered), first)
            print(f"{name:<12} {how:<10} {count:>9,} texts  {'FOUND' if finding else 'nothing found'}", flush=True)
            if finding:
                print(finding, flush=True)
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
