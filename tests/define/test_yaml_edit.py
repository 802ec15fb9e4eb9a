"""Changes at a place of a YAML text: what was asked for, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_ray.define.yaml_edit import parse_path, with_value
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import Unusable

TEXT = """\
# what it is for
workflow: orders   # its name
nodes:
  extract:
    title: Extract
    llm:
      # the prompt
      prompt: |
        Read it.
        # not a comment

    # how it is scored
    evaluate:
      threshold: 90   # of 100
      criteria:
      - A.   # first
      - {check: a > 0, weight: 2}

  # the second node
  answer:
    after: extract
    llm: {prompt: Hi}   # short
    evaluate:
# the end
"""


def changed(path: str, value: Any, text: str = TEXT) -> list[str]:
    """The lines that are new or other after the change."""
    before = text.splitlines()
    return [line for line in with_value(text, parse_path(path), value).splitlines() if line not in before]


def gone(path: str, value: Any = None) -> list[str]:
    """The lines that are no longer there."""
    after = with_value(TEXT, parse_path(path), value).splitlines()
    return [line for line in TEXT.splitlines() if line not in after]


CHANGES = {
    "a number keeps the comment behind it": ("nodes.extract.evaluate.threshold", 80, ["      threshold: 80   # of 100"]),
    "several lines become a block": ("nodes.extract.llm.prompt", "One.\nTwo.\n", ["        One.", "        Two."]),
    "a list entry": ("nodes.extract.evaluate.criteria[0]", "B: c", ["      - 'B: c'   # first"]),
    "one past the end appends": ("nodes.extract.evaluate.criteria[2]", "B.", ["      - B."]),
    "a mapping of one entry in braces": ("nodes.answer.llm.prompt", {"file": "hi.md"}, ["    llm: {prompt: {file: hi.md}}   # short"]),
    "a value in braces": ("nodes.extract.evaluate.criteria[1].weight", 3, ["      - {check: a > 0, weight: 3}"]),
    "what is missing in a node is made": ("nodes.answer.auto_rerun.max", 2, ["    auto_rerun:", "      max: 2"]),
    "an empty value gets parts": ("nodes.answer.evaluate.threshold", 70, ["      threshold: 70"]),
    "lines within braces become a block": ("nodes.answer.llm.prompt", "One.\nTwo.", ["    llm:   # short", "      prompt: |-", "        One.", "        Two."]),
    "text that looks like a number": ("nodes.extract.title", "12", ["    title: '12'"]),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_touches_its_lines_alone(case: str) -> None:
    """
    Only the lines of the changed value are new; comments, order and layout stay.
    """
    path, value, lines = CHANGES[case]

    assert changed(path, value) == lines


def test_the_last_value_of_a_mapping_takes_the_mapping_with_it() -> None:
    """
    What a removal leaves empty is removed too, and the comments around it stay.
    """
    text = with_value(TEXT, parse_path("nodes.answer.auto_rerun.max"), 2)

    assert with_value(text, parse_path("nodes.answer.auto_rerun.max"), None) == TEXT
    assert gone("nodes.extract.evaluate.criteria[0]") == ["      - A.   # first"]


def test_line_ends_stay() -> None:
    """
    A text with Windows line ends keeps them.
    """
    found = with_value(TEXT.replace("\n", "\r\n"), parse_path("nodes.extract.llm.prompt"), "a\nb\n")

    assert found.count("\n") == found.count("\r\n") > 10


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nodes.extrakt.llm.prompt", "did you mean 'extract'"),
        ("nodes.extract.title.x", "is a value and has no parts"),
        ("nodes.extract.evaluate.criteria[5]", "has 2 entries"),
        ("nodes..x", "is not a path"),
        ("", "is not a path"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, message: str) -> None:
    """
    The message says what is there instead.
    """
    with pytest.raises(Unusable, match=message):
        with_value(TEXT, parse_path(path), "x")


def test_a_value_behind_an_alias_is_refused() -> None:
    """
    Changing one of two places that share a value would change both.
    """
    with pytest.raises(Unusable, match="anchors"):
        with_value("workflow: a\nnodes:\n  b:\n    llm: &x {prompt: hi}\n  c:\n    llm: *x\n", ("nodes", "c", "llm", "prompt"), "ho")


TEXTS = st.text(alphabet=st.sampled_from("ab :#-'\"{}[]|>\n\t&*!%@`,?é😀\\"), max_size=30)
VALUES = st.recursive(
    TEXTS | st.integers(-5, 5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
PLACES = (
    "nodes.extract.title",
    "nodes.extract.llm.prompt",
    "nodes.extract.evaluate.threshold",
    "nodes.extract.evaluate.criteria[0]",
    "nodes.extract.evaluate.criteria[1]",
    "nodes.extract.evaluate.criteria[1].weight",
    "nodes.extract.evaluate.criteria[2]",
    "nodes.extract.new",
    "nodes.answer.llm.prompt",
    "nodes.answer.llm.new",
    "nodes.answer.evaluate.new",
)


@given(st.sampled_from(PLACES), VALUES)
def test_any_value_at_any_place_is_read_back(path: str, value: Any) -> None:
    """
    After a change the text has the value at its place, every other value as before, and all its comments.
    """
    found = with_value(TEXT, parse_path(path), value)

    data = read_yaml(Path("x"), found).data
    there = data
    for part in parse_path(path)[:-1]:
        there = there[part]
    assert there[parse_path(path)[-1]] == value
    assert with_value(found, parse_path("nodes.extract.llm.seed"), 7) != found
    for comment in ("# what it is for", "# its name", "# how it is scored", "# the second node", "# the end"):
        assert comment in found
