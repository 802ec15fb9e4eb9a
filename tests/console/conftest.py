"""A store of real runs, the console over it in a process like any other, and a Chromium that looks at it."""

import contextlib
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import beam_ray
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.server import create_app
from beam_ray.run.connection import Connection
from tests.console.shop import Shop, copy_of, make_shop
from tests.faults.here import Brief
from tests.forks import Forked, Forks
from tests.kept_ray import command_environment
from tests.once import once

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
CONSOLES = Forks("beam_ray.cli.console", "beam_ray.console.server", "scipy.stats", "uvicorn")
PATIENCE_MS = 90_000
"""Milliseconds for which a tab waits for what must come: on a busy machine a command may take its time."""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A store of the module's own, for its tests to read and to add to; a copy of one that is made once."""
    cluster = Brief()
    connection = Connection(cluster=cluster)
    first = once(tmp_path_factory, "shop", lambda folder: make_shop(folder, connection))
    with copy_of(first, tmp_path_factory.mktemp("shops") / "shop", connection) as made:
        yield made
    cluster.close()


@dataclass
class Served:
    """A console that answers."""

    process: Forked
    address: str
    """With its token."""

    @property
    def base(self) -> str:
        """Without it."""
        return self.address.partition("/?")[0]


@contextlib.contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """``beam-ray console`` over the store in *folder*."""
    port = str(_free_port())
    words = ["console", "--store", "store", "--models", "models.yaml", "--port", port, *options]
    with tempfile.TemporaryDirectory() as said:
        messages = Path(said) / "messages"
        messages.touch()
        process = CONSOLES.start("beam_ray.cli:main", words, folder=folder, environment=command_environment(), err=str(messages))
        try:
            while "\n" not in (text := messages.read_text()) and process.alive:
                time.sleep(0.01)
            found = re.search(r"http://\S+", text)
            assert found, messages.read_text()
            yield Served(process, found[0])
        finally:
            process.terminate()
            process.wait()


class InProcess:
    """A console without a process of its own, and a client that is logged in."""

    def __init__(self, store: beam_ray.Store, options: ConsoleOptions | None = None):
        self._app = create_app(store, options)
        self._client = TestClient(self._app, base_url="http://127.0.0.1:8090")
        self._client.get(f"/?token={self._app.token}")

    def get(self, path: str) -> Any:
        """The answer to an address."""
        return self._client.get(path)

    def send(self, path: str, **fields: Any) -> Any:
        """The answer to a form, without what it leads to."""
        sent = {"form_token": self._app.form_token, "key": secrets.token_hex(8), **fields}
        return self._client.post(path, data=sent, headers={"Origin": "http://127.0.0.1:8090"}, follow_redirects=False)


def _free_port() -> int:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def console(shop: Shop) -> Iterator[Served]:
    """A console over the shop."""
    with served(shop.folder) as found:
        yield found


@dataclass
class Tab:
    """A page of a browser, and what went wrong on it."""

    page: Any
    served: Served
    faults: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Open the address that the console prints, which leads to its home."""
        self.page.goto(self.served.address)

    def open(self, path: str) -> None:
        """Go to a page of the console."""
        self.page.goto(self.served.base + path)

    def press(self, *keys: str) -> None:
        """Press keys, once the page's scripts have run."""
        self.page.wait_for_load_state()
        for key in keys:
            self.page.keyboard.press(key)

    def see(self, text: str) -> None:
        """Wait until the page shows a text."""
        from playwright.sync_api import expect

        expect(self.page.get_by_text(text).first).to_be_visible()


@pytest.fixture(scope="module")
def chromium(shop: Shop) -> Iterator[Any]:
    """
    A real browser; without one, the tests that need it are skipped.

    It is closed with the module, for no other event loop can run in its thread.
    """
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


OpenTab = Callable[..., Tab]


@pytest.fixture
def new_tab(chromium: Any, console: Served) -> Iterator[OpenTab]:
    """Opens tabs that are logged in. A message of the page's console, a refused resource or a request to elsewhere fails the test."""
    tabs: list[Tab] = []

    def make(to: Served | None = None, **how: Any) -> Tab:
        target = to or console
        context = chromium.new_context(viewport=how.pop("viewport", {"width": 1280, "height": 800}), locale="en-GB", timezone_id="Europe/Berlin", **how)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        tab = Tab(page, target)
        page.on("console", lambda message: tab.faults.append(f"{message.type}: {message.text}") if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: tab.faults.append(str(error)))
        page.on("request", lambda request: tab.faults.append(request.url) if not request.url.startswith((target.base, "data:")) else None)
        context.request.get(target.address, max_redirects=0)  # the cookie alone: few tests look at the home page
        tabs.append(tab)
        return tab

    yield make
    for tab in tabs:
        tab.page.context.close()
    assert [fault for tab in tabs for fault in tab.faults] == []


@pytest.fixture
def tab(new_tab: OpenTab) -> Tab:
    """A tab of 1280 pixels."""
    return new_tab()


def beside(work: Callable[[], Any]) -> Any:
    """What *work* gives, done in another thread: see ``chromium``."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE_MS / 1000) -> Any:
    """What *what* gives as soon as it is something."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.2)
    return found
