"""Death on a real Ray: of workers, of its node, of its head, and of the driver."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray

from beam_ray.errors import Stopped
from beam_ray.llm.models_file import load_models
from beam_ray.run import crash_isolation
from beam_ray.run.cluster import Cluster
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.objects import NotThere
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.endpoint import endpoint
from tests.faults.conftest import WORKFLOW, Forge, answer, essence, make_bench

KILLS = int(os.environ.get("RAY_KILLS", "8"))
LATE_S = 10.0
"""
A spool file is due within a second; on a slow machine, while others start, it is late.

That it is due is tested elsewhere, by a clock of its own. Here the strict rule is the other one: what was in the store
at a death is not asked again.
"""
QUIET_S = 2.0
"""Seconds without a call after which those who were orphaned are taken for gone."""


def descendants(pid: int, word: str) -> list[int]:
    """The processes below *pid* with *word* in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == pid and state != "Z":
                    found += [int(entry.name)] if word in (entry / "cmdline").read_text() else []
                    found += descendants(int(entry.name), word)
            except OSError:
                continue
    return found


def test_workers_that_are_killed_again_and_again(ray_lab: Lab, forge: Forge, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """One or all at once: the run continues by itself, with the same result, and no stored answer is paid for again."""
    dice, count, killed = random.Random(5), max(12 * KILLS, 120), 0
    # no row is to blame here, and looking for one takes a process a time; a row that kills is looked for in tests/run
    monkeypatch.setattr(crash_isolation, "CRASHES_BEFORE_SPLIT", KILLS)
    with endpoint(answer, latency_s=0.1) as model:
        bench = make_bench(tmp_path / "bench", forge, model, count, str(ray_lab.folder / "store"))
        models = load_models(bench.folder / "models.yaml")
        plan = make_plan(ray_lab.workflow(WORKFLOW), ray_lab.tasks([str(number) for number in range(count)]), models, source="tasks.jsonl")
        record, done = begin(ray_lab.objects, plan.record, plan.tasks), threading.Event()

        def killer() -> None:
            nonlocal killed
            while killed < KILLS and not done.wait(dice.uniform(0.1, 0.3)):
                runners = descendants(os.getpid(), "ray::RunnerActor")
                asked = len(model.journal) - (bench.kills[-1][1] if bench.kills else 0)
                try:
                    kept = bench.answered()
                except NotThere:
                    break  # the run is finished, and its parts are taken away
                # every other time when they have just begun to ask, and else when they have spooled too
                grown = len(bench.kills) % 2 or (bench.spooled and len(kept) > len(bench.kept[-1][1] if bench.kept else ()))
                if runners and asked > 10 and grown:
                    bench.kept.append((len(model.journal), kept))
                    for runner in dice.sample(runners, dice.randint(1, len(runners))):
                        os.kill(runner, signal.SIGKILL)
                        killed += 1
                    at = time.time()
                    time.sleep(0.3)  # what they had sent may still arrive
                    bench.kills.append((at, len(model.journal)))

        thread = threading.Thread(target=killer)
        thread.start()
        stops = 0
        while not Run(ray_lab.objects, record.run_id).finished:
            try:
                execute(ray_lab.objects, record, models, connection=Connection(cluster=ray_lab.cluster))
            except Stopped:
                stops += 1
                assert stops < 5
        done.set()
        thread.join()
        calm = Lab(tmp_path / "calm", open_objects(str(tmp_path / "calm" / "store"))).run(
            WORKFLOW, [str(number) for number in range(count)], lambda request: answer(as_body(request))
        )

    assert killed >= KILLS // 2
    assert bench.spooled
    assert essence_without_fingerprints(Run(ray_lab.objects, record.run_id)) == essence_without_fingerprints(calm)
    bench.assert_nothing_paid_twice(LATE_S)


def as_body(request) -> dict:
    """The request as the endpoint would see it."""
    return {"messages": request.messages, "seed": request.seed, "response_format": str(request.schema)}


def essence_without_fingerprints(run: Run) -> list:
    """Two models have two identities."""
    steps, tasks = essence(run)
    return [[row[:7] + row[8:] for row in steps], tasks]


DRIVER = """
import beam_ray.run.cluster.connection, sys
beam_ray.run.cluster.connection.HEAD_LOST_S = 2.0
from beam_ray.cli import main
main(sys.argv[1:])
"""


def test_a_node_a_head_and_a_driver_that_die_and_a_driver_that_is_stopped(tmp_path, ray_cluster: Cluster, forge: Forge):
    """Exit code 3 with the command that resumes, or no message if killed, or 143 within three seconds; the same command resumes."""
    with endpoint(answer) as model:
        calm = make_bench(tmp_path / "calm", forge, model, 40)
        assert calm.run().code == 0
    with endpoint(answer, latency_s=0.6) as model:
        bench = make_bench(tmp_path / "bench", forge, model, 40)
        # Ray takes a quarter of a minute to miss a node, in which runners without one do all that is left; its own settings make it quicker
        alone = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "5"}
        # who loses its node or its head has a Ray of its own; the others come to one that is there
        guest = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        for victim, code, where in (("raylet/raylet", 3, alone), ("gcs_server", 3, alone), ("", -9, guest), ("stop", 143, guest)):
            driver = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *bench.words], cwd=bench.folder, env={**os.environ, **where}, stderr=subprocess.PIPE, text=True
            )
            before, begun = len(model.journal), time.monotonic()
            while len(model.journal) < before + 6:
                assert driver.poll() is None, driver.stderr.read()
                time.sleep(0.02)
            for pid in descendants(driver.pid, victim) if code == 3 else [driver.pid]:
                os.kill(pid, signal.SIGTERM if victim == "stop" else signal.SIGKILL)
            struck, at = time.monotonic(), time.time()
            _, said = driver.communicate(timeout=120)
            took = time.monotonic() - struck
            seen = -1
            while seen != len(model.journal):  # workers see that they are orphans
                seen = len(model.journal)
                time.sleep(QUIET_S)
            # who outlives its node for a moment asks on, and spools on
            bench.kills.append((at, len(model.journal)))
            bench.kept.append((len(model.journal), bench.answered()))

            assert driver.returncode == code, (victim, said)
            assert code == -9 or f"resume with:  beam-ray resume {bench.runs[0].run_id} --store {bench.uri}" in said
            # on a machine that takes long for everything it may take as long as the start
            assert code != 143 or took < max(3.0, struck - begun)
        model.latency_s = 0.0
        bench.finish(calm, LATE_S)


def test_a_cluster_address_where_nothing_listens_is_refused_at_once(tmp_path: Path):
    """Ray itself would try for minutes; the command names the address and what to do."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/t.py").write_text("def f():\n    return {}\n")
    (tmp_path / "w.yaml").write_text("workflow: w\nnodes: {a: {tool: tools.t:f}}\n")
    (tmp_path / "t.jsonl").write_text('{"task_query": "x"}\n')
    (tmp_path / "models.yaml").write_text("m: {base_url: 'http://127.0.0.1:9/v1', model: m}\n")
    command = [
        sys.executable,
        "-c",
        "from beam_ray.cli import main; main()",
        "run",
        "w.yaml",
        "--tasks",
        "t.jsonl",
        "--models",
        "models.yaml",
        "--address",
        "127.0.0.1:9",
    ]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "cannot connect to a Ray cluster at 127.0.0.1:9: [Errno 111] Connection refused")
