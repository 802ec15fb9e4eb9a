"""What strangers wrote, where people look at it (threats 16 and 20): text, and never markup or an order to the terminal."""

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from faces import result
from markupsafe import escape

import beam_ray
from beam_ray.cli import main, screen
from beam_ray.compare.html import html
from beam_ray.compare.markdown import markdown
from beam_ray.compare.report import junit
from beam_ray.compare.terminal import terminal

EVENTS = ("onerror", "onload", "onclick", "onmouseover", "onfocus", "onbegin", "ontoggle", "onanimationend", "onpointerdown", "onwheel")
TAGS = ("img src=x", "svg", "body", "details open", "iframe", "video", "input autofocus", "math", "a href=x")
PAYLOADS = [
    *(f"<{tag} {event}=alert(1)>" for tag in TAGS for event in EVENTS),
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<ScRiPt>alert(1)</ScRiPt>", "<script src=//x></script>", "\"><script>alert(1)</script>",
    "'><script>alert(1)</script>", "' onmouseover='alert(1)", '" onmouseover="alert(1)', "javascript:alert(1)", "<a href='javascript:alert(1)'>x</a>",
    "<a href=\"data:text/html,<script>alert(1)</script>\">x</a>", "<iframe srcdoc='<script>alert(1)</script>'></iframe>", "<base href=//x>", "<meta http-equiv=refresh content=0>",
    "<style>*{background:url(//x)}</style>", "</style><script>alert(1)</script>", "</svg><script>alert(1)</script>", "<![CDATA[<script>alert(1)</script>]]>",
    "<!--<script>alert(1)</script>-->", "--><script>alert(1)</script>", "&lt;script&gt;", "&#60;script&#62;alert(1)", "{{ 7 * 7 }}", "${7*7}", "<link rel=stylesheet href=//x>",
    "<object data=//x>", "<embed src=//x>", "<form action=//x><button>", "$\\frac{<script>}{2}$", "</td></tr></table><script>alert(1)</script>", "<xss\x00 onclick=alert(1)>",
]  # fmt: skip


class _Seen(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def _tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    seen = _Seen()
    seen.feed(page)
    return seen.tags


def test_nothing_that_a_stranger_wrote_is_markup():
    """A hundred texts in every place where tasks and models write: the page has the tags of a page without them."""
    plain = {(tag, *sorted(attributes)) for tag, attributes in _tags(html([result(odd=" x")], "x"))}
    for start in range(0, len(PAYLOADS), 24):
        foreign = " " + " ".join(PAYLOADS[start : start + 24])
        page = html([result(odd=foreign)], foreign)
        tags = _tags(page)

        assert {(tag, *sorted(attributes)) for tag, attributes in tags} <= plain
        assert not [
            value
            for _, attributes in tags
            for name, value in attributes.items()
            if name in ("href", "src", "xlink:href") and not (value or "").startswith(("#", "data:image/"))
        ]
        assert [text for text in PAYLOADS[start : start + 24] if str(escape(text.replace("\x00", ""))) not in page] == []


def test_a_machine_report_stays_well_formed():
    """JUnit with the same texts is XML, and they are its text."""
    tree = ElementTree.fromstring(junit([result(odd=" ".join(PAYLOADS))], "x"))

    assert not [element for element in tree.iter() if element.tag in ("script", "img", "svg", "iframe")]


def test_markdown_runs_nothing():
    """MLflow and CI show it: no tag of a stranger stands in it as one."""
    said = markdown([result(odd=" <script>alert(1)</script> <img src=x onerror=alert(1)>")], "x")

    assert "\\<script" in said
    assert not re.search(r"(?<!\\)<(script|img)", said)


STEERING = ["\x1b[31m", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\here\x1b]8;;\x1b\\", "\x1bP1$r\x1b\\", "\x1b_x\x1b\\", "\x9b31m", "\x9d0;t\x9c", "\x07", "\x08\x08\x08", "\r", "\x00",
            "\x7f", "\u202e", "\u2066", "\u2069", "\u200f", "\u061c", "\x1bc", "\x1b(0", "\x0e", "\u2028", "\u2029", "\x85"]  # fmt: skip
FORBIDDEN = {*map(chr, range(32)), *map(chr, range(127, 160)), *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"} - {
    "\n",
    "\t",
}


@pytest.mark.parametrize("text", STEERING)
def test_no_text_steers_the_terminal(text, capsys):
    """On every way to the screen: lines, results, tables, errors, JSON and the comparison."""
    screen.say(f"a{text}b")
    screen.show(f"a{text}b")
    screen.show(screen.table(["name"], [[f"a{text}b"]]))
    screen.emit({f"key{text}": f"a{text}b"})
    with pytest.raises(SystemExit):
        main(["check", f"no{text}where.yaml"])
    screen.show(terminal([result(odd=text)], f"title{text}"))
    out, err = capsys.readouterr()

    assert FORBIDDEN.isdisjoint(out + err)


def test_json_for_machines_keeps_what_was_said(capsys):
    """What is escaped for the terminal's sake is the same value to a reader."""
    value = {"a": "".join(STEERING) + "héllo ✓"}

    screen.emit(value)

    assert json.loads(capsys.readouterr().out) == value


def test_a_text_forges_no_line_of_a_table():
    """A row is one line, whatever stands in its cells."""
    assert screen.table(["name", "verdict"], [["a\nb  PASS\n", "BLOCK"]]).count("\n") == 1


def test_every_word_goes_through_one_door():
    """Commands print by ``say``, ``show`` and ``emit``, which take out what steers; nobody prints past them."""
    found = []
    for file in (Path(beam_ray.__file__).parent).rglob("*.py"):
        if file.name in ("screen.py", "local.py", "child.py") or file == Path(beam_ray.__file__).parent / "cli" / "__init__.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                cleaned = "clean(" in ast.unparse(node)
                if name in ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write", "sys.stderr.writelines") and not cleaned:
                    found.append(f"{file.name}:{node.lineno}: {name}")

    assert found == []
