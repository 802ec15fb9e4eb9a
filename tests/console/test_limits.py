"""What strangers, other browsers and other users of the machine may put before the console, and how much of it."""

import asyncio
import contextlib
import http.client
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import beam_ray
from beam_ray.console.commands import Commands
from beam_ray.console.events import MAX_STREAMS, Streams
from beam_ray.console.formatting import in_code, in_markdown
from beam_ray.console.forms import MAX_FIELDS
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.reading import Reader
from beam_ray.console.rendering import Page, respond
from beam_ray.console.server import create_app, shared_values
from beam_ray.console.site import Site
from beam_ray.console.word_diff import word_diff
from beam_ray.store.index_cache import IndexCache
from tests.conftest import Lab

WORKFLOW = """
workflow: echo
model: m
nodes:
  say: {llm: {prompt: "{{ task_query }}"}}
"""


@pytest.fixture
def client(lab: Lab) -> TestClient:
    """A browser that is logged in to the console of a store with one run."""
    lab.run(WORKFLOW, ["a", "b"], lambda request: "yes")
    app = create_app(beam_ray.open(lab.objects.uri))
    return TestClient(app, base_url="http://127.0.0.1:8090", cookies={app.cookie: app.session}, follow_redirects=False)


def site_of(lab: Lab) -> Site:
    """A console's store."""
    store = beam_ray.open(lab.objects.uri)
    return Site(store, ConsoleOptions(), Reader(store), Commands(store))


def request(method: str = "GET") -> Request:
    """A request of a page."""
    return Request({"type": "http", "method": method, "path": "/", "raw_path": b"/", "query_string": b"", "headers": [], "form_token": "x"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x\n" * 3_000, "y\n" + "x\n" * 1_500 + "z\n" + "x\n" * 1_400),
        ("".join(f"{n}\n" for n in range(9_000)), "".join(f"{n}{'!' * (n % 9 == 0)}\n" for n in range(9_000))),
    ],
    ids=["one line over and over", "many lines"],
)
def test_outputs_that_would_be_compared_for_hours_are_told_as_changed(before: str, after: str):
    """A model that writes one line a million times keeps nobody's console busy; where the texts begin and end alike is said."""
    pieces = word_diff(f"first\n{before}last", f"first\n{after}last")

    assert [each.kind for each in pieces] == ["same", "removed", "added", "same"]
    assert pieces[0].text.startswith("first\n")
    assert "".join(each.text for each in pieces if each.kind != "added") == f"first\n{before}last"


def test_an_address_with_too_many_fields_is_refused(client: TestClient):
    """Every filter is in every link of a list, so thousands of them would be a page of gigabytes."""
    found = client.get("/tasks.json?" + "&".join(f"label={n}" for n in range(MAX_FIELDS + 1)))

    assert found.status_code == 400
    assert f"at most {MAX_FIELDS} fields" in found.json()["error"]


@pytest.mark.parametrize("face", ["html", "md"])
def test_half_of_a_character_is_shown(face: str, lab: Lab):
    """What JSON of a model may hold and no page may send is a question mark."""
    site = site_of(lab)
    page = Page("refusal", "x", {"first": "half \ud800 of it", "rest": ""}, {})

    assert b"half ? of it" in bytes(respond(request(), page, face, shared_values(site, "")).body)


def test_a_command_in_markdown_ends_where_it_ends(client: TestClient, lab: Lab):
    """Somebody's note of several lines is no heading and no picture of the page that is pasted into a comment."""
    run = beam_ray.open(lab.objects.uri).runs()[0].id
    text = client.get("/add-to-library.md", params={"task": f"{run}/t0", "library": "x", "note": "a\n\n# heading\n~~~~\n![i](http://evil.example/x.png)"}).text
    fence = next(line for line in text.splitlines() if line.startswith("~~~"))
    before, inside, after = text.split(f"{fence}\n" if text.count(f"{fence}\n") == 2 else fence, 2)

    assert "# heading" in inside
    assert "evil.example" not in before + after
    assert fence not in inside


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("@everyone, ask @org/team or me@example.com", "@&#8203;everyone, ask @&#8203;org/team or me@example.com"),
        ("&#64;everyone", "\\&\\#64;everyone"),
        ("R&D <b>", "R&D \\<b\\>"),
    ],
)
def test_markdown_of_a_page_calls_nobody(written: str, shown: str):
    """A task's text in a comment of a pull request notifies nobody; addresses of mail stay as they are."""
    assert in_markdown(written) == shown


@pytest.mark.parametrize(("written", "shown"), [("a b", "`a b`"), ("a `x` b", "`` a `x` b ``"), ("a\n\n# b", "`a # b`")])
def test_code_in_markdown_ends_where_it_ends(written: str, shown: str):
    """Whatever marks and lines a command has."""
    assert in_code(written) == shown


def test_of_many_browsers_some_ask_by_the_clock(lab: Lab):
    """No more streams are open than there may be; one more is told so at once, and one that ends makes room."""

    async def look() -> tuple[str, int, str]:
        streams = Streams(site_of(lab))
        answers: list[Any] = [await streams.answer(request()) for _ in range(MAX_STREAMS)]
        for each in answers:
            await anext(each.body_iterator)
        full, opened = bytes((await streams.answer(request())).body).decode(), streams.open
        await answers[0].body_iterator.aclose()
        return full, opened, type(await streams.answer(request())).__name__

    full, opened, then = asyncio.run(look())

    assert "event: full\n" in full
    assert (opened, then) == (MAX_STREAMS, "StreamingResponse")


@pytest.mark.parametrize("name", [".DS_Store", "a.b", "a.b.c.d", "x"])
def test_a_strange_file_in_the_index_is_passed_over(name: str, client: TestClient, lab: Lab):
    """What a file manager or somebody else leaves there breaks no page."""
    lab.objects.create(f"index/repaired/{name}", b"")

    assert client.get("/tasks.json").json()["total"] == 2


def test_a_cache_that_others_can_write_is_not_used(tmp_path: Path):
    """Whoever could write it could say what is in a run: nothing is read from it, and nothing is kept there."""
    cache = IndexCache("s3://bucket/store", tmp_path / "cache")
    cache.write("a", b"mine")
    mine, mode = cache.read("a"), stat.S_IMODE((tmp_path / "cache").stat().st_mode)
    (tmp_path / "cache").chmod(0o777)
    cache.write("b", b"theirs")

    assert (mine, mode) == (b"mine", 0o700)
    assert cache.read("a") is None
    assert not (tmp_path / "cache" / "b").exists()


@contextlib.contextmanager
def printed(lab: Lab, port: int, lines: int) -> Iterator[list[str]]:
    """The first lines that a console prints, while it runs."""
    command = [sys.executable, "-m", "beam_ray", "console", "--store", lab.objects.uri, "--port", str(port)]
    process = subprocess.Popen(command, cwd=lab.folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        said = [process.stderr.readline() for _ in range(lines)]
        yield said
    finally:
        process.terminate()
        said.append(process.communicate(timeout=30)[1])


def free_port() -> int:
    """A port that both addresses of this machine have free."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with socket.socket() as first, socket.socket(socket.AF_INET6) as second:
        first.bind(("127.0.0.1", 0))
        try:
            second.bind(("::1", first.getsockname()[1]))
        except OSError:
            pytest.skip("this machine has no [::1]")
        return int(first.getsockname()[1])


def ask(host: str, port: int, path: str, **headers: str) -> "http.client.HTTPResponse":
    """What a server of this machine answers."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_a_console_has_a_name_of_its_own_on_both_addresses(lab: Lab):
    """A cookie of a name that nobody else knows reaches no other port's server; it is the same at the next start, so that links can be kept."""
    lab.run(WORKFLOW, ["a"], lambda request: "yes")
    port, names = free_port(), []
    for _ in range(2):
        with printed(lab, port, 2) as lines:
            name, token = re.findall(rf"http://([0-9a-f]{{16}}\.localhost):{port}/\?token=(\S+)", lines[1])[0]
            names.append(name)
            entered = ask("::1", port, f"/?token={token}", Host=f"{name}:{port}")
            cookie = str(entered.headers["Set-Cookie"]).partition(";")[0]
            shown = ask("127.0.0.1", port, "/tasks", Host=f"{name}:{port}", Cookie=cookie).status
            guessed = ask("127.0.0.1", port, "/tasks", Host=f"{'0' * 16}.localhost:{port}", Cookie=cookie).status

        assert f"http://127.0.0.1:{port}/?token=" in lines[0]
        assert (entered.status, "Domain" in str(entered.headers["Set-Cookie"]), shown, guessed) == (303, False, 200, 403)
    assert names[0] == names[1]


def test_a_name_that_would_reach_somebody_else_is_not_printed(lab: Lab):
    """Where another user listens on [::1], a browser that is sent to a name of this machine would bring the token to them."""
    lab.run(WORKFLOW, ["a"], lambda request: "yes")
    port = free_port()
    with socket.socket(socket.AF_INET6) as theirs:
        theirs.bind(("::1", port))
        theirs.listen()
        with printed(lab, port, 1) as lines:
            answer = ask("127.0.0.1", port, "/tasks", Host=f"127.0.0.1:{port}").status

    assert answer == 403
    assert f"http://127.0.0.1:{port}/?token=" in lines[0]
    assert "localhost" not in lines[1]


def test_an_own_name_that_others_read_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It would be known to them; another one is drawn for this start."""
    from beam_ray.console.own_name import own_name

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = own_name()
    kept, mode = own_name(), stat.S_IMODE((tmp_path / "beam-ray" / "console-name").stat().st_mode)
    (tmp_path / "beam-ray" / "console-name").chmod(0o644)

    assert (kept, mode) == (first, 0o600)
    assert own_name() != first
