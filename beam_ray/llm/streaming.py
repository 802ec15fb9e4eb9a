"""
Whole replies written as streams of server-sent events, in the shapes of the two APIs.

A program that asks for a stream gets one, made of the reply that was recorded: text in one piece
per field, so that what its library puts together is the reply itself.
"""

import json
from collections.abc import Iterator, Mapping

from beam_ray.define.fingerprint import Json, JsonObject

_MESSAGE_FIELDS = ("role", "content", "refusal", "tool_calls", "function_call", "audio", "annotations")
"""Fields of a chat's message that are written in an order of their own, or not at all in streams."""

_ENDED = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}


def chat_events(reply: Mapping[str, Json], *, include_usage: bool) -> Iterator[bytes]:
    """The chunks of a chat completion, the usage last where it was asked for."""
    head = {key: value for key, value in reply.items() if key not in ("choices", "usage", "object")}
    head = {"id": "", "created": 0, "model": "", **head, "object": "chat.completion.chunk"}
    no_usage: JsonObject = {"usage": None} if include_usage else {}
    for choice in reply.get("choices") or ():
        deltas = list(_deltas(choice.get("message") or {}))
        for number, delta in enumerate([*deltas, {}]):
            last = number == len(deltas)
            part = {"index": choice.get("index", 0), "delta": delta, "logprobs": choice.get("logprobs") if number == 0 else None}
            yield _data({**head, "choices": [{**part, "finish_reason": (choice.get("finish_reason") or "stop") if last else None}], **no_usage})
    if include_usage and reply.get("usage"):
        yield _data({**head, "choices": [], "usage": reply["usage"]})
    yield b"data: [DONE]\n\n"


def _deltas(message: Mapping[str, Json]) -> Iterator[JsonObject]:
    yield {"role": message.get("role") or "assistant", "content": "" if isinstance(message.get("content"), str) else None}
    for name, value in message.items():
        if name not in _MESSAGE_FIELDS and value:
            yield {name: value}  # such as reasoning_content
    for name in ("content", "refusal"):
        if message.get(name):
            yield {name: message[name]}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function")
        if not isinstance(function, Mapping):
            yield {"tool_calls": [{**call, "index": index}]}
            continue
        yield {"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]}
        yield {"tool_calls": [{"index": index, "function": {"arguments": function.get("arguments") or ""}}]}


def response_events(reply: Mapping[str, Json]) -> Iterator[bytes]:
    """The events of a response."""
    for number, (kind, event) in enumerate(_response_events(reply)):
        yield f"event: {kind}\n".encode() + _data({"type": kind, "sequence_number": number, **event})


def _response_events(reply: Mapping[str, Json]) -> Iterator[tuple[str, JsonObject]]:
    begun = {**reply, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(reply.get("output") or ()):
        where = {"output_index": index, "item_id": item.get("id") or ""}
        parts, name = ("content", "content") if item.get("type") == "message" else ("summary", "reasoning_summary")
        empty: JsonObject = {"status": "in_progress"} if "status" in item else {}
        empty |= {parts: []} if isinstance(item.get(parts), list) else {}
        empty |= {"arguments": ""} if item.get("type") == "function_call" else {}
        yield "response.output_item.added", {"output_index": index, "item": {**item, **empty}}
        if item.get("type") in ("message", "reasoning"):
            for number, part in enumerate(item.get(parts) or ()):
                place = {**where, "content_index" if parts == "content" else "summary_index": number}
                yield from _part_events(part, place, name)
        elif item.get("type") == "function_call":
            written = item.get("arguments") or ""
            yield "response.function_call_arguments.delta", {**where, "delta": written}
            yield "response.function_call_arguments.done", {**where, "name": item.get("name"), "arguments": written}
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield _ENDED.get(str(reply.get("status")), "response.completed"), {"response": reply}


def _part_events(part: Mapping[str, Json], place: JsonObject, name: str) -> Iterator[tuple[str, JsonObject]]:
    field = "refusal" if part.get("type") == "refusal" else "text"
    kind = "response.reasoning_summary_text" if name == "reasoning_summary" else "response.refusal" if field == "refusal" else "response.output_text"
    extra: JsonObject = {"logprobs": part.get("logprobs") or []} if kind == "response.output_text" else {}
    yield f"response.{name}_part.added", {**place, "part": {**part, field: ""}}
    yield f"{kind}.delta", {**place, "delta": part.get(field) or "", **extra}
    for number, annotation in enumerate(part.get("annotations") or ()):
        yield "response.output_text.annotation.added", {**place, "annotation_index": number, "annotation": annotation}
    yield f"{kind}.done", {**place, field: part.get(field) or "", **extra}
    yield f"response.{name}_part.done", {**place, "part": part}


def _data(event: Json) -> bytes:
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
