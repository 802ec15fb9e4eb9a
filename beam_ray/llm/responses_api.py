"""The Responses API: requests as bodies of ``/responses``, and its replies as answers."""

from collections.abc import Mapping

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.llm.chat_api import count, split_reasoning
from beam_ray.llm.request import Answer, Request, ToolCall
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.structured import ANSWER_FUNCTION, answer_function, answers_by, function_name, is_strict, strict_schema, with_words

PATH = "/responses"

_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def body_of(request: Request, settings: ModelSettings) -> JsonObject:
    """The body of the HTTP request. The provider is told not to store the response."""
    call = settings.call
    messages: list[JsonObject] = [dict(message) for message in request.messages]
    schema, name, strict = request.schema, function_name(request.node), call.structured == "strict"
    body: JsonObject = {"model": settings.model, "max_output_tokens": request.max_tokens, "store": False}
    if call.send_temperature:
        temperature = request.temperature if request.temperature is not None else call.temperature
        if temperature is not None:
            body["temperature"] = temperature
        if request.top_p is not None:
            body["top_p"] = request.top_p
    if call.reasoning_effort is not None:
        body["reasoning"] = {"effort": call.reasoning_effort}
    if request.tools:
        tools = [_tool(tool, strict=strict) for tool in request.tools]
        if schema is not None and call.structured_with_tools == "function":
            tools.append(_tool(answer_function(schema), strict=strict))
            schema = None
        body["tools"] = tools
        if call.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = call.parallel_tool_calls
        if call.reasoning_back:
            body["include"] = ["reasoning.encrypted_content"]  # nothing is stored, so what the model thought goes back with the next turn
    if schema is not None and request.tools and call.structured_with_tools == "words":
        messages = with_words(messages, schema)
    elif schema is not None:
        if call.structured in ("strict", "full"):
            body["text"] = {"format": {"type": "json_schema", "name": name, "schema": strict_schema(schema) if strict else schema, "strict": strict}}
        elif call.structured == "tool" and not request.tools:
            body["tools"] = [{"type": "function", "name": name, "description": "Give the answer.", "parameters": schema, "strict": False}]
            body["tool_choice"] = {"type": "function", "name": name}
        else:
            messages = with_words(messages, schema)
            if call.structured == "object":
                body["text"] = {"format": {"type": "json_object"}}
    body["input"] = [item for message in messages for item in _items(message, passes_reasoning=call.reasoning_back)]
    return {**body, **settings.extra}


def _items(message: JsonObject, *, passes_reasoning: bool) -> list[JsonObject]:
    """A turn as items of this API."""
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}]
    if not message.get("tool_calls"):
        return [{"role": message["role"], "content": _content(message["content"], message["role"])}]
    raw = message.get("raw") or ()
    if passes_reasoning and raw:
        return [dict(item) for item in raw]
    said = [{"role": "assistant", "content": message["content"]}] if message["content"] else []
    calls = [{"type": "function_call", "call_id": call["id"], **call["function"]} for call in message["tool_calls"]]
    return [*said, *calls]


def _tool(tool: Mapping[str, Json], *, strict: bool) -> JsonObject:
    # without the field, OpenAI takes every function as strict
    fits = strict and is_strict(tool["parameters"])
    schema = strict_schema(tool["parameters"]) if fits else tool["parameters"]
    described = {"description": tool["description"]} if tool.get("description") else {}
    return {"type": "function", "name": tool["name"], **described, "parameters": schema, "strict": fits}


def read_reply(reply: Json, sent: Mapping[str, Json]) -> Answer:
    """
    The answer in a response; *sent* is the body of its request.

    Raises:
        ValueError, KeyError, TypeError, IndexError, AttributeError: it is not a response.
    """
    text, refusal, reasoning, calls = [], [], [], []
    answered: ToolCall | None = None
    answers = answers_by(sent)
    for item in reply["output"]:
        if item["type"] == "reasoning":
            reasoning += [part.get("text") or "" for part in [*(item.get("content") or ()), *(item.get("summary") or ())]]
        elif item["type"] == "function_call":
            if item["name"] == answers:
                answered = ToolCall(str(item["name"]), str(item.get("arguments") or ""), str(item.get("call_id") or ""))
            else:
                calls.append(ToolCall(str(item["name"]), str(item.get("arguments") or ""), str(item.get("call_id") or "")))
        elif item["type"] == "message":
            text += [part.get("text") or "" for part in item["content"] if part.get("type") == "output_text"]
            refusal += [part.get("refusal") or "" for part in item["content"] if part.get("type") == "refusal"]
    answer, thought = split_reasoning(answered.arguments if answered and (answers == ANSWER_FUNCTION or not text) else "".join(text))
    used = reply.get("usage")
    details = used if isinstance(used, Mapping) else {}
    incomplete = reply.get("incomplete_details") or {}
    return Answer(
        answer,
        count(used, "input_tokens") or 0,
        count(used, "output_tokens") or 0,
        finish=_FINISH.get(str(incomplete.get("reason")), "stop") if reply.get("status") == "incomplete" else "stop",
        refusal="".join(refusal),
        reasoning="\n".join(part for part in (*reasoning, thought) if part),
        reasoning_tokens=count(details.get("output_tokens_details"), "reasoning_tokens"),
        cached_tokens=count(details.get("input_tokens_details"), "cached_tokens"),
        cache_write_tokens=count(details.get("input_tokens_details"), "cache_write_tokens"),
        reported=count(used, "input_tokens") is not None and count(used, "output_tokens") is not None,
        tier=str(reply.get("service_tier") or ""),
        tool_calls=tuple(calls),
        answer_call=answered,
        raw=tuple(dict(item) for item in reply["output"]) if calls or answered else (),
    )


def _content(content: Json, role: str) -> Json:
    """A message's content in the words of this API."""
    if isinstance(content, str):
        return content
    kind = "output_text" if role == "assistant" else "input_text"
    return [
        {"type": kind, "text": part["text"]} if part["type"] == "text" else {"type": "input_image", "image_url": part["image_url"]["url"]} for part in content
    ]
