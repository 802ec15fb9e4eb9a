"""What the store keeps of an answer beside its output: reasoning, cached tokens, and whether usage was reported."""

import asyncio

from beam_ray.llm.request import Answer
from beam_ray.llm.settings import ModelSettings
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.endpoint import Picky, endpoint

WORKFLOW = """
workflow: w
model: m
nodes:
  a:
    llm: {prompt: "Say hello. {{ task_query }}"}
    evaluate: {criteria: [{check: "'hm' in a.text"}]}
"""


def step(lab: Lab, taste: Picky, text: str = WORKFLOW) -> tuple[dict, Run]:
    """The one step of a run against an endpoint with this taste."""
    with endpoint(taste) as state:
        models = {"m": ModelSettings(base_url=state.url, model="x", usd_per_million={"input": 1, "output": 1})}
        plan = make_plan(lab.workflow(text), lab.tasks(["x"]), models, source="tasks.jsonl")
        record = begin(lab.objects, plan.record, plan.tasks)
        asyncio.run(drive_here(lab.objects, record, models))
    run = Run(lab.objects, record.run_id)
    return lab.steps(run, "a")["t0"], run


def test_reasoning_is_stored_with_its_attempt_and_not_judged(lab: Lab):
    """The criterion would hold of the reasoning and does not hold of the answer."""
    row, _ = step(lab, Picky(thinks=True))

    assert (row["attempts"][0]["reasoning"], row["attempts"][0]["reasoning_tokens"], row["reasoning_tokens"]) == ("hm", 3, 3)
    assert row["score"] == 0


def test_usage_that_is_not_reported_is_marked_in_step_outcome_and_summary(lab: Lab):
    """Tokens and money are estimates there, and say so."""
    row, run = step(lab, Picky(usage=False))

    assert (row["attempts"][0]["estimated"], row["estimated_calls"], row["cached_tokens"]) == (True, 1, None)
    assert row["usd"] > 0
    assert run.outcome()["estimated_calls"].to_pylist() == [1]
    assert run.manifest["usage"]["estimated_calls"] == 1


def test_a_criterion_may_ask_for_the_reasoning(lab: Lab):
    """Only one whose expression names it."""
    row, _ = step(lab, Picky(thinks=True), WORKFLOW.replace("'hm' in a.text", "'hm' in reasoning"))

    assert row["score"] == 100


def test_only_a_sentence_that_asks_for_the_reasoning_is_judged_by_it(lab: Lab):
    """Of two sentences the judge reads the reasoning for one, in a call of its own."""
    text = """
    workflow: w
    model: m
    nodes:
      a:
        llm: {prompt: "{{ task_query }}"}
        evaluate: {criteria: [It is polite., {text: The reasoning is short., reasoning: true}]}
    """
    shown = []

    def answer(request):
        if not request.judges:
            return Answer("hello", reasoning="SECRET THOUGHT")
        shown.append(request.messages[-1]["content"])
        return {"criterion_1": {"reason": "x", "met": True}}

    row = lab.steps(lab.run(text, ["x"], answer), "a")["t0"]

    assert [("SECRET THOUGHT" in words, "It is polite." in words, "The reasoning is short." in words) for words in shown] == [
        (False, True, False),
        (True, False, True),
    ]
    assert (row["score"], row["judge_calls"]) == (100, 2)
