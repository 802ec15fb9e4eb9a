"""A command is killed or fails at a named point; the same command resumes, and the result is the same."""

import os
import random
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from beam_ray.failpoint import CALLS, OBJECTS
from beam_ray.store.objects import NotThere
from tests.endpoint import endpoint
from tests.faults.conftest import BUSY_LATE_S, Bench, Ended, Forge, answer, make_bench
from tests.faults.journeys import JOURNEYS, death, travel

BATCH_CALLS = ("upload", "uploaded", "create", "created", "poll", "fetch")
"""Calls of the batch lane: see ``test_batches``."""
PHASES = ("run", "part", "manifest")
SAID = {
    "EIO": "Input/output error; fix this, then run the same command again",
    "ENOSPC": "bytes free); free some space, then run the same command again",
}
STRUCK = {"kill": tuple(CALLS), "EIO": ("fsync", "sync", "read", "list", "delete"), "ENOSPC": ("open", "write")}
"""At which calls; ``make soak`` takes all for each."""


def points(undisturbed: Bench, *calls: str) -> list[str]:
    """Every point that the undisturbed command comes by, in the order in which it first does."""
    return [point for point in undisturbed.hits if "SOAK" in os.environ or not calls or point.partition(".")[2] in calls]


def test_the_command_comes_by_points_enough(undisturbed: Bench):
    """Every object of a run, at every call by which a disk is used."""
    seen = points(undisturbed)

    assert len(seen) >= 80
    assert {point.partition(".")[0] for point in seen} >= {"tasks", "run", "open", "lease", "part", "outcome-part", "steps", "outcome", "manifest"}
    assert {point.partition(".")[2] for point in seen} == set(CALLS) - {"put", "answered", "recall", *BATCH_CALLS}
    assert {point.partition(".")[0] for point in seen} <= set(OBJECTS)


@pytest.mark.parametrize("action", STRUCK)
def test_at_every_named_point(action: str, bench: Bench, undisturbed: Bench):
    """At each point the command is killed, or its disk fails or is full; then the same command resumes."""
    strike(bench, undisturbed, list(undisturbed.hits), "open", {point: f"{point}:1:{action}" for point in points(undisturbed, *STRUCK[action])}, action)
    assert action != "ENOSPC" or not list(bench.folder.glob("store*/**/.tmp-*"))


def strike(bench: Bench, undisturbed: Bench, order: list[str], call: str, faults: Mapping[str, str], action: str) -> None:
    """Strike at each point by its faults, where an undisturbed command comes by the points in *order* and begins to write with *call*."""
    phases = [*(f"{phase}.{call}" for phase in PHASES), "open.delete"]
    for point, fault in faults.items():
        # what is written is not written again: a command that would pass by is stopped before its next phase, and a new store begun
        guard = next((f", {phase}:1:{action}" for phase in phases if order.index(phase) > order.index(point)), "")
        ended = bench.run(fail=fault + guard)
        if not struck(ended, point, action):
            bench.finish(undisturbed)
            ended = bench.run(fail=fault)
        # what is spooled is in the parts a moment later: a run that ends first has lost nothing by it
        assert struck(ended, point, action) or (ended.code == 0 and point.startswith(("spool.", "beat."))), (point, ended.code, ended.err)
        if ended.code == 0 or bench.over:
            bench.finish(undisturbed)
    bench.finish(undisturbed)


def struck(ended: Ended, point: str, action: str) -> bool:
    """Whether the command died, or failed with the words that help, at that very point."""
    if action == "kill":
        return ended.code == -9 and f"killed at {point}" in ended.err
    return ended.code == 3 and ended.hits[point] > 0 and SAID[action] in ended.err


def test_a_slow_disk_changes_nothing(bench: Bench, undisturbed: Bench):
    """A pause at every point, once."""
    ended = bench.run(fail=", ".join(f"{point}:1:delay=0.01" for point in undisturbed.hits))

    assert ended.code == 0
    bench.finish(undisturbed)


@pytest.mark.parametrize("seed", range(int(os.environ.get("CRASH_SEEDS", "2"))))
def test_killed_again_and_again(seed: int, bench: Bench, undisturbed: Bench):
    """Killed at random points and at random times, until it is done."""
    again(bench, random.Random(seed), undisturbed)


def again(bench: Bench, dice: random.Random, calm: Bench) -> None:
    """Kill the command twenty times; where it comes to its end before, begin with an empty store."""
    for _ in range(20):
        ended = bench.run(**death(dice, 120))
        if ended.code == 0 or bench.over:
            bench.finish(calm)
    bench.finish(calm)


@pytest.mark.parametrize("name", JOURNEYS)
@pytest.mark.parametrize("seed", range(int(os.environ.get("CRASH_SEEDS", "1"))))
def test_a_journey_with_many_deaths_ends_where_an_undisturbed_one_does(seed: int, name: str, bench: Bench, tmp_path, forge: Forge):
    """The same versions, runs and verdicts, and every call paid for once, whichever command died at whichever place."""
    calm, bench = (make_bench(tmp_path / folder, forge, bench.model, JOURNEYS[name].tasks) for folder in ("calm", "killed"))
    planned = travel(calm, JOURNEYS[name])

    assert travel(bench, JOURNEYS[name], random.Random(seed), deaths=4) == planned
    assert bench.journey() == calm.journey()
    assert bench.struck


@pytest.mark.parametrize("seed", range(int(os.environ.get("CRASH_SEEDS", "1"))))
def test_runners_that_are_killed_under_a_living_driver(seed: int, tmp_path, forge: Forge):
    """The driver replaces them, and spooled answers are not paid for again."""
    dice, pids = random.Random(seed), tmp_path / "runners"
    with endpoint(answer) as model:
        calm = make_bench(tmp_path / "calm", forge, model, 200)
        assert calm.run().code == 0
    with endpoint(answer, latency_s=0.05) as model:
        bench, over = make_bench(tmp_path / "bench", forge, model, 200), threading.Event()

        def killer() -> None:
            while not over.wait(dice.uniform(0.3, 0.7)):
                alive = [int(pid) for pid in pids.read_text().split() if Path(f"/proc/{pid}").exists()] if pids.exists() else []
                if alive and len(bench.kills) < 12:
                    try:
                        kept = bench.answered()
                    except NotThere:
                        break  # the run is finished, and its parts are taken away
                    bench.kept.append((len(model.journal), kept))
                    with suppress(ProcessLookupError):
                        os.kill(dice.choice(alive), signal.SIGKILL)
                    at = time.time()
                    time.sleep(0.1)  # what it asked last may come in after its death
                    bench.kills.append((at, len(model.journal)))

        thread = threading.Thread(target=killer)
        thread.start()
        ended = bench.run(environment={"RUNNERS": str(pids)})
        over.set()
        thread.join()

        assert ended.code == 0, ended.err
        assert len(bench.kills) >= 4
        assert bench.spooled
        bench.finish(calm, BUSY_LATE_S)
