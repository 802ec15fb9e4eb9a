"""Every face of a result, and that foreign text stays text in each of them."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from faces import result
from hypothesis import given
from hypothesis import strategies as st
from sides import scored

from beam_ray.compare.comparison import compare
from beam_ray.compare.formatting import amount, plain
from beam_ray.compare.gate_file import default_gate
from beam_ray.compare.html import html
from beam_ray.compare.markdown import MAX_CHARACTERS, markdown
from beam_ray.compare.report import COMPARISON, Result, best, document, junit, table
from beam_ray.compare.terminal import terminal
from beam_ray.compare.verdict import judge
from beam_ray.store.parquet import decode, encode

HOSTILE = "<script>alert(1)</script>\"'>&{{ 7*7 }}|`$x_1$ [a](http://evil.example) @all\x1b[31m\x1b]0;title\x07\u202e\u0000\ufffe"


@pytest.fixture(scope="module")
def results():
    """One ordinary result."""
    return [result()]


@pytest.fixture(scope="module")
def hostile():
    """A result whose every foreign text is made to do harm."""
    return [result(odd=HOSTILE)]


def test_terminal(results, golden):
    """
    The terminal shows numbers under each other, the gate, the flips and the verdict.
    """
    golden("terminal.txt", terminal(results, "purchase-orders · extract-prompt-v8"))


def test_markdown(results, golden):
    """
    The comment on a pull request begins with the verdict.
    """
    golden("comparison.md", markdown(results, "extract-prompt-v8"))


def test_junit(results, golden):
    """
    Each limit of the gate and each newly failing task is a test case.
    """
    golden("junit.xml", junit(results, "extract-prompt-v8"))


def test_document_is_the_verdict(results):
    """
    The document is versioned plain JSON with the word and the exit code.
    """
    found = document(results)

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert ("verdict/1", "BLOCK", 4) == (found["schema"], found["word"], found["exit_code"])
    assert ["order-04"] == found["candidates"][0]["comparison"]["regressions"]["confirmed"]


def test_table_keeps_its_schema(results):
    """
    comparison.parquet has one row for each pair in an explicit schema, and reads back as written.
    """
    found = table(results)

    assert COMPARISON == found.schema
    assert 30 == found.num_rows
    assert decode(encode(COMPARISON, found), COMPARISON, "comparison").equals(found)


def test_the_best_candidate_speaks_for_the_backtest(results):
    """
    Of several candidates one that may be published suffices.
    """
    comparison = compare(scored("a", [0] * 40), scored("good", [100] * 40))
    good = Result(comparison, judge(comparison, default_gate()))

    assert best([*results, good]) is good
    assert ("PASS", 0, "good", 2) == (*tuple(document([*results, good])[key] for key in ("word", "exit_code", "best")), 2)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


def test_html_needs_nothing_else(results):
    """
    The page has no script and no address, not even a namespace's.
    """
    page = html(results, "extract-prompt-v8")

    assert "script" not in _tags(page).tags
    assert not re.search(r"https?://|//\w+\.\w+|@import", page)
    assert all(re.fullmatch(r"url\(#\w+\)", link) for link in re.findall(r"url\([^)]*\)", page))
    assert 4 == page.count("<figure")
    assert page == html(results, "extract-prompt-v8")


def test_html_escapes_foreign_text(hostile):
    """
    Text from tasks and models adds no element, attribute or template to the page.
    """
    page = html(hostile, HOSTILE)
    parsed = _tags(page)

    assert not parsed.tags & {"script", "a", "img", "iframe", "object", "link", "base"}
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert "{{ 7*7 }}" in page
    assert not _controls(page)


def test_junit_is_xml_whatever_the_tasks_say(hostile):
    """
    Hostile ids are attribute values and nothing else.
    """
    root = ElementTree.fromstring(junit(hostile, HOSTILE))

    assert {"testsuites", "testsuite", "testcase", "system-out", "failure", "error", "skipped"} >= {element.tag for element in root.iter()}


def test_terminal_is_not_drawn_over(hostile):
    """
    No escape sequence, control character or change of direction reaches the terminal.
    """
    shown = terminal(hostile, HOSTILE)

    assert not _controls(shown)
    assert "[31m" not in shown
    assert "\u202e" not in shown


def test_markdown_is_not_written_by_tasks(hostile):
    """
    Foreign text makes no table cell, link, element or mention.
    """
    shown = markdown(hostile, HOSTILE)

    assert {"<details>", "<summary>", "</summary>", "</details>"} >= set(re.findall(r"(?<!\\)<[^>]*>", shown))
    assert not re.search(r"@all|://(?!\u200d)|(?<!\\)\[a", shown)
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert {4, 6, 7, 8} >= {len(re.findall(r"(?<!\\)\|", line)) for line in rows}


def test_markdown_fits_a_comment():
    """
    However many candidates there are, the text is short enough for a comment.
    """
    assert len(markdown([result()] * 60)) < MAX_CHARACTERS + 100


@pytest.mark.parametrize("scores", [[], [50], [None, None], [100] * 12])
def test_degenerate_comparisons_have_every_face(scores):
    """
    No pairs, one pair, no scores or no differences: words and dashes, no crash and no NaN.
    """
    comparison = compare(scored("a", scores), scored("b", scores))
    results = [Result(comparison, judge(comparison, default_gate()))]

    faces = [terminal(results), markdown(results), html(results), junit(results), json.dumps(document(results), allow_nan=False)]

    assert not [face for face in faces if re.search(r"\bnan\b|\binf\b", face, re.IGNORECASE)]
    assert len(scores) == table(results).num_rows


@given(st.text())
def test_plain_text_is_one_harmless_line(text):
    """
    Whatever comes in, one printable line of bounded length comes out, and cleaning it again changes nothing.
    """
    shown = plain(text, 50)

    assert not _controls(shown)
    assert "\n" not in shown
    assert len(shown) <= 50
    assert plain(shown, 50) == shown


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (None, "%", False, "-"),
        (35.0, "points", True, "+35.0"),
        (-0.0001, "points", True, "0.0"),
        (0.0121, "USD", False, "$0.0121"),
        (0.0000123, "USD", True, "+$0.0000123"),
        (-1.5, "USD", True, "-$1.50"),
        (1234.0, "tokens", False, "1,234"),
        (0.25, "s", False, "0.25 s"),
        (92.59, "%", False, "92.6 %"),
    ],
)
def test_amounts(value, unit, signed, text):
    """
    A number is shown in its unit with as many digits as its size deserves.
    """
    assert text == amount(value, unit, signed=signed)


def _tags(page):
    parsed = _Tags()
    parsed.feed(page)
    return parsed


def _controls(text):
    return re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
