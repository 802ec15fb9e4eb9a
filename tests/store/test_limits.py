"""Clocks that are wrong, disks that are full, drivers that sleep, machines without a network."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_ray.errors import RunIsTaken, Stopped, Unusable
from beam_ray.llm import ScriptedModel
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.disk import Disk
from beam_ray.store.lease import Lease
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.faults.here import Here

TEXT = 'workflow: w\nmodel: m\nnodes:\n  one: {llm: {prompt: "{{ task_query }}"}}\n  two: {after: one, llm: {prompt: "two {{ one.text }}"}}\n'
DAY_S = 86_400


def repeat(request) -> str:
    """What was said."""
    return str(request.messages[-1]["content"])


def begun(lab: Lab, texts: list[str]) -> Run:
    """A run that nobody has driven yet."""
    plan = make_plan(lab.workflow(TEXT), lab.tasks(texts), {"m": ScriptedModel(repeat)})
    return Run(lab.objects, begin(lab.objects, plan.record, plan.tasks).run_id)


def said(run: Run) -> list[str]:
    """The last node's answers, in order."""
    return [json.loads(row["output"])["text"] for row in Run(run.objects, run.run_id).steps(["two"]).to_pylist()]


@pytest.mark.parametrize("wrong_s", [-DAY_S, DAY_S])
def test_a_clock_that_is_wrong_by_a_day_gives_nobody_two_drivers(lab: Lab, wrong_s: float):
    """The epoch decides who has the run; a driver with a slow clock may be taken for dead, learns it, and one with a fast clock is asked to be sure."""
    run = begun(lab, ["a"])
    first = Lease(run)
    [owner] = [key for key, _ in lab.objects.keys(first.prefix) if key.endswith(".json")]
    lab.objects.put(owner, json.dumps({**json.loads(lab.objects.read(owner)), "host": "elsewhere", "at": time.time() + wrong_s}).encode())
    lab.objects.put(owner.replace(".json", ".beat"), json.dumps({"at": time.time() + wrong_s}).encode())
    if wrong_s > 0:
        with pytest.raises(RunIsTaken, match="on elsewhere"):
            Lease(run)
    second = Lease(run, takeover=wrong_s > 0)

    assert second.epoch == first.epoch + 1
    with pytest.raises(RunIsTaken):
        first.beat()
    second.beat()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(lab: Lab, small_disk: Path):
    """The reason and the bytes left are said, nothing half-written stays, and what was kept is not asked again."""
    texts = [f"{index} " + os.urandom(600).hex() for index in range(100)]
    roomy = open_objects(str(small_disk / "store"))
    plan = make_plan(lab.workflow(TEXT), lab.tasks(texts), {"m": ScriptedModel(repeat)})
    record = begin(roomy, plan.record, plan.tasks)
    asked: list[str] = []

    def remember(request) -> str:
        asked.append(repeat(request))
        return asked[-1]

    models = {"m": ScriptedModel(remember)}
    with pytest.raises(Stopped, match=r"the disk of .* is full \([\d,]+ bytes free\); free some space, then run the same command again"):
        asyncio.run(drive_here(roomy, record, models))
    kept = {json.loads(row["output"])["text"] for row in Run(roomy, record.run_id).steps().to_pylist()}
    before = len(asked)
    assert not list(small_disk.rglob(".tmp-*"))
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    asyncio.run(drive_here(roomy, record, models))

    assert said(Run(roomy, record.run_id)) == [f"two {text}" for text in texts]
    assert not set(asked[before:]) & kept


def test_a_driver_that_sleeps_through_a_takeover_harms_nothing_when_it_wakes(lab: Lab):
    """A process is stopped by SIGSTOP, another one finishes its run, and SIGCONT wakes the first: it exits with the reason."""
    texts = [f"q{index}" for index in range(120)]
    run = begun(lab, texts)
    script = f"""
from beam_ray.llm import ScriptedModel
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.faults.here import Here
from tests.store.test_limits import repeat
objects = open_objects({lab.objects.uri!r})
execute(objects, Run(objects, {run.run_id!r}).record, {{"m": ScriptedModel(repeat, latency_s=0.2, concurrency=4)}}, connection=Connection(cluster=Here()))
"""
    sleeper = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(lab.objects.keys(f"{run.prefix}/spool/")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(sleeper.pid, signal.SIGSTOP)
    with pytest.raises(RunIsTaken, match=f"driven by process {sleeper.pid}"):
        execute(lab.objects, run.record, {"m": ScriptedModel(repeat)}, connection=Connection(cluster=Here()))
    execute(lab.objects, run.record, {"m": ScriptedModel(repeat)}, connection=Connection(cluster=Here()), takeover=True)
    before = said(run)
    os.kill(sleeper.pid, signal.SIGCONT)
    _, error = sleeper.communicate(timeout=60)

    assert sleeper.returncode != 0 and "RunIsTaken" in error, error
    assert said(run) == before == [f"two {text}" for text in texts]


@pytest.mark.timeout(30)
def test_a_driver_that_leaves_does_not_wait_for_a_store_that_falls_silent(lab: Lab):
    """What it would say last is a courtesy: the next driver sees by itself that it is gone."""
    asked, over = threading.Event(), threading.Event()

    class Silent(Disk):
        def put(self, key: str, body: bytes) -> None:
            if key.endswith(".beat") and json.loads(body)["at"] == 0:
                asked.set()
                over.wait(60)

    run = begun(lab, ["a"])
    execute(Silent(lab.folder / "store"), run.record, {"m": ScriptedModel(repeat)}, connection=Connection(cluster=Here()))

    assert asked.is_set() and not over.is_set()
    assert said(run) == ["two a"]
    over.set()


def test_a_run_needs_no_network(lab: Lab):
    """Where the model answers without one, as it does here: planning, running, storing and reading ask nobody."""
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("the network cannot be taken away here")
    script = f"""
from pathlib import Path
from beam_ray.store.opening import open_objects
from tests.conftest import Lab
from tests.store.test_limits import TEXT, repeat, said
lab = Lab(Path({str(lab.folder)!r}), open_objects({str(lab.folder / "alone")!r}))
print(said(lab.run(TEXT, ["a", "b"], repeat)))
"""
    alone = subprocess.run(["unshare", "-n", sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert alone.stdout == "['two a', 'two b']\n", alone.stderr


def test_a_run_does_not_go_on_with_other_code(lab: Lab):
    """Half of its rows would come from one tool and half from another; nothing is called."""
    lab.write("tools/v.py", "def f(x): return {'y': x}\n")
    workflow = lab.workflow('workflow: w\nnodes:\n  call: {tool: "tools.v:f", with: {x: "{{ task_query }}"}}\n')
    plan = make_plan(workflow, lab.tasks(["a"]), {})
    run = Run(lab.objects, begin(lab.objects, plan.record, plan.tasks).run_id)
    lab.write("tools/v.py", "def f(x): return {'y': x + '!'}\n")
    with pytest.raises(Unusable, match=r"was started with other code: tools.v:f changed since\n  restore the old code to resume the run"):
        execute(lab.objects, run.record, {}, connection=Connection(cluster=Here()))

    assert run.parts() == set()
