"""
Pages of a backtest, and pinned views, as files in a folder that open without a server: for a CI artifact, a mail or an auditor.

The pages are those of the console. From the page of the backtest all that it leads to is followed: its
candidates, pair after pair, and the tasks of these pairs on both sides. Nothing else becomes a file.
"""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import re
import shutil
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from markupsafe import Markup
from starlette.requests import Request
from starlette.routing import compile_path

import beam_ray
from beam_ray.console.commands import Commands
from beam_ray.console.forms import query_of
from beam_ray.console.links import backtest_path, with_query
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.pages import task
from beam_ray.console.reading import Reader
from beam_ray.console.rendering import Page, block, respond
from beam_ray.console.server import PAGES, STATIC, shared_values
from beam_ray.console.site import Site
from beam_ray.console.static_pages import Links, Offline, Place, file_name
from beam_ray.errors import BeamRayError, Unusable

MAX_PAIRS = 50
"""Pairs that are written unless more are asked for; of a backtest with more of them, only those that flipped."""
TABS = ("output", "prompt", "criteria", "attempts")
"""Tabs of a step that are written."""
PAIR_FIELDS = {"candidate", "group", "node", "scores", "mark", "at"}
"""What the address of a pair may say; swapped, it would be another page of the same pair."""
FLIPS = ("newly failing", "newly passing")


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    pages: int
    pairs: int
    pairs_left_out: int
    """Pairs of the backtest that have no page; those that flipped come first."""

    @property
    def start(self) -> Path:
        """The page to open."""
        return self.folder / "index.html"


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty, or has what an export writes and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_symlink() or not file.is_dir()]
    ours = [str(file) == "index.html" or (str(file.parent), file.suffix) in {("pages", ".html"), ("static", ".css"), ("static", ".svg")} for file in files]
    return not files or (all(ours) and (folder / "index.html").is_file() and "Exported from a store of beam_ray" in (folder / "index.html").read_text("utf-8"))


def export(store: beam_ray.Store, folder: str | Path, *, backtest: str = "", pins: Iterable[str] = (), max_pairs: int = MAX_PAIRS) -> Exported:
    """
    Write the pages of a finished backtest, and of pinned views, into a new or empty folder; ``index.html`` is where to begin.

    Raises:
        Unusable: there is no such backtest or pin, nothing is named, or the folder has files of something else.
    """
    path = Path(folder)
    if path.exists() and not _may_be_replaced(path):
        raise Unusable(f"{path} is there already and is no export; name a new folder")
    pages = _Pages(store)
    try:
        if backtest:
            pages.follow_backtest(store.verdict(backtest), max_pairs)
        for digest in pins:
            pages.follow_pin(digest)
        if not pages.starts:
            raise Unusable("name what is exported: --backtest ID, or --pin DIGEST")
        pages.write(path)
    finally:
        pages.site.commands.close()
    return Exported(path, len(pages.made), len(pages.pairs), pages.left_out)


def _page_of(address: str) -> str:
    """The address of the page that shows it: of a task's steps and tabs the task's own."""
    url = urlsplit(address)
    if not re.match(r"/tasks/[^/]+", url.path):
        return address
    kept = [(name, value) for name, value in parse_qsl(url.query) if name in ("task", "trial")]
    return with_query(url.path, kept)


def _request(address: str) -> Request:
    url = urlsplit(address)
    scope = {"type": "http", "method": "GET", "path": unquote(url.path), "raw_path": url.path.encode(), "query_string": url.query.encode(), "headers": []}
    return Request({**scope, "form_token": ""})


@dataclass
class _Made:
    page: Page
    text: str
    links: list[str]


@dataclass
class _Pages:
    """The pages that become files."""

    store: beam_ray.Store
    site: Site = field(init=False)
    made: dict[str, _Made] = field(default_factory=dict)
    """Address to its page."""
    same: dict[str, str] = field(default_factory=dict)
    """Address to another one that shows the same."""
    pairs: dict[tuple[str, str], str] = field(default_factory=dict)
    """Both sides of a pair to the address of its page."""
    starts: list[tuple[str, str]] = field(default_factory=list)
    """Address and title of what was asked for."""
    left_out: int = 0

    def __post_init__(self) -> None:
        options = ConsoleOptions(read_only=True)
        self.site = Site(self.store, options, Reader(self.store), Commands(self.store))

    # -- which pages ----------------------------------------------------------------------

    def follow_backtest(self, verdict: beam_ray.Verdict, max_pairs: int) -> None:
        """The backtest's page, and what it leads to."""
        top, every = backtest_path(verdict.id), verdict.pairs.num_rows
        few = every <= max_pairs
        sides = {run.id for run in verdict.runs}
        for candidate in verdict.candidates:
            proven = self.site.reader.pairs(verdict, candidate.name).proven.values()
            sides |= {each.address.run for each in proven if each.address}

        def wanted(address: str) -> bool:
            path, query = urlsplit(address).path, set(parse_qs(urlsplit(address).query))
            if path == top:
                return query <= {"candidate"}
            if path == f"{top}/prove":
                return query <= {"candidate", "group"}
            if path == f"{top}/flips":
                return len(self.pairs) < max_pairs and query <= PAIR_FIELDS
            return path.startswith("/tasks/") and path.split("/")[2] in sides

        # pairs before tasks, so that a limit of pairs does not depend on how deep a page leads
        waiting, later = deque([top]), deque[str]()
        self.starts.append((top, f"Backtest {verdict.document()['name']}"))
        while waiting or later:
            address = waiting.popleft() if waiting else later.popleft()
            made = self._make(address, keep=partial(self._keep_pair, few, max_pairs))
            for link in map(_page_of, made.links if made else ()):
                if link not in self.made and link not in self.same and wanted(link):
                    (later if link.startswith("/tasks/") else waiting).append(link)
        self.left_out += max(every - len(self.pairs), 0)

    def _keep_pair(self, every: bool, most: int, page: Page, address: str) -> bool:
        """Whether a page is written; of a pair that has a page already, its other addresses lead to that one."""
        if page.template == "refusal" or (page.template == "prove" and not page.values["proof"].tried):
            return False
        if page.template != "compare":
            return True
        pair = page.document["before"], page.document["after"]
        if pair in self.pairs:
            self.same[address] = self.pairs[pair]
            return False
        group = (page.document.get("pair") or {}).get("group")
        if len(self.pairs) >= most or not (every or group in FLIPS):
            return False
        self.pairs[pair] = address
        return True

    def follow_pin(self, name: str) -> None:
        """A pinned view, and its tasks."""
        pin = self.store.get_pin(name)
        top = f"/e/{pin.id}"
        self.starts.append((top, pin.note or f"Pinned view {pin.id[:8]}"))
        made = self._make(top, keep=lambda page, address: page.template != "refusal")
        for link in dict.fromkeys(map(_page_of, made.links if made else ())):
            if link.startswith("/tasks/"):
                self._make(link, keep=lambda page, address: page.template == "task")

    # -- making and writing ---------------------------------------------------------------

    def _make(self, address: str, keep: Callable[[Page, str], bool]) -> _Made | None:
        """The page at an address; None where it is not kept, or leads to another one."""
        if address in self.made or address in self.same:
            return self.made.get(address)
        url, request = urlsplit(address), _request(address)
        for path, make, fields in PAGES:
            if not compile_path(path)[0].match(unquote(url.path)):
                continue
            try:
                page = make(self.site, url.path, query_of(request, fields))
            except BeamRayError:
                return None  # a link that leads to a refusal is no file
            if isinstance(page, str):
                self.same[address] = page
                return self._make(page, keep)
            if not isinstance(page, Page) or not keep(page, address):
                return None
            page = self._whole(page) if page.template == "task" else page
            text = bytes(respond(request, page, "html", shared_values(self.site, "")).body).decode()
            self.made[address] = made = _Made(page, text, Links(text).found)
            return made
        return None

    def _whole(self, page: Page) -> Page:
        """A task's page with all of its steps, one below the other."""
        shared, parts = shared_values(self.site, ""), dict[str, tuple[beam_ray.Step, list[tuple[str, Markup]]]]()
        for each in task.panels(self.site, page.values["task"], TABS):
            body = block("task", "tab_body", {**shared, **page.values, **each, "page": page})
            parts.setdefault(each["chosen"].node, (each["chosen"], []))[1].append((each["title"], body))
        return replace(page, template="task_whole", values={**page.values, "whole": list(parts.values())})

    def write(self, folder: Path) -> None:
        """Write all files."""
        files = {address: f"pages/{file_name(address)}" for address in self.made}
        if len(self.starts) == 1:
            files[self.starts[0][0]] = "index.html"

        def file_of(address: str) -> str | None:
            page = _page_of(address)
            while page in self.same:
                page = self.same[page]
            file, step = "index.html" if page == "/" else files.get(page), parse_qs(urlsplit(address).query).get("step")
            return f"{file}#step-{step[-1]}" if file and step and page.startswith("/tasks/") else file

        if len(self.starts) > 1:
            page = Page("exported", "Exported pages", {"starts": self.starts}, None)
            text = bytes(respond(_request("/"), page, "html", shared_values(self.site, "")).body).decode()
            self.made["/"], files["/"] = _Made(page, text, []), "index.html"
        if folder.exists():
            shutil.rmtree(folder)
        (folder / "pages").mkdir(parents=True)
        (folder / "static").mkdir()
        for source in sorted([*STATIC.glob("*.css"), *STATIC.glob("*.svg")]):
            shutil.copyfile(source, folder / "static" / source.name)
        for address, made in self.made.items():
            place = Place(files[address], file_of, self._note())
            (folder / files[address]).write_text(Offline(made.text, place).text, encoding="utf-8")

    def _note(self) -> str:
        words = f"Exported from a store of beam_ray: {len(self.made):,} pages"
        left = f", {self.left_out:,} pairs left out" if self.left_out else ""
        return f"{words}{left}. Times are in UTC. beam-ray console shows everything, with what leads elsewhere."
