"""Two of everything: one winner, and every loser knows it."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from beam_ray.define.workflow import Workflow
from beam_ray.errors import RunIsTaken, Unusable
from beam_ray.publish import publish, read_version, versions
from beam_ray.store.beginning import begin
from beam_ray.store.lease import Lease
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.store.racers import race

TEXT = "workflow: w\nmodel: m\nnodes:\n  one: {llm: {prompt: '{{ task_query }}'}}\n"


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    """A new store's address, and by what its number of rounds is divided: S3 is slower."""
    return (str(tmp_path / "store"), 1) if request.param == "disk" else (request.getfixturevalue("s3_uri"), 10)


def races(uri: str, rounds: int, takeover: bool) -> tuple[Counter[int], Counter[int]]:
    """How many of two drivers took each run's lease, and how many still had it afterwards."""
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(2, timeout=60), context.SimpleQueue()
    drivers = [context.Process(target=race, args=(uri, rounds, takeover, gate, results)) for _ in range(2)]
    for driver in drivers:
        driver.start()
    taken, kept = Counter[int](), Counter[int]()
    for _ in range(2 * rounds):
        number, took, holds = results.get()
        taken[number] += took
        kept[number] += holds
    for driver in drivers:
        driver.join()
    return taken, kept


def test_of_two_drivers_one_takes_the_run_and_the_other_is_told(place):
    """500 runs, each wanted by two processes in the same moment."""
    uri, share = place
    open_objects(uri)
    rounds = 500 // share
    taken, kept = races(uri, rounds, takeover=False)

    assert (taken, kept) == ({number: 1 for number in range(rounds)},) * 2


def test_of_two_that_take_over_one_is_left_and_the_other_learns_it(place):
    """Whoever took over last has the run; the other's next sign of life tells it."""
    uri, share = place
    open_objects(uri)
    rounds = 100 // share
    taken, kept = races(uri, rounds, takeover=True)

    assert kept == {number: 1 for number in range(rounds)}
    assert set(taken.values()) <= {1, 2}


def definition(thread: int, round_: int) -> Workflow:
    """A workflow like no other."""
    return Workflow.model_validate({"workflow": "w", "model": "m", "nodes": {"one": {"llm": {"prompt": f"{thread} {round_} {{{{ task_query }}}}"}}}})


def test_publishers_who_race_make_one_version_each_or_are_told(place):
    """Eight threads publish 50 definitions each: as many versions as successes, numbered without a gap, each with its winner's words."""
    uri, share = place
    objects = open_objects(uri)
    rounds, gate, won, told = 50 // share * (2 if share > 1 else 1), threading.Barrier(8), list[tuple[int, str]](), list[str]()

    def publisher(thread: int) -> None:
        for round_ in range(rounds):
            gate.wait()
            try:
                version = publish(objects, definition(thread, round_), reason="a race")
                won.append((version.version, version.digest))
            except Unusable as error:
                told.append(str(error))

    threads = [threading.Thread(target=publisher, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) + len(told) == 8 * rounds and len(won) >= rounds
    assert sorted(number for number, _ in won) == versions(objects, "w") == list(range(1, len(won) + 1))
    assert all(read_version(objects, "w", number).digest == digest for number, digest in won)
    assert all("at the same time" in text for text in told)


def row(run: Run, output: str) -> dict[str, object]:
    """A step's row."""
    return {"run_id": run.run_id, "task_id": "t0", "node": "one", "trial": 1, "outcome": "done", "output": output, "shard": 0}


def test_a_driver_that_wakes_after_a_takeover_harms_nothing_and_learns_that_it_lost(place, tmp_path):
    """Its parts come too late, before and after the run is finished; its sign of life is refused; its merge and its manifest are the winner's."""
    from beam_ray.llm import ScriptedModel
    from beam_ray.run.plan import make_plan

    lab = Lab(tmp_path, open_objects(place[0]))
    plan = make_plan(lab.workflow(TEXT), lab.tasks(["x"]), {"m": ScriptedModel(str)})
    run_id = begin(lab.objects, plan.record, plan.tasks).run_id
    zombie = Run(lab.objects, run_id)
    lease = Lease(zombie)
    winner = Run(open_objects(place[0]), run_id)
    Lease(winner, takeover=True)
    assert winner.commit_part("one", 0, [row(winner, "winner")])
    assert not zombie.commit_part("one", 0, [row(zombie, "zombie")])
    winner.commit_outcome(0, [{"run_id": run_id, "task_id": "t0", "trial": 1}])
    files = [entry for node in ("one", "_outcome") for entry in winner.merge(node, 1)]
    winner.finish(files, {"calls": 1})

    with pytest.raises(RunIsTaken, match="was taken over by another driver; this one stops, and nothing is lost"):
        lease.beat()
    with pytest.raises(RunIsTaken, match="was finished by another driver"):
        zombie.merge("one", 1)
    assert zombie.commit_part("one", 0, [row(zombie, "zombie")])
    zombie.spool("zombie", 0, [row(zombie, "zombie")])
    assert zombie.finish([], {"calls": 99})["usage"] == {"calls": 1}
    assert [found["output"] for found in Run(lab.objects, run_id).steps().to_pylist()] == ["winner"]


def test_a_driver_that_has_not_yet_given_its_first_sign_of_life_is_alive(tmp_path):
    """Between taking the lease and the first sign of life nobody else may slip in."""
    run = Run(open_objects(str(tmp_path / "store")), "r0")
    script = f"from beam_ray.store.opening import open_objects\nfrom beam_ray.store.lease import *\nLease(Run(open_objects({str(tmp_path / 'store')!r}), 'r0'))"
    slow = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "BEAM_RAY_FAIL": "beat.open:1:delay=60"})
    while not (tmp_path / "store/runs/r0/lease/000001.json").exists():
        time.sleep(0.01)
    with pytest.raises(RunIsTaken, match=f"is driven by process {slow.pid} on "):
        Lease(run)
    slow.kill()
    slow.wait()

    assert Lease(run).epoch == 2
