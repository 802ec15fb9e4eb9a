"""Conversations with tools as providers want them, up to the stored step; and what is said where they refuse one."""

import asyncio
import json
from typing import Any

import pytest

from beam_ray.errors import WrongSetting
from beam_ray.llm.families import known_of
from beam_ray.llm.settings import ModelSettings
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.endpoint import endpoint
from tests.tool_endpoint import (
    ANSWER,
    ToolEndpoint,
    arguments_are_json,
    chat_order,
    function_names,
    no_encrypted_reasoning,
    no_further_fields,
    no_max_tokens,
    no_schema,
    no_seed,
    not_together,
    reasoning_goes_back,
    refusal,
    response_items,
    schema_binds,
    signatures_go_back,
    strict_functions,
)

AGENT = """
workflow: w
model: m
nodes:
  a: {agent: {prompt: "Check {{ task_query }}", tools: [desk:find, desk:note], returns: {decision: {one of: [pay, hold]}, total: number}, max_turns: 4}}
"""
DESK = 'EFFECTS = "read"\ndef find(number: str):\n    return {"total": 20}\ndef note(text: str, times: int = 1):\n    return text\n'
GROQ = "json mode cannot be combined with tool/function calling"
THOUGHT = {"reasoning_content": "Two orders."}


def step(lab: Lab, settings: ModelSettings) -> dict[str, Any]:
    """The stored step of a run with one task."""
    lab.write("desk.py", DESK)
    models = {"m": settings}
    plan = make_plan(lab.workflow(AGENT), lab.tasks(["x"]), models, source="tasks.jsonl")
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, models))
    return lab.steps(Run(lab.objects, record.run_id), "a")["t0"]


def settings_of(host: str, model: str, url: str, **written: Any) -> ModelSettings:
    """The settings of a model of a provider's family, at our address."""
    found = {name: value.value for name, value in known_of(f"https://{host}/v1", model).items() if value.family}
    return ModelSettings(base_url=url, model=model, tries=1, **written).with_found(found)


ORDER = (chat_order, function_names)
PROVIDERS = {
    "OpenAI": ("api.openai.com", "gpt-4.1", ToolEndpoint((*ORDER, no_further_fields, strict_functions, no_max_tokens)), {}),
    "OpenAI, responses": ("api.openai.com", "gpt-5", ToolEndpoint((response_items, strict_functions, function_names)), {"api": "responses"}),
    "OpenAI, responses without reasoning": (
        "api.openai.com",
        "gpt-4.1",
        ToolEndpoint((response_items, strict_functions, no_encrypted_reasoning)),
        {"api": "responses"},
    ),
    "Azure": ("x.openai.azure.com", "gpt-4.1", ToolEndpoint((*ORDER, no_further_fields, strict_functions, no_max_tokens)), {"query": {"api-version": "1"}}),
    "DeepSeek": ("api.deepseek.com", "deepseek-chat", ToolEndpoint((*ORDER, reasoning_goes_back, no_schema, no_seed), THOUGHT), {}),
    "Groq": ("api.groq.com", "openai/gpt-oss-20b", ToolEndpoint((*ORDER, no_further_fields, not_together(GROQ)), {"reasoning": "Two orders."}), {}),
    "Gemini": (
        "generativelanguage.googleapis.com",
        "gemini-3-pro",
        ToolEndpoint((*ORDER, signatures_go_back, no_seed), call_says={"extra_content": {"google": {"thought_signature": "sig"}}}),
        {},
    ),
    "Mistral": ("api.mistral.ai", "mistral-medium", ToolEndpoint((*ORDER, no_further_fields, no_seed)), {}),
    "vLLM": ("127.0.0.1", "qwen", ToolEndpoint((*ORDER, arguments_are_json, schema_binds), THOUGHT), {}),
    "llama.cpp": ("127.0.0.1", "qwen", ToolEndpoint((*ORDER, not_together("Cannot use custom grammar constraints with tools.")), THOUGHT), {}),
    "parallel calls off": ("127.0.0.1", "qwen", ToolEndpoint(ORDER), {"parallel_tool_calls": False}),
    "words": ("127.0.0.1", "qwen", ToolEndpoint((*ORDER, not_together("no"))), {"structured_with_tools": "words"}),
}


@pytest.mark.parametrize("name", PROVIDERS)
def test_an_agent_works_as_its_provider_wants(name: str, lab: Lab):
    """Both calls of the first turn are made and told, and the answer fits the schema."""
    host, model, taste, written = PROVIDERS[name]
    with endpoint(taste) as state:
        row = step(lab, settings_of(host, model, state.url, **written))

    assert (row["outcome"], row["error"]) == ("done", None)
    assert json.loads(row["output"]) == ANSWER
    assert (row["turns"], row["tool_calls"], row["tool_errors"]) == (2, 2, 0)
    assert taste.bodies[0].get("parallel_tool_calls") == written.get("parallel_tool_calls")


REFUSALS = {
    "a schema together with tools": (ToolEndpoint((not_together(GROQ),)), {"structured_with_tools": "same"}, "      structured_with_tools: function\n"),
    "reasoning that is missing": (ToolEndpoint((reasoning_goes_back,), THOUGHT), {"reasoning_back": False}, "      reasoning_back: true\n"),
    "reasoning that is not wanted": (ToolEndpoint((no_further_fields,), THOUGHT), {}, "      reasoning_back: false\n"),
    "parallel_tool_calls": (
        ToolEndpoint((lambda body: refusal("Unsupported parameter: 'parallel_tool_calls' is not supported with this model.", "parallel_tool_calls"),)),
        {"parallel_tool_calls": True},
        "  remove 'parallel_tool_calls' from the settings of the model in the models file",
    ),
    "no tools": (
        ToolEndpoint((lambda body: refusal("registry.ollama.ai/library/smollm:135m does not support tools"),)),
        {},
        "  the endpoint takes no tools from this model; give the agent 'a' another model",
    ),
    "a tool's schema": (
        ToolEndpoint((lambda body: refusal("Invalid schema for function 'find': In context=(), 'oneOf' is not permitted.", "tools[0].function.parameters"),)),
        {"structured_with_tools": "same"},
        "  the endpoint does not take how a tool of agent 'a' is described; give its arguments simpler types, or ask another model",
    ),
    "tools that a server does not parse": (
        ToolEndpoint((lambda body: refusal('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),)),
        {},
        "  the endpoint takes no tools from this model; give the agent 'a' another model",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_provider_refuses_stops_the_run_with_what_to_do(name: str, lab: Lab):
    """No row is stored as failed for it."""
    taste, written, said = REFUSALS[name]
    with endpoint(taste) as state, pytest.raises(WrongSetting) as caught:
        step(lab, ModelSettings(base_url=state.url, model="x", tries=1, **written))

    assert said in f"{caught.value}\n"


def test_arguments_that_are_no_json_are_told_and_not_sent_back(lab: Lab):
    """A server whose chat template parses them would refuse every turn that follows."""

    class Clumsy(ToolEndpoint):
        def __call__(self, body: dict[str, Any]) -> Any:
            reply = super().__call__(body)
            if sum(message["role"] == "tool" for message in body["messages"]) == 0:
                for call in reply[2]["choices"][0]["message"]["tool_calls"]:
                    call["function"]["arguments"] = '{"number": "PO'
            return reply

    taste = Clumsy((*ORDER, arguments_are_json))
    with endpoint(taste) as state:
        row = step(lab, ModelSettings(base_url=state.url, model="x", tries=1))

    assert row["outcome"] == "done"
    assert next(message["content"] for message in taste.bodies[1]["messages"] if message["role"] == "tool").startswith(
        "Error: the arguments of 'find' are not JSON"
    )


def test_a_function_that_fits_is_strict_and_another_is_not(lab: Lab):
    """An argument that may be left out does not fit strict mode; it is not made compulsory for that."""
    taste = ToolEndpoint()
    with endpoint(taste) as state:
        step(lab, settings_of("api.openai.com", "gpt-4.1", state.url))

    assert [tool["function"].get("strict", False) for tool in taste.bodies[0]["tools"]] == [True, False]
    assert taste.bodies[0]["response_format"]["type"] == "json_schema"
