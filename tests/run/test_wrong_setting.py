"""A wrong setting stops the run and not its rows, and the same command resumes once it is mended."""

import asyncio
import threading

import pytest

from beam_ray.errors import WrongSetting
from beam_ray.llm.settings import ModelSettings
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.endpoint import Endpoint, Picky, endpoint

WORKFLOW = """
workflow: w
model: m
nodes:
  a: {llm: {prompt: "Say hello to {{ task_query }}"}}
  b: {after: a, llm: {model: picky, prompt: "Say hello again", returns: {city: str, count: int}}}
"""
IN_FLIGHT = 4


def attempt(lab: Lab, plain: Endpoint, picky: Endpoint, **mended: object) -> Run:
    """The run of 50 tasks, begun or resumed; raises what stops it."""
    models = {
        "m": ModelSettings(base_url=plain.url, model="x"),
        "picky": ModelSettings(base_url=picky.url, model="x", concurrency=IN_FLIGHT, **mended),
    }
    plan = make_plan(lab.workflow(WORKFLOW), lab.tasks([f"task {number}" for number in range(50)]), models, source="tasks.jsonl")
    record = begin(lab.objects, plan.record, plan.tasks)
    execute(lab.objects, record, models, connection=Connection(cluster=lab.cluster))
    return Run(lab.objects, record.run_id)


def test_a_refused_setting_costs_the_calls_in_flight_and_fails_no_row(ray_lab: Lab):
    """50 tasks: the calls to the picky model are no more than fit in flight, what the other model said is kept, and mended settings resume the run."""
    with (
        endpoint(lambda body: "hello") as plain,
        endpoint(Picky(limit="max_completion_tokens", refuses_formats=("json_schema",), binds=("json_object",))) as picky,
    ):
        with pytest.raises(WrongSetting, match="refuses 'max_tokens'") as first:
            attempt(ray_lab, plain, picky)
        refused = len(picky.journal)
        with pytest.raises(WrongSetting, match="structured: object"):
            attempt(ray_lab, plain, picky, max_tokens_as="max_completion_tokens")
        run = attempt(ray_lab, plain, picky, max_tokens_as="max_completion_tokens", structured="object")

    assert refused <= IN_FLIGHT
    assert "  write in the models file:\n    picky:\n      max_tokens_as: max_completion_tokens\n" in str(first.value)
    assert {row["outcome"] for row in run.steps().to_pylist()} == {"done"}
    assert len(plain.journal) == 50


def test_calls_in_flight_end_and_are_kept(lab: Lab):
    """The refusal of one row does not throw away the answer that another row is waiting for."""
    from beam_ray.run.assignment import Assignment
    from beam_ray.run.runner import Runner

    answered, refused = threading.Event(), threading.Event()

    def slow(body):
        refused.wait(10)
        answered.set()
        return "late"

    def picky(body):
        refused.set()
        return 400, {}, {"error": {"message": "Unsupported parameter: 'seed'", "param": "seed"}}

    text = "workflow: w\nmodel: m\nnodes:\n  a: {llm: {prompt: x}}\n  b: {llm: {prompt: y, model: picky}}\n"
    with endpoint(slow) as plain, endpoint(picky) as bad:
        models = {"m": ModelSettings(base_url=plain.url, model="x"), "picky": ModelSettings(base_url=bad.url, model="x")}
        plan = make_plan(lab.workflow(text), lab.tasks(["one"]), models, source="tasks.jsonl")
        record = begin(lab.objects, plan.record, plan.tasks)

        async def drive() -> None:
            runner = Runner(Assignment(lab.objects.uri, record.run_id, models, "here", 32))
            try:
                with pytest.raises(WrongSetting):
                    await asyncio.gather(*(runner.step(0, node) for node in ("a", "b")))
                await runner.drain("refused")
            finally:
                await runner.stop()

        asyncio.run(drive())
    spooled = [row for table in Run(lab.objects, record.run_id).spooled() for row in table.to_pylist()]

    assert answered.is_set()
    assert [(row["node"], row["output"]) for row in spooled] == [("a", '{"text": "late"}')]
