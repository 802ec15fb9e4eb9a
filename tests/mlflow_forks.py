"""The worker that tells MLflow, without importing mlflow for each job: it is forked from a process that has it."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from beam_ray.tracking import watchdog, worker
from tests.forks import Forked, Forks

WORKER = "beam_ray.tracking.worker"
LOADED = (__name__, *(f"beam_ray.tracking.{name}" for name in ("experiments", "prompts", "trace_search", "evaluation_datasets")))
WORKERS = Forks(*LOADED, environment=watchdog.QUIET)


class Worker(Forked):
    """A worker, and what it prints."""

    def __init__(self, pid: int, stdout: IO[bytes]):
        super().__init__(pid)
        self.stdout = stdout


def start(command: list[str], *, stdin: int, stdout: int, stderr: IO[bytes], env: Mapping[str, str]) -> Worker:
    """What ``subprocess.Popen`` does for the worker's command."""
    *_, module, folder = command
    assert (module, stdin, stdout) == (WORKER, subprocess.DEVNULL, subprocess.PIPE)
    said = Path(folder) / "stdout"
    os.mkfifo(said)
    forked = WORKERS.start(f"{__name__}:work", folder, folder=os.getcwd(), environment=env, out=str(said), err=stderr.name)
    return Worker(forked.pid, said.open("rb"))


def work(folder: str) -> None:
    """What the command does."""
    worker.main(Path(folder))


@pytest.fixture
def mlflow_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked; ``tests/tracking`` starts them as commands do."""
    monkeypatch.setattr(watchdog, "subprocess", SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL, PIPE=subprocess.PIPE))
