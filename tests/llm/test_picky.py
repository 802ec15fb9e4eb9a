"""Endpoints that call themselves OpenAI-compatible, row by row of what they do differently, up to the stored step."""

import asyncio
from typing import Any

import pytest

from beam_ray.errors import WrongSetting
from beam_ray.llm.model_check import check_model
from beam_ray.llm.settings import ModelSettings
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.endpoint import Picky, choice_of, endpoint

WORKFLOW = """
workflow: w
model: m
nodes:
  a: {llm: {prompt: "Where is {{ task_query }}?", temperature: 0.2, returns: {city: str, count: int}}}
"""
USAGE = {"prompt_tokens": 10, "completion_tokens": 5}
CITY = '{"city": "Rome", "count": 1}'


def step(lab: Lab, url: str, settings: ModelSettings) -> dict[str, Any]:
    """The stored step of a run with one task."""
    models = {"m": settings}
    plan = make_plan(lab.workflow(WORKFLOW), lab.tasks(["x"]), models, source="tasks.jsonl")
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, models))
    return lab.steps(Run(lab.objects, record.run_id), "a")["t0"]


REFUSALS = {
    "max_tokens": (Picky(limit="max_completion_tokens"), "max_tokens_as: max_completion_tokens"),
    "temperature": (Picky(refuses=("temperature",)), "temperature: omit"),
    "seed": (Picky(refuses=("seed",)), "seeds: false"),
    "json_schema": (Picky(refuses_formats=("json_schema",), binds=("json_object",)), "structured: object"),
    "json_schema and json_object": (Picky(refuses_formats=("json_schema", "json_object"), binds=("tools",)), "structured: object"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_parameter_that_is_refused_stops_the_run_with_the_line_to_write(name, lab: Lab):
    """No row is stored as failed for it."""
    taste, line = REFUSALS[name]
    with endpoint(taste) as state, pytest.raises(WrongSetting) as caught:
        step(lab, state.url, ModelSettings(base_url=state.url, model="x"))

    assert f"\n      {line}\n" in str(caught.value)


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_check_found_is_enough_to_run(name, lab: Lab):
    """The first row is asked as the endpoint wants it."""
    with endpoint(REFUSALS[name][0]) as state:
        settings = ModelSettings(base_url=state.url, model="x")
        found = asyncio.run(check_model(settings, "m"))
        row = step(lab, state.url, settings.with_found(found.found))

    assert (row["outcome"], row["output"]) == ("done", CITY)


REPLIES = {
    "thinks in tags": {"content": f"<think>Rome?</think>{CITY}"},
    "a code fence": {"content": f"Sure:\n```json\n{CITY}\n```"},
    "words around": {"content": f"The answer is {CITY}, as asked."},
    "reasoning_content": {"content": CITY, "reasoning_content": "Rome?"},
    "reasoning": {"content": CITY, "reasoning": "Rome?"},
    "reasoning_details": {"content": CITY, "reasoning_details": [{"type": "reasoning.text", "text": "Rome?"}]},
}


@pytest.mark.parametrize("name", REPLIES)
def test_an_answer_in_another_form_is_the_same_output(name, lab: Lab):
    """Reasoning is stored apart where there is some."""
    reply = {"choices": [choice_of(**REPLIES[name])], "usage": USAGE}
    with endpoint(lambda body: (200, {}, reply)) as state:
        row = step(lab, state.url, ModelSettings(base_url=state.url, model="x"))

    assert (row["outcome"], row["output"]) == ("done", CITY)
    assert row["attempts"][0]["reasoning"] == (None if name in ("a code fence", "words around") else "Rome?")


FAULTS = {
    "thinking used up the limit": (
        {"choices": [choice_of("length", content=None, reasoning="Rome?")], "usage": {**USAGE, "completion_tokens_details": {"reasoning_tokens": 1024}}},
        "reasoning used 1,024 of these tokens",
    ),
    "a function that was not offered": (
        {"choices": [choice_of("tool_calls", content=None, tool_calls=[{"function": {"name": "look_up", "arguments": "{}"}}])], "usage": USAGE},
        "the model called the function 'look_up', which was not offered",
    ),
    "an error inside a reply": ({"error": {"message": "Provider returned error", "code": 502}}, "Error code: 502 - Provider returned error"),
    "two values": ({"choices": [choice_of(content=f"{CITY} or {CITY}")], "usage": USAGE}, "more than one JSON value"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_one_answer_says_what_it_was(name, lab: Lab):
    """The row fails with the reason."""
    reply, said = FAULTS[name]
    with endpoint(lambda body: (200, {}, reply)) as state:
        row = step(lab, state.url, ModelSettings(base_url=state.url, model="x", tries=1))

    assert row["outcome"] == "failed"
    assert said in row["error"]


def test_a_page_of_html_is_told_by_its_status(lab: Lab):
    """Its markup says nothing."""
    with endpoint(lambda body: (502, {"Content-Type": "text/html"}, b"<html><body>Bad Gateway</body></html>")) as state:
        row = step(lab, state.url, ModelSettings(base_url=state.url, model="x", tries=1))

    assert row["error"] == "Error code: 502"
