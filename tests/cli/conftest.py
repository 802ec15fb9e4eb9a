"""The command line in this process, over the shared Ray and an endpoint with a journal."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.commands import CommandResult, run_command
from tests.conftest import Lab
from tests.endpoint import Endpoint, endpoint
from tests.sums import WORKFLOW, numbers, reply


@dataclass
class Desk:
    """Where commands are given."""

    lab: Lab
    model: Endpoint
    give: Callable[..., CommandResult]

    def __call__(self, *words: object) -> CommandResult:
        return self.give(*words)


SPEC = """
backtest: sums-v2
workflow: sums.yaml
tasks: tasks.jsonl
baseline: published
candidates:
  v2: {nodes.read.llm.prompt: "better {{ task_query }}"}
"""


def answer(body: dict[str, Any]) -> Any:
    """See ``sums.reply``."""
    return reply(body["messages"][-1]["content"])


@pytest.fixture
def desk(ray_lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A folder with a workflow, 36 tasks, a spec and a model."""
    ray_lab.write("sums.yaml", WORKFLOW)
    ray_lab.write("spec.yaml", SPEC)
    ray_lab.write("tasks.jsonl", "".join(f"{json.dumps(task)}\n" for task in numbers(36)))
    with endpoint(answer) as model:
        ray_lab.write("models.yaml", f"m: {{base_url: '{model.url}', model: x, usd_per_million: {{input: 1, output: 2}}}}\n")
        monkeypatch.chdir(ray_lab.folder)
        monkeypatch.setenv("BEAM_RAY_MODELS", "models.yaml")
        monkeypatch.setenv("BEAM_RAY_STORE", str(Path("store")))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")

        yield Desk(ray_lab, model, partial(run_command, capsys))


@pytest.fixture
def desk_of_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Gives commands that only print their help, on a terminal of 110 columns."""
    monkeypatch.setenv("COLUMNS", "110")

    return partial(run_command, capsys)
