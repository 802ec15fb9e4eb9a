"""Limits on a real Ray: of two drivers at once, and of a limiter that dies."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import ray

from beam_ray.llm.settings import load_models
from beam_ray.run.cluster import LIMITER, NAMESPACE
from beam_ray.run.driver import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import make_plan
from beam_ray.store.runs import Run, begin
from tests.conftest import Lab
from tests.endpoint import Endpoint, endpoint

WORKFLOW = """
workflow: w
nodes:
  only:
    llm: {model: m, prompt: "{{ task_query }}"}
"""
TASKS = [f"number {number}" for number in range(150)]


def models_file(lab: Lab, model: Endpoint) -> Path:
    """One model of six calls at once."""
    return lab.write("models.yaml", f"m: {{base_url: {model.url}/v1, model: x, concurrency: 6}}\n")


def run_here(lab: Lab, model: Endpoint) -> Run:
    """A run whose driver is this process."""
    models = load_models(models_file(lab, model))
    plan = make_plan(lab.workflow(WORKFLOW), lab.tasks(TASKS), models, source="tasks.jsonl")
    record = begin(lab.objects, plan.record, plan.tasks)
    execute(lab.objects, record, models, connection=Connection(cluster=lab.cluster))
    return Run(lab.objects, record.run_id)


def test_two_drivers_of_one_cluster_share_the_limits_of_an_endpoint(ray_lab: Lab):
    """Six calls in flight in all, while both have work for more."""
    with endpoint(lambda body: "yes", latency_s=0.1) as model:
        words = ["run", str(ray_lab.write("there.yaml", WORKFLOW)), "--tasks", str(ray_lab.write("there.jsonl", "".join(map(line, TASKS))))]
        there = subprocess.Popen(
            [sys.executable, "-m", "beam_ray", *words, "--models", str(models_file(ray_lab, model)), "--store", str(ray_lab.folder / "there"), "--json"],
            env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not model.journal:
            assert there.poll() is None, there.communicate()
            time.sleep(0.02)
        assert run_here(ray_lab, model).manifest["usage"]["passed"] is not None
        out, errors = there.communicate(timeout=60)
        assert json.loads(out)["tasks"] == len(TASKS), errors
    moments = sorted([(call.began, 1) for call in model.journal] + [(call.ended, -1) for call in model.journal], key=lambda each: (each[0], each[1]))
    in_flight = most = 0
    for _, step in moments:
        in_flight += step
        most = max(most, in_flight)
    assert most == 6
    assert len(model.journal) == 2 * len(TASKS)


def line(task: str) -> str:
    """A line of a task file."""
    return json.dumps({"id": task.replace(" ", "-"), "task_query": task}) + "\n"


def test_a_limiter_that_is_killed_is_made_anew(ray_lab: Lab):
    """The run does not stop, and asks each question once."""
    killed = []

    def answer(body: dict) -> str:
        if len(model.journal) >= 40 and not killed:
            killed.append(LIMITER)
            ray.kill(ray.get_actor(LIMITER, NAMESPACE))
        return "yes"

    with endpoint(answer, latency_s=0.05) as model:
        run = run_here(ray_lab, model)
    assert killed
    assert run.finished
    assert sorted(call.said for call in model.journal) == sorted(TASKS)
