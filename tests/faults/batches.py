"""A bench for the batch lane: a folder, an endpoint that takes batches, and the rules that must hold."""

import json
import os
import random
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from beam_ray.backtest.results import read_verdict
from beam_ray.store.lease import driver_of
from beam_ray.store.lookup import find_runs
from beam_ray.store.runs import Run
from tests.batch_endpoint import BatchServer
from tests.faults.conftest import SPEC, WORKFLOW, Ended, Forge, essence, opened

QUICK = {"beam_ray.run.waves:FIRST_PAUSE_S": 0.02, "beam_ray.run.waves:MAX_PAUSE_S": 0.05, "beam_ray.run.waves:LOST_REPLY_S": 0.01}
"""Pauses that a test can wait for."""


ENDPOINT = ("upload", "uploaded", "create", "created", "poll", "fetch")


@dataclass
class Post:
    """A folder with a workflow, its tasks and a store, and an endpoint that takes batches."""

    folder: Path
    forge: Forge
    server: BatchServer
    uri: str
    tasks: int = 16

    def __call__(self, *words: str, code: int | None = 0, **how: Any) -> Ended:
        """Give a command, and see how it ends."""
        models = () if words[0] in ("publish", "library", "compare") else ("--models", "models.yaml")
        ended = self.forge(self.folder, *words, *models, "--store", self.uri, **{"settings": QUICK, **how})
        assert "Traceback" not in ended.err.partition("Exception ignored")[0], ended.err
        assert code is None or ended.code == code, (ended.code, ended.err)
        return ended

    def run(self, *words: str, **how: Any) -> Ended:
        """The command that is disturbed, and given again."""
        return self("run", "work.yaml", "--tasks", "tasks.jsonl", "--lane", "batch", *words, **how)

    def interrupted(self, call: str) -> tuple[Ended, float]:
        """The command, given Ctrl-C as soon as the endpoint has had the second *call*, and the seconds that it then took."""
        with ThreadPoolExecutor(1) as beside:
            command = beside.submit(self.run, code=130)
            while self.server.counts[call] < 2:
                assert not command.done(), command.result().err
                time.sleep(0.01)
            objects = opened(self.uri)
            driver = driver_of(Run(objects, next(iter(find_runs(objects)))))
            assert driver
            os.kill(driver["pid"], signal.SIGINT)
            began = time.monotonic()
            return command.result(), time.monotonic() - began

    def models(self, *lines: str, **more: str) -> None:
        """Write the models file: further lines of the model m, and other models."""
        written = [f"m: {{base_url: '{self.server.url}', model: x, concurrency: 8, usd_per_million: {{input: 1, output: 2}}, {', '.join(lines)}}}"]
        written += [f"{name}: {{base_url: '{self.server.url}', model: y, usd_per_million: {{input: 1, output: 2}}, {text}}}" for name, text in more.items()]
        (self.folder / "models.yaml").write_text("\n".join(written) + "\n")

    @property
    def runs(self) -> list[Run]:
        """All runs of the store."""
        objects = opened(self.uri)
        return [Run(objects, run_id) for run_id in find_runs(objects)]

    @property
    def finished(self) -> Run:
        """The one finished run."""
        [run] = [run for run in self.runs if run.finished]
        return run

    def anew(self) -> None:
        """Begin with an empty store."""
        self.uri += "+"

    def assert_once(self) -> None:
        """No batch was created twice, and no row was answered twice."""
        assert [mark for mark, count in self.server.submitted.items() if count > 1] == []
        assert [name for name, count in self.server.rows.items() if count > 1] == []


def make_post(folder: Path, forge: Forge, server: BatchServer, tasks: int = 16) -> Post:
    """A post in an empty folder."""
    folder.mkdir(exist_ok=True)
    (folder / "work.yaml").write_text(WORKFLOW)
    (folder / "spec.yaml").write_text(f"{SPEC}gate: improve\n")  # without a limit on time, which a busy machine decides
    (folder / "tasks.jsonl").write_text("".join(json.dumps({"id": f"t{number}", "task_query": str(number)}) + "\n" for number in range(tasks)))
    post = Post(folder, forge, server, str(folder / "store"), tasks)
    post.models()
    return post


def spent(run: Run) -> Mapping[str, Any]:
    """What a finished run cost."""
    assert run.manifest
    return {name: run.manifest["usage"][name] for name in ("calls", "input_tokens", "output_tokens", "auto_reruns", "score", "passed")}


def usd(run: Run) -> float:
    """US dollars of a finished run."""
    assert run.manifest
    return float(run.manifest["usage"]["usd"])


def backtest(post: Post, lane: str, dice: random.Random | None = None, kills: int = 20) -> int:
    """Publish, save and compare; with *dice*, the backtest is killed at random places up to so many times. How often it was."""
    post.models(f"batch: {{rows: {post.tasks // 4}}}")
    post("publish", "work.yaml", "--without-evidence", "the first")
    post("library", "add", "numbers", "--tasks", "tasks.jsonl")
    words, killed = ("backtest", "spec.yaml", "--mlflow", "none", "--json", "--exit-zero", "--lane", lane), 0
    while dice and killed < kills:
        call = dice.choice([*ENDPOINT, "kept"])
        if post(*words, fail=f"*.{call}:{dice.randint(1, 10) if call == 'kept' else 1}:kill", code=None).code != -9:
            break
        killed += 1
        for run in post.runs:
            essence(run)
    post(*words)
    return killed


def assert_half_the_price(post: Post, calm: Post) -> None:
    """The verdict and the rows are those of the interactive lane, and every answer was submitted and paid for once."""
    assert journey(post) == journey(calm)
    assert cost(post) == pytest.approx(cost(calm) / 2)
    assert not post.server.journal
    post.assert_once()


def journey(post: Post) -> dict[str, Any]:
    """The verdict, what was found, and the rows of both sides."""
    objects = opened(post.uri)
    [backtest] = objects.folders("backtests")
    verdict = read_verdict(objects, backtest)
    [candidate] = verdict["candidates"]
    return {
        "word": verdict["word"],
        "found": {
            metric["name"]: (metric["before"], metric["after"])
            for metric in candidate["comparison"]["metrics"]
            if "second" not in metric["name"] and "usd" not in metric["name"] and "cost" not in metric["name"]
        },
        "runs": {run.record.mode: essence(run) for run in post.runs if run.finished},
    }


def cost(post: Post) -> float:
    """US dollars of all runs; one that its command died over before it wrote more than what is to be done cost nothing."""
    return sum(usd(run) for run in post.runs if run.finished)
