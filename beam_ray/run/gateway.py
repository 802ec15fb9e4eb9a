"""
The gateway: an OpenAI-compatible server for the programs of a run, in the runner and for this machine only.

A program is started with the gateway's address and a key. The key says whose calls they are; each
is answered by the attempt's ``Calls``, as an agent's are: from a recording, or by the endpoint
under the cluster's limits and the run's budget. What the program writes is passed on as it is; only
the name of the model is the endpoint's. Errors have OpenAI's shape, and say that another try is of no use.
"""

import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping

from aiohttp import web

from beam_ray.define.fingerprint import Json, JsonObject, strict_json
from beam_ray.llm.streaming import chat_events, response_events
from beam_ray.run.calls import ToolPolicy
from beam_ray.run.program_session import ProgramSession, Refused

MAX_BODY = 32_000_000
"""Bytes of a request's body."""

APIS = {"/v1/chat/completions": "chat", "/v1/responses": "responses", "/v1/embeddings": "embeddings"}
TOOLS = "/v1/beam_ray/tools"
CREATED = 1_767_225_600
"""When models were created, as a list of them has to say; the endpoint is not asked."""

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Gateway:
    """Answers the programs of a run."""

    def __init__(self) -> None:
        self._sessions: dict[str, ProgramSession] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""
        """Where it answers, without ``/v1``."""

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_in_their_shape])
        for path in APIS:
            app.router.add_post(path, self._model)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._models)
        app.router.add_post(TOOLS, self._tool)
        app.router.add_post(f"{TOOLS}/{{id}}", self._tool_result)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=600, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])

    async def close(self) -> None:
        """Listen no more."""
        if self._runner:
            await self._runner.cleanup()

    @contextlib.contextmanager
    def serving(self, session: ProgramSession) -> Iterator[Mapping[str, str]]:
        """Answer the session's program; gives the environment variables that it needs."""
        self._sessions[session.id] = session
        try:
            yield {"OPENAI_BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": session.key, "BEAM_RAY_GATEWAY": self.url, "BEAM_RAY_GATEWAY_KEY": session.key}
        finally:
            del self._sessions[session.id]

    # -- routes -----------------------------------------------------------------------------

    async def _model(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        body, equal = await _body(request, session)
        api = APIS[request.path]
        name = session.name_of(body.get("model"))
        streamed, options = body.pop("stream", None), body.pop("stream_options", None)
        if body.get("background"):
            raise Refused(400, "responses in the background are not answered; leave 'background' out", "unsupported_parameter", "background")
        reply = await session.ask(name, api, {**body, "model": session.models[name]}, equal, lambda: _waits(request))
        if not streamed or api == "embeddings":
            return _json(reply)
        usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
        events = response_events(reply) if api == "responses" else chat_events(reply, include_usage=usage)
        # one piece: the whole reply is there
        return web.Response(body=b"".join(events), headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"})

    async def _models(self, request: web.Request) -> web.Response:
        session = self._session(request)
        wanted = request.match_info.get("name")
        if wanted is not None:
            session.name_of(wanted)
            return _json(_model_entry(wanted))
        names = dict.fromkeys([*session.models, *session.models.values()])
        return _json({"object": "list", "data": [_model_entry(name) for name in names]})

    async def _tool(self, request: web.Request) -> web.Response:
        session = self._session(request)
        body, _ = await _body(request, session)
        name, arguments, effects, on_miss = body.get("tool"), body.get("arguments"), body.get("effects", "write"), body.get("on_miss")
        if not isinstance(name, str) or not name or not isinstance(arguments, dict):
            raise Refused(400, "a call of a tool must have 'tool', its name, and 'arguments', an object", "invalid_request")
        if effects not in ("none", "read", "write") or on_miss not in (None, "live", "refuse", "fail"):
            raise Refused(400, "'effects' must be none, read or write, and 'on_miss' live, refuse or fail", "invalid_request")
        found = await session.use(ToolPolicy(name, effects, str(body.get("version") or ""), on_miss), arguments)
        if isinstance(found, str):
            return _json({"run": found})
        return _json({"answer": found.value, "error": found.error, "source": found.source})

    async def _tool_result(self, request: web.Request) -> web.Response:
        session = self._session(request)
        body, _ = await _body(request, session)
        error = body.get("error")
        await session.report(request.match_info["id"], body.get("value"), None if error is None else str(error))
        return _json({})

    def _session(self, request: web.Request) -> ProgramSession:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        parts = key.strip().split("-", 2)
        session = self._sessions.get(parts[1]) if scheme.lower() == "bearer" and len(parts) == 3 else None
        if session is None or not session.opens(key.strip()):
            raise Refused(401, "the key is not, or no longer, that of a running program; OPENAI_API_KEY holds it while one runs", "invalid_api_key")
        return session


@web.middleware
async def _in_their_shape(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Give every error the shape that the libraries of programs expect."""
    try:
        return await handler(request)
    except Refused as error:
        return _error(error)
    except web.HTTPRequestEntityTooLarge:
        return _error(Refused(413, f"the request has more than {MAX_BODY:,} bytes", "request_too_large"))
    except web.HTTPException as error:
        known = ", ".join([*APIS, "/v1/models"])
        return _error(Refused(error.status, f"{request.method} {request.path} is not answered here, only {known}", "unknown_url"))


async def _body(request: web.Request, session: ProgramSession) -> tuple[JsonObject, str]:
    """The body of the request, and what identifies the request."""
    # a key in a prompt would be recorded with it
    raw = (await request.read()).replace(session.key.encode(), b"[key]")
    try:
        body = strict_json(raw.decode())
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object", "invalid_json")
    return body, hashlib.sha256(request.path.encode() + b"\n" + raw).hexdigest()


def _waits(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _model_entry(name: str) -> JsonObject:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "beam_ray"}


def _json(value: Json) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), content_type="application/json")


def _error(error: Refused) -> web.Response:
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    body = {"error": {"message": error.message, "type": kind, "param": error.param or None, "code": error.code}}
    return web.Response(status=error.status, body=json.dumps(body).encode(), content_type="application/json", headers={"x-should-retry": "false"})
