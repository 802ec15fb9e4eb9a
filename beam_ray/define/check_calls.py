"""The rules for criteria over calls: the node makes calls, and its tools and their arguments exist."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from beam_ray.define.call_criterion import tools_named
from beam_ray.define.criterion import Criterion
from beam_ray.define.tool_source import find_tool
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import Unusable, did_you_mean

Fault = tuple[str, tuple[str, ...]]
"""What is wrong, and notes."""


def call_faults(workflow: Workflow, name: str, criterion: Criterion, folders: Iterable[Path]) -> Iterator[Fault]:
    """What is wrong with a criterion over the calls of the node *name*."""
    node = workflow.nodes[name]
    if not node.records_calls:
        yield (
            f"a criterion of node {name!r} is about its calls ({criterion.kind!r}), but no calls of it are recorded",
            ("calls are recorded of agents, and of programs with 'asks'",),
        )
        return
    if node.agent is None:
        return  # a program's tools are its own
    known = tool_names(node)
    for tool in tools_named(criterion.kind, criterion.want):
        if known is not None and tool not in known:
            yield (
                f"a criterion of node {name!r} names the tool {tool!r}, which the agent does not have",
                (f"its tools: {', '.join(known)}", *did_you_mean(tool, known)),
            )
    if criterion.kind in ("called", "not_called"):
        yield from _arguments(workflow, name, criterion, tuple(folders))


def tool_names(node: Node) -> list[str] | None:
    """The names of an agent's tools, as its model sees them; None where an MCP server offers all that it has."""
    names = []
    for entry in node.agent.tools if node.agent else ():
        if entry.mcp and not entry.only:
            return None
        names += [entry.function_name] if entry.function_name else [f"{entry.prefix}{tool}" for tool in entry.only]
    return names


def _arguments(workflow: Workflow, name: str, criterion: Criterion, folders: tuple[Path, ...]) -> Iterator[Fault]:
    agent, tool = workflow.nodes[name].agent, criterion.want["tool"]
    entry = next((entry for entry in agent.functions if entry.function_name == tool), None) if agent else None
    if entry is None or entry.tool is None:
        return
    try:
        parameters = find_tool(workflow, entry.tool, folders).parameters
    except Unusable:
        return  # reported with the agent's tools
    for argument in criterion.want.get("with", {}) if parameters is not None else ():
        if argument.split(".")[0] not in (parameters or ()):
            yield (
                f"a criterion of node {name!r} names the argument {argument!r}, which the tool {tool!r} does not have",
                (f"its parameters: {', '.join(parameters or ()) or 'none'}", *did_you_mean(argument, parameters or ())),
            )
