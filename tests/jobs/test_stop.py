"""A Ray job that is stopped."""

import json
import shlex
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from beam_ray.cli import main
from beam_ray.run import cluster
from beam_ray.store.runs import Run
from tests.faults.here import Here
from tests.jobs.conftest import Project

TASKS = 64


def tell(project: Project, path: str, body: dict[str, Any]) -> Any:
    """What ``ray job submit`` and ``ray job stop`` ask of the cluster."""
    token = Path(project.head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{project.head.url}/api/jobs/{path}", json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def kept_by(run: Run) -> set[str]:
    """What was asked and need not be asked again."""
    return {f"good {row['task_id'][1:]}" for table in (run.steps(), *run.spooled()) for row in table.to_pylist()}


@pytest.mark.timeout(120)
def test_a_job_that_is_stopped_leaves_in_time_and_the_same_command_goes_on(project: Project, monkeypatch: pytest.MonkeyPatch, capsys):
    """Ray kills three seconds after it asked: by then the job has said its last word, 143; and what was kept is not paid for again."""
    (project.folder / "sixty.jsonl").write_text("".join(json.dumps({"id": f"t{index}", "task_query": str(index)}) + "\n" for index in range(TASKS)))
    (project.folder / "eight.yaml").write_text((project.folder / "models.yaml").read_text().replace("}", ", concurrency: 8}"))
    words = ["good.yaml", "--tasks", "sixty.jsonl", "--store", str(project.store), "--models", "eight.yaml"]
    project.model.latency_s, before = 0.5, len(project.model.journal)
    tell(project, "", {"entrypoint": f"cd {project.folder} && exec {shlex.join(['python', 'jobs/run.py', *words])}", "submission_id": "stopped-1"})
    while not (runs := [Path(key).stem for key, _ in project.objects.keys("jobs/stopped-1/")]) or not kept_by(Run(project.objects, runs[0])):
        assert project.job("stopped-1")["status"] in ("PENDING", "RUNNING"), project.job("stopped-1")
        time.sleep(0.05)
    run = Run(project.objects, runs[0])
    tell(project, "stopped-1/stop", {})
    while project.job("stopped-1")["status"] == "RUNNING":
        time.sleep(0.05)
    project.model.latency_s, asked, kept = 0.0, [call.said for call in project.model.journal[before:]], kept_by(run)
    monkeypatch.setattr(cluster, "Cluster", Here)
    monkeypatch.chdir(project.folder)
    with pytest.raises(SystemExit) as left:
        main(["run", *words, "--json"])
    again = [call.said for call in project.model.journal[before + len(asked) :]]

    assert project.job("stopped-1")["status"] == "STOPPED"
    assert json.loads(project.objects.read("jobs/stopped-1.json"))["exit_code"] == 143
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == run.run_id
    assert not kept & set(again)
    assert sorted({*asked, *again}) == sorted(f"good {index}" for index in range(TASKS))
    assert {row["outcome"] for row in Run(run.objects, run.run_id).outcome().to_pylist()} == {"done"}
