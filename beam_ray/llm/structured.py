"""Ways to ask a model for JSON: a schema for the decoder, a function call, or words."""

import json
from collections.abc import Mapping

from beam_ray.define.agent import ANSWER_TOOL
from beam_ray.define.fingerprint import Json, JsonObject, JsonSchema

NOT_STRICT = ("maxLength", "minLength", "maxItems", "minItems", "default", "examples")
"""Keywords that strict mode refuses; answers are checked against them all the same."""

MAX_NAME = 64

ANSWER_FUNCTION = ANSWER_TOOL
"""The function by which an agent answers where its endpoint takes no schema of the answer together with tools."""


def strict_schema(schema: Mapping[str, Json]) -> JsonSchema:
    """*schema* without the keywords that strict mode refuses."""
    result: JsonSchema = {}
    for key, value in schema.items():
        if key in NOT_STRICT:
            continue
        if isinstance(value, Mapping):
            if key == "properties":
                result[key] = {name: strict_schema(inner) if isinstance(inner, Mapping) else inner for name, inner in value.items()}
            else:
                result[key] = strict_schema(value)
        elif isinstance(value, list):
            result[key] = [strict_schema(inner) if isinstance(inner, Mapping) else inner for inner in value]
        else:
            result[key] = value
    return result


def in_words(schema: Mapping[str, Json]) -> str:
    """The request for JSON as text, for endpoints that take no schema."""
    return f"Answer with one JSON object that follows this JSON schema, and with nothing else:\n{json.dumps(schema, ensure_ascii=False)}"


def with_words(messages: list[JsonObject], schema: Mapping[str, Json]) -> list[JsonObject]:
    """*messages* with the request for JSON at the end of the last user turn."""
    last = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=len(messages) - 1)
    content, words = messages[last]["content"], in_words(schema)
    added = f"{content}\n\n{words}" if isinstance(content, str) else [*content, {"type": "text", "text": words}]
    return [*messages[:last], {**messages[last], "content": added}, *messages[last + 1 :]]


def function_name(node: str) -> str:
    """The name of the schema or function for a node."""
    return (node or "answer")[:MAX_NAME]


def answer_function(schema: Mapping[str, Json]) -> JsonObject:
    """The function by which an agent gives its final answer."""
    return {"name": ANSWER_FUNCTION, "description": "Give the final answer. Call it once, when nothing more is to be found out.", "parameters": dict(schema)}


def answers_by(sent: Mapping[str, Json]) -> str:
    """The function of a request's body whose arguments are the answer; empty where it has none."""
    choice = sent.get("tool_choice")
    if isinstance(choice, Mapping):
        return str((choice.get("function") or choice).get("name") or "")
    named = [(tool.get("function") or tool).get("name") for tool in sent.get("tools") or () if isinstance(tool, Mapping)]
    return ANSWER_FUNCTION if ANSWER_FUNCTION in named else ""


def is_strict(schema: Mapping[str, Json]) -> bool:
    """Whether strict mode takes *schema*: every object is closed, and all of its fields are required."""
    fields = schema.get("properties")
    if schema.get("type") == "object" and (
        not isinstance(fields, Mapping) or schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != set(fields)
    ):
        return False
    inner = [*fields.values()] if isinstance(fields, Mapping) else []
    for key in ("items", "anyOf"):
        found = schema.get(key)
        inner += found if isinstance(found, list) else [found] if isinstance(found, Mapping) else []
    return not {"oneOf", "allOf", "not", "prefixItems", "patternProperties", "$ref"} & set(schema) and all(
        isinstance(part, Mapping) and is_strict(part) for part in inner
    )
