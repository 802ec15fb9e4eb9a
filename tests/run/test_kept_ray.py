"""A local Ray that stays up between commands, as a user of the command line meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint, endpoint

BEAM_RAY = str(Path(sys.executable).with_name("beam-ray"))


@dataclass
class Kept:
    """A project, the folder in which its Ray is noted, and the endpoint of its model."""

    folder: Path
    runtime: Path
    model: Endpoint

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a command, without what tests set for all."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BEAM_RAY_"))}
        return {**mine, "XDG_RUNTIME_DIR": str(self.runtime), "MODEL_KEY": "first", **more}

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """What a command printed."""
        return subprocess.run([BEAM_RAY, *words], cwd=self.folder, env=self.environment(**more), capture_output=True, text=True, timeout=120, check=False)

    def tasks(self, name: str, count: int = 3) -> str:
        """A file of tasks."""
        (self.folder / name).write_text("".join(json.dumps({"id": f"t{index}", "task_query": f"{name} {index}"}) + "\n" for index in range(count)))
        return name

    @property
    def document(self) -> dict[str, Any]:
        """What is noted of the Ray that is up."""
        return json.loads((self.runtime / f"beam-ray-{os.getuid()}" / "ray.json").read_text())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A project whose commands share one Ray, which a command started by itself."""
    folder = tmp_path_factory.mktemp("kept")
    runtime = tmp_path_factory.mktemp("runtime")
    with endpoint(lambda body: "yes") as model:
        (folder / "w.yaml").write_text("workflow: w\nmodel: m\nnodes:\n  a:\n    llm: {prompt: '{{ task_query }}'}\n")
        (folder / "models.yaml").write_text(f"m: {{base_url: '{model.url}/v1', model: x, api_key: '${{env:MODEL_KEY}}'}}\n")
        project = Kept(folder, runtime, model)
        first = project.run("run", "w.yaml", "--tasks", project.tasks("first.jsonl"), "--models", "models.yaml", BEAM_RAY_KEEP="10m")
        assert first.returncode == 0, first.stderr
        yield project
        project.run("down")


def runners_of(kept: Kept) -> list[int]:
    """Process ids of the runners that were started ahead."""
    found = subprocess.run(["pgrep", "-P", str(kept.document["keeper"]), "-f", "raylet"], capture_output=True, text=True, check=False).stdout.split()
    children = subprocess.run(["pgrep", "-P", ",".join(found), "-f", "RunnerActor"], capture_output=True, text=True, check=False).stdout.split()
    return [int(child) for child in children]


def below(process: int) -> list[int]:
    """Process ids of its descendants."""
    children = [int(child) for file in Path(f"/proc/{process}/task").glob("*/children") for child in file.read_text().split()]
    return [*children, *(each for child in children for each in below(child))]


def ends(process: int) -> bool:
    """Whether a process ends within a minute and a half."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        state = Path(f"/proc/{process}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_the_next_command_uses_the_ray_and_the_runner_that_are_up(kept: Kept):
    """A second command runs in the process that the first one left."""
    before = kept.document, runners_of(kept)
    second = kept.run("run", "w.yaml", "--tasks", kept.tasks("second.jsonl"), "--models", "models.yaml")

    assert second.returncode == 0, second.stderr
    assert before[1]
    assert (kept.document, runners_of(kept)) == before


def test_a_command_brings_its_own_environment(kept: Kept):
    """The key of the second command is sent, not that of the command that started the Ray."""
    kept.model.journal.clear()
    done = kept.run("run", "w.yaml", "--tasks", kept.tasks("third.jsonl"), "--models", "models.yaml", MODEL_KEY="second")

    assert done.returncode == 0, done.stderr
    assert {call.key for call in kept.model.journal} == {"Bearer second"}


def test_a_killed_command_leaves_no_runner_that_goes_on_paying(kept: Kept):
    """Its runner ends with it, and the same command goes on from where it was, in a new one."""
    kept.model.latency_s = 0.3
    words = [BEAM_RAY, "run", "w.yaml", "--tasks", kept.tasks("long.jsonl", 400), "--models", "models.yaml", "--json"]
    before = len(kept.model.journal)
    with subprocess.Popen(words, cwd=kept.folder, env=kept.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        while len(kept.model.journal) < before + 20:
            assert command.poll() is None
            time.sleep(0.05)
        command.send_signal(signal.SIGKILL)
    time.sleep(2.0)
    asked = len(kept.model.journal)
    time.sleep(1.0)
    kept.model.latency_s = 0.0

    assert len(kept.model.journal) == asked
    again = kept.run(*words[1:], "--takeover")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["passed"] == 400


def test_another_installation_starts_a_ray_of_its_own(kept: Kept, tmp_path: Path):
    """Where Python or the packages differ, the Ray that is up is left alone."""
    noted = kept.document
    folder = kept.runtime / f"beam-ray-{os.getuid()}"
    (folder / "ray.json").write_text(json.dumps({**noted, "python": ["another"], "address": "127.0.0.1:9"}))
    try:
        done = kept.run("run", "w.yaml", "--tasks", kept.tasks("other.jsonl"), "--models", "models.yaml", BEAM_RAY_KEEP="10m")
        refused = kept.run("up")
    finally:
        (folder / "ray.json").write_text(json.dumps(noted))

    assert done.returncode == 0, done.stderr
    assert refused.returncode == 2
    assert "of another installation is up (another)" in refused.stderr


def test_others_may_not_offer_a_ray(kept: Kept):
    """A folder that others may enter is not believed."""
    folder = kept.runtime / f"beam-ray-{os.getuid()}"
    folder.chmod(0o755)
    try:
        refused = kept.run("up")
    finally:
        folder.chmod(0o700)

    assert refused.returncode == 2
    assert "is not a folder of this user alone" in refused.stderr


@pytest.mark.parametrize("written", ["soon", "-1m", "8d"])
def test_a_duration_that_is_none_is_refused(kept: Kept, written: str):
    """With exit code 2 and the notation."""
    refused = kept.run("up", "--keep", written)

    assert refused.returncode == 2
    assert "write it as 30s, 10m or 2h" in refused.stderr


def test_it_ends_by_itself(tmp_path: Path, kept: Kept):
    """When its time without a command is up, the keeper, Ray and the note are gone."""
    other = Kept(kept.folder, tmp_path, kept.model)
    assert other.run("up", "--keep", "1s").returncode == 0
    keeper = other.document["keeper"]

    assert ends(keeper)
    assert not (tmp_path / f"beam-ray-{os.getuid()}" / "ray.json").exists()


def test_no_agent_of_ray_is_started(kept: Kept):
    """What stands in for the raylet's two agents loads nothing of Ray."""
    words = [Path(f"/proc/{process}/cmdline").read_text().split("\0") for process in below(kept.document["keeper"])]
    agents = [each for each in words if any("agent" in word and word.endswith(".py") for word in each)]

    assert len(agents) == 2
    assert not [each for each in agents if "-S" not in each]


def test_nothing_remains_of_a_keeper_that_is_killed(tmp_path: Path, kept: Kept):
    """Its Ray ends with it: the head, the raylet, what stands in for its agents, and the runner that waits."""
    other = Kept(kept.folder, tmp_path, kept.model)
    assert other.run("up").returncode == 0
    keeper = other.document["keeper"]
    processes = below(keeper)
    os.kill(keeper, signal.SIGKILL)

    assert len(processes) >= 4
    assert [process for process in processes if not ends(process)] == []


def test_down_ends_it(kept: Kept):
    """At once; a second one says that there is none."""
    keeper = kept.document["keeper"]
    assert kept.run("down").returncode == 0

    assert ends(keeper)
    assert "no local Ray is up" in kept.run("down").stderr
