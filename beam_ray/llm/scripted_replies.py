"""What a scripted model replies to programs: bodies read as requests, and answers written in the shapes of the three APIs."""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace

from beam_ray.define.fingerprint import Json, JsonObject, digest
from beam_ray.llm.request import Answer, Request, ToolCall

CREATED = 1_767_225_600
"""The time of every reply, so that equal calls get equal replies."""

DIMENSIONS = 8


def request_of(body: Mapping[str, Json], request: Request) -> Request:
    """The *body* of a chat completion or a response as a request; *request* says whose call it is."""
    messages = body.get("messages")
    if messages is None:
        given = body.get("input")
        turns = [{"role": "user", "content": given}] if isinstance(given, str) else [dict(item) for item in given or ()]
        messages = [*([{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []), *map(_message, turns)]
    tools = tuple(dict(tool.get("function") or tool) for tool in body.get("tools") or ())
    wanted = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    schema = (wanted.get("json_schema") or wanted).get("schema")
    return replace(request, messages=tuple(messages), tools=tools, schema=schema, temperature=body.get("temperature"), seed=body.get("seed") or 0)


def _message(item: JsonObject) -> JsonObject:
    """An item of a response's input as a message of a chat."""
    if item.get("type") == "function_call":
        call = {"id": item.get("call_id"), "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if item.get("type") == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item["output"]}
    return {"role": item.get("role", "assistant"), "content": _text(item.get("content"))}


def _text(content: Json) -> Json:
    if isinstance(content, list) and all("text" in part for part in content):
        return "".join(part["text"] for part in content)
    return content


def chat_completion(answer: Answer, body: Mapping[str, Json]) -> JsonObject:
    """The *answer* as a chat completion."""
    message: JsonObject = {"role": "assistant", "content": answer.text or None, "refusal": answer.refusal or None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    calls = [{"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for id, call in _calls(answer, body)]
    if calls:
        message["tool_calls"] = calls
    reply: JsonObject = {
        "id": f"chatcmpl-{_id(answer, body)}",
        "object": "chat.completion",
        "created": CREATED,
        "model": str(body.get("model", "")),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if calls and answer.finish == "stop" else answer.finish}],
    }
    if answer.reported:
        reply["usage"] = {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
            **_details("prompt_tokens_details", cached_tokens=answer.cached_tokens, cache_write_tokens=answer.cache_write_tokens),
            **_details("completion_tokens_details", reasoning_tokens=answer.reasoning_tokens),
        }
    return {**reply, "service_tier": answer.tier} if answer.tier else reply


def response(answer: Answer, body: Mapping[str, Json]) -> JsonObject:
    """The *answer* as a response."""
    id = _id(answer, body)
    output: list[JsonObject] = []
    if answer.reasoning:
        output.append({"id": f"rs_{id}", "type": "reasoning", "summary": [{"type": "summary_text", "text": answer.reasoning}]})
    if answer.text or answer.refusal or not answer.tool_calls:
        part = {"type": "refusal", "refusal": answer.refusal} if answer.refusal else {"type": "output_text", "text": answer.text, "annotations": []}
        output.append({"id": f"msg_{id}", "type": "message", "role": "assistant", "status": "completed", "content": [part]})
    for number, (call_id, call) in enumerate(_calls(answer, body)):
        item = {"id": f"fc_{id}{number}", "type": "function_call", "call_id": call_id, "name": call.name, "arguments": call.arguments}
        output.append({**item, "status": "completed"})
    cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(answer.finish)
    reply: JsonObject = {
        "id": f"resp_{id}",
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "instructions": body.get("instructions"),
        "model": str(body.get("model", "")),
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "metadata": {},
    }
    if answer.reported:
        reply["usage"] = {
            "input_tokens": answer.input_tokens,
            "input_tokens_details": {"cached_tokens": answer.cached_tokens or 0},
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens or 0},
            "total_tokens": answer.input_tokens + answer.output_tokens,
        }
    return {**reply, "service_tier": answer.tier} if answer.tier else reply


def embeddings(body: Mapping[str, Json]) -> JsonObject:
    """Embeddings that are derived from the texts; equal texts have equal ones."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)) else given or []
    data = [{"object": "embedding", "index": index, "embedding": _vector(text, body)} for index, text in enumerate(texts)]
    tokens = sum(len(str(text)) for text in texts) // 4 + 1
    return {"object": "list", "data": data, "model": str(body.get("model", "")), "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _vector(text: Json, body: Mapping[str, Json]) -> Json:
    raw = hashlib.sha256(json.dumps(text).encode()).digest()
    size = body.get("dimensions") or DIMENSIONS
    numbers = [raw[index % len(raw)] / 128 - 1 for index in range(size)]
    return base64.b64encode(struct.pack(f"<{size}f", *numbers)).decode() if body.get("encoding_format") == "base64" else numbers


def _calls(answer: Answer, body: Mapping[str, Json]) -> Iterator[tuple[str, ToolCall]]:
    """The answer's tool calls with their ids; those without one are numbered through the conversation."""
    earlier = sum(len(turn.get("tool_calls") or ()) for turn in body.get("messages") or ())
    earlier += sum(item.get("type") == "function_call" for item in body.get("input") or () if isinstance(item, Mapping))
    for number, call in enumerate(answer.tool_calls, earlier + 1):
        yield call.id or f"call_{number}", call


def _id(answer: Answer, body: Mapping[str, Json]) -> str:
    return digest("reply/1", body, answer.text, answer.refusal, [[call.name, call.arguments] for call in answer.tool_calls])[:24]


def _details(name: str, **counts: int | None) -> JsonObject:
    known = {key: count for key, count in counts.items() if count is not None}
    return {name: known} if known else {}
