"""The command line in this process, over the shared Ray and an endpoint with a journal."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from beam_ray.cli import main
from tests.conftest import Lab
from tests.endpoint import Endpoint, endpoint


@dataclass
class Said:
    """What a command printed, and how it left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        assert self.out, self.err
        return json.loads(self.out)


@dataclass
class Desk:
    """Where commands are given."""

    lab: Lab
    model: Endpoint
    give: Callable[..., Said]

    def __call__(self, *words: object) -> Said:
        return self.give(*words)


WORKFLOW = """
workflow: sums
model: m
nodes:
  read:
    llm: {prompt: "read {{ task_query }}", returns: {n: int}}
    evaluate: {criteria: [{equals: {n: expected.n}}]}
  say:
    after: read
    llm: {prompt: "say {{ read.n }}"}
"""

SPEC = """
backtest: sums-v2
workflow: sums.yaml
tasks: tasks.jsonl
baseline: published
candidates:
  v2: {nodes.read.llm.prompt: "better {{ task_query }}"}
"""


def answer(body: dict[str, Any]) -> Any:
    """Reads every third number rightly, and with a better prompt all of them."""
    said = body["messages"][-1]["content"]
    word, number = said.split()
    if word == "say":
        return f"it is {number}"
    return {"n": int(number) if word == "better" or int(number) % 3 == 0 else -1}


@pytest.fixture
def desk(ray_lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A folder with a workflow, 36 tasks, a spec and a model."""
    ray_lab.write("sums.yaml", WORKFLOW)
    ray_lab.write("spec.yaml", SPEC)
    ray_lab.write(
        "tasks.jsonl",
        "".join(
            json.dumps({"id": f"n{index}", "task_query": str(index), "expected": {"n": index}, "labels": ["even"] if index % 2 == 0 else []}) + "\n"
            for index in range(36)
        ),
    )
    with endpoint(answer) as model:
        ray_lab.write("models.yaml", f"m: {{base_url: '{model.url}', model: x, usd_per_million: {{input: 1, output: 2}}}}\n")
        monkeypatch.chdir(ray_lab.folder)
        monkeypatch.setenv("BEAM_RAY_MODELS", "models.yaml")
        monkeypatch.setenv("BEAM_RAY_STORE", str(Path("store")))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")

        def give(*words: object) -> Said:
            capsys.readouterr()
            with pytest.raises(SystemExit) as left:
                main([str(word) for word in words])
            out, err = capsys.readouterr()
            return Said(int(left.value.code or 0), out, err)

        yield Desk(ray_lab, model, give)


@pytest.fixture
def desk_of_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Gives commands that only print their help, on a terminal of 110 columns."""
    monkeypatch.setenv("COLUMNS", "110")

    def give(*words: str) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(words))
        out, err = capsys.readouterr()
        return Said(int(left.value.code or 0), out, err)

    return give
