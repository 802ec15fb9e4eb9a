"""Rows that kill, hang, leak or fork: each is its own failure alone, and nothing of it stays behind."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from beam_ray.errors import Stopped
from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.request import Answer
from beam_ray.llm.usage import Usage
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Runner
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab

ROWS = int(os.environ.get("POISON_ROWS", "600"))

TOOLS = """
import ctypes
import os
import time
from pathlib import Path

HERE = Path(__file__).parent
LEAK = []


def work(n):
    if n == 13:
        ctypes.string_at(0)
    if n == 250:
        ctypes.PyDLL(None).sleep(600)
    if n == 400:
        for _ in range(3):
            if not os.fork():
                (HERE / f"child-{os.getpid()}").touch()
                time.sleep(600)
        time.sleep(600)
    if n % 50 == 7 and not os.fork():
        return {"n": -1}
    if n % 100 == 0:
        LEAK.append(bytearray(os.urandom(1)) * 300_000_000)
    return {"n": n, "pid": os.getpid()}
"""

WORKFLOW = """
workflow: poison
inputs: {n: int}
nodes:
  work: {tool: "tools.poison:work", with: {n: "{{ n }}"}, timeout_s: 2}
"""


def test_three_poison_rows_fail_and_every_other_row_has_its_own_result(lab: Lab):
    """A segfault, a hang that holds the GIL and a hang with children fail; copies that fork and return, and leaks, change no row."""
    lab.write("tools/poison.py", TOOLS)
    run = lab.run(WORKFLOW, [{"id": f"t{number}", "task_query": {"n": number}} for number in range(ROWS)], None)
    rows = {int(row["task_id"][1:]): row for row in run.steps().to_pylist()}
    said = {number: json.loads(row["output"]) for number, row in rows.items() if row["output"]}

    assert {number: row["error"] for number, row in rows.items() if row["outcome"] != "done"} == {
        13: "tools.poison:work: its process died (SIGSEGV)",
        250: "tools.poison:work took longer than 2 s and was killed",
        400: "tools.poison:work took longer than 2 s and was killed",
    }
    assert {number: output["n"] for number, output in said.items()} == {number: number for number in range(ROWS) if number not in (13, 250, 400)}
    assert not [pid for pid in children(lab.folder) | {output["pid"] for output in said.values()} if alive(pid)]
    # a child that leaked 300 MB twice has made room for another
    assert ROWS / 200 < len({output["pid"] for output in said.values()}) < ROWS / 20


def children(folder: Path) -> set[int]:
    """The processes that a tool started and left."""
    found = {int(path.name.removeprefix("child-")) for path in folder.glob("tools/child-*")}
    assert len(found) == 3
    return found


def alive(pid: int) -> bool:
    """Whether the process is there, and not only its name in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Patient(ScriptedModel):
    """Answers the last question only when answers to others are in the store, or after five seconds."""

    async def ask(self, request: Request, usage: Usage) -> Answer:
        if "last" in request.messages[-1]["content"]:
            for _ in range(50):
                if self.function(request) == "kept":
                    break
                await asyncio.sleep(0.1)
        return await super().ask(request, usage)


def test_answers_to_rows_under_suspicion_are_kept_at_once_as_all_others(lab: Lab):
    """A runner that dies while it looks for the row that kills loses no more than any other."""
    workflow = lab.workflow("workflow: w\nnodes: {only: {llm: {model: m, prompt: '{{ task_query }}'}}}\n")
    plan = make_plan(workflow, lab.tasks(["first", "last"]), {"m": ScriptedModel(str)}, source="tasks.jsonl")
    record = begin(lab.objects, plan.record, plan.tasks)
    kept = Patient(lambda request: "kept" if list(Run(lab.objects, record.run_id).spooled()) else "lost")

    async def settle() -> None:
        runner = Runner(Assignment(lab.objects.uri, record.run_id, {"m": kept}, "suspect", 8))
        await runner.run_rows(0, 0, 2)
        await runner.stop()

    asyncio.run(settle())
    rows = [row for table in Run(lab.objects, record.run_id).spooled() for row in table.to_pylist()]
    assert {row["task_id"]: json.loads(row["output"])["text"] for row in rows} == {"t0": "lost", "t1": "kept"}


def test_a_fault_that_is_no_row_s_own_stops_the_search_for_the_row_that_kills(lab: Lab):
    """With its own words, not as one of a group."""

    def no_quota(request: Request) -> str:
        raise Stopped("no quota")

    models = {"m": ScriptedModel(no_quota)}
    plan = make_plan(lab.workflow("workflow: w\nnodes: {only: {llm: {model: m, prompt: '{{ task_query }}'}}}\n"), lab.tasks(["x", "y"]), models)
    record = begin(lab.objects, plan.record, plan.tasks)
    with pytest.raises(Stopped, match="no quota"):
        asyncio.run(Runner(Assignment(lab.objects.uri, record.run_id, models, "suspect", 8)).run_rows(0, 0, 2))
