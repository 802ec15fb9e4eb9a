"""
The messages of a prompt: its own turns, and the conversations that it takes in.

A conversation is that of the task, that of an earlier node (its prompt and what it answered), or a
list that an expression gives. What an earlier node was asked is rendered again, from the same values.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from beam_ray.define.conversation import conversations_of
from beam_ray.define.fingerprint import Json, flatten
from beam_ray.define.llm_call import CONVERSATION, TASK
from beam_ray.define.template import evaluate, render, uses
from beam_ray.define.workflow import Node, Workflow
from beam_ray.define.yaml_file import NoFile
from beam_ray.errors import BadTemplate, Problem
from beam_ray.evaluate.tool_uses import Trajectory
from beam_ray.llm.request import Message, Part
from beam_ray.run.context import TaskTrial
from beam_ray.store.attachments import AttachmentContent
from beam_ray.store.parquet import to_json
from beam_ray.tasks.messages import KEPT_IMAGE, TaskMessage, ToolCall, images_of, in_words, no_images, read_messages

Transcripts = Mapping[str, Sequence[TaskMessage]]
"""Agent to what it said and called before its answer."""


def prompt_messages(workflow: Workflow, node: str, task: TaskTrial, values: Mapping[str, Json], transcripts: Transcripts) -> tuple[Message, ...]:
    """
    The messages that the prompt of *node* stands for. Images of conversations are addresses of attachments, see ``with_attachments``.

    Args:
        transcripts: Those of ``agents_taken_in``.

    Raises:
        BadTemplate: a template cannot be rendered, or an expression gives no list of messages.
    """
    call = workflow.nodes[node].call
    assert call is not None
    own_system = any(turn.role == "system" for turn in call.prompt)
    messages: list[Message] = []
    for turn in call.prompt:
        if turn.role != CONVERSATION:
            messages.append({"role": turn.role, "content": render(turn.content, values)})
            continue
        taken = _conversation(workflow, turn.content.strip(), task, values, transcripts)
        messages += [message for message in taken if not (own_system and message["role"] == "system")]
    return tuple(messages)


def unread_messages(workflow: Workflow, tasks: pa.Table) -> list[Problem]:
    """A warning where tasks have messages before their query, and nothing in the workflow reads them."""
    count = tasks.num_rows - tasks["messages"].null_count
    texts = [leaf for leaf in flatten(workflow.document()["nodes"]).values() if isinstance(leaf, (str, list))]
    if not count or re.search(r"\bmessages\b", str(texts)):
        return []
    place = NoFile(workflow.name)
    have = "1 task has" if count == 1 else f"{count:,} tasks have"
    return [place.problem((), f"warning: {have} messages before the query, and no prompt takes them in", "- messages: task  as a turn of a prompt does")]


def transcript_messages(calls: Trajectory) -> list[TaskMessage]:
    """What an agent said and called before its answer, as messages; its last turn is the answer."""
    found: list[TaskMessage] = []
    for turn in calls.turns:
        uses = [use for use in calls.tools if use.turn == turn.number]
        if not uses:
            continue
        names = [f"call_{use.number}" for use in uses]
        made: list[ToolCall] = [{"id": name, "name": use.name, "arguments": to_json(use.arguments)} for name, use in zip(names, uses, strict=True)]
        found.append({"role": "assistant", "content": turn.text, "tool_calls": made})
        for name, use in zip(names, uses, strict=True):
            result = f"Error: {use.error}" if use.error is not None else use.result if isinstance(use.result, str) else to_json(use.result)
            found.append({"role": "tool", "tool_call_id": name, "name": use.name, "content": result})
    return found


def shows_attachments(node: Node) -> bool:
    """Whether the prompt of a node uses the attachments, so that images are sent with its last user turn."""
    return any(_names_attachments(turn.content) for turn in (node.call.prompt if node.call else ()))


def needs_attachments(workflow: Workflow, node: str, task: TaskTrial) -> bool:
    """Whether the attachments of *task* are in the prompt of *node*, or in a conversation that it takes in."""
    of_task, names = conversations_of(workflow, node)
    return any(shows_attachments(workflow.nodes[each]) for each in (node, *names)) or (of_task and bool(images_of(task.messages)))


@lru_cache(maxsize=4096)
def _names_attachments(template: str) -> bool:
    return any(use.root == "attachments" for use in uses(template))


def with_images(messages: tuple[Message, ...], images: Sequence[str]) -> tuple[Message, ...]:
    """The messages, with the images at these addresses as parts of the last user turn."""
    if not images:
        return messages
    last = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=len(messages) - 1)
    content = messages[last]["content"]
    said: list[Part] = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    shown: list[Part] = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return (*messages[:last], {"role": messages[last]["role"], "content": [*said, *shown]}, *messages[last + 1 :])


def with_attachments(messages: tuple[Message, ...], attachments: Sequence[AttachmentContent]) -> tuple[Message, ...]:
    """The messages as they are sent: an image of a conversation is that attachment itself."""
    if not images_of(messages):
        return messages
    images = {f"{KEPT_IMAGE}{entry['sha256']}": entry["image"] for entry in attachments}

    def sent(part: Part) -> Part:
        if part["type"] != "image_url":
            return part
        return {"type": "image_url", "image_url": {"url": images.get(part["image_url"]["url"], part["image_url"]["url"])}}

    return tuple(
        message if isinstance(message["content"], str) else {"role": message["role"], "content": [sent(part) for part in message["content"]]}
        for message in messages
    )


def _conversation(workflow: Workflow, source: str, task: TaskTrial, values: Mapping[str, Json], transcripts: Transcripts) -> Sequence[Message]:
    """The messages of the task, of a node or of an expression."""
    if source == TASK:
        return in_words(task.messages)
    if source.startswith("{{"):
        found = evaluate(source[2:-2].strip(), values)
        try:
            return in_words(read_messages(found, no_images))
        except ValueError as error:
            raise BadTemplate(f"'messages: {source}' {error}" if not str(error).startswith("turn") else f"'messages: {source}': {error}") from None
    if values.get(source) is None:
        return ()  # a step that did not run has said nothing
    messages = prompt_messages(workflow, source, task, values, transcripts)
    if shows_attachments(workflow.nodes[source]):
        messages = with_images(messages, unseen_images(messages, values))
    said = in_words(transcripts.get(source, ()))
    return (*messages, *said, {"role": "assistant", "content": answer_text(workflow, source, values[source])})


def unseen_images(messages: Sequence[Mapping[str, Any]], values: Mapping[str, Json]) -> list[str]:
    """The addresses of the task's images that no message shows."""
    seen = images_of(messages)
    return [f"{KEPT_IMAGE}{entry['sha256']}" for entry in values["attachments"] if entry["image"] and entry["sha256"] not in seen]


def answer_text(workflow: Workflow, node: str, output: Json) -> str:
    """What the model of *node* said, by the output that was made of it."""
    call = workflow.nodes[node].call
    return str(output["text"]) if call and call.returns is None else to_json(output)
