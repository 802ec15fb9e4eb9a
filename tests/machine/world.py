"""A store, the processes that use it, and a clock of its own: all that may happen to runs happens here in one order, so that it can happen again."""

import asyncio
import hashlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from beam_ray.define.workflow import Workflow
from beam_ray.errors import Stopped, ToolFailed
from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.request import ToolCall
from beam_ray.run.agent_tools import AgentTools, OfferedTool
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import load_workflow
from beam_ray.run.runner import Runner
from beam_ray.run.shard import OUTCOME_NODE
from beam_ray.run.summary import summarise
from beam_ray.store.beginning import close
from beam_ray.store.disk import Disk
from beam_ray.store.lease import Lease, _process_start
from beam_ray.store.runs import Run

T = TypeVar("T")

TASKS = 10
ORDER = ("read", "low", "high", "end")
BELOW = {"read": {"low", "high", "end"}, "low": {"end"}, "high": {"end"}, "end": set[str]()}

Definition = tuple[str, str, str]
"""A letter in the prompts of the first node, of the two routes, and of the last node."""

Key = tuple[str, str, str]
"""Task, node, and which call of its agent; empty for a node that is one question."""

AGENTS = ("read", "high")
"""The nodes that are agents where a workflow has any."""

SCRIPTS = {"a": ((("find", "1"), ("find", "2")), (("send", "1"),)), "b": ((("find", "1"), ("find", "1 "), ("send", "2")),)}
"""By the letter in an agent's prompt: the tools that it calls at once, turn by turn, each with what it asks for. White space at the end does not count."""

DESK = """
EFFECTS = {"find": "read", "send": "write"}


async def find(of: str, what: str): ...


async def send(of: str, what: str): ...
"""


@cache
def workflow(definition: Definition, agents: bool = False) -> Workflow:
    """The checked workflow with these letters."""
    first, second, last = definition
    kind, tools = ("agent", ", tools: [desk:find, desk:send]") if agents else ("llm", "")
    text = f"""
workflow: w
model: m
nodes:
  read: {{{kind}: {{prompt: "read {first} {{{{ task_query }}}}"{tools}}}, evaluate: {{criteria: [{{check: "read.text > '3'"}}]}}}}
  low: {{after: read, when: "read.text < '8'", route: low, llm: {{prompt: "low {second} {{{{ read.text }}}}"}}}}
  high: {{after: read, when: "read.text >= '8'", route: high, {kind}: {{prompt: "high {second} {{{{ read.text }}}}"{tools}}}}}
  end: {{after: [low, high], llm: {{prompt: "end {last} {{{{ (low or high).text }}}}"}}}}
"""
    path = project() / "w.yaml"
    path.write_text(text, encoding="utf-8")
    return load_workflow(path)[0]


@cache
def project() -> Path:
    """A folder with the tools of the agents."""
    folder = Path(tempfile.mkdtemp(dir=shm(), prefix="beam-ray-machine-"))
    (folder / "desk.py").write_text(DESK, encoding="utf-8")
    return folder


def forget_project() -> None:
    """Take it away."""
    shutil.rmtree(project(), ignore_errors=True)
    project.cache_clear()
    workflow.cache_clear()


def shm() -> Path:
    """Where files are quick: in memory, where there is such a place."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else Path(os.environ.get("TMPDIR", "/tmp"))


def answer(prompt: str) -> str:
    """What the model says to a prompt, always."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:6]


# -- agents --------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Call:
    """A call of an agent."""

    name: str
    """A tool's; 'm' for the model."""
    asked: str
    occurrence: int
    source: str = "live"
    told: str = ""
    """What a tool's call gave, as the model sees it."""
    home: str = ""
    """The run that a recorded answer is from."""

    @property
    def place(self) -> tuple[str, str, int]:
        """What identifies it in a recording."""
        return self.name, self.asked.rstrip(), self.occurrence

    @property
    def failed(self) -> bool:
        """Whether it is an error of a tool."""
        return self.told.startswith("Error: ") and self.source != "refused"


def asked_in(messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as one text: what was asked first, and what tools gave."""
    return " | ".join(str(message["content"]) for message in messages if message["role"] != "assistant")


def asked_of(arguments: Mapping[str, Any]) -> str:
    """A tool's arguments as one text."""
    return f"{arguments['of']} {arguments['what']}"


def said(request: Request) -> Any:
    """What the model says: the calls of an agent's turn, or an answer."""
    prompt = str(request.messages[0]["content"])
    script = SCRIPTS[prompt.split()[1]] if request.tools else ()
    turn = sum(message["role"] == "assistant" for message in request.messages)
    if turn >= len(script):
        return answer(prompt)
    of = f"{request.task_id} {request.node}"
    return [ToolCall(name, json.dumps({"of": of, "what": what}), f"c{turn}{number}") for number, (name, what) in enumerate(script[turn])]


def found(name: str, asked: str) -> str:
    """What a tool gives; some have nothing."""
    value = answer(f"{name} {asked.rstrip()}")
    if name == "find" and value < "4":
        raise ToolFailed(f"nothing like {value}")
    return value


def told_of(name: str, asked: str) -> str:
    """The same, as the model sees it."""
    try:
        return found(name, asked)
    except ToolFailed as failed:
        return f"Error: {failed}"


Recorded = Mapping[tuple[str, str, int], Call]


def conversation(prompt: str, task: str, node: str, recorded: Recorded, *, kept: Recorded, writes: bool) -> list[Call]:
    """The calls of an agent: those that are *kept* as they are, those that are *recorded*, and the others live, or refused where *writes* are not allowed."""
    calls: list[Call] = []
    seen: Counter[tuple[str, str]] = Counter()

    def made(name: str, asked: str) -> str:
        seen[name, asked.rstrip()] += 1
        call = Call(name, asked, seen[name, asked.rstrip()], told=told_of(name, asked) if name != "m" else "")
        if call.place in kept:
            call = kept[call.place]
        elif call.place in recorded:
            call = replace(recorded[call.place], asked=asked, source="recorded")
        elif name == "send" and not writes:
            call = replace(call, source="refused", told=f"Error: the tool {name!r} is not available in a test: its result for these arguments was not recorded")
        calls.append(call)
        return call.told

    told = [prompt]
    for turn in SCRIPTS[prompt.split()[1]]:
        made("m", " | ".join(told))
        told += [made(name, f"{task} {node} {what}") for name, what in turn]
    made("m", " | ".join(told))
    return calls


# -- one order for everything --------------------------------------------------------------------


class _AtOnce(ThreadPoolExecutor):
    """Does what is asked before it returns."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class _Skipping(selectors.DefaultSelector):
    """Passes the time until the next timer without waiting for it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += max(timeout or 0.0, 0.0)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop without threads whose clock jumps from timer to timer: the same every time, and quick."""

    def __init__(self) -> None:
        self.skipping = _Skipping()
        super().__init__(self.skipping)
        self.set_default_executor(_AtOnce())

    def time(self) -> float:
        return self.skipping.now


# -- processes that die ----------------------------------------------------------------------------


class Mortal(Disk):
    """The store as one process sees it, which dies at its change number ``left``: before it, or just after it (``late``)."""

    left: int | None = None
    late = False
    dead = False
    clock: Callable[[], float] | None = None
    died_at = 0.0

    def _change(self, do: Callable[[], T]) -> T:
        self.require_life()
        if self.left == 0:
            if self.late:
                do()
            self.die()
            self.require_life()
        self.left = None if self.left is None else self.left - 1
        return do()

    def die(self) -> None:
        """From now on nothing is read or written by it."""
        if not self.dead:
            self.dead, self.died_at = True, self.clock() if self.clock else 0.0

    def require_life(self) -> None:
        """Raises Stopped where the process is dead."""
        if self.dead:
            raise Stopped("killed here")

    def create(self, key: str, body: bytes) -> bool:
        return self._change(lambda: super(Mortal, self).create(key, body))

    def put(self, key: str, body: bytes) -> None:
        self._change(lambda: super(Mortal, self).put(key, body))

    def delete(self, key: str) -> None:
        self._change(lambda: super(Mortal, self).delete(key))

    def read(self, key: str) -> bytes:
        self.require_life()
        return super().read(key)

    def read_range(self, key: str, start: int, size: int) -> bytes:
        self.require_life()
        return super().read_range(key, start, size)


@cache
def _somebody() -> "subprocess.Popen[bytes]":
    """A process that lives as long as this one, and does nothing."""
    return subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)


@dataclass
class Asked(ScriptedModel):
    """The model as one driver asks it: told of each call, and silent once its driver is frozen."""

    driver: "Driver | None" = None

    async def ask(self, request: Request, usage: Any) -> Any:
        assert self.driver is not None
        prompt = asked_in(request.messages)
        key = request.task_id, request.node, f"m {prompt}" if request.tools else ""
        await self.driver.call(key, prompt)
        given = await super().ask(request, usage)
        self.driver.answered[key] = self.driver.loop.time()
        return given


def model(driver: "Driver | None" = None) -> Asked:
    """The model 'm'."""
    return Asked(said, driver=driver)


class Desk(AgentTools):
    """The tools of agents as one driver calls them: told of each call, and silent once its driver is frozen."""

    driver: "Driver"

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Any], timeout_s: float, memory: int | None) -> Any:
        asked = asked_of(arguments)
        task, node = asked.split()[:2]
        key = task, node, f"{tool.name} {asked}"
        await self.driver.call(key, asked)
        self.driver.answered[key] = self.driver.loop.time()
        return found(tool.name, asked)


@dataclass
class Driver:
    """A driver with one runner on a loop of its own, which can be stopped, killed or frozen after so many calls."""

    disk: Mortal
    run_id: str
    told: Callable[["Driver", Key, str], None]
    """Is told of every call, before it is answered."""
    calls: int | None = None
    takeover: bool = False
    rows: int | None = None
    """The rows that it was last told to do; None for all."""
    zombie: bool = False
    """Whether another driver has taken the run over."""
    asked: set[Key] = field(default_factory=set)
    answered: dict[Key, float] = field(default_factory=dict)
    """When each answer came, by the loop's clock."""

    def __post_init__(self) -> None:
        run = Run(self.disk, self.run_id)
        self.lease = Lease(run, takeover=self.takeover)
        parts = run.parts()
        done = {shard for node, shard in parts if node == OUTCOME_NODE}
        undone = frozenset(range(len(run.record.shards))) - done if parts or self.lease.epoch > 1 else frozenset()
        name = f"{self.lease.epoch:04d}-here"
        self.runner = Runner(Assignment(self.disk.uri, self.run_id, {"m": model(self)}, name, 32, unfinished=undone))
        context = self.runner.context
        desk = Desk(context.workflow, context.tools, {})
        desk.driver = self
        context.agents = desk
        # the runner dies with its driver
        self.runner.objects, self.runner.run = self.disk, Run(self.disk, self.run_id)
        self.loop, self.reached, self.opened = Loop(), asyncio.Event(), asyncio.Event()
        self.loop.set_exception_handler(lambda loop, context: None)  # nobody asks how the dead fared
        self.disk.clock = self.loop.time
        self.work: list[asyncio.Task[Any]] = []

    async def call(self, key: Key, prompt: str) -> None:
        """Ask the model or call a tool, if this process lives; wait, if it is frozen."""
        while self.calls == 0:
            self.reached.set()
            await self.opened.wait()
        self.disk.require_life()
        self.calls = None if self.calls is None else self.calls - 1
        self.told(self, key, prompt)
        self.asked.add(key)
        await asyncio.sleep(int(answer("pause " + prompt), 16) % 5 * 0.3)

    def go(self, rows: int | None = None, linger_s: float = 0.0) -> bool:
        """Do the shards of the first *rows* rows, until the calls are used up and *linger_s* after that; whether they are done."""
        self.rows = rows
        shards = [number for number, (start, _) in enumerate(self.runner.record.shards) if rows is None or start < rows]

        async def steps() -> bool:
            if not self.work:
                self.work = [asyncio.create_task(self.runner.step(shard, node)) for shard in shards for node in ORDER]
            done, reached = asyncio.create_task(_all(self.work)), asyncio.create_task(self.reached.wait())
            await asyncio.wait([done, reached], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(linger_s)
            for task in (done, reached):
                task.cancel()
            for each in self.work:
                if each.done() and (error := each.exception()):
                    raise error
            return all(each.done() for each in self.work)

        return self.loop.run_until_complete(steps())

    def thaw(self, calls: int | None = None) -> None:
        """Let a frozen one go on, for so many calls."""
        self.calls = calls
        self.reached.clear()
        self.opened.set()
        self.opened = asyncio.Event()

    def finish(self) -> None:
        """Merge, say that it is done, and leave."""
        run = Run(self.disk, self.run_id)
        files = [entry for node in (*ORDER, OUTCOME_NODE) for entry in run.merge(node, len(run.record.shards))]
        self.lease.beat()
        run.finish(files, summarise(run, files))
        self._leave()
        close(self.disk, run.record)
        self.end()

    def stop(self) -> None:
        """Leave in order: what is answered is kept."""
        self._leave()
        self.end()

    def _leave(self) -> None:
        self.loop.run_until_complete(self.runner.stop())
        self.lease.release()

    def end(self) -> None:
        """Leave as a process does that is killed."""
        self.disk.die()
        if self.loop.is_closed():
            return
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()

        async def gone() -> None:
            await asyncio.gather(*tasks, *self.work, return_exceptions=True)

        self.loop.run_until_complete(gone())
        self.loop.close()


async def _all(tasks: list["asyncio.Task[Any]"]) -> None:
    """Until all are done, or one has failed."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)


def lend(disk: Disk, run_id: str) -> None:
    """Let the newest lease of the run be one of another process, which lives."""
    _own(disk, run_id, pid=_somebody().pid, process=_process_start(_somebody().pid))


def bury(disk: Disk, run_id: str) -> None:
    """Let the newest lease of the run be one of a process that is gone."""
    _own(disk, run_id, process="died")


def _own(disk: Disk, run_id: str, **owner: Any) -> None:
    leases = [key for key, _ in disk.keys(f"runs/{run_id}/lease/") if key.endswith(".json")]
    if leases:
        disk.put(max(leases), json.dumps({**json.loads(disk.read(max(leases))), **owner}).encode())
