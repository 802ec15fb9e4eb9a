"""
A store in the hands of chance, against a dictionary that says what must be in it.

Runs, borrowing runs and reruns begin, stop, are killed at any of their writes, frozen, taken
over, woken as zombies and ended early; versions are published and rolled back; files are
lost, torn and flipped, and mended; gc takes away. In half of the stores some nodes are agents,
which call tools at once and one after the other. After each move every answer that is in the
store must not be asked for again, and at the end every run must say what the dictionary says.

The suite tries EXAMPLES (20) examples of up to 20 moves, always the same. 2,000 others, with the seed
printed:  make machine        MACHINE_EXAMPLES=2000 MACHINE_SEED=17 for another number or seed
"""

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import Machine, prepared

EXAMPLES = 20
SEED = 11
"""Its examples have kills, and reruns of agents that were changed."""


def test_whatever_happens_a_store_says_what_it_must_say_and_nothing_is_paid_twice():
    """By hypothesis' state machine, with a fixed seed."""
    with prepared():
        run_state_machine_as_test(
            seed(SEED)(Machine),
            settings=settings(max_examples=EXAMPLES, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)),
        )
