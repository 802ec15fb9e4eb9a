"""Endpoints that call tools, and refuse what the provider that they are named after refuses in a conversation with tools."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.endpoint import choice_of

ANSWER = {"decision": "pay", "total": 40}
MESSAGE_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal"}


def refusal(message: str, param: str | None = None, code: str | None = None) -> Any:
    """A reply with status 400."""
    return 400, {}, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


@dataclass
class ToolEndpoint:
    """
    A model that first calls ``find`` twice in one turn, and then answers.

    ``rules`` are functions of the body that give a refusal or nothing. ``says`` are further fields of its
    first message, such as its reasoning.
    """

    rules: tuple[Callable[[dict[str, Any]], Any], ...] = ()
    says: Mapping[str, Any] = field(default_factory=dict)
    call_says: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of its tool calls."""
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, body: dict[str, Any]) -> Any:
        """The reply to *body*."""
        self.bodies.append(body)
        for rule in self.rules:
            refused = rule(body)
            if refused:
                return refused
        if "input" in body:
            return 200, {}, self._response(body)
        told = [message for message in body["messages"] if message["role"] == "tool"]
        if told or "tools" not in body:
            names = [tool["function"]["name"] for tool in body.get("tools", ())]
            if "give_answer" in names:
                call = {"id": "call_9", "type": "function", "function": {"name": "give_answer", "arguments": json.dumps(ANSWER)}}
                return self._completion(content=None, tool_calls=[call])
            return self._completion(content=json.dumps(ANSWER))
        calls = [
            {"id": f"call_{number}", "type": "function", "function": {"name": "find", "arguments": json.dumps({"number": f"PO-{number}"})}, **self.call_says}
            for number in (1, 2)
        ]
        return self._completion("tool_calls", content=None, tool_calls=calls, **self.says)

    @staticmethod
    def _completion(finish: str = "stop", **message: Any) -> Any:
        return 200, {}, {"choices": [choice_of(finish, **message)], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}

    def _response(self, body: dict[str, Any]) -> dict[str, Any]:
        usage = {"input_tokens": 10, "output_tokens": 5}
        if any(item.get("type") == "function_call_output" for item in body["input"]):
            output = [
                {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": json.dumps(ANSWER), "annotations": []}]}
            ]
            return {"status": "completed", "output": output, "usage": usage}
        calls = [
            {"id": f"fc_{number}", "type": "function_call", "call_id": f"call_{number}", "name": "find", "arguments": json.dumps({"number": f"PO-{number}"})}
            for number in (1, 2)
        ]
        thought = [{"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}] if "include" in body else []
        return {"status": "completed", "output": [*thought, *calls], "usage": usage}


def chat_order(body: dict[str, Any]) -> Any:
    """OpenAI: every call of a turn is answered before anything else, and nothing else is answered."""
    waiting: list[str] = []
    for index, message in enumerate(body["messages"]):
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return refusal(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.", f"messages.[{index}].role"
                )
            waiting.remove(message["tool_call_id"])
        elif waiting:
            break
        waiting += [call["id"] for call in message.get("tool_calls") or ()]
    return (
        refusal(f"An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id': {waiting}", "messages")
        if waiting
        else None
    )


def no_further_fields(body: dict[str, Any]) -> Any:
    """Providers with a closed schema: a message has no other fields."""
    for index, message in enumerate(body["messages"]):
        extra = sorted(set(message) - MESSAGE_KEYS) + [key for call in message.get("tool_calls") or () for key in set(call) - {"id", "type", "function"}]
        if extra:
            return refusal(f"property 'messages.{index}.{extra[0]}' is unsupported", f"messages.{index}.{extra[0]}", "unsupported_parameter")
    return None


def function_names(body: dict[str, Any]) -> Any:
    """Names of functions have no dots."""
    for index, tool in enumerate(body.get("tools", ())):
        name = (tool.get("function") or tool)["name"]
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
            return refusal(f"Invalid 'tools[{index}].function.name': string does not match pattern '^[a-zA-Z0-9_-]+$'.", f"tools[{index}].function.name")
    return None


def strict_functions(body: dict[str, Any]) -> Any:
    """OpenAI: strict functions have closed objects, all of whose fields are required, and few keywords."""
    for tool in body.get("tools", ()):
        found = tool.get("function") or tool
        strict = found.get("strict", "input" in body)
        schema = found["parameters"]
        if strict and (
            schema.get("additionalProperties") is not False or set(schema["required"]) != set(schema["properties"]) or "maxLength" in json.dumps(schema)
        ):
            return refusal(f"Invalid schema for function '{found['name']}': 'additionalProperties' is required to be supplied and to be false.", "tools")
    return None


def no_max_tokens(body: dict[str, Any]) -> Any:
    """OpenAI: the limit has another name."""
    return refusal("Unsupported parameter: 'max_tokens'", "max_tokens", "unsupported_parameter") if "max_tokens" in body else None


def no_seed(body: dict[str, Any]) -> Any:
    """Gemini and Mistral: unknown fields are refused."""
    return refusal('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed") if "seed" in body else None


def reasoning_goes_back(body: dict[str, Any]) -> Any:
    """DeepSeek: a turn that called tools is passed back with what it thought."""
    for index, message in enumerate(body["messages"]):
        if message.get("tool_calls") and not message.get("reasoning_content"):
            return refusal(f"Missing `reasoning_content` field in the assistant message at message index {index}.")
    return None


def no_schema(body: dict[str, Any]) -> Any:
    """DeepSeek: json_schema is refused."""
    asked = (body.get("response_format") or {}).get("type")
    return refusal("This response_format type is unavailable now", "response_format") if asked == "json_schema" else None


def not_together(message: str) -> Callable[[dict[str, Any]], Any]:
    """No response_format together with tools."""
    return lambda body: refusal(message) if "tools" in body and "response_format" in body else None


def arguments_are_json(body: dict[str, Any]) -> Any:
    """vLLM: its chat template parses the arguments of earlier calls."""
    for message in body["messages"]:
        for call in message.get("tool_calls") or ():
            try:
                json.loads(call["function"]["arguments"])
            except ValueError as error:
                return refusal(f"{error} (parameter=None)")
    return None


def schema_binds(body: dict[str, Any]) -> Any:
    """vLLM: where a schema is sent, the answer follows it, and no tool is ever called."""
    if "response_format" in body and "tools" in body:
        return ToolEndpoint._completion(content=json.dumps({"decision": "hold", "total": 0}))
    return None


def signatures_go_back(body: dict[str, Any]) -> Any:
    """Gemini: the signature of a thought is passed back with its call."""
    for message in body["messages"]:
        for call in message.get("tool_calls") or ():
            if not (call.get("extra_content") or {}).get("google", {}).get("thought_signature"):
                return refusal(f"Function call is missing a thought_signature in functionCall parts: {call['function']['name']}")
    return None


def response_items(body: dict[str, Any]) -> Any:
    """OpenAI: outputs follow their calls, calls their reasoning; nothing was stored, so reasoning comes with its content."""
    seen: set[str] = set()
    thought = False
    for item in body["input"]:
        kind = item.get("type")
        if kind == "reasoning":
            thought = True
            if not item.get("encrypted_content"):
                return 404, {}, {"error": {"message": f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false."}}
        elif kind == "function_call":
            if "include" in body and not thought:
                return refusal(f"Item '{item.get('id')}' of type 'function_call' was provided without its required 'reasoning' item: 'rs_1'.", "input")
            seen.add(item["call_id"])
        elif kind == "function_call_output" and item["call_id"] not in seen:
            return refusal(f"No tool call found for function call output with call_id {item['call_id']}.", "input")
    answered = {item["call_id"] for item in body["input"] if item.get("type") == "function_call_output"}
    return refusal(f"No tool output found for function call {min(seen - answered)}.", "input") if seen - answered else None


def no_encrypted_reasoning(body: dict[str, Any]) -> Any:
    """OpenAI: models that do not think refuse to return encrypted reasoning."""
    return refusal("Encrypted content is not supported with this model.", "include") if body.get("include") else None
