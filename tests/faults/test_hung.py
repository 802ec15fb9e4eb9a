"""Runners that hang and drivers that sleep: neither keeps a run from its end, and neither harms it when it wakes."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from beam_ray.errors import RunIsTaken
from beam_ray.store.lease import Lease
from beam_ray.store.runs import Run
from tests.endpoint import endpoint
from tests.faults.conftest import BUSY_LATE_S, Bench, Forge, answer, make_bench

DRIVER = "beam_ray.run.driver"
POOL = "beam_ray.run.runner_pool"

HELD = """
workflow: held
model: m
nodes:
  read:
    llm: {prompt: "read #{{ task_query }}#"}
    evaluate: {criteria: [{python: tools.hold:hold}]}
"""

HOLD = """
import ctypes


def hold(output, expected, values):
    if values["task_query"] == "0":
        ctypes.PyDLL(None).sleep(600)
    return True
"""


@pytest.fixture
def runners(tmp_path: Path) -> Iterator[Path]:
    """Where the numbers of the runners' processes are written; those that still sleep at the end are killed."""
    told = tmp_path / "runners"
    yield told
    for pid in told.read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def alive(pid: str) -> bool:
    """Whether the process is there, and not only its name in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def merging(run: Run) -> bool:
    """Whether all rows are there, and only their parts are left to be merged."""
    return sum(node == "_outcome" for node, _ in run.parts()) == len(run.record.shards)


@pytest.mark.parametrize("when", ["amid its rows", "as it merges"])
def test_a_runner_that_gives_no_sign_of_life_is_ended_and_its_work_is_done_by_others(when: str, bench: Bench, undisturbed: Bench, runners: Path):
    """It is stopped by SIGSTOP; the run finishes without it, with the same result, and spooled answers are not paid for again."""
    bench.model.latency_s = 0.5 if when == "amid its rows" else 0.0

    def stop(driver: int) -> None:
        [run] = bench.runs
        while alive(str(driver)):
            if merging(run) if when == "as it merges" else any(run.spooled()):
                os.kill(int(runners.read_text()), signal.SIGSTOP)
                kept = bench.answered()
                # what was in the spool may have been committed before the signal came
                if when == "as it merges" or bench.spooled:
                    bench.kills.append((time.time(), len(bench.model.journal)))
                    bench.kept.append((len(bench.model.journal), kept))
                    return
                os.kill(int(runners.read_text()), signal.SIGCONT)
            time.sleep(0.01)

    wait = {"fail": "steps.open:1:delay=3"} if when == "as it merges" else {}
    ended = bench.run_beside(stop, calls=24, environment={"RUNNERS": str(runners)}, settings={f"{POOL}:HUNG_S": 1.0}, **wait)
    first, *rest = runners.read_text().split()

    assert ended.code == 0, ended.err
    assert rest or when == "as it merges"
    assert not alive(first)
    assert bench.kept
    bench.finish(undisturbed, BUSY_LATE_S)


def test_a_row_that_holds_its_runners_loop_fails_alone(tmp_path: Path, forge: Forge, runners: Path):
    """Also when it does so before the runner has told anything of itself: each hung runner is ended, and the row is found as one that kills is."""
    with endpoint(answer) as model:
        bench = make_bench(tmp_path / "bench", forge, model, 2)
        (bench.folder / "work.yaml").write_text(HELD)
        (bench.folder / "tools").mkdir()
        (bench.folder / "tools" / "hold.py").write_text(HOLD)
        ended = bench.run(environment={"RUNNERS": str(runners)}, settings={f"{POOL}:HUNG_S": 0.8, "beam_ray.run.crash_isolation:CRASHES_BEFORE_SPLIT": 1})

    assert ended.code == 0, ended.err
    rows = {row["task_id"]: (row["outcome"], row["error"]) for row in bench.runs[0].steps().to_pylist()}
    assert rows == {"t0": ("failed", "the worker process died twice on this row alone"), "t1": ("done", None)}


def test_a_driver_that_wakes_after_a_takeover_stops_and_asks_and_commits_no_more(bench: Bench, undisturbed: Bench):
    """It learns of it by its next sign of life: exit 3 and why. What it was answered is spooled, and nothing else is written."""
    bench.model.latency_s, seen = 0.4, []

    def take_over(driver: int) -> None:
        os.kill(driver, signal.SIGSTOP)
        [run] = bench.runs
        with pytest.raises(RunIsTaken, match=f"is driven by process {driver} on "):
            Lease(run)
        Lease(run, takeover=True).release()
        seen.extend(key for key, _ in run.objects.keys(f"{run.prefix}/"))
        os.kill(driver, signal.SIGCONT)

    ended = bench.run_beside(take_over, settings={f"{DRIVER}:BEAT_S": 0.1})
    [run] = bench.runs
    own = f"{run.prefix}/lease/000001.beat"  # that it is gone
    written = {key.removeprefix(f"{run.prefix}/").partition("/")[0] for key, _ in run.objects.keys(f"{run.prefix}/") if key not in (*seen, own)}

    assert ended.code == 3, ended.err
    assert "was taken over by another driver; this one stops, and nothing is lost" in ended.err
    assert written <= {"spool"}
    assert not run.parts()
    # eight were in flight when it fell asleep, and as many may have been before it learned
    assert len(bench.model.journal) <= 32
    bench.model.latency_s = 0.0
    bench.finish(undisturbed)
