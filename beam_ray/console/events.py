"""
What goes on, as a stream of hints: that a run has moved on, whereupon a page asks again for what it shows.

An event says nothing but that; a hidden tab, a restart or a proxy loses nothing with it. A browser
opens one stream for all of its tabs: see ``static/live.js``.
"""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError

PAUSE_S = 1.0
HEARTBEAT = 15
"""Pauses after which an idle stream gives a sign of life."""


async def events(site: Site, request: Request) -> Response:
    """The stream."""
    return StreamingResponse(_hints(site, request), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _hints(site: Site, request: Request) -> AsyncIterator[str]:
    known: dict[str, str] | None = None
    silent = 0
    yield "retry: 2000\n\n"
    while not await request.is_disconnected():
        try:
            state = await run_in_threadpool(_state, site)
        except BeamRayError:
            state = known or {}
        if known is not None and state != known:
            moved = sorted({run for run, _ in state.items() ^ known.items()})
            yield f"data: {json.dumps(moved)}\n\n"
            silent = 0
        elif silent >= HEARTBEAT:
            yield ": still here\n\n"
            silent = 0
        known, silent = state, silent + 1
        await asyncio.sleep(PAUSE_S)


def _state(site: Site) -> dict[str, str]:
    """How far each thing is that goes on."""
    found = {each.run_id: f"{each.state} {each.steps_done} {each.tasks_done} {each.calls} {each.waits_for}" for each in site.reader.unfinished()}
    found["reading"] = str(site.reader.unread())
    return found | {f"started {each.id}": f"{each.code} {','.join(each.runs)}" for each in site.commands.all()}
