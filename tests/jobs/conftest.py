"""A real Ray head with token authentication, on ports of its own, and a working folder to submit to it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from tests.endpoint import Endpoint, endpoint
from tests.improve.scripted import proposal
from tests.ray_nodes import cluster_environment, dashboard_answers, end_node, head_command, head_ports

HERE = Path(__file__).parents[2]

MANY = int(os.environ.get("JOB_TASKS", "300"))
"""Tasks of a large backtest."""


@dataclass
class Head:
    """A Ray head, and the environment in which one may talk to it."""

    url: str
    address: str
    environment: dict[str, str] = field(repr=False)


@pytest.fixture(scope="package")
def head() -> Iterator[Head]:
    """Started by ``ray start --head --block``, which takes all its processes with it when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="brj-", dir="/tmp"))  # a socket's path has at most 107 characters
    ports = head_ports()
    environment = {
        **cluster_environment(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # a node that is killed is missed after ten seconds, and not after twenty; sooner, a busy machine would lose those that live
        "RAY_health_check_initial_delay_ms": "5000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "10",
    }
    with open(folder / "log", "w") as log:
        ray = subprocess.Popen(head_command(folder, ports, cpus=2), env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        _await(ports["dashboard-port"], ray, folder / "log")
        yield Head(url, f"127.0.0.1:{ports['port']}", environment)
    finally:
        end_node(ray)
        shutil.rmtree(folder, ignore_errors=True)


def _await(port: int, ray: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 200
    # the dashboard answers before the node has joined
    while not (dashboard_answers(port) and "will now block" in log.read_text()):
        if time.monotonic() > deadline or ray.poll() is not None:
            raise AssertionError(log.read_text())
        time.sleep(0.3)


@dataclass
class Project:
    """A working folder with a copy of beam_ray, two backtests, and things that must not be shipped."""

    folder: Path
    store: Path
    head: Head
    model: Endpoint

    @property
    def objects(self) -> Objects:
        """The store."""
        return open_objects(str(self.store))

    def ask(self, *command: object, **environment: str | None) -> "subprocess.CompletedProcess[str]":
        """Run a program in the folder, with the head's token; a variable that is None is removed."""
        full = {name: value for name, value in {**self.head.environment, **environment}.items() if value is not None}
        return subprocess.run([*map(str, command)], cwd=self.folder, env=full, capture_output=True, text=True, timeout=240)

    def beam_ray(self, *arguments: object, **environment: str | None) -> "subprocess.CompletedProcess[str]":
        """A beam-ray command in the folder."""
        return self.ask(sys.executable, "-m", "beam_ray", *arguments, **environment)

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """A beam-ray command in the folder, in the background."""
        command = [sys.executable, "-m", "beam_ray", *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.folder, env=self.head.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ray_job(self, name: str, *command: object) -> "subprocess.CompletedProcess[str]":
        """``ray job submit``."""
        return self.ask("ray", "job", "submit", "--address", self.head.url, "--submission-id", name, "--working-dir", ".", "--", *command)

    def job(self, name: str) -> dict[str, Any]:
        """What the cluster says of a job."""
        return self.dashboard(f"/api/jobs/{name}")

    def dashboard(self, path: str) -> dict[str, Any]:
        """What the cluster's dashboard answers."""
        token = Path(self.head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(self.head.url + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.loads(answer.read()))


def numbered(count: int) -> str:
    """So many tasks, as the lines of a file."""
    return "".join(json.dumps({"id": f"t{index}", "task_query": str(index)}) + "\n" for index in range(count))


def until(holds: Callable[[], object], seconds: float = 200) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def say(body: dict[str, Any]) -> str:
    """The good prompt is answered rightly, the lucky one for nine tasks of a hundred, the poor one never; and proposes the good one."""
    if "response_format" in body:
        return proposal(user_1="good", user_3="")
    word, number = body["messages"][-1]["content"].split()
    return "right" if word == "good" or (word == "lucky" and int(number) % 100 < 9) else "wrong"


@pytest.fixture(scope="package")
def project(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two backtests of 24 tasks with a good prompt and a poor one, and many more tasks."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("beam_ray", "jobs"):
        shutil.copytree(HERE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore"):
        shutil.copy(HERE / name, folder)
    for name in (".venv/lib/big.py", ".beam-ray/store.json", "mlruns/0/meta.yaml", ".env", "mlflow.db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    with endpoint(say) as model:
        for word in ("good", "poor", "lucky"):
            (folder / f"{word}.yaml").write_text(
                f"workflow: w\nmodel: m\nnodes:\n  say:\n    llm: {{prompt: '{word} {{{{ task_query }}}}'}}\n    evaluate: {{criteria: [check: say.text == 'right']}}\n"
            )
        for name, before, after in (("better", "poor", "good"), ("worse", "good", "poor")):
            (folder / f"{name}.yaml").write_text(
                f"backtest: {name}\nworkflow: {before}.yaml\nbaseline: {before}.yaml\ntasks: tasks.jsonl\ncandidates: {{new: {after}.yaml}}\ngate: gate.yaml\n"
            )
        (folder / "gate.yaml").write_text("gate: g\nrules: {score: {up_by: 10}, regressions: {at_most: 0}}\n")
        (folder / "tasks.jsonl").write_text(numbered(24))
        (folder / "many.jsonl").write_text(numbered(MANY))
        (folder / "models.yaml").write_text(f"m: {{base_url: '{model.url}', model: x}}\n")
        (folder / "nobody.yaml").write_text("m: {base_url: 'http://127.0.0.1:9/v1', model: x, tries: 1, deadline_s: 1}\n")
        yield Project(folder, tmp_path_factory.mktemp("store"), head, model)
