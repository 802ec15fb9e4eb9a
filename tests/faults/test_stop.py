"""Ctrl-C and SIGTERM: quickly, with the words that go on, and nothing lost."""

import os
import random
import signal
import time

import pytest

import beam_ray
from beam_ray.errors import Unusable
from tests.faults.conftest import Bench

TIMES = int(os.environ.get("STOPS", "30"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stop_at_any_time_is_quick_and_the_same_command_goes_on(number: int, code: int, bench: Bench, undisturbed: Bench):
    """At random times from the first moment to the last: under 3 seconds, with its own exit code, no traceback, and nothing shows."""
    dice, slowest = random.Random(number), 0.0
    for _ in range(TIMES // 2):
        ended = bench.run(signals=[(dice.uniform(0.03, 0.5), number)])
        if ended.code == 0:
            bench.finish(undisturbed)
            continue
        if bench.over:
            bench.finish(undisturbed)
        assert ended.code == code, ended.err
        assert "stopped" in ended.err
        slowest = max(slowest, ended.stopped_in or 0.0)
    bench.finish(undisturbed)

    assert slowest < 3.0


def test_a_second_signal_ends_it_at_once(bench: Bench, undisturbed: Bench):
    """Whatever the first one still waits for: here up to ten seconds for what is being written."""
    bench.model.latency_s, insisted = 0.2, []

    def insist(driver: int) -> None:
        for _ in range(2):
            time.sleep(0.5)
            os.kill(driver, signal.SIGINT)
            insisted.append(time.time())

    ended = bench.run_beside(insist, fail="spool.write:1:delay=30")

    assert ended.code == 130
    assert ended.at - insisted[1] < 5.0
    bench.finish(undisturbed)


def test_a_stopped_run_names_the_command_that_goes_on(bench: Bench, undisturbed: Bench):
    """As it can be pasted. What is finished is kept on the way out, also where no spool file was due."""
    bench.model.latency_s = 0.2
    ended = bench.run_beside(lambda driver: os.kill(driver, signal.SIGTERM), calls=24, settings={"beam_ray.run.spool:SPOOL_S": 1_000.0})
    [run], [(_, kept)] = bench.runs, bench.kept

    assert ended.code == 143
    assert len(kept) >= 16
    assert f"resume with:  beam-ray resume {run.run_id} --store {bench.uri}" in ended.err
    bench.finish(undisturbed)


def test_beam_ray_stop_stops_a_run_from_elsewhere(bench: Bench, undisturbed: Bench):
    """Another process sees how far the run is and stops it: exit code 3, no answer is paid for twice, and the same command resumes."""
    bench.model.latency_s, seen = 0.2, []

    def stop(driver: int) -> None:
        [run] = bench.runs
        store = beam_ray.open(run.objects.uri)
        seen.append(store.progress(run.run_id))
        seen.append(store.stop(run.run_id))

    ended = bench.run_beside(stop, calls=24)
    [run] = bench.runs
    store = beam_ray.open(run.objects.uri)
    left = store.progress(run.run_id)

    assert [each.state for each in (*seen, left)] == ["running", "running", "stopped"]
    assert seen[0].driver and seen[0].steps == left.steps > left.steps_done > 0
    assert (ended.code, "was stopped by 'beam-ray stop'" in ended.err) == (3, True), ended.err
    assert f"resume with:  beam-ray resume {run.run_id} --store {bench.uri}" in ended.err
    with pytest.raises(Unusable, match="is not running: no process drives it"):
        store.stop(run.run_id)
    bench.finish(undisturbed)
    assert store.progress(run.run_id).state == "finished"
    assert not list(bench.folder.glob("store*/**/progress.json"))
