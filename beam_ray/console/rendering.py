"""A page in its three faces: HTML for people, JSON for programs, Markdown for chats and agents."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from beam_ray.console import charts, icons, links
from beam_ray.console.formatting import FILTERS


@dataclass(frozen=True)
class Page:
    """What a page shows."""

    template: str
    """Name of its templates, without the ending."""
    title: str
    values: Mapping[str, Any]
    """What the templates use."""
    document: Any
    """The page as JSON; of what a command prints, the document that it prints."""
    section: str = ""
    """The part of the console that it belongs to."""
    command: str = ""
    """The command line that shows the same."""
    status: int = 200
    live: bool = field(default=False)
    """Whether something on it goes on, so that it is kept up to date."""
    address: str = ""
    """The page's own address, where it answers a form; empty where it is the one that was asked for, or the answer to a form has none."""


@dataclass(frozen=True)
class Download:
    """A file that a browser saves and never shows: what a task or a model brought could be markup."""

    name: str
    body: bytes

    def response(self) -> Response:
        """The file, as an attachment of no kind that a browser would open."""
        plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_. ") else "_" for letter in self.name)[-150:]
        named = f"attachment; filename=\"{plain or 'file'}\"; filename*=UTF-8''{quote(self.name[-150:], safe='')}"
        return Response(self.body, media_type="application/octet-stream", headers={"content-disposition": named})


@cache
def _environment(html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("beam_ray.console"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    environment.globals |= {
        "task_path": links.task_path,
        "address_path": links.address_path,
        "run_path": links.run_path,
        "rerun_path": links.rerun_path,
        "backtest_path": links.backtest_path,
        "compare_path": links.compare_path,
        "flow_path": links.flow_path,
        "level_mark": charts.level_mark,
        "with_query": links.with_query,
        "icon": icons.icon,
        "status_icon": icons.status_icon,
    }
    return environment


def respond(request: Request, page: Page, face: str, shared: Mapping[str, Any]) -> Response:
    """The page in that face."""
    if face == "json":
        return Json(page.document, page.status)
    answers = request.scope.get("method") == "POST" and not page.address
    twin = {} if answers else _twin(request, page.address)
    values = {**shared, **page.values, "page": page, "here": page.address or _here(request), "twin": twin}
    # what a store has may be half of a character, which is no text that can be sent
    text = _environment(face == "html").get_template(f"{page.template}.{face}").render(values).encode("utf-8", "replace")
    if face == "md":
        return PlainTextResponse(text, page.status, media_type="text/markdown")
    return HTMLResponse(text, page.status)


def block(template: str, name: str, values: Mapping[str, Any]) -> Markup:
    """One block of a template of HTML."""
    environment = _environment(html=True)
    found = environment.get_template(f"{template}.html")
    context = found.new_context({**values, "ui": environment.get_template("macros.html").module})
    return Markup("".join(found.blocks[name](context)))


class Json(JSONResponse):
    """JSON for programs that people may look at."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, indent=1, default=str).encode("utf-8", "replace")


def _here(request: Request) -> str:
    """The address of the page itself."""
    path = (request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1").partition("?")[0]
    return _on_this_host(path) + (f"?{request.url.query}" if request.url.query else "")


def _on_this_host(path: str) -> str:
    """The path, never one that a browser takes for another host."""
    return "/" + path.lstrip("/")


def _twin(request: Request, address: str = "") -> dict[str, str]:
    """The same page in its other faces."""
    if address:
        path, mark, rest = address.partition("?")
        return {face: f"{path}.{face}{mark}{rest}" for face in links.FACES[1:]}
    path, _ = links.face_of(request.scope.get("raw_path") or request.url.path.encode())
    base = "/home" if path == "/" else _on_this_host(path)
    query = f"?{request.url.query}" if request.url.query else ""
    return {face: f"{base}.{face}{query}" for face in links.FACES[1:]}
