"""Jobs on a real Ray head that requires a token."""

import json
import os
import shlex
import subprocess
import sys

import pytest

import beam_ray
from beam_ray.errors import Unusable
from beam_ray.run.cluster_auth import require_cluster_token
from tests.commands import run_command
from tests.jobs.conftest import Project

pytestmark = pytest.mark.timeout(300)

LOOK = """
import json, os
import beam_ray, beam_ray.run.cluster as cluster, ray
c = cluster.Cluster()
shipped = sorted(os.path.join(folder, name)[2:] for folder, _, names in os.walk(".") for name in names if "beam_ray/" not in folder)
print("LOOK", json.dumps({"cwd": os.getcwd(), "driver": beam_ray.__file__, "actor": ray.get(ray.remote(lambda: __import__("beam_ray").__file__).remote()), "shipped": shipped}))
"""


def options(project: Project) -> list[str]:
    """What every backtest here is given."""
    return ["--store", str(project.store), "--models", "models.yaml", "--mlflow", "none"]


@pytest.fixture(scope="module")
def blocked(project: Project) -> str:
    """What a job prints that looks around and then backtests the worse prompt."""
    (project.folder / "look.py").write_text(LOOK)
    backtest = shlex.join(["python", "jobs/backtest.py", "worse.yaml", *options(project)])
    return project.ray_job("worse-1", "sh", "-c", f"python look.py && {backtest}").stdout


@pytest.fixture(scope="module")
def passed(project: Project) -> str:
    """What a job prints that backtests the better prompt."""
    submit = project.ray_job("better-1", "python", "jobs/backtest.py", "better.yaml", *options(project))
    assert submit.returncode == 0, submit.stdout
    return submit.stdout


def test_a_backtest_submitted_to_ray_leaves_with_its_verdict(project: Project, passed: str):
    """A PASS is 0 for Ray, and what the store keeps of the job says so too."""
    job, word = project.job("better-1"), json.loads(project.objects.read("jobs/better-1.json"))

    assert (job["driver_exit_code"], job["status"]) == (0, "SUCCEEDED"), passed
    assert (word["command"], word["exit_code"]) == ("backtest", 0)
    assert len(list(project.objects.keys("jobs/better-1/"))) == 2


def test_submit_takes_its_exit_code_from_the_verdict_in_the_store(project: Project):
    """A BLOCK is 4; the job carries the backtest's name, and nothing of our environment."""
    done = project.beam_ray("submit", "--address", project.head.url, "--json", "backtest", "worse.yaml", *options(project), BEAM_RAY_TEST_SECRET="canary")
    said = json.loads(done.stdout)
    job = project.job(said["submission"])

    assert done.returncode == 4, done.stderr
    assert (said["exit_code"], said["ray_state"]) == (4, "FAILED")
    assert said["backtest_id"].startswith("worse-")
    assert "BLOCK" in done.stderr
    assert job["metadata"]["backtest"] == "worse"
    assert "canary" not in json.dumps(job)
    assert not job["runtime_env"].get("env_vars")


def test_a_block_is_4_for_ray_too(project: Project, blocked: str):
    """Ray calls every exit code but 0 a failure, and keeps the code."""
    job = project.job("worse-1")

    assert (job["driver_exit_code"], job["status"]) == (4, "FAILED"), blocked


def test_submit_gives_the_verdict_again(project: Project, passed: str):
    """The backtest that passed has its verdict: a second job asks the model nothing and ends with 0. Its spec may be standard input, of which no file is left."""
    before, asked = sorted(project.folder.iterdir()), len(project.model.journal)
    command = [sys.executable, "-m", "beam_ray", "submit", "--address", project.head.url, "--json", "backtest", "-", *options(project)]
    spec = (project.folder / "better.yaml").read_text()
    done = subprocess.run(command, input=spec, cwd=project.folder, env=project.head.environment, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    assert "has a verdict already; nothing is run" in done.stderr
    assert len(project.model.journal) == asked
    assert project.job(json.loads(done.stdout)["submission"])["metadata"]["backtest"] == "better"
    assert sorted(project.folder.iterdir()) == before


def test_submit_optimise_ends_by_what_the_held_out_tasks_say(project: Project):
    """The search is done where the cluster is; its draft is written here afterwards, without a call, and publish takes the evidence."""
    store = beam_ray.open(project.store)
    store.add_to_library("tasks", project.folder / "tasks.jsonl")
    words = ["optimise", "poor.yaml", "--library", "tasks", "--budget", "max_calls=200", "--rounds", "1", *options(project)]

    done = project.beam_ray("submit", "--address", project.head.url, "--json", *words)
    said, asked = json.loads(done.stdout), len(project.model.journal)
    again = project.beam_ray(*words[:-2], "--mlflow", "none", "--json", RAY_ADDRESS=project.head.address)

    assert done.returncode == 0, done.stderr
    assert (said["exit_code"], said["backtest_id"]) == (0, json.loads(again.stdout)["backtest_id"])
    assert "this writes it here, without a model call:  beam-ray optimise poor.yaml" in done.stderr
    assert len(project.model.journal) == asked
    assert "good {{ task_query }}" in (project.folder / "poor-draft.yaml").read_text()
    assert store.publish(project.folder / "poor-draft.yaml", evidence=said["backtest_id"]).number == 1


def test_a_job_that_finds_its_files_unusable_makes_submit_leave_with_2(project: Project):
    """No model answers where the job runs: the job says so, and 2 travels through the store."""
    done = project.beam_ray(
        "submit", "--address", project.head.url, "run", "good.yaml", "--tasks", "tasks.jsonl", "--store", project.store, "--models", "nobody.yaml"
    )

    assert done.returncode == 2, done.stderr
    assert "exit code 2" in done.stdout


def test_jobs_import_what_was_shipped_and_ship_no_more_than_they_need(blocked: str):
    """The driver and the actors import the folder's beam_ray; neither environment, nor store, nor secrets came along."""
    look = json.loads(blocked.partition("LOOK ")[2].splitlines()[0])

    assert look["driver"].startswith(look["cwd"])
    assert "_ray_pkg_" in look["actor"]
    assert os.path.basename(look["cwd"]) in look["actor"]
    assert [name for name in look["shipped"] if name.startswith((".venv", ".beam-ray", "mlruns", ".env", "mlflow"))] == []
    assert "better.yaml" in look["shipped"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "good.yaml", "--tasks", "tasks.jsonl"], "the store '.beam-ray' would be deleted with the Ray job's temporary folder"),
        (["backtest", "none.yaml", "--store", "/tmp/never"], "none.yaml"),
        (["backtest", "better.yaml", "--nonsense"], "No such option"),
        (["backtest", "better.yaml", "--address", "x"], "the cluster's address goes before backtest"),
    ],
)
def test_submit_refuses_before_it_uploads(project: Project, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A wrong argument, or a store that the job's folder would take along, is 2 and reaches no cluster."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    done = run_command(capsys, "submit", *words)

    assert done.code == 2
    assert says in done.err


def test_a_relative_store_is_refused_inside_a_job_too(project: Project):
    """Ray's own command ends with the same one-line message."""
    job = json.dumps({"metadata": {"job_submission_id": "x"}})
    done = project.ask(sys.executable, "jobs/run.py", "good.yaml", "--tasks", "tasks.jsonl", RAY_JOB_CONFIG_JSON_ENV_VAR=job, PYTHONPATH=".")

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not list(project.folder.glob(".beam-ray/jobs"))


def test_without_the_token_nothing_is_submitted(project: Project, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """The cluster requires a token: without one, or with a wrong one, the command is refused at once."""
    done = project.beam_ray(
        "submit", "--address", project.head.url, "backtest", "better.yaml", *options(project), RAY_AUTH_TOKEN_PATH=None, RAY_AUTH_MODE=None, HOME=str(tmp_path)
    )
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN"):  # a local Ray of an earlier test left its own
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "requires a token" in done.stderr
    with pytest.raises(Unusable, match="requires a token"):
        require_cluster_token(project.head.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    with pytest.raises(Unusable, match="rejected our token"):
        require_cluster_token(project.head.address)
