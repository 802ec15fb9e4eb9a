"""Death on a real Ray: of workers, of its node, of its head, and of the driver."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from beam_ray.errors import Stopped
from beam_ray.llm.settings import load_models
from beam_ray.run.driver import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import make_plan
from beam_ray.store.runs import Run, begin
from tests.conftest import Lab
from tests.endpoint import endpoint
from tests.faults.conftest import WORKFLOW, Forge, answer, essence, make_bench

KILLS = int(os.environ.get("RAY_KILLS", "4"))
LATE_S = 1.5
"""A spool file is due within a second; on a machine with more processes than cores it may be late."""


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


def test_workers_that_are_killed_again_and_again(ray_lab: Lab, forge: Forge, tmp_path):
    """The run goes on by itself; its result is the undisturbed one, and nothing that was kept is paid for again."""
    dice, count = random.Random(5), 16 * KILLS
    with endpoint(answer, latency_s=0.1) as model:
        bench = make_bench(tmp_path / "bench", forge, model, count, str(ray_lab.folder / "store"))
        models = load_models(bench.folder / "models.yaml")
        plan = make_plan(ray_lab.workflow(WORKFLOW), ray_lab.tasks([str(number) for number in range(count)]), models, source="tasks.jsonl")
        record, done = begin(ray_lab.objects, plan.record, plan.tasks), threading.Event()

        def killer() -> None:
            while len(bench.kills) < KILLS and not done.wait(dice.uniform(0.3, 1.0)):
                # a runner that has not asked anything yet shows little
                before = len(model.journal)
                runners = descendants(os.getpid(), "ray::_RunnerActor")
                if runners and (not bench.kills or before > bench.kills[-1][1] + 10):
                    kept = bench.answered()
                    bench.kept.append((len(model.journal), kept))
                    os.kill(dice.choice(runners), signal.SIGKILL)
                    bench.kills.append((time.time(), len(model.journal)))

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
        calm = ray_lab.run(WORKFLOW, [str(number) for number in range(count)], lambda request: answer(as_body(request)))

    assert len(bench.kills) >= KILLS // 2
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
import beam_ray.run.cluster, sys
beam_ray.run.cluster.LOST_S = 2.0
from beam_ray.cli import main
main(sys.argv[1:])
"""


def test_a_node_a_head_and_a_driver_that_die_and_a_job_that_is_stopped(tmp_path, forge: Forge):
    """Exit 3 with the words that go on, or none if killed, or 143 within three seconds; and the same command goes on."""
    with endpoint(answer) as model:
        calm = make_bench(tmp_path / "calm", forge, model, 80)
        assert calm.run().code == 0
    with endpoint(answer, latency_s=0.4) as model:
        bench = make_bench(tmp_path / "bench", forge, model, 80)
        # Ray takes a quarter of a minute to miss a node; its own settings make it quicker
        quick = {"RAY_health_check_initial_delay_ms": "500", "RAY_health_check_period_ms": "300", "RAY_health_check_failure_threshold": "2"}
        for victim, code in (("raylet/raylet", 3), ("gcs_server", 3), ("", -9), ("stop", 143)):
            driver = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *bench.words], cwd=bench.folder, env={**os.environ, **quick}, stderr=subprocess.PIPE, text=True
            )
            before = len(model.journal)
            while len(model.journal) < before + 6:
                assert driver.poll() is None, driver.stderr.read()
                time.sleep(0.02)
            for pid in descendants(driver.pid, victim) if code == 3 else [driver.pid]:
                os.kill(pid, signal.SIGTERM if victim == "stop" else signal.SIGKILL)
            struck, at = time.monotonic(), time.time()
            _, said = driver.communicate(timeout=60)
            took = time.monotonic() - struck
            seen = -1
            while seen != len(model.journal):  # workers see that they are orphans
                seen = len(model.journal)
                time.sleep(1.5)
            # who outlives its node for a moment asks on, and spools on
            bench.kills.append((at - (LATE_S - 1.0), len(model.journal)))
            bench.kept.append((len(model.journal), bench.answered()))

            assert driver.returncode == code, (victim, said)
            assert code == -9 or f"go on with:  beam-ray resume {bench.runs[0].run_id} --store {bench.uri}" in said
            assert code != 143 or took < 3.0
        bench.finish(calm)
