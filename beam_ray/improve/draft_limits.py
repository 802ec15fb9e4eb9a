"""
What an author alone may bring into a draft: what runs code, reaches another model or server, or weakens the promise about write effects.

A visitor of the console may change prompts, criteria, thresholds and settings. Whatever names a
program or a place, and what a program is called with, must be in the published definition already,
word for word, or in the revision of the draft that the visitor changes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from beam_ray.define.agent import AgentTool, OnMiss
from beam_ray.define.fingerprint import canonical
from beam_ray.define.workflow import Judge, Workflow
from beam_ray.errors import Unusable

MAX_NODES = 200
"""Nodes of a visitor's draft, unless there are more already: every page of the draft checks all of them."""


def require_allowed(wanted: Workflow, known: Iterable[Workflow]) -> None:
    """
    Refuse what *wanted* has and none of the *known* definitions.

    Raises:
        Unusable: with everything that only an author may bring.
    """
    known = list(known)
    most = max([MAX_NODES, *(len(workflow.nodes) for workflow in known)])
    if len(wanted.nodes) > most:
        raise Unusable(f"the draft has {len(wanted.nodes):,} nodes; without --author at most {most:,} are allowed")
    there = {(entry.kind, entry.value) for workflow in known for entry in _entries(workflow)}
    new = list(dict.fromkeys(f"{entry.place}: {entry.kind} {entry.shown}" for entry in _entries(wanted) if (entry.kind, entry.value) not in there))
    if new:
        raise Unusable("\n  ".join(["only an author may bring these into a draft (beam-ray draft, or beam-ray console --author):", *new]))


@dataclass(frozen=True)
class _Entry:
    place: str
    kind: str
    value: str
    """What must be there already, word for word."""
    shown: str


def _entries(workflow: Workflow) -> Iterator[_Entry]:
    for model in filter(None, (workflow.model, *_judges(workflow.judge))):
        yield _Entry("workflow", "model", model, model)
    for line in workflow.requirements:
        yield _Entry("requirements", "requirement", line, line)
    for name, node in workflow.nodes.items():
        if node.program:
            own = [node.tool, node.command, node.effects, node.version, node.on_miss]
            yield _Entry(f"nodes.{name}", node.kind, canonical(own), f"{node.program} (effects {node.effects})")
            yield _Entry(f"nodes.{name}.with", "other arguments of", canonical([node.program, node.arguments]), node.program)
        if node.agent:
            yield from (_agent_tool(name, entry, node.agent.on_miss) for entry in node.agent.tools)
        evaluate = node.evaluate
        asked = [node.call.model if node.call else None, *node.asks, *_judges(evaluate.judge if evaluate else None)]
        for model in filter(None, asked):
            yield _Entry(f"nodes.{name}", "model", model, model)
        for criterion in evaluate.criteria if evaluate else ():
            if criterion.kind == "python":
                yield _Entry(f"nodes.{name}.evaluate", "python criterion", criterion.want, criterion.want)


def _agent_tool(node: str, entry: AgentTool, on_miss: OnMiss | None) -> _Entry:
    value = canonical([entry.model_dump(mode="json"), on_miss])
    return _Entry(f"nodes.{node}.agent", "MCP server" if entry.mcp else "tool", value, f"{entry.shown} (effects {entry.effects or 'as declared'})")


def _judges(judge: Judge) -> tuple[str, ...]:
    return judge if isinstance(judge, tuple) else (judge,) if judge else ()
