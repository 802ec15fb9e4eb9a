"""The tools of a workflow's agents: what a model is told of them, and their calls."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from beam_ray.define.agent import Agent, AgentTool, Effects
from beam_ray.define.check_agent import effects_of
from beam_ray.define.fingerprint import Json, JsonObject, digest
from beam_ray.define.mcp_server import McpServer, McpTool, RecordedServer
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.llm.known_models import mcp_servers
from beam_ray.llm.scripted import Models
from beam_ray.run.tool_imports import ask_worker
from beam_ray.run.tools import Tools

if TYPE_CHECKING:
    from beam_ray.run.mcp_servers import McpServers


LISTED_S = 300.0
"""Seconds for which what an MCP server lists is not asked for again."""


@dataclass(frozen=True)
class OfferedTool:
    """One tool that an agent may call."""

    name: str
    """As the model sees it."""
    reference: str
    """``module:function``, or ``mcp:server/tool``."""
    entry: AgentTool
    effects: Effects
    version: str
    """Of the function's source file, or the digest of what the MCP server lists."""
    description: str = ""
    parameters: Mapping[str, Json] | None = None
    """The JSON schema of its arguments; None until a Python function was described."""
    typed: bool = False
    """Whether the function's arguments are converted to the types that it declares."""

    @property
    def offer(self) -> JsonObject:
        """What a model is told of it."""
        return {"name": self.name, "description": self.description, "parameters": dict(self.parameters or {"type": "object", "properties": {}})}


class AgentTools:
    """The tools of all agents of a workflow."""

    def __init__(self, workflow: Workflow, tools: Tools, servers: Mapping[str, RecordedServer], folder: str = ""):
        """
        Args:
            servers: The MCP servers of the run's record, with their tools.
            folder: Where the programs of MCP servers are started.
        """
        self.workflow, self.tools, self._servers, self._folder = workflow, tools, servers, folder
        self.of: dict[str, dict[str, OfferedTool]] = {
            name: {tool.name: tool for tool in offered_tools(node.agent, tools, servers)} for name, node in workflow.nodes.items() if node.agent
        }
        """Node to its tools, by their names."""
        self._described: asyncio.Task[None] | None = None
        self._connections: McpServers | None = None

    async def describe(self) -> None:
        """
        Find out what models are told of Python functions, once.

        Raises:
            Unusable: a function's signature cannot be described.
        """
        if self._described is None:
            self._described = asyncio.create_task(self._describe())
        await asyncio.shield(self._described)

    async def _describe(self) -> None:
        wanted = {tool.reference: node for node, tools in self.of.items() for tool in tools.values() if tool.entry.tool}
        if not wanted:
            return
        found = await asyncio.to_thread(describe_functions, wanted, self.tools.folders)
        for node, tools in self.of.items():
            self.of[node] = {name: replace(tool, **found[tool.reference]) if tool.entry.tool else tool for name, tool in tools.items()}

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Json], timeout_s: float, memory: int | None) -> Json:
        """
        The tool's result.

        Raises:
            ToolFailed: it raised, ran out of time or died, or its MCP server reports an error.
        """
        if tool.entry.tool:
            return await self.tools.call(tool.reference, arguments, timeout_s, memory, typed=tool.typed)
        if self._connections is None:
            from beam_ray.run.mcp_servers import McpServers  # loads mcp, which takes half a second

            self._connections = McpServers({name: recorded.server for name, recorded in self._servers.items()}, self._folder)
        server, _, name = tool.reference.removeprefix("mcp:").partition("/")
        return await self._connections.call(server, name, arguments, timeout_s)

    async def close(self) -> None:
        """End the MCP servers."""
        if self._connections:
            await self._connections.close()


def record_servers(workflow: Workflow, models: Models) -> dict[str, RecordedServer]:
    """
    The MCP servers that the workflow's agents use, asked for their tools.

    Raises:
        Unusable: a server is not known beside *models* or does not answer, or has no tool of that name.
    """
    names = dict.fromkeys(name for node in workflow.nodes.values() if node.agent for name in node.agent.servers)
    if not names:
        return {}
    known = mcp_servers(models)
    for name in names:
        if name not in known:
            hints = [
                f"servers in the file: {', '.join(known)}" if known else "name it in mcp.yaml beside the models file, or in the file that BEAM_RAY_MCP names",
                *did_you_mean(name, known),
            ]
            raise Unusable("\n  ".join([f"the workflow {workflow.name!r} uses the MCP server {name!r}, which is not in the MCP file", *hints]))
    found = {name: RecordedServer(server=known[name], tools=tuple(_listed(name, known[name]))) for name in names}
    tools = Tools(workflow)
    for node in workflow.nodes.values():
        if node.agent:
            offered_tools(node.agent, tools, found)
    return found


_LISTED: dict[str, tuple[float, list[McpTool]]] = {}


def _listed(name: str, server: McpServer) -> list[McpTool]:
    """The server's tools; all plans within some minutes, such as the two sides of a backtest, see the same ones."""
    key = digest("mcp listing/1", name, server.model_dump(mode="json"))
    asked_at, tools = _LISTED.get(key, (0.0, []))
    if not asked_at or time.monotonic() - asked_at > LISTED_S:
        from beam_ray.run.mcp_servers import list_mcp_tools  # loads mcp

        # in a thread, because a notebook has an event loop of its own
        with ThreadPoolExecutor(1) as thread:
            tools = thread.submit(list_mcp_tools, name, server).result()
        _LISTED[key] = time.monotonic(), tools
    return tools


def offered_tools(agent: Agent, tools: Tools, servers: Mapping[str, RecordedServer]) -> list[OfferedTool]:
    """
    The tools of an agent; Python functions are not described yet.

    Raises:
        Unusable: an MCP server has no such tool, or two tools have one name.
    """
    offered: list[OfferedTool] = []
    for entry in agent.tools:
        if entry.tool:
            found = tools.found[entry.tool]
            version = entry.version or found.version
            offered.append(OfferedTool(str(entry.function_name), entry.tool, entry, effects_of(entry, found), version))
        elif entry.mcp and entry.mcp in servers:
            offered += [_of_server(entry, tool) for tool in _chosen(entry, servers[entry.mcp].tools)]
    taken: dict[str, OfferedTool] = {}
    for tool in offered:
        if tool.name in taken:
            raise Unusable(
                f"two tools of an agent are named {tool.name!r}: {taken[tool.name].reference} and {tool.reference}\n  give the MCP server a 'prefix'"
            )
        taken[tool.name] = tool
    return offered


def _chosen(entry: AgentTool, listed: Sequence[McpTool]) -> list[McpTool]:
    known = {tool.name: tool for tool in listed}
    for name in entry.only:
        if name not in known:
            hints = [f"its tools: {', '.join(known) or 'none'}", *did_you_mean(name, known)]
            raise Unusable("\n  ".join([f"the MCP server {entry.mcp!r} has no tool {name!r}", *hints]))
    return [known[name] for name in entry.only or known]


def _of_server(entry: AgentTool, tool: McpTool) -> OfferedTool:
    # other characters, such as dots, are refused by most endpoints
    name = "".join(character if character.isascii() and (character.isalnum() or character in "_-") else "_" for character in f"{entry.prefix}{tool.name}")
    version = digest("mcp tool/1", tool.name, tool.description, tool.parameters)
    return OfferedTool(name[:64], f"mcp:{entry.mcp}/{tool.name}", entry, effects_of(entry), version, tool.description, tool.parameters)


def describe_functions(wanted: Mapping[str, str], folders: Sequence[Path]) -> dict[str, JsonObject]:
    """
    Description, parameters and whether types are converted, of each function in *wanted*, which has its node.

    Raises:
        Unusable: a function cannot be described.
    """
    questions = [dict(zip(("module", "function"), reference.split(":"), strict=True)) for reference in wanted]
    replies = ask_worker("tool_schema_worker.py", questions, folders)
    found: dict[str, JsonObject] = {}
    for index, (reference, node) in enumerate(wanted.items()):
        reply = replies[index] if index < len(replies) else {"error": "importing it ended the process, or took more than a minute"}
        if "error" in reply:
            raise Unusable(f"node {node!r}: the tool {reference!r} cannot be described to a model: {reply['error']}")
        found[reference] = reply
    return found
