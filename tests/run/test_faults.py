"""Death of processes, and what is left afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_ray.errors import Interrupted, RunIsTaken, Stopped
from beam_ray.llm import ScriptedModel
from beam_ray.run.connection import Connection
from beam_ray.run.execute import drive
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.lease import Lease
from beam_ray.store.lookup import find_runs
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.endpoint import endpoint

CHAIN = """
workflow: chain
model: m
nodes:
  one: {llm: {prompt: "one {{ task_query }}"}}
  two: {after: one, llm: {prompt: "two {{ one.text }}"}}
  three: {after: two, llm: {prompt: "three {{ two.text }}"}}
"""


def beam_ray(*arguments: object) -> list[str]:
    """The command line of this very installation."""
    return [sys.executable, "-m", "beam_ray", *map(str, arguments)]


def test_a_row_that_kills_its_worker_fails_alone(ray_lab: Lab):
    """Two deaths on one row alone make it a failed step; all other rows finish."""

    def answer(request):
        if request.messages[-1]["content"] == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return "fine"

    run = ray_lab.run("workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: '{{ task_query }}'}}\n", [str(index) for index in range(4)], answer)
    steps = ray_lab.steps(run, "say")

    assert [name for name, row in steps.items() if row["outcome"] != "done"] == ["t2"]
    assert steps["t2"]["error"] == "the worker process died twice on this row alone"


def test_a_second_driver_is_refused_while_the_first_lives(lab: Lab, tmp_path: Path):
    """It is told who has the run; --takeover is for those who know better."""
    from beam_ray.llm import ScriptedModel
    from beam_ray.run.plan import make_plan
    from beam_ray.store.beginning import begin

    models = {"m": ScriptedModel(str)}
    plan = make_plan(lab.workflow(CHAIN), lab.tasks(["x"]), models)
    run = Run(lab.objects, begin(lab.objects, plan.record, plan.tasks).run_id)
    script = f"from beam_ray.store.opening import open_objects\nfrom beam_ray.store.lease import *\nLease(Run(open_objects({str(tmp_path / 'store')!r}), {run.run_id!r}))\nprint('held', flush=True)\ninput()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RunIsTaken, match=f"is driven by process {other.pid} on "):
        Lease(run)
    taken = Lease(run, takeover=True)
    other.kill()
    other.wait()

    assert taken.epoch == 2


def test_ctrl_c_ends_quickly_and_says_how_to_go_on(lab: Lab):
    """Exit 130 within three seconds, with the command that goes on."""
    lab.write("w.yaml", CHAIN)
    lab.write("tasks.jsonl", "".join(json.dumps({"task_query": str(index)}) + "\n" for index in range(200)))
    with endpoint(lambda body: "x", latency_s=0.2) as model:
        lab.write("models.yaml", f"m: {{base_url: '{model.url}', model: x, concurrency: 4}}\n")
        command = beam_ray(
            "run", lab.folder / "w.yaml", "--tasks", lab.folder / "tasks.jsonl", "--models", lab.folder / "models.yaml", "--store", lab.folder / "store"
        )
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while len(model.journal) < 20:
            time.sleep(0.02)
        driver.send_signal(signal.SIGINT)
        _, said = driver.communicate(timeout=30)

    [run_id] = find_runs(lab.objects)
    assert driver.returncode == 130
    assert f"resume with:  beam-ray resume {run_id} --store {lab.folder / 'store'}" in said


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_amid_an_import_is_no_error_of_that_import(name: str, code: int, lab: Lab):
    """Python 3.11 tells what is raised where a class is made as a RuntimeError."""
    lab.write(
        "ruamel.py",
        f"""
        import os, signal

        class Late:
            def __set_name__(self, owner, name):
                os.kill(os.getpid(), signal.{name})

        class Made:
            late = Late()
        """,
    )
    done = subprocess.run(
        beam_ray("check", "w.yaml"), capture_output=True, text=True, cwd=lab.folder, env=os.environ | {"PYTHONPATH": str(lab.folder)}, check=False
    )

    assert (done.returncode, done.stderr.lstrip()) == (code, "stopped; run the same command again to resume\n")


def test_what_fails_while_a_run_is_being_stopped_does_not_hide_that_it_was(lab: Lab):
    """Ray hears of SIGTERM too, and what it says then is not why the run ended: 143, not 3."""
    models = {"m": ScriptedModel(lambda request: "x")}
    plan = make_plan(lab.workflow(CHAIN), lab.tasks(["x"]), models)
    record = begin(lab.objects, plan.record, plan.tasks)

    def fail_while_being_stopped() -> None:
        with drive(lab.objects, record, models, Connection()) as driver:
            os.kill(os.getpid(), signal.SIGTERM)
            assert driver.signals.caught
            raise Stopped("Ray: the cluster is gone")

    with pytest.raises(Interrupted) as stopped:
        fail_while_being_stopped()
    assert stopped.value.exit_code == 143
