"""Prompts that take in conversations, ``- messages: task``, the name of an earlier node, or an expression: which ones, and the rules for them."""

from collections.abc import Iterator

from beam_ray.define.llm_call import CONVERSATION, TASK, LlmCall, Turn
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import did_you_mean

Fault = tuple[str, tuple[str, ...]]
"""What is wrong, and notes."""


def is_expression(turn: Turn) -> bool:
    """Whether a turn takes in the messages that an expression gives."""
    written = turn.content.strip()
    return turn.role == CONVERSATION and written.startswith("{{") and written.endswith("}}") and written.count("{{") == 1


def conversation_faults(workflow: Workflow, node: str, turn: Turn) -> Iterator[Fault]:
    """What is wrong with a conversation that the prompt of *node* takes in by its name."""
    source = turn.content.strip()
    upstream = [name for name in workflow.order if name in workflow.upstream[node]]
    known = [TASK, *(name for name in upstream if workflow.nodes[name].call)]
    if "{" in source:
        yield f"node {node!r} takes in messages by {source!r}; an expression stands alone, as in '{{{{ variables.history }}}}'", ()
    elif source in upstream and source != TASK and not workflow.nodes[source].call:
        yield f"node {node!r} takes in the messages of {source!r}, which is a tool and has no conversation", (f"available here: {', '.join(known)}",)
    elif source not in known:
        what = "which is not upstream of it; add it to 'after'" if source in workflow.nodes else "which is no node"
        near = did_you_mean(source, known)
        yield f"node {node!r} takes in the messages of {source!r}, {what}", (f"available here: {', '.join(known)}, or an expression in {{{{ }}}}", *near)


def conversations_of(workflow: Workflow, node: str) -> tuple[bool, frozenset[str]]:
    """Whether the prompt of *node* takes in the conversation of the task, and which nodes' conversations: directly, or through those of other nodes."""
    of_task, names = False, set[str]()
    waiting = [node]
    while waiting:
        for source in _taken_in(workflow.nodes[waiting.pop()]):
            of_task |= source == TASK
            if source != TASK and not source.startswith("{{") and source not in names:
                names.add(source)
                waiting.append(source)
    return of_task, frozenset(names)


def agents_taken_in(workflow: Workflow, node: str) -> list[str]:
    """The agents whose conversations the prompt of *node* takes in."""
    return [name for name in workflow.order if workflow.nodes[name].agent and name in conversations_of(workflow, node)[1]]


def _taken_in(node: Node) -> list[str]:
    """The conversations that a prompt takes in, as written."""
    return [turn.content.strip() for turn in node.call.prompt if turn.role == CONVERSATION] if node.call else []


def says_nothing(call: LlmCall) -> bool:
    """Whether a prompt has conversations alone, so that nothing is asked."""
    return all(turn.role == CONVERSATION for turn in call.prompt)
