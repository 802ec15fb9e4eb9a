"""The command line in this process, over an endpoint with a journal."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beam_ray.run import cluster
from tests.commands import CommandResult, run_command
from tests.conftest import Lab
from tests.endpoint import Endpoint, endpoint
from tests.faults.here import Brief
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


@contextmanager
def furnished(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A folder with a workflow, 36 tasks, a spec and a model."""
    lab.write("sums.yaml", WORKFLOW)
    lab.write("spec.yaml", SPEC)
    lab.write("tasks.jsonl", "".join(f"{json.dumps(task)}\n" for task in numbers(36)))
    with endpoint(answer) as model:
        lab.write("models.yaml", f"m: {{base_url: '{model.url}', model: x, usd_per_million: {{input: 1, output: 2}}}}\n")
        monkeypatch.chdir(lab.folder)
        monkeypatch.setenv("BEAM_RAY_MODELS", "models.yaml")
        monkeypatch.setenv("BEAM_RAY_STORE", str(Path("store")))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")

        yield Desk(lab, model, partial(run_command, capsys))


@pytest.fixture
def desk(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A desk whose runs are done in this process, by the same driver and runner as on Ray."""
    monkeypatch.setattr(cluster, "Cluster", Brief)
    with furnished(lab, monkeypatch, capsys) as made:
        yield made


@pytest.fixture
def ray_desk(ray_lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A desk whose runs are done on Ray."""
    with furnished(ray_lab, monkeypatch, capsys) as made:
        yield made


@pytest.fixture
def desk_of_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Gives commands that only print their help, on a terminal of 110 columns."""
    monkeypatch.setenv("COLUMNS", "110")

    return partial(run_command, capsys)
