"""Limits over all jobs of a cluster: two drivers at once, and a limiter that dies."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate

import pytest

from beam_ray.run.cluster.limiter_actor import LIMITER_NAME, NAMESPACE
from beam_ray.store.runs import Run
from tests.endpoint import Call
from tests.jobs.conftest import Project, numbered, until

pytestmark = pytest.mark.timeout(300)

TASKS, LIMIT = 120, 6

LOOK = f"""
import ray, time
ray.init(logging_level="ERROR")
until = time.monotonic() + PATIENCE_S
while True:
    try:
        limiter = ray.get_actor({LIMITER_NAME!r}, {NAMESPACE!r})
    except ValueError:
        print("GONE")
        break
    if time.monotonic() > until:
        print("THERE")
        KILL and ray.kill(limiter)
        break
    time.sleep(0.3)
"""


@pytest.fixture
def narrow(project: Project) -> Iterator[Project]:
    """An endpoint that bears six calls at once."""
    (project.folder / "narrow.yaml").write_text(f"m: {{base_url: '{project.model.url}', model: narrow, concurrency: {LIMIT}}}\n")
    (project.folder / "some.jsonl").write_text(numbered(TASKS))
    project.model.latency_s = 1.0
    yield project
    project.model.latency_s = 0.0


def begin(project: Project, word: str) -> "subprocess.Popen[str]":
    """A run of all tasks, on the cluster."""
    words = ["run", f"{word}.yaml", "--tasks", "some.jsonl", "--models", "narrow.yaml", "--store", project.store, "--address", project.head.address]
    return project.start(*words, "--json")


def finished(project: Project, run: "subprocess.Popen[str]") -> int:
    """How many rows the run has done."""
    out, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    return sum(row["outcome"] == "done" for row in Run(project.objects, json.loads(out)["run_id"]).steps().to_pylist())


def most(calls: list[Call]) -> int:
    """Calls in flight at once, at most."""
    moments = sorted([(call.began, 1) for call in calls] + [(call.ended, -1) for call in calls])
    return max(accumulate(change for _, change in moments))


def look(project: Project, *, kill: bool = False, patience_s: float = 0.0) -> str:
    """Whether the cluster has a limiter, which may be killed; one that goes within the patience is gone."""
    look = LOOK.replace("KILL", str(kill)).replace("PATIENCE_S", str(patience_s))
    said = project.ask(sys.executable, "-c", look, RAY_ADDRESS=project.head.address)
    return said.stdout.strip().splitlines()[-1]


def test_two_drivers_at_once_keep_the_limit_together_and_leave_no_limiter_behind(narrow: Project):
    """They share six calls in flight while both run; after the last there is nothing that would hold up the cluster's end."""
    asked = len(narrow.model.journal)
    runs = [begin(narrow, "good"), begin(narrow, "poor")]
    until(lambda: {call.said.split()[0] for call in narrow.model.journal[asked:]} == {"good", "poor"})
    both = len(narrow.model.journal)
    narrow.model.latency_s = 0.1
    assert [finished(narrow, run) for run in runs] == [TASKS, TASKS]

    calls = narrow.model.journal[asked:]
    half = [call.said.split()[0] for call in narrow.model.journal[both + LIMIT : both + 10 * LIMIT]]
    assert min(half.count("good"), half.count("poor")) >= len(half) // 4
    assert most(calls) == LIMIT
    assert look(narrow, patience_s=20.0) == "GONE"


def test_a_limiter_that_dies_is_followed_by_another_and_the_limit_holds(narrow: Project):
    """It is killed half-way: the run finishes, repeats no call, and never has more calls in flight than allowed."""
    asked = len(narrow.model.journal)
    run = begin(narrow, "lucky")
    until(lambda: len(narrow.model.journal) > asked + LIMIT or run.poll() is not None)
    assert look(narrow, kill=True) == "THERE"
    left = TASKS - (len(narrow.model.journal) - asked)
    narrow.model.latency_s = 0.1

    assert finished(narrow, run) == TASKS
    assert left > LIMIT
    calls = narrow.model.journal[asked:]
    assert len(calls) == TASKS
    assert most(calls) == LIMIT
