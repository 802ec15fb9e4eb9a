"""
The turns of a conversation before a task's query: checked, and in one form wherever they come from.

    [{"role": "user", "content": "Where is PO-7?"}, {"role": "assistant", "content": "On its way."}]

Chat files name the same things differently (``human`` for the user, ``function_call`` for a call of
a tool, blocks of ``tool_use``), and all become ``TaskMessage`` values.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NotRequired, TypedDict

from beam_ray.define.fingerprint import Json, strict_json
from beam_ray.define.validation import as_written
from beam_ray.llm.request import Message, Part

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Role as chat files write it to the role of a message."""

KEPT_IMAGE = "attachment:"
"""Before the sha256 of an attachment, where an image stands in a message."""


class ToolCall(TypedDict):
    """A call of a tool that an assistant turn makes."""

    id: str
    name: str
    arguments: str
    """As the model wrote them: usually JSON."""


class TaskMessage(TypedDict):
    """One turn of a task's conversation."""

    role: str
    """system, user, assistant or tool"""
    content: str | list[Part]
    """An image is the address ``attachment:<sha256>`` of one of the task's attachments."""
    tool_calls: NotRequired[list[ToolCall]]
    """Of an assistant turn."""
    tool_call_id: NotRequired[str]
    """Of a tool turn: the call that it answers."""
    name: NotRequired[str]
    """Of a tool turn: the tool."""


class MessageDocument(TypedDict):
    """A message as templates and people see it."""

    role: str
    """system, user, assistant or tool"""
    content: str
    """Its text; an image and a call of a tool are words in brackets."""


KeepImage = Callable[[str], str]
"""Keeps an image, given as the URL in a message, and gives the URL that stands for it from now on."""


def read_messages(written: Json, keep_image: KeepImage, *, lenient: bool = False) -> list[TaskMessage]:
    """
    The messages that *written* holds: a list, or its JSON text.

    Args:
        lenient: Keep what cannot be shown to a model as a word in brackets, and leave empty turns out.

    Raises:
        ValueError: it is not a list of messages; with the number of the first one that is wrong.
    """
    if isinstance(written, str):
        try:
            written = strict_json(written)
        except (ValueError, RecursionError):
            raise ValueError(f"must be a list of turns, not {as_written(written)}") from None
    if not isinstance(written, Sequence) or isinstance(written, str):
        raise ValueError(f"must be a list of turns, not {as_written(written)}")
    found: list[TaskMessage] = []
    for number, turn in enumerate(written, 1):
        try:
            found += _turns(turn, keep_image, lenient)
        except ValueError as error:
            raise ValueError(f"turn {number} {error}") from None
    names = {call["id"]: call["name"] for turn in found for call in turn.get("tool_calls", ())}
    for turn in found:
        if turn["role"] == "tool" and not turn.get("name") and names.get(turn.get("tool_call_id", "")):
            turn["name"] = names[turn["tool_call_id"]]
    return found


def no_images(url: str) -> str:
    """
    Refuses an image.

    Raises:
        ValueError: always.
    """
    raise ValueError("shows an image; images of a conversation come from the task's own 'messages'")


def images_of(messages: Sequence[Mapping[str, Json]]) -> list[str]:
    """The sha256 of each image in *messages*, in order."""
    parts = (part for turn in messages if not isinstance(turn["content"], str) for part in turn["content"])
    urls = (str(part["image_url"]["url"]) for part in parts if part["type"] == "image_url")
    return [url.removeprefix(KEPT_IMAGE) for url in urls if url.startswith(KEPT_IMAGE)]


def text_of_message(message: Mapping[str, Json], *, images: bool = True) -> str:
    """What a message says as text; an image is a word in brackets, or left out."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] if part["type"] == "text" else "[image]" for part in content if images or part["type"] == "text")


def in_words(messages: Sequence[TaskMessage]) -> list[Message]:
    """
    The messages with tool calls and their results as text, for a model that has no such tools.

    A result becomes a turn of the user, since endpoints accept results of their own calls only.
    """
    return [
        {"role": "user" if message["role"] == "tool" else message["role"], "content": _said(message) if is_of_tools(message) else message["content"]}
        for message in messages
    ]


def is_of_tools(message: TaskMessage) -> bool:
    """Whether the message calls tools or is the result of a call."""
    return message["role"] == "tool" or bool(message.get("tool_calls"))


def conversation_text(messages: Sequence[Mapping[str, Json]]) -> str:
    """A conversation as one text, each message after its role."""
    return "\n\n".join(f"{message['role']}: {_said(message)}" for message in messages)


def as_values(messages: Sequence[TaskMessage]) -> list[MessageDocument]:
    """The messages as templates see them: role and text."""
    return [{"role": message["role"], "content": _said(message)} for message in messages]


def _said(message: Mapping[str, Json]) -> str:
    said = text_of_message(message)
    if message["role"] == "tool":
        return f"[result of {message.get('name') or 'a tool'}]\n{said}"
    calls = [f"[calls {call['name']} with {call['arguments']}]" for call in message.get("tool_calls", ())]
    return "\n".join([*([said] if said else []), *calls])


def decoded(url: str) -> tuple[str, bytes]:
    """
    Media type and bytes of a ``data:`` URL.

    Raises:
        ValueError: it holds no image in base64.
    """
    head, comma, body = url.partition(",")
    kind = head.removeprefix("data:").partition(";")[0]
    if not comma or not head.endswith(";base64") or not kind.startswith("image/"):
        raise ValueError("shows an image that is not base64; write data:image/png;base64,…")
    try:
        return kind, base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("shows an image whose base64 is damaged") from None


def _turns(turn: Json, keep_image: KeepImage, lenient: bool) -> Iterator[TaskMessage]:
    if not isinstance(turn, Mapping):
        raise ValueError(f'must be an object such as {{"role": "user", "content": "…"}}, not {as_written(turn)}')
    role = turn.get("role", turn.get("from"))
    known = ROLES.get(str(role).lower()) if isinstance(role, str) else None
    if known is None:
        if not lenient:
            given = f"the role {role!r}" if role is not None else "no role"
            raise ValueError(f"has {given}; roles are system, user, assistant and tool")
        known = "user"
    content = turn.get("content", turn.get("value", turn.get("parts")))
    parts = _Parts(content, keep_image, lenient)
    calls = [*_tool_calls(turn, lenient), *parts.calls]
    if calls and known != "assistant":
        raise ValueError("calls a tool, which only the assistant does")
    yield from parts.results
    if known == "tool" and not (parts.results and not parts.content):
        made: TaskMessage = {"role": "tool", "content": _short(parts.content)}
        if name := turn.get("name"):
            made["name"] = str(name)
        if call := turn.get("tool_call_id", turn.get("id")):
            made["tool_call_id"] = str(call)
        yield made
    elif calls:
        yield {"role": "assistant", "content": _short(parts.content), "tool_calls": calls}
    elif parts.content and (not isinstance(_short(parts.content), str) or str(_short(parts.content)).strip()):
        yield {"role": known, "content": _short(parts.content)}
    elif not parts.results and not lenient:
        raise ValueError("has no content" if content is None else "is empty")


class _Parts:
    """The content of a turn: what is said and shown, and calls and results of tools that stand among it."""

    def __init__(self, content: Json, keep_image: KeepImage, lenient: bool):
        self.content: list[Part] = []
        self.calls: list[ToolCall] = []
        self.results: list[TaskMessage] = []
        self.keep_image, self.lenient = keep_image, lenient
        if content is None or isinstance(content, str):
            self.content = [{"type": "text", "text": content}] if content else []
        elif isinstance(content, Sequence):
            for part in content:
                self._take(part)
        elif lenient:
            self.content = [{"type": "text", "text": json.dumps(content, ensure_ascii=False)}]
        else:
            raise ValueError(f"has content that is neither text nor a list of parts: {as_written(content)}")

    def _take(self, part: Json) -> None:
        if isinstance(part, str):
            self.content.append({"type": "text", "text": part})
            return
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or not isinstance(kind, str):
            self._other(as_written(part))
        elif kind in ("text", "input_text", "output_text"):
            self.content.append({"type": "text", "text": str(part.get("text", part.get("content", "")))})
        elif kind in ("tool_use", "tool_call"):
            self.calls.append(_call(part.get("id"), part.get("name"), part.get("input", part.get("arguments"))))
        elif kind in ("tool_result", "tool_call_response"):
            result = part.get("content", part.get("response", part.get("result")))
            answer = str(part.get("tool_use_id", part.get("id")) or "")
            shown = _short(_Parts(result, self.keep_image, True).content)
            self.results.append({"role": "tool", "content": shown, "tool_call_id": answer} if answer else {"role": "tool", "content": shown})
        elif kind in ("image_url", "input_image", "image"):
            self._image(part)
        elif kind in ("reasoning", "thinking"):
            return  # what a model thought is no part of the conversation
        else:
            self._other(kind)

    def _image(self, part: Mapping[str, Json]) -> None:
        written = part.get("image_url", part.get("url"))
        url = written.get("url") if isinstance(written, Mapping) else written
        source = part.get("source")
        if url is None and isinstance(source, Mapping) and source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
        try:
            if not isinstance(url, str):
                raise ValueError("shows an image without an address")
            if url.startswith(("http://", "https://")):
                raise ValueError("shows an image by its address; save it beside the tasks file, and name that file")
            self.content.append({"type": "image_url", "image_url": {"url": self.keep_image(url)}})
        except ValueError:
            if not self.lenient:
                raise
            shown = url if isinstance(url, str) and not url.startswith("data:") else ""
            self.content.append({"type": "text", "text": f"[image{': ' if shown else ''}{shown[:200]}]"})

    def _other(self, kind: str) -> None:
        if not self.lenient:
            raise ValueError(f"has a part of the type {kind!r}; text and images are shown to models")
        self.content.append({"type": "text", "text": f"[{kind}]"})


def _short(parts: Sequence[Part]) -> str | list[Part]:
    """Text alone as a text."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return list(parts)


def _tool_calls(turn: Mapping[str, Json], lenient: bool) -> Iterator[ToolCall]:
    """The calls that stand beside the content, as OpenAI and LangChain write them."""
    written = turn.get("tool_calls") or ()
    if isinstance(turn.get("function_call"), Mapping):
        written = [*written, {"function": turn["function_call"]}]
    for number, call in enumerate(written):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            if lenient:
                continue
            raise ValueError(f"has a tool call without a name: {as_written(call)}")
        yield _call(call.get("id") or f"call_{number}", function["name"], function.get("arguments", function.get("args")))


def _call(identity: Json, name: Json, arguments: Json) -> ToolCall:
    said = arguments if isinstance(arguments, str) else json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    return {"id": str(identity or ""), "name": str(name or ""), "arguments": said}
