"""Ways to ask a model for JSON: a schema for the decoder, a function call, or words."""

import json
from collections.abc import Mapping

from beam_ray.define.fingerprint import Json, JsonObject, JsonSchema

NOT_STRICT = ("maxLength", "minLength", "maxItems", "minItems", "default", "examples")
"""Keywords that strict mode refuses; answers are checked against them all the same."""

MAX_NAME = 64


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
