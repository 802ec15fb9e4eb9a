"""
Who may use the console: one browser session per token, one origin, and no other page.

Every request must name one of the console's own hosts, which a page that rebinds its name to this
machine does not. A request that changes something must come from the console's own origin, and bring
the form's token. What the pages may load is said by a content security policy without exceptions.
"""

import hashlib
import hmac
import ipaddress
import secrets
from html import escape
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beam_ray.console.options import ConsoleOptions

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send forms without the origin that is checked
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
MAX_BODY = 1_000_000
"""Bytes that a form may have."""


class Guard:
    """Lets through only requests that may be answered; everything that goes out has the headers."""

    def __init__(self, app: ASGIApp, options: ConsoleOptions):
        self.app, self.options = app, options
        self.token = options.token or secrets.token_urlsafe(32)
        self.cookie = f"beam_ray_console_{options.port}"
        self.hosts = allowed_hosts(options)
        # what a browser keeps is not what the address has: a log of addresses opens nothing once the console is restarted
        self.session = hmac.new(self.token.encode(), secrets.token_bytes(32), hashlib.sha256).hexdigest()
        self.form_token = hmac.new(self.session.encode(), b"form", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
            await send(message)

        request = Request(scope, receive)
        refusal = self._refuse(request)
        if refusal is None:
            scope["form_token"] = self.form_token
            await self.app(scope, receive, send_with_headers)
        else:
            await refusal(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        host = request.headers.get("host", "").lower()
        if host not in self.hosts:
            text = f"This console does not answer to the host {host[:200]!r}. If that is its name, start it with:  beam-ray console --allow-host {_name(host)}"
            return PlainTextResponse(text, 403)
        if "\0" in request.scope["path"]:
            return PlainTextResponse("An address has no NUL character.", 400)
        if request.method not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("method not allowed", 405)
        given = request.query_params.get("token")
        if given is not None and request.method == "GET":
            return self._exchange(request, given)
        if request.url.path.startswith("/static/"):
            return None  # style and scripts, which say nothing of the store
        if not hmac.compare_digest(request.cookies.get(self.cookie, "").encode(), self.session.encode()):
            return _closed(request)
        return self._refuse_change(request) if request.method == "POST" else None

    def _exchange(self, request: Request, given: str) -> Response:
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return PlainTextResponse("This is not the token of the console that runs now. Open the address that it printed.", 403)
        left = [(name, value) for name, value in parse_qsl(request.url.query, keep_blank_values=True) if name != "token"]
        response = RedirectResponse(_path(request) + (f"?{urlencode(left)}" if left else ""), 303)
        response.set_cookie(self.cookie, self.session, httponly=True, samesite="strict", path="/", secure=request.url.scheme == "https")
        return response

    def _refuse_change(self, request: Request) -> Response | None:
        headers = request.headers
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is None or origin.lower().partition("://")[2] != headers.get("host", "").lower() or site not in (None, "same-origin"):
            return PlainTextResponse("A change must come from the console's own pages.", 403)
        if headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            return PlainTextResponse("A change is sent as a form.", 415)
        return _too_long(headers)


def _too_long(headers: Headers) -> Response | None:
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return PlainTextResponse("The length of a form must be said.", 411)
    return PlainTextResponse(f"A form has at most {MAX_BODY:,} bytes.", 413) if int(length) > MAX_BODY else None


def _closed(request: Request) -> Response:
    """Nobody is logged in; a link from elsewhere brings no cookie, but one from this very page does."""
    target = _path(request) + (f"?{request.url.query}" if request.url.query else "")
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>beam_ray console</title>"
        "<link rel=stylesheet href=/static/console.css><main><h1>Open the address that the console printed</h1>"
        "<p>It has the token that this browser needs once: <code>beam-ray console</code> prints it.</p>"
        f"<p>Did you follow a link from another site, with the console open already? <a href='{escape(target, quote=True)}'>Continue</a></p></main>"
    )
    return HTMLResponse(page, 403)


def _path(request: Request) -> str:
    """The path as it was asked for; never one that a browser takes for another host."""
    raw = request.scope.get("raw_path") or request.url.path.encode()
    return "/" + str(raw.decode("latin-1")).replace("\\", "%5C").lstrip("/")


def allowed_hosts(options: ConsoleOptions) -> frozenset[str]:
    """Every value of the Host header that the console answers to."""
    names = [options.host, *options.allow_hosts]
    if is_loopback(options.host):
        names += ["localhost", "127.0.0.1", "[::1]"]
    found = set()
    for name in names:
        plain = f"[{name}]" if ":" in name and not name.startswith("[") and name.count(":") > 1 else name
        found |= (
            {plain.lower()}
            if ":" in plain.rpartition("]")[2]
            else {f"{plain}:{options.port}".lower(), *((plain.lower(),) if name in options.allow_hosts else ())}
        )
    return frozenset(found)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: str) -> str:
    kept = "".join(letter for letter in host if letter.isalnum() or letter in "-._:[]")
    return kept[:200] or "NAME"
