"""The rules for agents: their tools exist, have names of their own, and are not called in tests where they write."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from beam_ray.define.agent import ANSWER_TOOL, TOOL_NAME, Agent, AgentTool, Effects, OnMiss
from beam_ray.define.tool_source import Tool, find_tool
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import KeyPath, Source
from beam_ray.errors import Problem, Unusable

WEIGHT: dict[Effects, int] = {"none": 0, "read": 1, "write": 2}


def agent_problems(workflow: Workflow, source: Source, folders: Iterable[Path]) -> Iterator[Problem]:
    """What is wrong with the tools of the workflow's agents, without starting an MCP server."""
    places = tuple(folders)
    for name, node in workflow.nodes.items():
        if node.agent:
            yield from _names(name, node.agent, source)
            for index, entry in enumerate(node.agent.tools):
                yield from _entry(workflow, name, entry, source, ("nodes", name, "agent", "tools", index), places)


def agent_advice(workflow: Workflow, source: Source, folders: Iterable[Path]) -> Iterator[Problem]:
    """Warnings about the effects of tools: of agents, and of nodes whose module says more than they do."""
    places = tuple(folders)
    for name, node in workflow.nodes.items():
        said = find_tool(workflow, node.tool, places).effects if node.tool else None
        if said and WEIGHT[node.effects] < WEIGHT[said]:
            yield source.problem(
                ("nodes", name, "tool"),
                f"warning: node {name!r} has the effects {node.effects!r}, the module of its tool {node.tool!r} says {said!r}",
                f"write effects: {said} at the node",
            )
        for index, entry in enumerate(node.agent.tools if node.agent else ()):
            if not entry.tool:
                continue
            at = ("nodes", name, "agent", "tools", index)
            declared = find_tool(workflow, entry.tool, places).effects
            if entry.effects is None and declared is None:
                yield source.problem(
                    at,
                    f"warning: nothing says what effects the tool {entry.tool!r} of agent {name!r} has, so it counts as write: reruns and backtests never call it",
                    f"write {{tool: {entry.tool!r}, effects: read}}, or EFFECTS = {{{entry.function_name!r}: 'read'}} in its module",
                )
            elif entry.effects is not None and declared is not None and WEIGHT[entry.effects] < WEIGHT[declared]:
                yield source.problem(
                    at, f"warning: agent {name!r} says that the tool {entry.tool!r} has the effects {entry.effects!r}, its module says {declared!r}"
                )


@dataclass(frozen=True)
class DeclaredTool:
    """A tool of an agent, as far as it is known without an MCP server."""

    agent: str
    """The node."""
    name: str
    """As the model sees it; ``*`` for all tools of an MCP server."""
    reference: str
    """``module:function``, or ``mcp:server``."""
    effects: Effects
    on_miss: OnMiss
    """What a call does in reruns and backtests that the recording does not answer."""


def declared_tools(workflow: Workflow, folders: Iterable[Path]) -> list[DeclaredTool]:
    """The tools of the workflow's agents."""
    places, found = tuple(folders), []
    for node, written in workflow.nodes.items():
        for entry in written.agent.tools if written.agent else ():
            assert written.agent
            effects = effects_of(entry, find_tool(workflow, entry.tool, places) if entry.tool else None)
            on_miss = entry.on_miss or written.agent.on_miss or "live"
            if effects == "write" and on_miss == "live":
                on_miss = "refuse"
            names = [str(entry.function_name)] if entry.tool else [f"{entry.prefix}{name}" for name in entry.only or ("*",)]
            found += [DeclaredTool(node, name, entry.shown, effects, on_miss) for name in names]
    return found


def effects_of(entry: AgentTool, found: Tool | None = None) -> Effects:
    """What a tool of an agent may change; *found* is its source file's, for a Python function. Where nobody says, write."""
    return entry.effects or (found.effects if found else None) or "write"


def _names(node: str, agent: Agent, source: Source) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for index, entry in enumerate(agent.tools):
        at = ("nodes", node, "agent", "tools", index)
        for name in [entry.function_name] if entry.function_name else [f"{entry.prefix}{tool}" for tool in entry.only]:
            if entry.function_name and not TOOL_NAME.fullmatch(name):
                yield source.problem(at, f"the name {name!r} of the tool {entry.tool!r} has more than 64 characters, or others than A-Z, a-z, 0-9, _ and -")
            if name == ANSWER_TOOL:
                remedy = "give it another 'name'" if entry.tool else "give the MCP server a 'prefix'"
                yield source.problem(at, f"the tool {entry.shown} has the name {name!r}, which is that of the function by which agents answer", remedy)
            if name in taken:
                remedy = "give one of them another 'name'" if entry.tool else "give the MCP server a 'prefix'"
                yield source.problem(at, f"agent {node!r} has two tools named {name!r}: {taken[name]} and {entry.shown}", remedy)
            taken.setdefault(name, entry.shown)
    for server in agent.servers:
        whole = [index for index, entry in enumerate(agent.tools) if entry.mcp == server and not entry.only]
        if whole and len([entry for entry in agent.tools if entry.mcp == server]) > 1:
            yield source.problem(
                ("nodes", node, "agent", "tools", whole[0]),
                f"agent {node!r} names the MCP server {server!r} twice, once with all its tools",
                "add 'only' to it",
            )


def _entry(workflow: Workflow, node: str, entry: AgentTool, source: Source, at: KeyPath, folders: tuple[Path, ...]) -> Iterator[Problem]:
    if entry.key:
        try:
            find_tool(workflow, entry.key, folders)
        except Unusable as error:
            yield source.problem((*at, "key"), str(error).replace("the tool", "the function", 1))
    found = None
    if entry.tool:
        try:
            found = find_tool(workflow, entry.tool, folders)
        except Unusable as error:
            yield source.problem(at, str(error))
            return
        if found.positional:
            yield source.problem(
                at, f"the tool {entry.tool!r} takes {', '.join(map(repr, found.positional))} by position only; a model gives arguments by name"
            )
    if entry.on_miss == "live" and effects_of(entry, found) == "write":
        yield source.problem(
            at,
            f"agent {node!r} wants calls of the write tool {entry.shown!r} that the recording does not answer to be live; reruns and backtests never call write tools",
            "write effects: read if it changes nothing, or leave 'on_miss' out and pass --allow-writes where it may write",
        )
