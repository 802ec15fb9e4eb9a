"""Versions: numbered without gaps, one winner each, and never without a reason."""

import pytest

from beam_ray.errors import Unusable
from beam_ray.publish import current, publish, read_version, rollback
from tests.conftest import Lab

TEXT = "workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: 'version %d {{ task_query }}'}}\n"


def test_a_version_needs_evidence_or_a_reason(lab: Lab):
    """Neither is refused, and so are both."""
    for how in ({}, {"evidence": "x", "reason": "y"}):
        with pytest.raises(Unusable, match="publishing needs evidence"):
            publish(lab.objects, lab.workflow(TEXT % 1), **how)


def test_the_same_definition_is_not_published_twice(lab: Lab):
    """A version says that something changed."""
    publish(lab.objects, lab.workflow(TEXT % 1), reason="first")

    with pytest.raises(Unusable, match="version 1 has exactly this definition"):
        publish(lab.objects, lab.workflow("# cosmetic\n" + TEXT % 1), reason="again")


def test_a_rollback_is_a_new_version_with_the_old_definition(lab: Lab):
    """No version is ever deleted."""
    for number in (1, 2):
        publish(lab.objects, lab.workflow(TEXT % number), reason="next")
    made = rollback(lab.objects, "w", 1)

    assert (made.version, made.rollback_of) == (3, 1)
    assert made.digest == read_version(lab.objects, "w", 1).digest == current(lab.objects, "w").digest
