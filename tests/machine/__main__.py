"""``make machine``: MACHINE_EXAMPLES (2,000) examples of the state machine, from MACHINE_SEED or a seed that is printed; ended early, it says what was done."""

import os
import secrets
import signal
import sys
import time

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import COUNTS, Machine, prepared


def main() -> int:
    """Until all have held, or one does not."""
    number, examples = int(os.environ.get("MACHINE_SEED") or secrets.randbelow(1_000_000)), int(os.environ.get("MACHINE_EXAMPLES") or 2_000)
    sys.stdout.write(f"{examples:,} examples from seed {number}; again:  make machine MACHINE_SEED={number} MACHINE_EXAMPLES={examples}\n")
    sys.stdout.flush()
    for ended_by in (signal.SIGINT, signal.SIGTERM):  # also where it was started in the background
        signal.signal(ended_by, signal.default_int_handler)
    started = time.monotonic()
    try:
        with prepared():
            run_state_machine_as_test(
                seed(number)(Machine),
                settings=settings(max_examples=examples, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)),
            )
    finally:
        sys.stdout.write(f"{time.monotonic() - started:.0f} s; {', '.join(f'{word} {count:,}' for word, count in sorted(COUNTS.items()))}\n")
    sys.stdout.write("rows wrong 0, lost 0, counted twice 0; answers in the store that were asked for again 0\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
