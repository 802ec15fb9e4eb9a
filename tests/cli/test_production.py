"""From the traces of a real MLflow to a verdict, as a person types it."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from tests import mlflow_app
from tests.cli.conftest import Desk
from tests.commands import run_command
from tests.conftest import Lab
from tests.endpoint import endpoint

TRACES, SAMPLE = 120, 80
WORKFLOW = """
workflow: support
model: m
nodes:
  sort:
    llm: {prompt: "Sort: {{ task_query }}"}
    evaluate:
      criteria:
        - equals: {text: expected.text}
        - The answer names one team and nothing else.
"""
SPEC = """
backtest: support-v1
workflow: support.yaml
tasks: library:support
baseline: recorded
candidates: {v1: support.yaml}
"""


def answer(body: dict[str, Any]) -> Any:
    """Sorts every message rightly, and as a judge finds that every answer is a team."""
    said = body["messages"][-1]["content"]
    if "The criteria:" in said:
        return {"criterion_1": {"reason": "one team", "met": True}}
    return next(team for team, words in zip(mlflow_app.TEAMS, mlflow_app.WORDS, strict=True) if words in said)


@pytest.fixture
def desk(ray_lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A folder with a workflow, a spec and a model."""
    ray_lab.write("support.yaml", WORKFLOW)
    ray_lab.write("spec.yaml", SPEC)
    with endpoint(answer) as model:
        ray_lab.write("models.yaml", f"m: {{base_url: '{model.url}', model: x, usd_per_million: {{input: 1, output: 2}}}}\n")
        monkeypatch.chdir(ray_lab.folder)
        monkeypatch.setenv("BEAM_RAY_MODELS", "models.yaml")
        monkeypatch.setenv("BEAM_RAY_STORE", "store")
        yield Desk(ray_lab, model, partial(run_command, capsys))


@pytest.mark.usefixtures("mlflow_forks")
def test_from_production_traces_to_a_verdict(desk: Desk, tmp_path: Path) -> None:
    """
    A sample of 120 traces becomes a library, production's answers the baseline, and the verdict counts what the workflow mends; nothing
    but what the plan said is asked.
    """
    production = mlflow_app.produce(tmp_path, TRACES, wrong_every=3, assessed=TRACES)

    imported = desk("library", "import", "support", "--from", "mlflow:support", "--sample", SAMPLE, "--mlflow", production)
    plan = desk("backtest", "spec.yaml", "--plan", "--json")
    done = desk("backtest", "spec.yaml", "--mlflow", "none", "--json")
    tasks = desk("library", "show", "support", "--json").json["tasks"]
    comparison = done.json["candidates"][0]["comparison"]
    failed = sum("failed in production" in task["labels"] for task in tasks)

    assert imported.code == 0
    assert len(tasks) == SAMPLE
    assert failed > 0
    recorded = beam_ray.open("store").library("support").tasks["recorded"].to_pylist()
    assert any("find_order" in json.loads(text)["steps"] for text in recorded)
    assert [side["calls"] for side in plan.json["sides"]] == [SAMPLE - failed, 2 * SAMPLE]
    assert len(desk.model.journal) == 3 * SAMPLE - failed
    assert (done.code, done.json["word"]) == (0, "PASS")
    assert comparison["newly_failing"] == []
    assert len(comparison["newly_passing"]) == sum(_wrong(task) for task in tasks)
    assert "not recorded on the baseline" in desk("report", done.json["backtest_id"]).out


def _wrong(task: dict[str, Any]) -> bool:
    """Whether production failed at the task, or sorted it wrongly."""
    number = next(number for number in range(TRACES) if mlflow_app.message(number) == task["task_query"])
    return number % 3 == 0 or number % 50 == 7
