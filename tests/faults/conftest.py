"""A bench on which commands are disturbed: a forge of processes, a model with a journal, and the rules that must hold."""

import functools
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from beam_ray.backtest.results import read_verdict
from beam_ray.store.lease import driver_of
from beam_ray.store.lookup import find_runs
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.endpoint import Call, Endpoint, endpoint

WORKFLOW = """
workflow: work
model: m
nodes:
  read:
    llm: {prompt: "read #{{ task_query }}#", returns: {n: int}}
    evaluate: {criteria: [{check: read.n >= 0}]}
  even: {after: read, when: read.n % 2 == 0, route: even, llm: {prompt: "even #{{ read.n }}#"}}
  odd:
    after: read
    when: read.n % 2 == 1
    route: odd
    llm: {prompt: "odd #{{ read.n }}#"}
    evaluate: {threshold: 90, criteria: [It is polite.]}
    auto_rerun: {max: 1}
  end: {after: [even, odd], llm: {prompt: "end #{{ (even or odd).text }}#"}}
"""

SPEC = """
backtest: now
workflow: work
tasks: library:numbers
baseline: published
candidates:
  now: {nodes.end.llm.prompt: "end #{{ (even or odd).text }}# now"}
"""

EMPTY: Mapping[str, Any] = MappingProxyType({})

PATIENCE_S = 120.0
"""Seconds after which a command that does not end is killed, and its test fails."""

LATE_S = 1.0
"""Seconds after which an answer must be in the store: forked commands spool five times a second. What they waited for a processor is not counted."""

BUSY_LATE_S = 2.0
"""The same where that is not measured, on machines that may be busy."""

Question = tuple[str, int, int, bool]
"""What a call asks: node with what its prompt ends with, task, seed, and whether it judges."""


@dataclass
class Ended:
    """How a command ended."""

    code: int
    at: float
    seconds: float
    stopped_in: float | None
    """Seconds from the first signal to the end."""
    rss: int
    """The most memory that the process had, in bytes."""
    waited: float
    """Seconds for which it waited for a processor in the last second before its end, over all threads."""
    out: str
    err: str
    hits: Counter[str]


class Forge:
    """Runs commands in forked processes: see ``forge.py``."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "tests.faults.forge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._line() == b"ready\n"

    def __call__(
        self,
        folder: Path,
        *words: object,
        fail: str = "",
        signals: Sequence[tuple[float, int]] = (),
        environment: Mapping[str, str] = EMPTY,
        settings: Mapping[str, float] = EMPTY,
    ) -> Ended:
        """Do ``beam-ray WORDS`` in *folder*, with faults armed, signals sent after some seconds, or other settings, as ``module:NAME``."""
        places = {name: folder / f".{name}" for name in ("out", "err", "hits")}
        places["hits"].unlink(missing_ok=True)
        asked: dict[str, Any] = {"folder": str(folder), "words": [str(word) for word in words], "fail": fail}
        asked |= {"signals": [*signals, (PATIENCE_S, signal.SIGKILL)], "environment": dict(environment), "settings": dict(settings)}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(asked | {name: str(path) for name, path in places.items()}).encode() + b"\n")
        self.process.stdin.flush()
        told = json.loads(self._line())
        hits = json.loads(places["hits"].read_text()) if places["hits"].exists() else {}
        return Ended(**told, out=places["out"].read_text(), err=places["err"].read_text(), hits=Counter(hits))

    def _line(self) -> bytes:
        assert self.process.stdout
        return self.process.stdout.readline()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


@dataclass
class Bench:
    """One store, one command, and all that was asked of the model."""

    folder: Path
    forge: Forge
    model: Endpoint
    tasks: int
    uri: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its commands find in their environment beside ours."""
    struck: int = 0
    """Commands that did not come to their end, over all stores."""
    kills: list[tuple[float, int]] = field(default_factory=list)
    """When a command was killed, less what it had waited for a processor just before; and how many calls had begun by then."""
    spooled: int = 0
    """The most rows that were in the spool, and nowhere else, when something was struck."""
    kept: list[tuple[int, set[Question]]] = field(default_factory=list)
    """For each kill: the calls begun by then, and the questions whose answers were in the store."""
    settled: set[str] = field(default_factory=set)
    """Runs of earlier commands: what is asked in them may be asked again."""
    oldest: float = 0.0
    """The age of the oldest answer that was asked for again, when its command was killed; over all stores."""

    def __post_init__(self) -> None:
        self.uri = self.uri or str(self.folder / "store")

    @property
    def runs(self) -> list[Run]:
        """All runs of the store."""
        objects = opened(self.uri)
        return [Run(objects, run_id) for run_id in find_runs(objects)]

    @property
    def begun(self) -> list[Run]:
        """The runs of the command that is disturbed."""
        return [run for run in self.runs if run.run_id not in self.settled]

    @property
    def over(self) -> bool:
        """Whether the command did all that it does, also where it died before it said so: given again, it would be a new one."""
        return any(run.finished for run in self.begun) and not list(opened(self.uri).keys("open/"))

    @property
    def words(self) -> tuple[str, ...]:
        """The command that is disturbed, and given again."""
        return ("run", "work.yaml", "--tasks", "tasks.jsonl", "--models", "models.yaml", "--store", self.uri, "--json")

    def run(self, *words: str, fail: str = "", environment: Mapping[str, str] = EMPTY, **how: Any) -> Ended:
        """Give the command once, and see that what it left can be read."""
        ended = self.forge(self.folder, *(words or self.words), fail=fail, environment={**self.environment, **environment}, **how)
        # a version that its publisher made, and died before saying so, is there
        published = ended.code == 2 and "has exactly this definition, so there is nothing to publish" in ended.err
        assert published or ended.code in (0, 3, 4, 5, 130, 143, -9), (fail, ended.code, ended.err)
        # a library's object that a signal left half made complains as it is taken away
        assert "Traceback" not in ended.err.partition("Exception ignored")[0], (fail, ended.err)
        if ended.code:
            self.struck += 1
            # what it asked last may come in after its death
            self.model.settle()
            self.kills.append((ended.at - ended.waited, len(self.model.journal)))
            self.kept.append((len(self.model.journal), self.answered()))
        return ended

    def run_beside(self, act: Callable[[int], None], *, calls: int = 8, **how: Any) -> Ended:
        """Give the command once, and *act* on its process, by its number, when the model was asked so often."""
        asked = len(self.model.journal)
        with ThreadPoolExecutor(1) as beside:
            command = beside.submit(self.run, **how)
            while len(self.model.journal) < asked + calls:
                assert not command.done(), command.result().err
                time.sleep(0.01)
            driver = driver_of(self.runs[-1])
            assert driver, "the command has ended"
            act(driver["pid"])
            return command.result()

    def answered(self) -> set[Question]:
        """The questions that need not be asked again: their answers are in the store. Reads every row that there is."""
        found: set[Question] = set()
        for run in self.begun:
            nodes = run.record.plan.nodes
            rows = run.steps().to_pylist()
            committed = {(row["node"], row["task_id"]) for row in rows}
            rows += [row for table in run.spooled() for row in table.to_pylist() if (row["node"], row["task_id"]) not in committed]
            self.spooled = max(self.spooled, len(rows) - len(committed))
            run.outcome()
            for row in rows:
                llm = nodes[row["node"]].llm
                asked = row["node"] + (llm.prompt[-1].content.rpartition("#")[2] if llm else "")
                for attempt in row["attempts"] or ():
                    found.add((asked, int(row["task_id"][1:]), attempt["seed"], False))
                    if any(item["judge"] for item in attempt["criteria"]):
                        found.add((row["node"], int(row["task_id"][1:]), attempt["number"] - 1, True))
        return found

    def assert_nothing_paid_twice(self, late_s: float = LATE_S) -> None:
        """
        By the endpoint's own journal: repeated are at most calls in flight at a kill, and those answered up to *late_s* before it.

        And of what was in the store at a kill, nothing.
        """
        calls = [(question_of(call), call.began, call.ended) for call in self.model.journal]
        for count, kept in self.kept:
            again = {question for question, *_ in calls[count:]} & kept
            assert not again, f"in the store and asked again: {sorted(again)[:5]}"
        self.oldest = max(self.oldest, oldest_repeat(calls, self.kills, late_s))

    def settle(self) -> int:
        """See that nothing of the command that came to its end was paid for twice; the next may ask the same. How much was asked."""
        self.assert_nothing_paid_twice()
        asked = len({question_of(call) for call in self.model.journal})
        self.settled = {run.run_id for run in self.runs}
        self._forget()
        return asked

    def finish(self, undisturbed: "Bench", late_s: float = LATE_S) -> None:
        """Let the command come to its end, see that nothing shows, and begin with an empty store."""
        while not any(run.finished for run in self.runs):
            ended = self.run()
            assert ended.code == 0, ended.err
        self.assert_nothing_paid_twice(late_s)
        assert self.result() == undisturbed.result()
        self.uri += "+"
        self._forget()

    def _forget(self) -> None:
        self.kills, self.kept = [], []
        self.model.journal.clear()

    def journey(self) -> dict[str, Any]:
        """What the store holds after a journey: without ids and times."""
        objects = opened(self.uri)
        verdicts = [read_verdict(objects, backtest) for backtest in objects.folders("backtests")]
        found = [metric for verdict in verdicts for candidate in verdict["candidates"] for metric in candidate["comparison"]["metrics"]]
        return {
            "versions": [key for key, _ in objects.keys("workflows/")],
            "libraries": [key for key, _ in objects.keys("libraries/") if "/used/" not in key],
            "words": [verdict["word"] for verdict in verdicts],
            "found": [(metric["name"], metric["before"], metric["after"]) for metric in found if "second" not in metric["name"]],
            "runs": sorted(([run.record.mode, run.record.start_node, *found_out(run)] for run in self.runs if run.finished), key=repr),
        }

    def result(self) -> list[Any]:
        """What the one finished run says."""
        [run] = [run for run in self.runs if run.finished]
        return found_out(run)


def found_out(run: Run) -> list[Any]:
    """What a finished run says, its files verified: without ids, times and what was spent."""
    run.tidy()
    assert run.manifest, f"{run.run_id} is not finished"
    assert not [key for folder in ("parts", "spool") for key, _ in run.objects.keys(f"{run.prefix}/{folder}/")]
    return [essence(run), {name: run.manifest["usage"][name] for name in ("rows", "passed", "failed", "below", "score", "steps_done", "steps_skipped")}]


def oldest_repeat(calls: Iterable[tuple[Any, float, float]], kills: Sequence[tuple[float, int]], late_s: float) -> float:
    """
    The age, at the kill, of the oldest answer that was asked for again; 0 for calls in flight, and where there was none.

    Args:
        calls: What was asked, when it began, and when it was answered, or 0; in the order of their beginnings.
        kills: When, and how many calls had begun by then.
        late_s: The most that it may be.
    """
    before: dict[Any, tuple[int, float]] = {}
    oldest = 0.0
    for number, (question, began, ended) in enumerate(calls):
        if question in before:
            place, answered = before[question]
            at = next((at for at, count in kills if place < count <= number), None)
            assert at, f"{question} was asked again at {began}, and nothing was killed since it was asked: {kills}"
            age = at - answered if answered else 0.0
            assert age <= late_s, f"{question} was asked again, although it was answered {age:.2f} s before the kill at {at}"
            oldest = max(oldest, age)
        before[question] = number, ended
    return oldest


def essence(run: Run) -> list[Any]:
    """All that a run found out, in order; a row that is lost or doubled shows."""
    steps = [
        (
            row["task_id"],
            row["trial"],
            row["node"],
            row["outcome"],
            row["output"],
            row["score"],
            row["passed"],
            row["fingerprint"],
            [(tried["number"], tried["output"], tried["score"], tried["error"]) for tried in row["attempts"]],
        )
        for row in run.steps().to_pylist()
    ]
    tasks = [(row["task_id"], row["outcome"], row["passed"], row["score"], row["path"], row["output"]) for row in run.outcome().to_pylist()]
    return [sorted(steps, key=lambda row: row[:3]), sorted(tasks)]


def question_of(call: Call) -> Question:
    """What a call asks."""
    text, judges = call.said, "criterion_1" in json.dumps(call.body.get("response_format", ""))
    found = re.search(r"(read|even|odd|end) #(\d+)#", text)
    assert found, text
    return found[1] + ("" if judges else text.rpartition("#")[2]), int(found[2]), int(call.body["seed"]), judges


def answer(body: dict[str, Any]) -> Any:
    """
    The number, or a judgement that is harsh on the first attempt of every second odd one, and always on every eighth odd one.

    What is asked for worse gets worse for every eighth number, and also in repeats for every sixteenth.
    """
    text = str(body["messages"][-1]["content"])
    found = re.search(r"(read|even|odd|end) #(\d+)#", text)
    assert found
    number = int(found[2])
    if "criterion_1" in json.dumps(body.get("response_format", "")):
        return {"criterion_1": {"reason": "it is so", "met": number % 4 == 3 or (body["seed"] > 0 and number % 16 != 5)}}
    if text.endswith(" worse") and number % 8 == 0 and (body["seed"] < 2_000 or number % 16 == 0):
        return "worse"
    return {"n": number} if found[1] == "read" else str(number)


@functools.lru_cache(maxsize=32)
def opened(uri: str) -> Objects:
    """The store at *uri*: a client of S3 takes its time to be made."""
    return open_objects(uri, proven=True)


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """One process that all forked commands come from."""
    made = Forge()
    yield made
    made.close()


def make_bench(folder: Path, forge: Forge, model: Endpoint, tasks: int, uri: str = "", environment: Mapping[str, str] = EMPTY) -> Bench:
    """A bench in an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "work.yaml").write_text(WORKFLOW)
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "tasks.jsonl").write_text("".join(json.dumps({"id": f"t{number}", "task_query": str(number)}) + "\n" for number in range(tasks)))
    (folder / "models.yaml").write_text(f"m: {{base_url: '{model.url}', model: x, concurrency: 8}}\n")
    return Bench(folder, forge, model, tasks, uri, environment)


@pytest.fixture
def bench(tmp_path: Path, forge: Forge) -> Iterator[Bench]:
    """A bench with 16 tasks and a model that takes 10 ms."""
    with endpoint(answer, latency_s=0.01) as model:
        yield make_bench(tmp_path / "bench", forge, model, 16)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, forge: Forge) -> Bench:
    """A bench whose command was left alone."""
    with endpoint(answer) as model:
        made = make_bench(tmp_path_factory.mktemp("undisturbed"), forge, model, 16)
        made.hits = made.run(fail="*.*:0:kill").hits  # type: ignore[attr-defined]
    made.assert_nothing_paid_twice()
    return made
