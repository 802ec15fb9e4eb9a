"""A store on the shared Ray, with a model that answers from a script."""

import dataclasses
from pathlib import Path

import pytest

import beam_ray
from beam_ray.run.cluster import Cluster
from beam_ray.run.connection import Connection

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

TASKS = [{"id": f"n{number}", "task_query": str(number), "expected": {"n": number}, "labels": ["even"] if number % 2 == 0 else []} for number in range(9)]


def answer(request: beam_ray.Request) -> object:
    """Reads every third number rightly, and with a better prompt all of them."""
    word, number = str(request.messages[-1]["content"]).split()[:2]
    if word == "say":
        return f"it is {number}"
    return {"n": int(number) if word == "better" or int(number) % 3 == 0 else -1}


@pytest.fixture
def store(tmp_path: Path, ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> beam_ray.Store:
    """An empty store; the model 'm' is scripted, and the working folder has sums.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.yaml").write_text(WORKFLOW)
    opened = beam_ray.open(tmp_path / "store", models={"m": beam_ray.ScriptedModel(answer)})
    return dataclasses.replace(opened, connection=Connection(cluster=ray_cluster))
