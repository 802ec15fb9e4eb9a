"""The Chat Completions API: requests as bodies of ``/chat/completions``, and its replies as answers."""

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from beam_ray.define.fingerprint import Json, JsonObject, strict_json
from beam_ray.llm.request import Answer, Request, ToolCall
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.structured import ANSWER_FUNCTION, answer_function, answers_by, function_name, is_strict, strict_schema, with_words

PATH = "/chat/completions"

_THINK = re.compile(r"\s*<(think|thinking|reasoning)>(.*?)(?:</\1>|\Z)", re.DOTALL)
_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
"""Fields of a message in which endpoints give what a model thought."""

_THOUGHT = re.compile(r"\A(.*?)</(?:think|thinking)>", re.DOTALL)
"""Some chat templates put the opening tag into the prompt, so that only the closing one is in the answer."""


def body_of(request: Request, settings: ModelSettings) -> JsonObject:
    """The body of the HTTP request."""
    call = settings.call
    messages = [_message(message, passes_reasoning=call.reasoning_back) for message in request.messages]
    body: JsonObject = {"model": settings.model, "messages": messages, call.max_tokens_as: request.max_tokens}
    if call.send_temperature:
        temperature = request.temperature if request.temperature is not None else call.temperature
        if temperature is not None:
            body["temperature"] = temperature
        if request.top_p is not None:
            body["top_p"] = request.top_p
    if call.seeds:
        body["seed"] = request.seed
    if call.reasoning_effort is not None:
        body["reasoning_effort"] = call.reasoning_effort
    schema, name = request.schema, function_name(request.node)
    if request.tools:
        tools = [_tool(tool, strict=call.structured == "strict") for tool in request.tools]
        if schema is not None and call.structured_with_tools == "function":
            tools.append(_tool(answer_function(schema), strict=call.structured == "strict"))
            schema = None
        body["tools"] = tools
        if call.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = call.parallel_tool_calls
    if schema is not None and request.tools and call.structured_with_tools == "words":
        body["messages"] = with_words(messages, schema)
    elif schema is not None:
        if call.structured == "strict":
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": strict_schema(schema), "strict": True}}
        elif call.structured == "full":
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": False}}
        elif call.structured == "tool" and not request.tools:
            body["tools"] = [{"type": "function", "function": {"name": name, "description": "Give the answer.", "parameters": schema}}]
            body["tool_choice"] = {"type": "function", "function": {"name": name}}
        else:
            body["messages"] = with_words(messages, schema)
            if call.structured == "object":
                body["response_format"] = {"type": "json_object"}
    return {**body, **settings.extra}


def _message(message: Mapping[str, Json], *, passes_reasoning: bool) -> JsonObject:
    """A turn as this API writes it."""
    if message["role"] == "tool":
        return {"role": "tool", "tool_call_id": message["tool_call_id"], "content": message["content"]}
    if not message.get("tool_calls"):
        return {"role": message["role"], "content": message["content"]}
    raw: JsonObject = next(iter(message.get("raw") or ()), {})
    calls = []
    for call, came in zip_longest(message["tool_calls"], [call for call in raw.get("tool_calls") or () if _is_call(call)][: len(message["tool_calls"])]):
        function = {**call["function"], "arguments": _json_object(call["function"]["arguments"])}
        # Gemini refuses the next turn without the signature of its thoughts
        calls.append({**call, "function": function, **{name: came[name] for name in ("extra_content",) if came and name in came}})
    turn: JsonObject = {"role": "assistant", "content": message["content"] or None, "tool_calls": calls}
    if passes_reasoning:
        turn |= {name: raw[name] for name in _REASONING if raw.get(name)}
        if isinstance(raw.get("content"), list):
            turn["content"] = raw["content"]
    return turn


def _is_call(call: Json) -> bool:
    return isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)


def _json_object(arguments: str) -> str:
    """The arguments of a call, or none where they are not a JSON object: chat templates of many servers parse them."""
    try:
        return arguments if isinstance(strict_json(arguments), dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"


def _tool(tool: Mapping[str, Json], *, strict: bool) -> JsonObject:
    function = {"name": tool["name"], **({"description": tool["description"]} if tool.get("description") else {}), "parameters": tool["parameters"]}
    if strict and is_strict(tool["parameters"]):
        function |= {"parameters": strict_schema(tool["parameters"]), "strict": True}
    return {"type": "function", "function": function}


def read_reply(reply: Json, sent: Mapping[str, Json]) -> Answer:
    """
    The answer in a chat completion; *sent* is the body of its request.

    Raises:
        ValueError, KeyError, TypeError, IndexError, AttributeError: it is not a chat completion.
    """
    choice = reply["choices"][0]
    message = choice.get("message") or {}
    text, reasoning = _content(message.get("content"))
    reasoning = reasoning or _reasoning(message)
    text, thought = split_reasoning(text)
    calls = [
        ToolCall(str(call["function"].get("name")), str(call["function"].get("arguments") or ""), str(call.get("id") or ""))
        for call in message.get("tool_calls") or ()
        if _is_call(call)
    ]
    # a function that stands for the answer's schema is the answer
    answers = answers_by(sent)
    given = [call for call in calls if call.name == answers]
    if given and (answers == ANSWER_FUNCTION or not text.strip()):  # an agent may say something around it
        text = given[0].arguments
    used = reply.get("usage")
    details = used if isinstance(used, Mapping) else {}
    inputs, outputs = details.get("prompt_tokens_details"), details.get("completion_tokens_details")
    return Answer(
        text,
        count(used, "prompt_tokens") or 0,
        count(used, "completion_tokens") or 0,
        finish=str(choice.get("finish_reason") or "stop"),
        refusal=str(message.get("refusal") or ""),
        reasoning="\n".join(part for part in (reasoning, thought) if part),
        reasoning_tokens=count(outputs, "reasoning_tokens"),
        cached_tokens=_first(count(inputs, "cached_tokens"), count(used, "prompt_cache_hit_tokens"), count(used, "cache_read_input_tokens")),
        cache_write_tokens=_first(count(inputs, "cache_write_tokens"), count(inputs, "cache_creation_tokens"), count(used, "cache_creation_input_tokens")),
        reported=count(used, "prompt_tokens") is not None and count(used, "completion_tokens") is not None,
        tier=str(reply.get("service_tier") or ""),
        tool_calls=tuple(call for call in calls if call.name != answers),
        answer_call=given[0] if given else None,
        raw=(dict(message),) if calls else (),
    )


def split_reasoning(text: str) -> tuple[str, str]:
    """*text* without the reasoning that a model wrote in ``<think>`` tags before its answer, and that reasoning."""
    found = _THINK.match(text)
    if found:
        return text[found.end() :].lstrip(), found[2].strip()
    closed = _THOUGHT.match(text)
    if closed and "<think" not in closed[1]:
        return text[closed.end() :].lstrip(), closed[1].strip()
    return text, ""


def _content(content: Json) -> tuple[str, str]:
    """The text and the reasoning of a message's content, which some endpoints give in parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    text, reasoning = [], []
    for part in content:
        if part.get("type") in ("thinking", "reasoning"):
            inner = part.get("thinking") or part.get("text") or ""
            reasoning.append(inner if isinstance(inner, str) else "".join(str(piece.get("text") or "") for piece in inner))
        else:
            text.append(part["text"])
    return "".join(text), "\n".join(reasoning)


def _reasoning(message: Mapping[str, Json]) -> str:
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            return str(message[name])
    details = message.get("reasoning_details")
    if not isinstance(details, Sequence) or isinstance(details, str):
        return ""
    parts = [part.get("text") or part.get("summary") or "" for part in details if isinstance(part, Mapping)]
    return "\n".join(str(part) for part in parts if part)


def count(used: Json, name: str) -> int | None:
    """A number of tokens; None where the endpoint does not report a sensible one."""
    found = used.get(name) if isinstance(used, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**31 else None


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)
