"""A store whose runs are done in this process, with a model that answers from a script."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

import beam_ray
from beam_ray.run.connection import Connection
from tests.faults.here import Brief
from tests.sums import WORKFLOW, numbers, reply

TASKS = numbers(9)


def answer(request: beam_ray.Request) -> object:
    """See ``sums.reply``."""
    return reply(str(request.messages[-1]["content"]))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[beam_ray.Store]:
    """An empty store; the model 'm' is scripted, and the working folder has sums.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.yaml").write_text(WORKFLOW)
    opened = beam_ray.open(tmp_path / "store", models={"m": beam_ray.ScriptedModel(answer)})
    cluster = Brief()
    yield dataclasses.replace(opened, connection=Connection(cluster=cluster))
    cluster.close()
