"""Secrets (threat 14): a key is read where it is needed, and found nowhere else."""

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from beam_ray.errors import Stopped, Unusable
from beam_ray.llm.client import OpenAIModel
from beam_ray.llm.models_file import load_models
from beam_ray.llm.probe import probe
from beam_ray.llm.request import Request
from beam_ray.llm.usage import Usage
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.endpoint import endpoint

CANARY = "sk-canary-8c41f20b77"
WORKFLOW = """
workflow: w
model: m
nodes:
  a:
    llm: {prompt: "say {{ task_query }}"}
    evaluate: {criteria: [It is polite.]}
  b: {after: a, llm: {prompt: "then {{ a.text }}", returns: {n: int}}}
  c: {after: a, tool: "tools.t:look"}
"""


def _says_back(body):
    """An endpoint that tells what it was sent, in every way that endpoints answer."""
    said = json.dumps(body)
    heard = f"your key is {CANARY}"
    for word, reply in {
        "refuse": (400, {}, {"error": {"message": f"bad request, {heard}"}}),
        "busy": (429, {}, {"error": {"message": f"slow down, {heard}"}}),
        "broken": (500, {}, {"error": {"message": f"oops, {heard}"}}),
        "page": (200, {}, f"<html>{'x' * 55} {heard}</html>".encode()),
        "decline": (200, {}, {"choices": [{"message": {"content": None, "refusal": heard}, "finish_reason": "stop"}]}),
        "filter": (200, {}, {"choices": [{"message": {"content": heard}, "finish_reason": "content_filter"}]}),
    }.items():
        if word in said:
            return reply
    return heard


@pytest.fixture
def keyed(lab: Lab, monkeypatch):
    """A lab whose endpoint wants the canary, and repeats it."""
    monkeypatch.setenv("MODELS_KEY", CANARY)
    lab.write("tools/t.py", "import os\n\ndef look(): return dict(os.environ)\n")
    with endpoint(_says_back) as state:
        lab.write("models.yaml", f"m: {{base_url: '{state.url}/${{env:MODELS_KEY}}', model: x, api_key: '${{env:MODELS_KEY}}', tries: 1}}\n")
        yield lab, state


def test_a_run_keeps_no_key(keyed, capfd, caplog):
    """Refusals, errors, answers, tools and judges: no file of the store, no log line and no output has the key, in clear or in half."""
    lab, state = keyed
    caplog.set_level(logging.DEBUG, logger="beam_ray")
    models = load_models(lab.folder / "models.yaml")
    words = ["plain", "refuse", "busy", "broken", "page", "decline", "filter"]
    plan = make_plan(lab.workflow(WORKFLOW), lab.tasks(words), models, source="tasks.jsonl")
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, models))
    run = Run(lab.objects, record.run_id)
    rows = json.dumps(run.steps().to_pylist(), default=str)

    assert len(state.journal) >= len(words)
    assert "${env:MODELS_KEY}" in rows  # what was said back is kept, with the key's name in its place
    assert "sk-canary" not in rows
    assert not [path for path in lab.folder.rglob("*") if path.is_file() and b"sk-canary" in path.read_bytes()]
    out, err = capfd.readouterr()
    assert "sk-canary" not in out + err + caplog.text


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_error_that_ends_the_run_shows_no_key(status, lab: Lab, monkeypatch):
    """Nor does the address, which may hold one too."""
    monkeypatch.setenv("MODELS_KEY", CANARY)
    with endpoint(lambda body: (status, {}, {"error": {"message": f"Incorrect API key provided: {CANARY}"}})) as state:
        path = lab.write("models.yaml", f"m: {{base_url: '{state.url}/${{env:MODELS_KEY}}', model: x, api_key: '${{env:MODELS_KEY}}', tries: 1}}\n")
        model = OpenAIModel(load_models(path)["m"])

        with pytest.raises(Stopped) as caught:
            asyncio.run(model.ask(Request(({"role": "user", "content": "x"},)), Usage()))

    assert "sk-canary" not in str(caught.value) and "${env:MODELS_KEY}" in str(caught.value)


def test_a_probe_shows_no_key(lab: Lab, monkeypatch):
    """Where nothing answers, the address is shown as it was written."""
    monkeypatch.setenv("MODELS_KEY", CANARY)
    path = lab.write("models.yaml", "m: {base_url: 'http://127.0.0.1:9/${env:MODELS_KEY}', model: x, api_key: '${env:MODELS_KEY}'}\n")

    with pytest.raises(Unusable) as caught:
        probe(load_models(path)["m"], "m")

    assert "sk-canary" not in str(caught.value)


def test_settings_that_travel_hold_no_key(lab: Lab, monkeypatch):
    """What is sent to workers, printed or stored is the variable's name."""
    monkeypatch.setenv("MODELS_KEY", CANARY)
    settings = load_models(lab.write("models.yaml", "m: {base_url: 'http://x/v1', model: x, api_key: '${env:MODELS_KEY}'}\n"))["m"]

    assert "sk-canary" not in repr(settings) + settings.model_dump_json() + str(settings.model_dump())
    assert settings.secret == CANARY


def test_a_template_reads_no_environment(lab: Lab, monkeypatch):
    """A prompt that names a variable says just that."""
    monkeypatch.setenv("MODELS_KEY", CANARY)
    asked = []
    lab.run(
        'workflow: w\nmodel: m\nnodes:\n  a: {llm: {prompt: "${env:MODELS_KEY} {{ task_query }}"}}\n',
        ["${env:MODELS_KEY}"],
        lambda request: asked.append(request.messages) or "yes",
    )

    assert "sk-canary" not in str(asked)


def test_mlflow_is_told_no_key(keyed, monkeypatch):
    """A whole backtest by the command line, MLflow's database and the reports included: every file of the project is searched."""
    lab, _ = keyed
    lab.write("w.yaml", 'workflow: w\nmodel: m\nnodes:\n  a: {llm: {prompt: "say {{ task_query }}"}}\n')
    lab.tasks(["plain", "refuse", "page", "decline"])
    lab.write("told.py", TOLD)

    done = subprocess.run(
        [sys.executable, "told.py"],
        cwd=lab.folder,
        env={**__import__("os").environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (lab.folder / "mlflow.db").stat().st_size > 100_000
    assert "sk-canary" not in done.stdout + done.stderr
    assert not [path for path in lab.folder.rglob("*") if path.is_file() and b"sk-canary" in path.read_bytes()]


TOLD = """
import asyncio, pathlib
from datetime import UTC, datetime
from beam_ray.llm.models_file import load_models
from beam_ray.run.plan import load_workflow, make_plan
from beam_ray.store.opening import open_objects
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from beam_ray.tasks.parse import read_tasks
from beam_ray.tracking import BacktestLog, SideLog, log_backtest
from tests.conftest import drive_here

objects, models = open_objects("store"), load_models(pathlib.Path("models.yaml"))
plan = make_plan(load_workflow(pathlib.Path("w.yaml"))[0], read_tasks(pathlib.Path("tasks.jsonl"), objects), models, source="tasks.jsonl")
record = begin(objects, plan.record, plan.tasks)
asyncio.run(drive_here(objects, record, models))
run, moment = Run(objects, record.run_id), datetime(2026, 11, 23, tzinfo=UTC)
sides = tuple(SideLog(name, role, run.record, run.outcome(), run.steps(), {"Overall/score": 1.0}, moment, moment) for name, role in (("baseline", "baseline"), ("v2", "candidate")))
log_backtest(f"sqlite:///{pathlib.Path('mlflow.db').absolute()}", BacktestLog("b", "b", "w", sides, "note", "PASS", tasks=run.tasks()))
"""
