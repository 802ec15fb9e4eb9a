"""Refusals: which belong to one row, and which stop the run with the line to write."""

import pytest

from beam_ray.llm.refusals import Kind, kind_of, read_refusal
from beam_ray.llm.remedies import remedy
from beam_ray.llm.settings import ModelSettings

SENT = {"model": "x", "messages": [], "max_tokens": 9, "temperature": 0.2, "seed": 1, "response_format": {}, "thinking": {"type": "enabled"}}


def openai_error(message: str, code: str | None = None, param: str | None = None) -> dict:
    """The form of OpenAI and of most others."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": param}}


SETTINGS = [
    (
        "OpenAI, the limit's name",
        400,
        openai_error(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "unsupported_parameter", "max_tokens"
        ),
        "max_tokens",
    ),
    (
        "OpenAI, temperature",
        400,
        openai_error(
            "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
            "unsupported_value",
            "temperature",
        ),
        "temperature",
    ),
    (
        "OpenAI, schema",
        400,
        openai_error("Invalid schema for response_format 'n': In context=(), 'additionalProperties' is required to be supplied.", None, "response_format"),
        "response_format",
    ),
    (
        "OpenAI, effort",
        400,
        openai_error("Unsupported parameter: 'reasoning.effort' is not supported with this model.", "unsupported_parameter", "reasoning.effort"),
        "reasoning",
    ),
    (
        "OpenAI, a limit above the model's",
        400,
        openai_error("max_tokens is too large: 100000. This model supports at most 16384 completion tokens.", "invalid_value", "max_tokens"),
        "max_tokens",
    ),
    ("DeepSeek, json_schema", 400, openai_error("This response_format type is unavailable now", "invalid_request_error"), "response_format"),
    ("Groq, json_schema", 400, openai_error("This model does not support response format `json_schema`. See the documentation."), "json_schema"),
    ("Groq, a field", 400, openai_error("property 'seed' is unsupported"), "seed"),
    ("Mistral and FastAPI", 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
    (
        "Gemini",
        400,
        [{"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', "status": "INVALID_ARGUMENT"}}],
        "seed",
    ),
    ("Anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "temperature: must be between 0 and 1"}}, "temperature"),
    (
        "vLLM, a schema",
        400,
        {"object": "error", "message": "The provided JSON schema contains features not supported by xgrammar: invalid schema", "code": 400},
        "response_format",
    ),
    (
        "llama.cpp, a schema",
        400,
        {"error": {"code": 400, "message": "failed to parse grammar: unsupported schema", "type": "invalid_request_error"}},
        "response_format",
    ),
    ("a field of extra", 400, openai_error("Unrecognized request argument supplied: thinking"), "thinking"),
    (
        "OpenRouter, a provider's words",
        400,
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": "Unsupported parameter: 'seed'"}}},
        "seed",
    ),
]

OTHERS = [
    (
        "OpenAI, too long",
        400,
        openai_error(
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", "context_length_exceeded", "messages"
        ),
        Kind.ROW,
    ),
    (
        "vLLM, too long",
        400,
        {
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (3976 in the messages, 1024 in the completion).",
            "code": 400,
        },
        Kind.ROW,
    ),
    (
        "Anthropic, too long",
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}},
        Kind.ROW,
    ),
    (
        "llama.cpp, too long",
        400,
        {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it", "type": "exceed_context_size_error"}},
        Kind.ROW,
    ),
    (
        "Gemini, too long",
        400,
        {"error": {"code": 400, "message": "The input token count (2000000) exceeds the maximum number of tokens allowed", "status": "INVALID_ARGUMENT"}},
        Kind.ROW,
    ),
    ("a message of this row", 400, openai_error("Invalid 'messages[1].content': string too long.", "string_above_max_length", "messages[1].content"), Kind.ROW),
    ("an image too large", 400, openai_error("The image exceeds the maximum size of 20 MB.", None, "messages"), Kind.ROW),
    ("an image that cannot be read", 400, openai_error("Could not process image", None, None), Kind.ROW),
    ("a body too large", 413, openai_error("Payload too large"), Kind.ROW),
    ("a detail without a place", 422, {"detail": [{"type": "x", "loc": None, "msg": "Not so"}]}, Kind.ROW),
    ("something else", 400, openai_error("Something went wrong"), Kind.ROW),
    (
        "Azure's filter",
        400,
        openai_error("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "content_filter"),
        Kind.CONTENT,
    ),
    ("a policy", 403, openai_error("Your request was rejected by the safety system."), Kind.CONTENT),
    ("a wrong key", 401, openai_error("Incorrect API key provided", "invalid_api_key"), Kind.ACCESS),
    ("no access", 403, openai_error("Project does not have access to model"), Kind.ACCESS),
    ("an unknown model", 404, openai_error("The model `x` does not exist", "model_not_found"), Kind.ACCESS),
    ("DeepSeek, an unknown model", 400, openai_error("Model Not Exist"), Kind.ACCESS),
    (
        "Azure, an unknown deployment",
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}},
        Kind.ACCESS,
    ),
    ("OpenAI, no quota", 429, openai_error("You exceeded your current quota", "insufficient_quota"), Kind.QUOTA),
    ("DeepSeek, no balance", 402, openai_error("Insufficient Balance"), Kind.QUOTA),
    ("too fast", 429, openai_error("Rate limit reached", "rate_limit_exceeded"), Kind.RATE_LIMIT),
    ("a fault", 500, None, Kind.BUSY),
    ("overloaded", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, Kind.BUSY),
]


@pytest.mark.parametrize(("status", "body", "parameter"), [pytest.param(*row[1:], id=row[0]) for row in SETTINGS])
def test_a_refusal_that_names_a_setting_is_about_every_row(status, body, parameter):
    """Parameter and schema, in each provider's form."""
    assert kind_of(read_refusal(status, body), SENT) == (Kind.SETTING, parameter)


@pytest.mark.parametrize(("status", "body", "kind"), [pytest.param(*row[1:], id=row[0]) for row in OTHERS])
def test_any_other_refusal_is_about_what_it_says(status, body, kind):
    """This row, the key, the model, the money, or the moment."""
    assert kind_of(read_refusal(status, body), SENT)[0] is kind


@pytest.mark.parametrize(
    ("parameter", "message", "line"),
    [
        ("max_tokens", "Use 'max_completion_tokens' instead.", "      max_tokens_as: max_completion_tokens"),
        ("max_tokens", "max_tokens is too large", "  lower max_tokens of node 'n'"),
        ("temperature", "", "      temperature: omit"),
        ("top_p", "", "      temperature: omit"),
        ("seed", "", "      seeds: false"),
        ("response_format", "", "      structured: object"),
        ("reasoning_effort", "", "      reasoning_effort: auto"),
        ("thinking", "", "  remove 'thinking' from 'extra'"),
    ],
)
def test_the_line_to_write_is_said(parameter, message, line):
    """Under the model's name in the models file."""
    settings = ModelSettings(base_url="http://x/v1", model="x", extra={"thinking": True})

    advice = remedy(parameter, read_refusal(400, openai_error(message)), settings, "hosted/large", "n")

    assert line in advice
    assert advice.endswith("then run the same command again to resume")
