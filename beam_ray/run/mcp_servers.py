"""Connections to MCP servers, each made once and kept; of all modules only this one imports mcp."""

import asyncio
import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beam_ray.define.fingerprint import Json
from beam_ray.define.mcp_server import McpServer, McpTool
from beam_ray.errors import ToolFailed, Unusable
from beam_ray.llm.settings import resolve

if TYPE_CHECKING:
    from mcp import Client

END_S = 10.0
"""Seconds for a server to end before its connection is given up."""
MAX_RESULT = 8_000_000
"""Characters of a result."""
MAX_TOOLS, MAX_NAME, MAX_DESCRIPTION, MAX_SCHEMA = 1_000, 200, 8_000, 50_000
"""Tools of a server, and characters of what it says of each: it is part of every request."""

_SILENT = logging.NullHandler()


class McpServers:
    """Connections to the MCP servers of one run, in one process."""

    def __init__(self, servers: Mapping[str, McpServer], folder: str = ""):
        """
        Args:
            folder: Where programs are started; the working folder where it does not exist.
        """
        self.servers, self.folder = servers, folder if folder and Path(folder).is_dir() else None
        self._connections: dict[str, _Connection] = {}

    async def call(self, server: str, tool: str, arguments: Mapping[str, Json], timeout_s: float) -> Json:
        """
        What the tool returns: its structured content, else its text.

        Raises:
            ToolFailed: the server cannot be reached or ended, took too long, or reports an error.
        """
        settings = self.servers[server]
        seconds = min(timeout_s, settings.call_s)
        try:
            connection = await self._connected(server)
            async with asyncio.timeout(seconds):
                result = await connection.call(tool, dict(arguments))
        except Unusable as error:
            raise ToolFailed(str(error)) from None
        except TimeoutError:
            raise ToolFailed(f"{tool} of the MCP server {server!r} took longer than {seconds:g} s") from None
        text = connection.hide("\n".join(_text(part) for part in result.content))
        if result.is_error:
            raise ToolFailed(text[:10_000] or f"{tool} of the MCP server {server!r} reports an error without words")
        if len(text) > MAX_RESULT:
            raise ToolFailed(f"{tool} of the MCP server {server!r} returned more than {MAX_RESULT:,} characters")
        if result.structured_content is None:
            return text
        value = json.loads(connection.hide(json.dumps(result.structured_content)))
        # how the SDK wraps what is no object
        return value["result"] if set(value) == {"result"} else value

    async def list_tools(self, server: str) -> list[McpTool]:
        """
        The tools that the server lists.

        Raises:
            Unusable: it does not start, or does not answer.
        """
        connection = await self._connected(server)
        try:
            async with asyncio.timeout(self.servers[server].start_s):
                return await connection.list_tools()
        except TimeoutError:
            raise Unusable(f"the MCP server {server!r} did not list its tools within {self.servers[server].start_s:g} s") from None
        except ToolFailed as error:
            raise Unusable(str(error)) from None

    async def close(self) -> None:
        """End all servers that were started, and all connections."""
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))
        self._connections.clear()

    async def _connected(self, server: str) -> "_Connection":
        connection = self._connections.get(server)
        if connection is None or connection.lost:
            if connection:
                await connection.close()
            connection = self._connections[server] = _Connection(server, self.servers[server], self.folder)
        await connection.opened()
        return connection


class _Connection:
    """One connection, held open by a task of its own: what mcp opens must be closed by the same task."""

    def __init__(self, name: str, settings: McpServer, folder: str | None):
        self.name, self.settings, self.folder = name, settings, folder
        self.lost = False
        """Whether a next call needs another connection."""
        self._client: Client | None = None
        self._ready, self._leave = asyncio.Event(), asyncio.Event()
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the connection)
        self._holding = asyncio.create_task(self._hold())

    async def opened(self) -> None:
        """Wait until it is open."""
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait([ready, self._holding], timeout=self.settings.start_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not self._ready.is_set():
            self.lost = True
            why = "" if not self._holding.done() or self._holding.cancelled() else _reason(self._holding.exception())
            if not self._holding.done():
                await self.close()
                why = f"it did not answer within {self.settings.start_s:g} s"
            raise Unusable(f"the MCP server {self.name!r} {self._where}: {why or 'it ended'}{self._last_words}")

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        """The result of a call."""
        return await self._guarded(self._open.call_tool(tool, arguments))

    async def list_tools(self) -> list[McpTool]:
        """The server's tools."""
        found: list[McpTool] = []
        cursor: str | None = None
        while True:
            page = await self._guarded(self._open.list_tools(cursor=cursor))
            found += [_listed(tool) for tool in page.tools]
            if len(found) > MAX_TOOLS:
                raise ToolFailed(f"the MCP server {self.name!r} lists more than {MAX_TOOLS} tools")
            cursor = page.next_cursor
            if not cursor:
                return found

    async def close(self) -> None:
        """Close it; a program is ended."""
        self._leave.set()
        if not self._ready.is_set():
            self._holding.cancel()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            async with asyncio.timeout(END_S):
                await self._holding
        self._said.close()

    def hide(self, text: str) -> str:
        """*text* without the values of the environment variables that the server gets."""
        headers = " ".join([self.settings.url or "", *self.settings.headers.values()])
        for name in [*self.settings.env, *re.findall(r"\$\{env:(\w+)\}", headers)]:
            if os.environ.get(name):
                text = text.replace(os.environ[name], f"${{env:{name}}}")
        return text

    @property
    def _open(self) -> "Client":
        assert self._client
        return self._client

    async def _guarded(self, call: Any) -> Any:
        from mcp import MCPError

        asking = asyncio.ensure_future(call)
        try:
            await asyncio.wait([asking, self._holding], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                self.lost = True
                raise ToolFailed(f"the MCP server {self.name!r} ended{self._last_words}")
            return asking.result()
        except MCPError as error:
            # what the server itself says is an answer; a connection that is gone is none
            self.lost = self.lost or "closed" in str(error).lower()
            raise ToolFailed(f"the MCP server {self.name!r}: {error}") from None
        except (OSError, RuntimeError, ValueError) as error:
            self.lost = True
            raise ToolFailed(f"the MCP server {self.name!r}: {type(error).__name__}: {error}") from None
        finally:
            asking.cancel()

    async def _hold(self) -> None:
        from mcp import Client

        async with self._transport() as transport, Client(transport, cache=None) as client:
            self._client = client
            self._ready.set()
            await self._leave.wait()
        self.lost = True

    @contextlib.asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        settings = self.settings
        if settings.url is None:
            from mcp import StdioServerParameters, stdio_client

            # it logs a traceback for each line that is no message, and without a handler Python prints it
            logging.getLogger("mcp").addHandler(_SILENT)
            program, *arguments = settings.command
            missing = [name for name in settings.env if name not in os.environ]
            if missing:
                raise Unusable(f"the environment variable {missing[0]} is not set")
            given = {name: os.environ[name] for name in settings.env}
            yield stdio_client(StdioServerParameters(command=program, args=arguments, env=given, cwd=self.folder), errlog=self._said)
            return
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        headers = {name: resolve(value, "the MCP file") for name, value in settings.headers.items()}
        async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=max(settings.call_s, settings.start_s))) as http:
            yield streamable_http_client(resolve(settings.url, "the MCP file"), http_client=http)

    @property
    def _where(self) -> str:
        return f"({self.settings.url or ' '.join(self.settings.command)})"

    @property
    def _last_words(self) -> str:
        """The last line that a program wrote to standard error."""
        try:
            self._said.seek(0)
            lines = [line for line in self._said.read().splitlines() if line.strip()]
        except ValueError:
            return ""
        return f"\n  its last words: {self.hide(lines[-1].strip())[:300]}" if lines else ""


def list_mcp_tools(name: str, server: McpServer) -> list[McpTool]:
    """
    The tools of an MCP server, which is started or called for this alone.

    Raises:
        Unusable: it does not start, or does not answer.
    """

    async def ask() -> list[McpTool]:
        connections = McpServers({name: server})
        try:
            return await connections.list_tools(name)
        finally:
            await connections.close()

    return asyncio.run(ask())


def _listed(tool: Any) -> McpTool:
    schema = dict(tool.input_schema)
    if len(tool.name) > MAX_NAME or len(json.dumps(schema)) > MAX_SCHEMA:
        raise ToolFailed(f"the MCP server lists a tool {tool.name[:60]!r} whose name or schema is too long; at most {MAX_SCHEMA:,} characters are taken")
    return McpTool(name=tool.name, description=(tool.description or "")[:MAX_DESCRIPTION], parameters=schema)


def _text(part: Any) -> str:
    """A part of a result as text."""
    kind = getattr(part, "type", "")
    if kind == "text":
        return str(part.text)
    if kind == "resource" and getattr(part.resource, "text", None) is not None:
        return str(part.resource.text)
    if kind == "resource_link":
        return str(part.uri)
    return f"({kind} of type {getattr(part, 'mime_type', None) or 'unknown'}, which is not shown)"


def _reason(error: BaseException | None) -> str:
    """The innermost error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is None:
        return ""
    if isinstance(error, FileNotFoundError):
        return f"there is no program {error.filename!r}"
    said = str(error).splitlines()
    return said[0] if isinstance(error, Unusable) and said else f"{type(error).__name__}: {said[0] if said else ''}"
