"""Agents are killed at any point; the same command resumes, and what was answered is neither asked nor called again."""

import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from beam_ray.store.lease import driver_of
from beam_ray.store.lookup import find_runs
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.endpoint import Endpoint, choice_of, endpoint
from tests.faults.conftest import LATE_S, Ended, Forge, oldest_repeat

TASKS = 10
WORKFLOW = """
workflow: work
model: m
nodes:
  resolve:
    agent: {prompt: "check #{{ task_query }}#", tools: [tools.desk:find, tools.desk:send], returns: {total: int}}
  end: {after: resolve, llm: {prompt: "end #{{ resolve.total }}#"}}
"""
DESK = """
import asyncio
import json
import time
from pathlib import Path

EFFECTS = "read"


async def noted(name, number):
    began = time.time()
    await asyncio.sleep(0.01)
    with Path(JOURNAL).open("a") as journal:
        journal.write(json.dumps([name, number, began, time.time()]) + chr(10))


async def find(number: int):
    await noted("find", number)
    return {"total": number * 2}


async def send(number: int):
    await noted("send", number)
    return "sent"
"""

Asked = tuple[str, int]
"""What was called, and its argument: a tool with its number, or the model with task and turn."""


def answer(body: dict[str, Any]) -> Any:
    """Two orders are looked up at once, a message is sent, and then the answer."""
    task, turn = place_of(body)
    if turn < 0:
        return "bye"
    calls = [("find", task), ("find", task + 100)] if turn == 0 else [("send", task)]
    if turn == 2:
        return {"total": task}
    asked = [
        {"id": f"c{turn}{number}", "type": "function", "function": {"name": name, "arguments": json.dumps({"number": value})}}
        for number, (name, value) in enumerate(calls)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return 200, {}, {"id": "x", "object": "chat.completion", "choices": [choice_of("tool_calls", tool_calls=asked)], "usage": usage}


def place_of(body: dict[str, Any]) -> tuple[int, int]:
    """The task, and the agent's turn; -1 for the node after it."""
    text = str(body["messages"][0]["content"])
    number = int(text.split("#")[1])
    return number, -1 if text.startswith("end") else sum(message["role"] == "assistant" for message in body["messages"])


@dataclass
class Desk:
    """A store, a command with agents, and all that they asked for."""

    folder: Path
    forge: Forge
    model: Endpoint
    store: str = "store"
    kills: list[tuple[float, float, set[Asked]]] = field(default_factory=list)
    """When, how long the command had waited for a processor just before, and what was in the store by then."""
    most_kept: int = 0
    """The most that was in the store at a kill."""
    oldest: float = 0.0
    """The age of the oldest answer that was asked for again, when its command was killed."""

    def run(self, **how: Any) -> Ended:
        """Give the command once."""
        ended = self.forge(self.folder, "run", "work.yaml", "--tasks", "tasks.jsonl", "--models", "models.yaml", "--store", self.store, "--json", **how)
        assert ended.code in (0, 3, 130, 143, -9), (ended.code, ended.err)
        if ended.code:
            self.kills.append((ended.at, ended.waited, kept := self.kept()))
            self.most_kept = max(self.most_kept, len(kept))
        return ended

    def run_and_kill(self, calls: int, delay_s: float) -> None:
        """Give the command once, and kill it a while after the model was asked so often; it may have come to its end by then."""
        asked = len(self.model.journal)
        with ThreadPoolExecutor(1) as beside:
            command = beside.submit(self.run)
            while len(self.model.journal) < asked + calls and not command.done():
                time.sleep(0.01)
            time.sleep(delay_s)
            driver = driver_of(self.runs[-1])
            if driver and not command.done():
                with suppress(ProcessLookupError):
                    os.kill(driver["pid"], signal.SIGKILL)
            command.result()

    @property
    def finished(self) -> bool:
        """Whether the run is; what a command leaves that dies just then is tidied up."""
        for run in self.runs:
            if run.finished:
                run.tidy()
        return any(run.finished for run in self.runs)

    @property
    def runs(self) -> list[Run]:
        objects = open_objects(str(self.folder / self.store), proven=True)
        return [Run(objects, run_id) for run_id in find_runs(objects)]

    def kept(self) -> set[Asked]:
        """What is in the store."""
        found: set[Asked] = set()
        for run in self.runs:
            rows = [*run.calls().to_pylist(), *(call for table in run.spooled() for row in table.to_pylist() for call in row["call_rows"] or ())]
            for row in rows:
                if row["fingerprint"] and row["kind"] == "tool":
                    found.add((row["name"], json.loads(row["request"])["number"]))
                elif row["fingerprint"]:
                    task, turn = place_of(json.loads(row["request"]))
                    found.add((f"turn {turn}", task))
        return found

    def asked(self) -> list[tuple[Asked, float, float]]:
        """What was called, with when it began and ended; calls that did not end at 0. In the order of their beginnings."""
        places = [(place_of(call.body), call) for call in self.model.journal]
        models = [((f"turn {turn}", task), call.began, call.ended) for (task, turn), call in places if turn >= 0]
        journal = self.folder / "journal.txt"
        tools = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
        return sorted([*models, *(((name, number), began, ended) for name, number, began, ended in tools)], key=lambda call: call[1])

    def outputs(self) -> list[Any]:
        """What the one finished run found out, and the calls that it has on record."""
        [run] = [run for run in self.runs if run.finished]
        calls = [
            [row[name] for name in ("task_id", "attempt", "number", "name", "request", "fingerprint", "error", "source")] for row in run.calls().to_pylist()
        ]
        steps = [[row[name] for name in ("task_id", "node", "outcome", "output", "turns", "tool_calls")] for row in run.steps().to_pylist()]
        return [sorted(calls), sorted(steps)]

    def assert_nothing_twice(self) -> None:
        """Repeated are at most calls in flight at a kill and those that ended up to LATE_S before it; and nothing that was in the store."""
        calls = self.asked()
        for at, _, kept in self.kills:
            again = {what for what, began, _ in calls if began > at} & kept
            assert not again, f"in the store and called again: {sorted(again)[:5]}"
        kills = [(at - waited, sum(began <= at for _, began, _ in calls)) for at, waited, _ in self.kills]
        self.oldest = max(self.oldest, oldest_repeat(calls, kills, LATE_S))

    def kill_until_done(self, dice: random.Random) -> int:
        """Give the command until it comes to its end, and kill it each time: some calls later, or at a point. How often it was killed."""
        while not self.finished:
            if dice.random() < 0.5:
                self.run_and_kill(dice.randint(2, 8), dice.uniform(0, 0.4))
            else:
                self.run(fail=f"*.*:{dice.randint(1, 60)}:kill")
            self.assert_nothing_twice()
        return len(self.kills)

    def begin_anew(self) -> None:
        """With an empty store."""
        self.store += "+"
        self.kills.clear()
        self.model.journal.clear()
        (self.folder / "journal.txt").unlink(missing_ok=True)


def make_desk(folder: Path, forge: Forge, model: Endpoint) -> Desk:
    """An empty folder with the command's files."""
    (folder / "tools").mkdir(parents=True)
    (folder / "work.yaml").write_text(WORKFLOW)
    (folder / "tools" / "desk.py").write_text(DESK.replace("JOURNAL", repr(str(folder / "journal.txt"))))
    (folder / "tasks.jsonl").write_text("".join(json.dumps({"id": f"t{number}", "task_query": str(number)}) + "\n" for number in range(TASKS)))
    (folder / "models.yaml").write_text(f"m: {{base_url: '{model.url}', model: x, concurrency: 4}}\n")
    return Desk(folder, forge, model)


@pytest.mark.parametrize("seed", range(int(os.environ.get("CRASH_SEEDS", "1"))))
def test_killed_agents_ask_and_call_nothing_twice(seed: int, tmp_path: Path, forge: Forge):
    """Killed at random times until it is done: the outputs and the recorded calls are those of an undisturbed run."""
    dice = random.Random(seed)
    with endpoint(answer, latency_s=0.1) as model:
        calm = make_desk(tmp_path / "calm", forge, model)
        assert calm.run().code == 0
        expected = calm.outputs()
        model.journal.clear()
        desk, killed = make_desk(tmp_path / "desk", forge, model), 0
        for _ in range(int(os.environ.get("CRASH_ROUNDS", "1"))):
            killed += desk.kill_until_done(dice)
            assert desk.outputs() == expected
            desk.begin_anew()

    assert killed >= 2
    assert desk.most_kept >= 5
