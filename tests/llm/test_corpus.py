"""Every broken answer of the corpus is a failed step with its reason, and never a success with wrong content."""

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from beam_ray.llm.settings import ModelSettings
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.corpus.cases import Case, of
from tests.endpoint import endpoint

FIELDS = """
workflow: w
model: m
nodes:
  a:
    llm:
      prompt: "{{ task_query }}"
      returns: {total: number, vendor: str | null, day: date, kind: {one of: [order, invoice]}, lines: [str], count: int}
"""
WORDS = """
workflow: w
model: m
nodes:
  a: {llm: {prompt: "{{ task_query }}"}}
"""
CASES: list[Case] = [written.values[0] for written in of("answers")]


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], dict[str, Any]]:
    """The step that got a case's answer; all answers of a family are given in one run."""

    @cache
    def family(stem: str) -> dict[str, dict[str, Any]]:
        lab = Lab(folder := tmp_path_factory.mktemp(stem), open_objects(str(folder / "store")))
        bodies = {case.title: case.body for case in CASES if case.family.stem == stem}
        if stem != "replies":
            return lab.steps(lab.run(FIELDS if stem == "json" else WORDS, _tasks(bodies), lambda asked: bodies[asked.messages[0]["content"]].decode()), "a")
        with endpoint(lambda asked: (200, {}, bodies[asked["messages"][0]["content"]])) as state:
            models = {"m": ModelSettings(base_url=state.url, model="x", tries=1)}
            plan = make_plan(lab.workflow(WORDS), lab.tasks(_tasks(bodies)), models, source="tasks.jsonl")
            record = begin(lab.objects, plan.record, plan.tasks)
            asyncio.run(drive_here(lab.objects, record, models))
        return lab.steps(Run(lab.objects, record.run_id), "a")

    return lambda case: family(case.family.stem)[case.title]


def _tasks(bodies: dict[str, bytes]) -> list[dict[str, str]]:
    return [{"id": title, "task_query": title} for title in bodies]


@pytest.mark.parametrize("case", of("answers"))
def test_a_broken_answer_is_a_failed_step(case: Case, row):
    """Whatever an endpoint says, the row ends in one state, with the reason, and keeps no output."""
    found = row(case)

    assert (found["outcome"], found["output"], found["passed"]) == ("failed", None, None)
    case.expect(f"{found['error_type']}: {found['error']}\n")
