"""
From which earlier runs a run can borrow steps, by definitions alone.

Whether a step is borrowed is decided by its fingerprint, row by row. Reading a run for every
step that it cannot have would be a waste: a run is read for a node only where it defines it alike.
"""

from collections.abc import Mapping

from beam_ray.define.fingerprint import Json, digest
from beam_ray.define.workflow import Workflow

MOST_LENDERS = 16
"""Runs that are read beside the origin; a matrix of two or more values a key needs no more."""


_NO_PART = ("after", "when", "route", "evaluate", "auto_rerun", "effects", "resources", "timeout_s")
"""What does not determine a node's output, or is added where it does."""


def definition_of(workflow: Workflow, node: str) -> str:
    """Identifies what determines the output of *node* from its inputs; of other nodes it says nothing."""
    document = {key: value for key, value in workflow.identity()["nodes"][node].items() if key not in _NO_PART}
    tools_from = workflow.tools_from if workflow.nodes[node].tool else ""
    return digest("node/1", document, workflow.model_of(node), tools_from, _judged(workflow, node) if workflow.nodes[node].auto_rerun else None)


def chains(workflow: Workflow) -> dict[str, str]:
    """Node to what determines its output from the task: its definition, its condition, and those of all nodes before it."""
    found: dict[str, str] = {}
    for name in workflow.order:
        node = workflow.nodes[name]
        found[name] = digest("chain/1", name, definition_of(workflow, name), node.when, [found[parent] for parent in node.after])
    return found


def shared_nodes(workflow: Workflow, other: Workflow) -> tuple[str, ...]:
    """The nodes that both define alike, whatever comes before them."""
    return tuple(name for name in workflow.order if name in other.nodes and definition_of(workflow, name) == definition_of(other, name))


def lenders(workflow: Workflow, origin: Workflow | None, others: Mapping[str, Workflow]) -> list[str]:
    """
    Those of the *others*, by their ids, that may have steps of *workflow* that its *origin* has not, in their order.

    For a node whose whole past is that of another run one is enough: its inputs are the same. Where only the node is
    the same, the inputs of some tasks may be those of any of the runs.
    """
    own, known = chains(workflow), chains(origin) if origin else {}
    pasts = {key: chains(other) for key, other in others.items()}
    chosen = set[str]()
    for node in workflow.order:
        if known.get(node) == own[node]:
            continue
        same = [key for key, past in pasts.items() if past.get(node) == own[node]]
        alike = [key for key, other in others.items() if node in other.nodes and definition_of(other, node) == definition_of(workflow, node)]
        chosen.update(same[:1] or alike)
    return [key for key in others if key in chosen][:MOST_LENDERS]


def shared_pasts(workflow: Workflow, origin: Workflow | None, others: Mapping[str, Workflow]) -> dict[str, str]:
    """Node to the first of the *others* that has all its steps, where *origin* has not: its past and its criteria are the same there."""
    own, known = chains(workflow), chains(origin) if origin else {}
    found: dict[str, str] = {}
    for key, other in others.items():
        past = chains(other)
        for node in workflow.order:
            if known.get(node) != own[node] == past.get(node) and _judged(workflow, node) == _judged(other, node):
                found.setdefault(node, key)
    return found


def behaviour(workflow: Workflow) -> str:
    """Identifies what a workflow does: definitions that differ only in where they name a model do the same."""
    document = workflow.identity()
    nodes = {}
    for name, node in document["nodes"].items():
        asked = {kind: {**node[kind], "model": workflow.model_of(name)} for kind in ("llm", "agent") if node.get(kind)}
        nodes[name] = {**node, **asked, "judge": _judged(workflow, name)[2]}
    return digest("behaviour/1", {**document, "model": None, "judge": None, "nodes": nodes})


def _judged(workflow: Workflow, node: str) -> list[Json]:
    """What determines how a node's output is scored, and whether it is tried again."""
    written = workflow.identity()["nodes"][node]
    return [written.get("evaluate"), written.get("auto_rerun"), workflow.judge_of(node) if written.get("evaluate") else None]
