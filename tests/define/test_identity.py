"""Fingerprints: what changes them, and what must not."""

import json

from hypothesis import given
from hypothesis import strategies as st

from beam_ray.define.diff import changes
from beam_ray.define.fingerprint import canonical, digest

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=10)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=10)


@given(VALUES)
def test_key_order_does_not_matter(value):
    """Two mappings with the same content are the same thing."""
    turned = json.loads(json.dumps(value), object_pairs_hook=lambda pairs: dict(reversed(pairs)))

    assert digest("x", turned) == digest("x", value)


def test_digests_are_pinned():
    """A careless edit of how things are identified would silently empty every store."""
    assert digest("step/1", ["a", 1], {"b": None}) == "79efcd59ee6f8d90078cbf6208a4eb93"


def test_kinds_never_collide():
    """The tag is part of what is hashed."""
    assert digest("a", ["b"]) != digest("b", ["a"])


def test_whole_numbers_are_one_thing_however_written():
    """1 and 1.0 stand for the same value in YAML, JSON and templates."""
    assert canonical(1.0) == canonical(1)


BASE = """
workflow: w
model: m
nodes:
  a:
    title: First
    llm: {prompt: "ask {{ task_query }}", returns: {x: str, y: int}}
    evaluate: {criteria: [{check: a.y > 0}]}
"""


def test_layout_comments_and_titles_are_cosmetic(lab):
    """A cosmetic edit is no change at all."""
    edited = """
# a comment
model: m
workflow: w
description: what it is for
nodes:
  a:
    evaluate:
      criteria:
        - check: a.y > 0
    title: Another title
    llm:
      returns:
        x: str
        y: int
      prompt: "ask {{ task_query }}"
"""

    assert lab.workflow(BASE).digest == lab.workflow(edited).digest


def test_changes_name_node_and_field(lab):
    """What differs is said the way the file says it."""
    found = changes(lab.workflow(BASE), lab.workflow(BASE.replace("ask {{", "please ask {{").replace("y > 0", "y > 1")))

    assert [str(change) for change in found] == ["a.llm.prompt", "a.evaluate.criteria"]
