"""The console's server: its routes, what they share, and how it begins and ends."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import beam_ray
from beam_ray.console import links
from beam_ray.console.commands import Commands, words_of
from beam_ray.console.events import Streams
from beam_ray.console.forms import Fields, form_of, query_of
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.own_name import own_name
from beam_ray.console.pages import (
    add_to_library,
    backtest_progress,
    backtests,
    compare,
    download,
    flips,
    flow_criteria,
    flow_draft,
    flows,
    health,
    history,
    home,
    libraries,
    new_backtest,
    optimise,
    pasted,
    pins,
    prove,
    rerun,
    reruns,
    review,
    runs,
    settings,
    started,
    task,
    tasks,
    versions,
    what_if,
)
from beam_ray.console.reading import Reader
from beam_ray.console.rendering import Download, Page, respond
from beam_ray.console.security import Guard, is_loopback
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Damaged, Unusable
from beam_ray.memory import return_memory

BOTH = ("127.0.0.1", "::1", "localhost")
"""This machine for itself: its two addresses, and the name of both."""
STATIC = Path(__file__).parent / "static"
"""Style, scripts and drawings."""

Reads = Callable[[Site, str, Fields], "Page | Download | str"]
"""Makes a page from its encoded path and its query; a text is the address to go to instead."""
PATIENCE_S = 0.3
"""Seconds that a page for people waits for a store that was never read on this machine, before it shows what was read so far."""
MISSING = ("there is no", "has no ", "has started no", "no version of", "nothing is known of", "was dropped by", "is not in this store")
"""How an error says that what the address names does not exist."""
Changes = Callable[[Site, str, Fields], "Page | str"]
"""Does what a form asks; the address to go to, or a page that shows why nothing was done."""

PAGES: tuple[tuple[str, Reads, tuple[str, ...]], ...] = (
    ("/", home.home, ()),
    ("/home", home.home, ()),
    ("/home/warnings", health.warnings, ()),
    ("/tasks", tasks.tasks, tasks.FIELDS),
    ("/tasks/{run}", task.task, task.FIELDS),
    ("/tasks/{run}/{task:path}", task.task, task.FIELDS),
    ("/flows", flows.flows, ()),
    ("/flows/{workflow}", flows.flow, flows.FIELDS),
    ("/flows/{workflow}/publish", versions.sheet, versions.PUBLISH_FIELDS),
    ("/flows/{workflow}/versions", versions.versions, versions.FIELDS),
    ("/flows/{workflow}/criteria", flow_criteria.sheet, flow_criteria.FIELDS),
    ("/runs", runs.runs, ()),
    ("/runs/{run}", runs.run, ()),
    ("/backtests", backtests.backtests, ()),
    ("/backtests/new", new_backtest.sheet, new_backtest.FIELDS),
    ("/backtests/{backtest}", backtests.backtest, backtests.FIELDS),
    ("/backtests/{backtest}/flips", flips.flips, flips.FIELDS),
    ("/backtests/{backtest}/prove", prove.prove, prove.FIELDS),
    ("/backtests/{backtest}/report", backtests.report, ("name",)),
    ("/compare", compare.compare, compare.FIELDS),
    ("/health/{name}", health.health, health.FIELDS),
    ("/history/{name}", history.history, ()),
    ("/history/{name}/trend", history.trend, ()),
    ("/settings", settings.settings, ()),
    ("/libraries", libraries.libraries, ()),
    ("/libraries/{name}", libraries.library, libraries.FIELDS),
    ("/libraries/{name}/coverage", libraries.coverage, libraries.COVERAGE_FIELDS),
    ("/libraries/{name}/diff", libraries.diff, libraries.DIFF_FIELDS),
    ("/libraries/{name}/export", libraries.export, libraries.EXPORT_FIELDS),
    ("/add-to-library", add_to_library.sheet, add_to_library.FIELDS),
    ("/download", download.download, download.FIELDS),
    ("/e", pins.pins, ()),
    ("/e/{pin}", pins.pin, ()),
    ("/optimise", optimise.optimise, optimise.FIELDS),
    ("/rerun", rerun.sheet, rerun.FIELDS),
    ("/reruns/{run}", reruns.rerun, ()),
    ("/review", review.review, review.FIELDS),
    ("/review/agreement", review.agreement, review.AGREEMENT_FIELDS),
    ("/started/{key}", started.command, ()),
    ("/what-if", what_if.what_if, what_if.FIELDS),
    ("/t/{word:path}", pasted.pasted, ()),
)
"""Each page's path, what makes it, and the fields that its query may have."""

FORMS: tuple[tuple[str, Changes], ...] = (
    ("/flows/{workflow}/draft", flow_draft.change),
    ("/flows/{workflow}/check", flow_draft.check),
    ("/backtests/new", new_backtest.start),
    ("/flows/{workflow}/publish", versions.publish),
    ("/flows/{workflow}/rollback", versions.rollback),
    ("/optimise", optimise.ask),
    ("/optimise/rerun", optimise.apply),
    ("/flows/{workflow}/criteria", flow_criteria.start),
    ("/rerun", rerun.start),
    ("/backtests/{backtest}/prove", prove.start),
    ("/backtests/{backtest}/mark", flips.mark),
    ("/pin", pins.create),
    ("/backtests/{backtest}/resume", backtest_progress.resume),
    ("/review", review.record),
    ("/review/library", review.expect),
    ("/what-if/check", what_if.check),
    ("/what-if/rerun", what_if.run),
    ("/what-if/draft", what_if.drop),
    ("/add-to-library", add_to_library.save),
    ("/libraries/import", libraries.import_tasks),
    ("/libraries/{name}/edit", libraries.edit),
    ("/libraries/{name}/remove", libraries.remove),
    ("/runs/{run}/stop", runs.stop),
    ("/runs/{run}/resume", runs.resume),
)
"""What a form may be sent to, and what does it; a console that is only read has none of them."""


def create_app(store: beam_ray.Store, options: ConsoleOptions | None = None) -> Guard:
    """The console of a store as an ASGI application; its ``token`` is what the first address of a browser must have."""
    options = options or ConsoleOptions()
    site = Site(store, options, Reader(store), Commands(store, options.max_usd))
    routes: list[BaseRoute] = [Mount("/static", StaticFiles(directory=STATIC), name="static")]
    # a page of JSON names no icon, and a browser then asks here
    routes.append(Route("/favicon.ico", lambda request: FileResponse(STATIC / "icon.svg"), methods=["GET"]))
    routes.append(Route("/events", Streams(site).answer, methods=["GET"]))
    routes.append(Route("/llms.txt", partial(_llms, site), methods=["GET"]))
    for path, make, fields in PAGES:
        for ending in ("",) if path == "/" or path.endswith(":path}") else ("", ".json", ".md"):
            routes.append(Route(path + ending, _read(site, make, fields), methods=["GET"]))
    if not options.read_only:
        routes += [Route(path, _change(site, act), methods=["POST"]) for path, act in FORMS]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        site.commands.close()

    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: partial(_not_found, site)})
    return Guard(app, options)


def _read(site: Site, make: Reads, fields: tuple[str, ...]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        path, face = links.face_of(request.scope.get("raw_path") or request.url.path.encode())
        asked = replace(site, patience=PATIENCE_S) if face == "html" else site
        try:
            made: Page | Download | str = await run_in_threadpool(lambda: make(asked, path, query_of(request, fields)))
        except BeamRayError as error:
            made = _refusal(error)
        if isinstance(made, str):
            return RedirectResponse(made, 303)
        if isinstance(made, Download):
            return made.response()
        return await run_in_threadpool(respond, request, made, face, shared_values(site, request.scope["form_token"]))

    return answer


def _change(site: Site, act: Changes) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        path, _ = links.face_of(request.scope.get("raw_path") or request.url.path.encode())
        try:
            fields = await form_of(request)
            made = await run_in_threadpool(act, site, path, fields)
            if isinstance(made, Page):
                return await run_in_threadpool(respond, request, made, "html", shared_values(site, request.scope["form_token"]))
            return RedirectResponse(made, 303)
        except BeamRayError as error:
            return respond(request, _refusal(error, looked_up=False), "html", shared_values(site, request.scope["form_token"]))

    return answer


def shared_values(site: Site, form_token: str) -> dict[str, Any]:
    """What every template may use."""
    return {
        "store": site.store.uri,
        "option": site.store.option,
        "options": site.options,
        "version": version("beam-ray"),
        "form_token": form_token,
    }


def _refusal(error: BeamRayError, *, looked_up: bool = True) -> Page:
    """An error as the command line says it."""
    words = words_of(error)
    missing = looked_up and isinstance(error, Unusable) and any(word in words for word in MISSING)
    status = 500 if isinstance(error, Damaged) else 404 if missing else 400
    first, _, rest = words.partition("\n")
    values = {"first": first, "rest": rest}
    return Page("refusal", "Stored data is damaged" if isinstance(error, Damaged) else "This cannot be shown", values, {"error": words}, status=status)


async def _llms(site: Site, request: Request) -> Response:
    return PlainTextResponse(settings.llms(site))


async def _not_found(site: Site, request: Request, error: Exception) -> Response:
    page = _refusal(Unusable(f"there is no page at {request.url.path[:200]}"))
    return respond(request, page, links.face_of(request.scope.get("raw_path") or b"/")[1], shared_values(site, request.scope["form_token"]))


def serve(store: beam_ray.Store, options: ConsoleOptions, announce: Callable[[str, str], None]) -> None:
    """
    Serve the console until Ctrl-C; *announce* gets its address, and the one under its own name, which is empty where it has none.

    Raises:
        Unusable: there is no store, the port is in use, or the host needs to be allowed.
    """
    import uvicorn

    if not store.exists:
        raise Unusable(f"there is no store at {store.uri}\n  make demo, or beam-ray run, creates one; --store or BEAM_RAY_STORE names another")
    if not is_loopback(options.host) and not options.allow_hosts:
        raise Unusable(
            f"--host {options.host} lets other machines reach the console; everybody who has its token may spend money\n"
            "  say under which name it is reached: --allow-host NAME"
        )
    return_memory()
    listening = [_listen(options)]
    own = ""
    if options.host in BOTH:
        # of a machine's own names browsers ask both addresses: the other one must not be somebody else's
        other = BOTH[1] if listening[0].family == socket.AF_INET else BOTH[0]
        taken = False
        try:
            listening.append(_bound(other, options.port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE  # else this machine has only one of them
        own = "" if taken else own_name()
    if own:
        options = replace(options, allow_hosts=(*options.allow_hosts, f"{own}:{options.port}"))
    app: ASGIApp = create_app(store, options)
    assert isinstance(app, Guard)
    announce(*(f"http://{name}:{options.port}/?token={app.token}" if name else "" for name in (options.host, own)))
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2, lifespan="on")
    uvicorn.Server(config).run(sockets=listening)


def _listen(options: ConsoleOptions) -> socket.socket:
    try:
        return _bound(options.host, options.port)
    except OSError as error:
        raise Unusable(f"the console cannot listen on {options.host}:{options.port}: {error.strerror or error}\n  --port names another port") from None


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)  # the address may be opened as soon as it is printed
    except OSError:
        listening.close()
        raise
    return listening
