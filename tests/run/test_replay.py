"""Agents that are redone: answered from what they recorded, and paying from the first call that differs."""

import dataclasses
import json
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.llm.request import ToolCall
from beam_ray.run.connection import Connection
from tests.faults.here import Here
from tests.http_server import QuietHandler, serving

AGENT = """
workflow: w
model: m
nodes:
  resolve:
    agent:
      prompt: "Check #{{ task_query }}#"
      tools: [desk:find]
      returns: {total: int}
"""
DESK = """
import asyncio
import random
from pathlib import Path

EFFECTS = "read"


async def find(number: int):
    await asyncio.sleep(random.random() / 50)
    with Path(JOURNAL).open("a") as journal:
        journal.write("x")
    return {"total": number}
"""

Answer = Callable[[beam_ray.Request], Any]


@dataclasses.dataclass
class Bench:
    """A folder with a store, whose runs are done in this process."""

    folder: Path
    here: Here
    module: str
    """Of the tool: another one for each test, since a process imports a module once."""

    def store(self, answer: Answer) -> beam_ray.Store:
        """The store, with this model."""
        opened = beam_ray.open(self.folder / "store", models={"m": beam_ray.ScriptedModel(answer)})
        return dataclasses.replace(opened, connection=Connection(cluster=self.here))  # type: ignore[arg-type]

    def write(self, name: str, text: str) -> str:
        """A file of the folder."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)
        return name

    @property
    def called(self) -> int:
        """How often the tool was called."""
        journal = self.folder / "journal.txt"
        return len(journal.read_text()) if journal.exists() else 0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A folder with a tool that takes some time, more or less."""
    monkeypatch.chdir(tmp_path)
    made = Bench(tmp_path, Here(), f"desk_{secrets.token_hex(4)}")
    made.write(f"{made.module}.py", DESK.replace("JOURNAL", repr(str(tmp_path / "journal.txt"))))
    made.write("w.yaml", AGENT.replace("desk:find", f"{made.module}:find"))
    return made


def tasks(count: int) -> list[dict[str, Any]]:
    """Tasks, each a number."""
    return [{"id": f"t{number}", "task_query": str(number)} for number in range(count)]


def number_in(request: beam_ray.Request) -> int:
    """The task's number."""
    return int(str(request.messages[0]["content"]).split("#")[1])


def scripted(asked: list[beam_ray.Request], change: int = 0) -> Answer:
    """A model that looks three orders up at once, one of them twice, and adds what it is told; *change* is added to the first."""

    def answer(request: beam_ray.Request) -> Any:
        asked.append(request)
        results = [json.loads(str(message["content"])) for message in request.messages if message["role"] == "tool"]
        if not results:
            number = number_in(request)
            return [ToolCall("find", json.dumps({"number": value}), f"c{place}") for place, value in enumerate((number + change, 700, 700))]
        return {"total": sum(result["total"] for result in results)}

    return answer


def outputs(run: beam_ray.Run) -> list[tuple[Any, ...]]:
    """The outputs of all tasks, byte for byte."""
    return sorted(zip(*(run.steps()[name].to_pylist() for name in ("task_id", "output")), strict=True))


def test_an_unchanged_agent_makes_no_call_and_gives_the_same_outputs(bench: Bench):
    """Whatever the order in which its parallel tools end: a full rerun executes every step, and is answered from the recording."""
    first = bench.store(scripted([])).run("w.yaml", tasks=tasks(40))
    asked: list[beam_ray.Request] = []
    called = bench.called

    [again] = bench.store(scripted(asked)).rerun([first.task(f"t{number}") for number in range(40)], using="original")
    steps = again.run.steps().to_pylist()

    assert (asked, bench.called, called) == ([], called, 120)
    assert outputs(again.run) == outputs(first)
    assert {(row["outcome"], row["calls"], row["calls_recorded"], row["calls_refused"], row["diverged_at"]) for row in steps} == {("done", 0, 5, 0, None)}
    assert {(row["work_calls"], row["turns"], row["tool_calls"]) for row in steps} == {(2, 2, 3)}


def test_a_changed_tool_pays_from_there(bench: Bench):
    """A static answer of a tool leaves the calls before it in the recording; the question after it is asked."""
    first = bench.store(scripted([])).run("w.yaml", tasks=tasks(12))
    bench.write(
        "spec.yaml",
        f"backtest: b\nworkflow: w.yaml\ntasks: run:{first.id}\nbaseline: w.yaml\ncandidates: {{c: {{nodes.resolve.agent.max_turns: 5}}}}\ngate: none\ntools: {{find: {{when: {{number: 700}}, answer: {{total: 1}}}}}}\n",
    )
    asked: list[beam_ray.Request] = []
    called = bench.called

    verdict = bench.store(scripted(asked)).backtest("spec.yaml")
    steps = verdict.baseline_run.steps().to_pylist()

    assert bench.called == called
    assert len(asked) == 12
    assert {(row["calls"], row["calls_recorded"], row["diverged_at"]) for row in steps} == {(1, 2, 5)}


def test_a_rerun_of_a_rerun_is_answered_from_the_first(bench: Bench):
    """Recordings hold over any number of runs, and each call names the attempt that paid for it."""
    store = bench.store(scripted([]))
    first = store.run("w.yaml", tasks=tasks(3))
    run = first
    for _ in range(2):
        [again] = store.rerun([run.task(f"t{number}") for number in range(3)], using="original")
        run = again.run
    asked: list[beam_ray.Request] = []
    [last] = bench.store(scripted(asked)).rerun([run.task("t1")], using="original")
    calls = last.run.task("t1").calls("resolve")

    assert asked == []
    assert {(call.source, call.recorded_from) for call in calls} == {("recorded", f"{first.id}/t1/resolve/1")}
    assert [(call.number, call.kind, call.name) for call in calls] == [
        (1, "model", "m"),
        (2, "tool", "find"),
        (3, "tool", "find"),
        (4, "tool", "find"),
        (5, "model", "m"),
    ]


def test_200_tasks_that_try_hard_to_write_write_nothing(bench: Bench):
    """Neither side of a backtest reaches the endpoint that the tool writes to; a plain run does."""
    written: list[str] = []

    class Recorder(QuietHandler):
        def do_POST(self: BaseHTTPRequestHandler) -> None:
            written.append(self.path)
            self.send_response(200)
            self.end_headers()

    tool = "import urllib.request\n\n\nasync def send(to: str):\n    urllib.request.urlopen('URL/' + to, b'')\n    return 'sent'\n"

    def answer(request: beam_ray.Request) -> Any:
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if turn == 3:
            return {"total": number_in(request)}
        return [ToolCall("send", json.dumps({"to": f"{number_in(request)}-{turn}-{place}"}), f"c{place}") for place in range(3)]

    with serving(Recorder) as url:
        bench.write(f"mail{bench.module}.py", tool.replace("URL", url))
        text = AGENT.replace("desk:find", f"mail{bench.module}:send")
        bench.write("w.yaml", text)
        bench.write("v2.yaml", text.replace("Check", "Please check"))
        bench.write("tasks.jsonl", "".join(json.dumps(task) + "\n" for task in tasks(200)))
        bench.write("spec.yaml", "backtest: b\nworkflow: w.yaml\ntasks: tasks.jsonl\nbaseline: w.yaml\ncandidates: {c: v2.yaml}\ngate: none\n")
        store = bench.store(answer)
        verdict = store.backtest("spec.yaml")
        in_test = list(written)
        store.run("w.yaml", tasks=tasks(1))
        sides = list(verdict.runs)

    assert in_test == []
    assert [sum(row["calls_refused"] for row in run.steps().to_pylist()) for run in sides] == [1_800, 1_800]
    assert len(written) == 9
