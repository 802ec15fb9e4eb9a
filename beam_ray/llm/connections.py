"""
The HTTP connections to a model's endpoint: those of aiohttp, which take half the CPU time of httpx2's own.

Requests and replies are httpx2's, so that tests give the client another transport. Neither
retries nor time limits are here: the client has them.
"""

import functools
import ssl
import urllib.request
from collections.abc import AsyncIterator

import aiohttp
import httpx2
from yarl import URL

KEPT_S = 30.0
"""Seconds for which an unused connection is kept."""


class Connections(httpx2.AsyncBaseTransport):
    """Connections to one endpoint, as many as there are requests in flight; through the proxy of the environment, if it names one."""

    def __init__(self, url: str):
        """
        Args:
            url: An address of the endpoint.
        """
        self._proxy = proxy_of(url)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """
        The reply to a request; its body is read from its stream.

        Raises:
            httpx2.TransportError: there is none.
        """
        if self._session is None:
            # permits limit what is in flight, not this pool
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S, ssl=certificates() if request.url.scheme == "https" else True)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(), auto_decompress=False)
        try:
            reply = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                data=request.content or None,
                headers=request.headers.multi_items(),
                allow_redirects=False,
                proxy=self._proxy,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ConnectError(str(error)) from error
        return httpx2.Response(reply.status, headers=reply.raw_headers, stream=_Body(reply), request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


class _Body(httpx2.AsyncByteStream):
    """The body of a reply; a connection whose reply is not read to its end is closed."""

    def __init__(self, reply: aiohttp.ClientResponse):
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._reply.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(str(error)) from error

    async def aclose(self) -> None:
        self._reply.release()


def proxy_of(url: str) -> str | None:
    """The proxy through which the environment wants *url* to be asked: HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, unless NO_PROXY names its host."""
    address = URL(url)
    if not address.host or urllib.request.proxy_bypass(address.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


@functools.cache
def certificates() -> ssl.SSLContext:
    """The trusted certificates, read once per process: that takes as long as ten calls."""
    return httpx2.create_ssl_context()
