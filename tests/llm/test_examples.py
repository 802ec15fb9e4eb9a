"""Every example under configs/models loads, and understands the shape of its provider's replies."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from beam_ray.llm.answer import read_answer
from beam_ray.llm.client import OpenAIModel, http_client
from beam_ray.llm.models_file import load_models
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.usage import Usage

FOLDER = Path(__file__).parents[2] / "configs" / "models"
SCHEMA = {"type": "object", "properties": {"team": {"type": "string", "maxLength": 9}}, "required": ["team"], "additionalProperties": False}
TEAM = '{"team": "sales"}'


def chat(message: dict[str, Any], usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1764000000, "model": "m", "choices": [choice], "usage": usage, **more}


def called(name: str = "sort") -> dict[str, Any]:
    """A message that calls a function."""
    return {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": TEAM}}]}


PLAIN = {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48}
DETAILED = {**PLAIN, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 32}, "completion_tokens_details": {"reasoning_tokens": 22}}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "service_tier": "default",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "thinking"}]},
        {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [{"type": "output_text", "annotations": [], "text": TEAM}]},
    ],
    "usage": {"input_tokens": 40, "input_tokens_details": {"cached_tokens": 32}, "output_tokens": 30, "output_tokens_details": {"reasoning_tokens": 22}},
}

# Written by hand after each provider's documentation: reply, whether its reasoning is returned, cached
# and reasoning tokens, and names that the request has and has not.
SHAPES: dict[str, tuple[dict[str, Any], str, int | None, int | None, set[str], set[str]]] = {
    "openai/large": (
        chat({"content": TEAM, "refusal": None}, DETAILED, service_tier="default"),
        "", 32, 22, {"max_completion_tokens", "response_format", "seed", "reasoning_effort"}, {"max_tokens", "temperature"},
    ),
    "openai/small": (chat({"content": TEAM}, PLAIN), "", None, None, {"max_completion_tokens", "temperature", "seed"}, {"reasoning_effort"}),
    "openai/responses": (RESPONSE, "thinking", 32, 22, {"max_output_tokens", "text", "reasoning", "store"}, {"temperature", "seed", "messages"}),
    "openai/flex": (chat({"content": TEAM}, DETAILED, service_tier="flex"), "", 32, 22, {"service_tier"}, {"temperature"}),
    "azure/large": (
        chat({"content": TEAM}, DETAILED, prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}]),
        "", 32, 22, {"max_completion_tokens", "response_format"}, {"temperature"},
    ),
    "azure/older": (chat({"content": TEAM}, PLAIN), "", None, None, {"max_completion_tokens", "temperature"}, set()),
    "anthropic/sonnet": (chat(called(), PLAIN), "", None, None, {"max_tokens", "tools", "tool_choice", "temperature"}, {"seed", "response_format"}),
    "gemini/flash": (chat({"content": TEAM}, {"prompt_tokens": 40, "completion_tokens": 8}), "", None, None, {"response_format", "reasoning_effort"}, {"seed"}),
    "openrouter/qwen": (
        chat({"content": TEAM, "reasoning": "thinking", "reasoning_details": [{"type": "reasoning.text", "text": "thinking"}]}, DETAILED, provider="Some"),
        "thinking", 32, 22, {"provider", "seed", "max_tokens"}, set(),
    ),
    "deepseek/chat": (
        chat({"content": TEAM}, {**PLAIN, "prompt_cache_hit_tokens": 24, "prompt_cache_miss_tokens": 16}),
        "", 24, None, {"max_tokens", "response_format", "temperature"}, {"seed"},
    ),
    "deepseek/reasoner": (chat({"content": TEAM, "reasoning_content": "thinking"}, DETAILED), "thinking", 32, 22, {"max_tokens"}, {"temperature", "seed"}),
    "groq/oss": (chat({"content": TEAM, "reasoning": "thinking"}, {**PLAIN, "queue_time": 0.01, "total_time": 0.2}), "thinking", None, None, {"max_completion_tokens"}, set()),
    "groq/llama": (chat({"content": TEAM}, {**PLAIN, "queue_time": 0.01}, x_groq={"id": "req_1"}), "", None, None, {"response_format", "seed"}, {"max_tokens"}),
    "bedrock/oss": (chat({"content": f"<reasoning>thinking</reasoning>{TEAM}"}, PLAIN), "thinking", None, None, {"max_completion_tokens"}, {"max_tokens"}),
    "gateway/sonnet": (
        chat(called(), {**PLAIN, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 20}),
        "", 20, None, {"tools", "max_tokens", "seed"}, {"response_format"},
    ),
    "vllm/qwen": (chat({"content": f"<think>\nthinking\n</think>\n\n{TEAM}", "reasoning_content": None, "tool_calls": []}, PLAIN), "thinking", None, None, {"seed"}, set()),
    "sglang/qwen": (chat({"content": TEAM, "reasoning_content": "thinking", "tool_calls": None}, PLAIN), "thinking", None, None, {"response_format"}, set()),
    "ollama/small": (chat({"content": TEAM, "reasoning": "thinking"}, PLAIN, system_fingerprint="fp_ollama"), "thinking", None, None, {"seed"}, set()),
    "llamacpp/small": (chat({"content": TEAM}, PLAIN, timings={"prompt_n": 40}), "", None, None, {"cache_prompt", "response_format"}, set()),
    "serve/qwen": (chat({"content": TEAM}, PLAIN), "", None, None, {"max_tokens", "response_format"}, set()),
}  # fmt: skip

FILES = sorted(FOLDER.glob("*.yaml"))
MODELS = {name: file for file in FILES for name in load_models(file)}


def test_every_provider_has_an_example():
    """One file each."""
    names = {file.stem for file in FILES}

    assert names >= {
        "openai",
        "azure",
        "anthropic",
        "gemini",
        "openrouter",
        "deepseek",
        "groq",
        "bedrock",
        "litellm",
        "vllm",
        "sglang",
        "ollama",
        "llamacpp",
        "ray-serve",
    }
    assert set(MODELS) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_an_example_is_called_and_read_as_its_provider_documents(name, monkeypatch):
    """The request has the names that the provider takes, and its reply gives output, reasoning and tokens."""
    reply, reasoning, cached, thought, sent, left_out = SHAPES[name]
    for variable in ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "GEMINI", "OPENROUTER", "DEEPSEEK", "GROQ", "LITELLM"):
        monkeypatch.setenv(f"{variable}_API_KEY", "sk-test")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "sk-test")
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=reply)

    async def once() -> Answer:
        model = OpenAIModel(load_models(MODELS[name])[name], http=http_client(httpx2.MockTransport(answer)))
        try:
            return await model.ask(Request(({"role": "user", "content": "Sort."},), SCHEMA, temperature=0.2, node="sort"), usage)
        finally:
            await model.close()

    usage = Usage()
    found = asyncio.run(once())
    body = json.loads(seen[0].content)

    assert read_answer(found, SCHEMA, 1024) == {"team": "sales"}
    assert (found.reasoning, found.cached_tokens, found.reasoning_tokens, found.reported) == (reasoning, cached, thought, True)
    assert sent <= set(body)
    assert not left_out & set(body)
    assert usage.estimated_calls == 0


def test_azures_older_api_has_its_version_in_the_address_and_its_key_in_a_header(monkeypatch):
    """And no other key beside it."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "sk-test")
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=SHAPES["azure/older"][0])

    async def once() -> None:
        model = OpenAIModel(load_models(FOLDER / "azure.yaml")["azure/older"], http=http_client(httpx2.MockTransport(answer)))
        await model.ask(Request(({"role": "user", "content": "Sort."},)), Usage())
        await model.close()

    asyncio.run(once())

    assert str(seen[0].url).endswith("/openai/deployments/your-gpt-4o-deployment/chat/completions?api-version=2024-10-21")
    assert seen[0].headers["api-key"] == "sk-test"
    assert "authorization" not in seen[0].headers
