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
MAX_STREAMS = 32
"""Streams at once, one for each browser; whoever gets none is told so, and asks by the clock."""
FULL = "retry: 20000\nevent: full\ndata: other browsers have all streams; ask again later\n\n"
HEARTBEAT = 15
"""Pauses after which an idle stream gives a sign of life."""


class Streams:
    """The streams of hints that are open."""

    def __init__(self, site: Site):
        self.site, self.open = site, 0

    async def answer(self, request: Request) -> Response:
        """A stream, unless there are as many as there may be."""
        hints = self._counted(request) if self.open < MAX_STREAMS and request.method == "GET" else FULL
        if isinstance(hints, str):
            return Response(hints, media_type="text/event-stream")
        return StreamingResponse(hints, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _counted(self, request: Request) -> AsyncIterator[str]:
        self.open += 1
        try:
            async for hint in _hints(self.site, request):
                yield hint
        finally:
            self.open -= 1


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
