"""The CI recipe of docs/, its steps run one after the other as a runner would."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.cli.conftest import answer
from tests.endpoint import Endpoint, endpoint
from tests.kept_ray import kept_ray
from tests.sums import WORKFLOW

RECIPE = Path(__file__).parents[2] / "docs" / "ci" / "backtest.yaml"
GATE = "gate: g\nrules: {score: {up_by: 10}, regressions: {at_most: 0}}\n"
SPEC = "backtest: sums-ci\nworkflow: sums\ntasks: tasks.jsonl\nbaseline: published\ncandidates: {pr: ../workflows/orders.yaml}\ngate: gate.yaml\n"
GH = '#!/bin/sh\necho "$@" >> gh.log\ncp report.md comment.md\n'


@dataclass
class Runner:
    """A checkout with the recipe's environment, and what its steps have said so far."""

    folder: Path
    model: Endpoint
    environment: dict[str, str]
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)

    def event(self, name: str, pull_request: str) -> dict[str, int]:
        """Run the recipe's ``run`` steps for an event; the exit code of each."""
        recipe = YAML(typ="safe").load(RECIPE.read_text())
        known = {"github.event_name": name, "github.event.pull_request.number": pull_request, "github.token": "t"}
        codes, failed = {}, False
        for step in recipe["jobs"]["backtest"]["steps"]:
            if "run" not in step or step["name"] == "Install" or failed or not self._holds(step.get("if", ""), known):
                continue
            codes[step["name"]] = self._run(step, known)
            failed = codes[step["name"]] != 0
        return codes

    def _run(self, step: dict, known: dict[str, str]) -> int:
        said = self.folder / "github_output"
        said.write_text("")
        own = {key: re.sub(r"\$\{\{ (.+?) \}\}", lambda match: self._value(match[1], known), value) for key, value in step.get("env", {}).items()}
        # as GitHub runs a step: a file, with -e
        done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=self.folder, env={**self.environment, **own}, capture_output=True, text=True)
        self.outputs[step.get("id", step["name"])] = dict(line.split("=", 1) for line in said.read_text().splitlines())
        sys.stdout.write(f"{step['name']} {done.returncode}\n{done.stdout}{done.stderr}")
        return done.returncode

    def _value(self, name: str, known: dict[str, str]) -> str:
        if name.startswith("steps."):
            _, step, _, output = name.split(".")
            return self.outputs[step].get(output, "")
        return known[name]

    def _holds(self, condition: str, known: dict[str, str]) -> bool:
        if not condition:
            return True
        left, sign, right = condition.split(" ")
        return (self._value(left, known) == right.strip("'")) == (sign == "==")


@pytest.fixture
def runner(tmp_path: Path):
    """A repository whose first version is published."""
    for name in ("workflows", "backtests"):
        (tmp_path / "configs" / name).mkdir(parents=True)
    (tmp_path / "configs/workflows/orders.yaml").write_text(WORKFLOW)
    (tmp_path / "configs/backtests/ci.yaml").write_text(SPEC)
    (tmp_path / "configs/backtests/gate.yaml").write_text(GATE)
    rows = ({"id": f"n{index}", "task_query": str(index), "expected": {"n": index}} for index in range(36))
    (tmp_path / "configs/backtests/tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gh").write_text(GH)
    (tmp_path / "bin" / "gh").chmod(0o755)
    with endpoint(answer) as model:
        (tmp_path / "configs/models.yaml").write_text(f"m: {{base_url: '{model.url}', model: x}}\n")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BEAM_RAY_", "RAY_", "MLFLOW_"))}
        environment = {
            **clean,
            **kept_ray(),
            **YAML(typ="safe").load(RECIPE.read_text())["env"],
            "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BEAM_RAY_STORE": str(tmp_path / "store"),
            "MLFLOW_TRACKING_URI": "none",
            "GITHUB_OUTPUT": str(tmp_path / "github_output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        }
        made = Runner(tmp_path, model, environment)
        subprocess.run(["beam-ray", "publish", "configs/workflows/orders.yaml", "--without-evidence", "first"], cwd=tmp_path, env=environment, check=True)
        yield made


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("bash") is None, reason="the recipe's steps are for bash")
def test_a_pull_request_is_backtested_told_and_published_after_the_merge(runner: Runner):
    """Green with one comment; after the merge the version is published on that evidence, and the model is asked nothing."""
    file = runner.folder / "configs/workflows/orders.yaml"
    file.write_text(WORKFLOW.replace("read {{ task_query", "better {{ task_query"))
    codes = runner.event("pull_request", "7")
    asked = len(runner.model.journal)
    merged = runner.event("push", "")
    versions = subprocess.run(["beam-ray", "versions", "sums", "--json"], cwd=runner.folder, env=runner.environment, capture_output=True, text=True)

    assert codes == {"Check": 0, "Say what it will cost": 0, "Backtest": 0, "Tell": 0, "Verdict": 0}
    assert (runner.folder / "gh.log").read_text().splitlines() == ["pr comment 7 --edit-last --create-if-none --body-file report.md"]
    assert "PASS" in (runner.folder / "comment.md").read_text()
    assert "tokens" in (runner.folder / "summary.md").read_text()
    assert merged["Publish"] == 0
    assert len(runner.model.journal) == asked
    assert [version["version"] for version in json.loads(versions.stdout)] == [2, 1]


@pytest.mark.timeout(300)
def test_a_pull_request_that_breaks_what_worked_is_red(runner: Runner):
    """The comment gives the reason, and the last step exits with code 4."""
    file = runner.folder / "configs/workflows/orders.yaml"
    file.write_text(WORKFLOW.replace("read {{ task_query", "read -{{ task_query"))
    codes = runner.event("pull_request", "8")

    assert (codes["Backtest"], codes["Tell"], codes["Verdict"]) == (0, 0, 4)
    assert "BLOCK" in (runner.folder / "comment.md").read_text()
