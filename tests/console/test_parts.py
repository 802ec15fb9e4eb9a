"""What the console is made of: vendored files, sizes, templates, twins, word diffs and addresses."""

import hashlib
import json
import re
import subprocess
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

import beam_ray
from beam_ray.address import parse
from beam_ray.console import links
from beam_ray.console.commands import here_document
from beam_ray.console.formatting import fenced
from beam_ray.console.server import FORMS, PAGES
from beam_ray.console.word_diff import word_diff
from tests.console.conftest import Served
from tests.console.shop import Shop
from tests.console.test_accessible import PAGES as SHOWN
from tests.console.test_accessible import address
from tests.console.test_safety import Client, log_in

CONSOLE = Path(beam_ray.__file__).parent / "console"
STATIC = CONSOLE / "static"


def test_vendored_files_are_what_the_list_says():
    """Each with its version, its license and its digest; nothing else is vendored."""
    listed = json.loads((STATIC / "vendor/vendored.json").read_text())

    for entry in listed:
        assert hashlib.sha256((STATIC / "vendor" / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
        assert entry["version"] in entry["file"]
        assert (STATIC / "vendor" / entry["license_file"]).stat().st_size > 100
    assert {path.name for path in (STATIC / "vendor").iterdir()} == {
        "vendored.json",
        *(name for entry in listed for name in (entry["file"], entry["license_file"])),
    }


def test_own_files_stay_small():
    """25 kB of scripts and 32 kB of style; with htmx and without the graph a first visit loads under 110 kB, and fetches nothing from elsewhere."""
    scripts = sum(path.stat().st_size for path in STATIC.glob("*.js"))
    style = (STATIC / "console.css").stat().st_size
    everything = "".join(path.read_text(encoding="utf-8") for path in [*STATIC.glob("*.*"), *(CONSOLE / "templates").iterdir()])

    assert scripts <= 25_000
    assert style <= 32_000
    assert scripts + style + sum(path.stat().st_size for path in (STATIC / "vendor").glob("*.js") if "dagre" not in path.name) <= 110_000
    assert set(re.findall(r"https?://[\w./]+", everything)) <= {"http://www.w3.org/2000/svg"}


def test_templates_have_no_inline_script_or_style():
    """And none of the attributes by which htmx would evaluate text."""
    for path in (CONSOLE / "templates").glob("*.html"):
        text = path.read_text(encoding="utf-8")

        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|hx-on|hx-vals|javascript:|\|\s*safe\b|autoescape", text), path.name
        assert re.findall(r"<script[^>]*>(?!</script>)", text) == [], path.name


VERBS = {
    "/backtests/new": "backtest",
    "/add-to-library": "library add",
    "/libraries/import": "library import",
    "/libraries/{name}/edit": "library label",
    "/libraries/{name}/remove": "library remove",
    "/backtests/{backtest}/mark": "review mark",
    "/review": "review record",
    "/review/library": "library add",
}
"""Forms whose address does not end with the name of their command."""


@pytest.mark.parametrize("path", [path for path, *_ in FORMS])
def test_every_form_that_changes_something_is_a_command(path: str):
    """Each address that takes a POST names the command that does the same, and that command has a help."""
    from click.testing import CliRunner

    from beam_ray.cli import beam_ray

    found = CliRunner().invoke(beam_ray, [*VERBS.get(path, path.rpartition("/")[2]).split(), "--help"])

    assert found.exit_code == 0, found.output
    assert found.output.startswith("Usage: ")


NOT_WALKED = {
    "/flows/{workflow}/publish": "test_versions_page.py opens it for a draft of its own",
    "/libraries/{name}/export": "it is a file",
    "/flows/{workflow}/criteria": "test_flow_editing.py opens it for a draft of its own",
    "/backtests/{backtest}/report": "it is a file",
    "/home": "it is /",
    "/tasks/{run}": "it leads to a filter of /tasks",
    "/t/{word:path}": "it leads elsewhere",
    "/started/{key}": "test_browser.py starts one",
    "/download": "it is a file",
}
"""Pages that test_accessible.py does not open, and why."""


def test_every_page_is_walked():
    """Each route has an address among those that axe looks at and whose twins are asked for."""
    shown = [re.sub(r"\{(\w+)\}", "x", link.partition("?")[0]) for link in SHOWN.values()]
    patterns = {path: re.sub(r"\\{\w+(:path)?\\}", "[^/]+", re.escape(path)) for path, *_ in PAGES if path not in NOT_WALKED}

    assert [path for path, pattern in patterns.items() if not any(re.fullmatch(pattern, link) for link in shown)] == []


@pytest.fixture(scope="module")
def inside(console: Served) -> Client:
    """A client that is logged in."""
    return log_in(console)


@pytest.mark.parametrize("name", [name for name in SHOWN if name != "refusal"])
def test_every_page_has_its_twins(name: str, inside: Client, shop: Shop):
    """The same address as JSON and as Markdown; the page itself links to them."""
    path, _, query = address(name, shop).partition("?")
    path = "/home" if path == "/" else path
    page = inside.ask("GET", address(name, shop))
    twin, text = (inside.ask("GET", f"{path}.{face}" + (f"?{query}" if query else "")) for face in ("json", "md"))

    assert (page.status, twin.status, text.status) == (200, 200, 200)
    assert json.loads(twin.text) is not None
    assert text.text.lstrip().startswith("#")
    assert text.headers["content-type"].startswith("text/markdown")
    assert f"{path}.json" in page.text


def test_the_json_of_a_task_is_what_show_prints(inside: Client, shop: Shop):
    """And more: the query, and where the task comes from."""
    found = json.loads(inside.ask("GET", f"/tasks/{shop.run}/order-014.json").text)
    printed = json.loads(json.dumps(shop.store.task(f"{shop.run}/order-014").document(), default=str))

    assert {name: found[name] for name in printed} == printed
    assert found["task_query"].startswith("Dear team")


def test_pages_know_their_fields():
    """A page refuses what it does not know, so each must say what it knows."""
    assert all(isinstance(fields, tuple) for _, _, fields in PAGES)


WORDS = st.text(alphabet=st.sampled_from("ab \n.é"), max_size=60)


@given(WORDS, WORDS)
def test_a_word_diff_has_both_texts(before: str, after: str):
    """What stayed and what was removed is the first text; what stayed and what was added is the second."""
    pieces = word_diff(before, after)

    assert "".join(piece.text for piece in pieces if piece.kind != "added") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == after


def test_a_word_diff_of_long_texts_is_quick_and_small():
    """Ten thousand words of which a few changed: only those are marked."""
    words = [f"word{n % 50}" for n in range(10_000)]
    lines = [" ".join(words[n : n + 20]) for n in range(0, 10_000, 20)]
    changed = [line.replace("word7 ", "other ") if n % 100 == 0 else line for n, line in enumerate(lines)]
    pieces = word_diff("\n".join(lines), "\n".join(changed))

    assert "".join(piece.text for piece in pieces if piece.kind == "added") == "other" * 5


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30), st.integers(1, 9))
def test_any_task_has_an_address(task: str, trial: int):
    """Its page's address names it again, and so does the one that is made from the command line's address."""
    path, _, query = links.task_path("261123-a3f1", task, trial).partition("?")
    stripped, face = links.face_of(path.encode())
    found = links.task_of(stripped, parse_qs(query))

    assert (found, face) == (beam_ray.Address("261123-a3f1", task, trial), "html")
    assert links.address_path(str(found)) == links.task_path("261123-a3f1", task, trial)
    assert parse(str(found)) == found


def test_every_screen_item_has_a_test_that_clicks_it():
    """The list of docs/console.md names tests that are there, and each of them opens a page in a browser or from files."""
    written = (CONSOLE.parents[1] / "docs/console.md").read_text(encoding="utf-8").partition("## What is clicked by which test")[2]
    listed = re.findall(r"^\| (.+) \| `(test_\w+\.py)::(test_\w+)` \|$", written, re.M)
    missing = []
    for item, file, name in listed:
        path = Path(__file__).parent / file
        found = re.search(rf"^def {name}\(([^)]*)\)", path.read_text(encoding="utf-8"), re.M) if path.exists() else None
        if not found or not re.search(r"\b(tab|new_tab|chromium)\b", found[1]):
            missing.append(item)

    assert len(listed) == written.count("\n| ") - 1 > 15
    assert missing == []


@pytest.mark.parametrize("text", ["a: 1\n", "SPEC\ntouch x\n", "SPEC\nSPEC_\nrm x", "$(touch x) `touch x`\n"])
def test_a_shell_reads_a_text_to_copy_as_it_is(text: str, tmp_path: Path):
    """No line of what somebody pasted ends the text and becomes a command."""
    read = subprocess.run(["bash", "-c", f"cat{here_document(text)}"], capture_output=True, text=True, cwd=tmp_path, check=True)

    assert read.stdout.rstrip("\n") == text.rstrip("\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["plain", "~~~~\n# x", "a\n~~~~~~~~\n<script>\n", "~~~~~ ~~~~~~~~~~~~"])
def test_a_block_of_markdown_ends_where_its_text_ends(text: str):
    """However many tildes an output has in a row."""
    first, *lines, last = fenced(text, "diff").split("\n")

    assert first == f"{last}diff"
    assert "\n".join(lines) == text
    assert last not in text
