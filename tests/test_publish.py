"""Versions: numbered without gaps, one winner each, and never without a reason."""

import threading

import pytest

from beam_ray.errors import Unusable
from beam_ray.publish import current, publish, read_version, rollback, versions
from tests.conftest import Lab

TEXT = "workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: 'version %d {{ task_query }}'}}\n"


def test_of_racing_publishers_one_wins_each_version_and_the_others_are_told(lab: Lab):
    """200 races of 8 publishers: versions stay contiguous, and every loser knows it."""
    workflows = [lab.workflow(TEXT % number) for number in range(8)]
    for _ in range(200):
        gate, won, told = threading.Barrier(8), [], []

        def attempt(number: int, gate=gate, won=won, told=told) -> None:
            gate.wait()
            try:
                won.append(publish(lab.objects, workflows[number], reason="race").version)
            except Unusable as error:
                told.append(str(error))

        threads = [threading.Thread(target=attempt, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(won) == len(set(won))
        assert len(won) + len(told) == 8
        assert all("in this moment" in said or "this very definition" in said for said in told)
    assert versions(lab.objects, "w") == list(range(1, len(versions(lab.objects, "w")) + 1))


def test_a_version_needs_evidence_or_a_reason(lab: Lab):
    """Neither is refused, and so are both."""
    for how in ({}, {"evidence": "x", "reason": "y"}):
        with pytest.raises(Unusable, match="published on evidence"):
            publish(lab.objects, lab.workflow(TEXT % 1), **how)


def test_the_same_definition_is_not_published_twice(lab: Lab):
    """A version says that something changed."""
    publish(lab.objects, lab.workflow(TEXT % 1), reason="first")

    with pytest.raises(Unusable, match="version 1 is this very definition"):
        publish(lab.objects, lab.workflow("# cosmetic\n" + TEXT % 1), reason="again")


def test_a_rollback_is_a_new_version_with_the_old_definition(lab: Lab):
    """Nothing is ever taken away."""
    for number in (1, 2):
        publish(lab.objects, lab.workflow(TEXT % number), reason="next")
    made = rollback(lab.objects, "w", 1)

    assert (made.version, made.rollback_of) == (3, 1)
    assert made.digest == read_version(lab.objects, "w", 1).digest == current(lab.objects, "w").digest
