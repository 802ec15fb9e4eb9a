"""The short fuzz of every run: the same few hundred texts each time; ``make fuzz`` looks further."""

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.grammar import TEXTS
from tests.fuzz.targets import TARGETS, all_hold, holds, seeds


@pytest.mark.parametrize("target", TARGETS)
def test_every_text_of_the_corpus_holds(target):
    """What is known to be broken is refused, and never crashes."""
    assert all_hold(target, seeds(target)) > 10


@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", TARGETS)
def test_no_text_crashes_what_reads_it(target):
    """Whatever is written, the answer is a value or one of our errors, with words in it."""

    @seed(20261123)
    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds_for(data):
        holds(target, data.draw(TEXTS[target]))

    holds_for()
