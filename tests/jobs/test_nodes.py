"""Several Ray nodes, here on one machine: runners on all of them, and one lost half-way."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from beam_ray.store.lookup import find_runs
from beam_ray.store.runs import Run
from tests.jobs.conftest import Project, numbered, until
from tests.ray_nodes import end_node, node_command

pytestmark = pytest.mark.timeout(300)

TASKS = 600


@contextmanager
def node(project: Project, count: int) -> Iterator["subprocess.Popen[bytes]"]:
    """One more node of the cluster, with a CPU of its own; there are *count* then."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    ray = subprocess.Popen(node_command(project.head.address), cwd=project.folder, env=project.head.environment, start_new_session=True, **quiet)
    try:
        until(lambda: alive(project) == count)
        yield ray
    finally:
        end_node(ray)


@pytest.fixture
def spread(project: Project) -> Project:
    """A workflow whose tool says on which node it runs; from the 200th task on it waits for a file ``go``."""
    for name in ("tools", "nodes"):
        (project.folder / name).mkdir(exist_ok=True)
    (project.folder / "tools" / "place.py").write_text(
        "import asyncio\nfrom pathlib import Path\n\nimport ray\n\n"
        f"HERE = Path({str(project.folder)!r})\n\n\n"
        "async def where(text, number):\n"
        "    node = ray.get_runtime_context().get_node_id()\n"
        "    (HERE / 'nodes' / node).touch()\n"
        "    while int(number) >= 200 and not (HERE / 'go').exists():\n"
        "        await asyncio.sleep(0.1)\n"
        "    return {'node': node}\n"
    )
    (project.folder / "spread.yaml").write_text(
        "workflow: spread\nmodel: m\nnodes:\n"
        "  say: {llm: {prompt: 'good {{ task_query }}'}}\n"
        "  place: {after: say, tool: 'tools.place:where', with: {text: '{{ say.text }}', number: '{{ task_query }}'}}\n"
    )
    (project.folder / "spread.jsonl").write_text(numbered(TASKS))
    return project


def alive(project: Project) -> int:
    """How many nodes the cluster counts."""
    found = project.dashboard("/api/v0/nodes?detail=0")["data"]["result"]["result"]
    return sum(node["state"] == "ALIVE" for node in found)


def answered(project: Project, before: set[str]) -> set[str]:
    """The prompts that need not be asked again: their answers are in the store."""
    [run] = [Run(project.objects, run_id) for run_id in find_runs(project.objects) if run_id not in before]
    rows = [row for table in (run.steps(), *run.spooled()) for row in table.to_pylist()]
    return {f"good {row['task_id'][1:]}" for row in rows if row["node"] == "say" and row["outcome"] == "done"}


def test_runners_are_on_all_nodes_and_a_lost_node_loses_nothing(spread: Project):
    """Of three nodes one is killed half-way: every task has its one answer, and what was in the store is not asked again."""
    # one after the other: nodes that start at once on one machine take each other's socket
    with node(spread, 2) as first, node(spread, 3):
        before = set(find_runs(spread.objects))
        words = ["run", "spread.yaml", "--tasks", "spread.jsonl", "--address", spread.head.address, "--store", spread.store, "--models", "models.yaml"]
        run = spread.start(*words, "--json")
        until(lambda: run.poll() is not None or (len(list((spread.folder / "nodes").iterdir())) == 3 and answered(spread, before)))
        kept = answered(spread, before)
        at_kill = len(spread.model.journal)
        os.killpg(first.pid, signal.SIGKILL)
        (spread.folder / "go").touch()
        out, err = run.communicate(timeout=200)

    assert run.returncode == 0, err
    assert out.startswith("{"), out
    steps = Run(spread.objects, json.loads(out)["run_id"]).steps(["place"]).to_pylist()
    assert sorted(row["task_id"] for row in steps) == sorted(f"t{index}" for index in range(TASKS))
    assert {row["outcome"] for row in steps} == {"done"}
    assert len({json.loads(row["output"])["node"] for row in steps}) >= 2
    assert not kept & {call.said for call in spread.model.journal[at_kill:]}
