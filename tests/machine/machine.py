"""The state machine: all that people and accidents do to a store, and a dictionary that says what must be in it."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beam_ray.address import parse
from beam_ray.define.workflow import Workflow
from beam_ray.diagnosis import diagnose
from beam_ray.errors import BeamRayError, Damaged, RunIsTaken, Stopped, Unusable
from beam_ray.publish import publish, read_version, rollback, versions
from beam_ray.repair import repair
from beam_ray.rerun import RerunOptions, make_rerun
from beam_ray.run import agent_tools
from beam_ray.run.plan import Lineage, Plan, make_plan
from beam_ray.store.beginning import begin, close, unfinished
from beam_ray.store.disk import Disk
from beam_ray.store.gc import collect, remove
from beam_ray.store.integrity import inspect
from beam_ray.store.libraries import write_library
from beam_ray.store.lookup import find_runs
from beam_ray.store.opening import open_objects
from beam_ray.store.run_record import RunRecord, plan_shards
from beam_ray.store.runs import Run
from beam_ray.store.tables import PART
from beam_ray.tasks.sources import read
from tests.conftest import Lab
from tests.machine.world import (
    AGENTS,
    BELOW,
    ORDER,
    TASKS,
    Call,
    Definition,
    Driver,
    Key,
    Mortal,
    answer,
    asked_in,
    asked_of,
    bury,
    conversation,
    forget_project,
    lend,
    model,
    project,
    shm,
    workflow,
)

PAUSES = (4, 8)
COUNTS: Counter[str] = Counter()
"""What was done, over all examples."""
COUNTED = ("turns", "tool_calls", "tool_errors", "calls_recorded", "calls_refused")
WINDOW_S = 1.0
"""Seconds before a death of which answers may be lost."""

done = ("low", "high")
definitions = st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.sampled_from("ab"))
deaths = st.one_of(st.none(), st.integers(0, 25))


@dataclass
class Made:
    """What a row must be."""

    outcome: str
    prompt: str = ""
    text: str = ""
    lender: "Made | None" = None
    """The row that it is borrowed from, which is itself no borrowed one."""
    run_id: str = ""
    calls: list[Call] = field(default_factory=list)
    """Of an agent that was executed."""
    recorded: list[Call] = field(default_factory=list)
    """Those that are still in the store."""
    diverged: bool = False
    """Whether it left the recording."""

    @property
    def ran(self) -> bool:
        return self.outcome != "skipped"

    @property
    def paid(self) -> int:
        """Model calls."""
        if self.calls:
            return sum(call.name == "m" and call.source == "live" for call in self.calls)
        return int(self.outcome == "done")

    @property
    def counts(self) -> tuple[Any, ...]:
        """Turns, calls of tools and those that failed; then how many were recorded and refused, and whether it left the recording."""
        calls = (self.lender or self).calls
        if not calls:
            return (None,) * 5 + (False,)
        of_run = [call.source for call in self.calls]
        turns = sum(call.name == "m" for call in calls)
        return turns, len(calls) - turns, sum(call.failed for call in calls), of_run.count("recorded"), of_run.count("refused"), self.diverged

    def planned(self, task: str, node: str) -> dict[Key, str]:
        """What must be asked for it."""
        if self.calls:
            return {(task, node, f"{call.name} {call.asked}"): call.asked for call in self.calls if call.source == "live"}
        return {(task, node, ""): self.prompt} if self.outcome == "done" else {}

    def execute(self, task: str, node: str, origin: "Made | None", kept: Collection[Call], *, writes: bool) -> None:
        """Execute an agent again, with the recording of *origin* and the calls that are *kept*."""
        lender = (origin.lender or origin) if origin else self
        recording = lender.recorded if origin else []
        refused = {call.place for call in recording if call.source == "refused"}
        recorded = {call.place: replace(call, home=call.home or lender.run_id) for call in recording if call.source != "refused"}
        self.calls = self.recorded = conversation(self.prompt, task, node, recorded, kept={call.place: call for call in kept}, writes=writes)
        left = [call for call in self.calls if call.source == "live" or (call.source == "refused" and call.place not in refused)]
        self.diverged = bool(recording and left)


Rows = dict[str, dict[str, Made]]
"""Task to node to row."""


@dataclass
class Bill:
    """What a run may be charged for, and was."""

    planned: dict[Key, str]
    """The prompts that must be asked."""
    kept: set[Key] = field(default_factory=set)
    """Answers that are in the store: asked again they would be paid twice."""
    paid: Counter[Key] = field(default_factory=Counter)
    lost: Counter[Key] = field(default_factory=Counter)
    """Calls whose answers died with their process."""


@dataclass(eq=False, repr=False)
class Known:
    """A run as it must be."""

    run_id: str
    command: tuple[Any, ...]
    """What was asked for; the same while it is unfinished resumes it."""
    rows: Rows
    bill: Bill
    origin: "Known | None" = None
    early: bool = False
    finished: bool = False
    marked: bool = True
    """Whether the same command is still given this run."""
    cut: int | None = None
    frozen: Driver | None = None
    zombies: list[Driver] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    """File to how it was spoilt."""

    def __repr__(self) -> str:
        return f"{self.run_id} {self.command}"

    @property
    def expected(self) -> Rows:
        return {task: self.rows[task] for task in list(self.rows)[: self.cut]}

    @property
    def sound(self) -> bool:
        return not self.damaged and (self.origin is None or self.origin.sound)


@cache
def _template() -> Path:
    """A store with a library of tasks."""
    folder = Path(tempfile.mkdtemp(dir=shm(), prefix="beam-ray-machine-"))
    lab = Lab(folder, open_objects(str(folder / "store")))
    write_library(lab.objects, "qs", lab.tasks([f"q{index}" for index in range(TASKS)]), 0)
    return folder / "store"


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """What all examples share, taken away after the last one."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            # each driver would start a process that describes the same two functions
            described = agent_tools.describe_functions({"desk:find": "read", "desk:send": "read"}, [project()])
            patch.setattr(agent_tools, "describe_functions", lambda wanted, folders: described)
            yield
    finally:
        shutil.rmtree(_template().parent, ignore_errors=True)
        _template.cache_clear()
        forget_project()


class Machine(RuleBasedStateMachine):
    """See ``test_machine.py``."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=shm(), prefix="beam-ray-machine-"))
        shutil.copytree(_template(), self.folder / "store")
        self.objects = open_objects(str(self.folder / "store"))
        self.tasks, self.source = read(self.objects, "library:qs")
        self.runs: list[Known] = []
        self.bills: dict[str, Bill] = {}
        self.agents: Collection[str] = ()
        self.published: list[Definition] = []
        self.old: set[str] = set()
        """The runs that there were when all files became old."""

    @initialize(agents=st.booleans())
    def choose(self, agents: bool) -> None:
        """Some nodes are agents, or none is."""
        self.agents = AGENTS if agents else ()
        COUNTS["examples with agents"] += agents

    def _workflow(self, definition: Definition) -> Workflow:
        return workflow(definition, bool(self.agents))

    # -- the dictionary ------------------------------------------------------------------------

    def _rows(self, definition: Definition, tasks: list[str], origin: Known | None, start: str | None, borrow: bool) -> Rows:
        letters = dict(zip(ORDER, (definition[0], definition[1], definition[1], definition[2]), strict=True))
        fixed = {node for node in ORDER if start and node != start and node not in BELOW[start]}
        rows: Rows = {}
        for task in tasks:
            made: dict[str, Made] = {}
            for node in ORDER:
                before = (origin.expected.get(task, {}) if origin else {}).get(node)
                route = made["read"].text < "8" if node in done else False
                if node in done and route != (node == "low"):
                    made[node] = Made("skipped")
                    continue
                given = {"read": f"q{task[1:]}", "end": made["low"].text or made["high"].text if node == "end" else ""}.get(node) or made["read"].text
                prompt = f"{node} {letters[node]} {given}"
                if before and before.ran and (node in fixed or (borrow and before.prompt == prompt)):
                    made[node] = Made("borrowed", before.prompt, before.text, before.lender or before)
                    continue
                made[node] = Made("done", prompt, answer(prompt))
                if node in self.agents:
                    made[node].execute(task, node, before, (), writes=origin is None)
                    unchanged = before and before.prompt == prompt and len(before.recorded) == len(before.calls)
                    assert not (unchanged and made[node].planned(task, node)), "replayed without a change"
            rows[task] = made
        return rows

    def _told(self, driver: Driver, key: Key, prompt: str) -> None:
        bill = self.bills[driver.run_id]
        assert bill.planned.get(key) == prompt, f"{key} was asked {prompt!r}, which nobody needs"
        assert not key[2].startswith("send") or self._may_write(driver.run_id), f"{key} is a write, and is called in a test"
        if not driver.zombie:
            assert key not in bill.kept, f"{key} is in the store and is paid for again"
            assert key not in driver.asked, f"{key} is asked twice by one driver"
        bill.paid[key] += 1
        COUNTS["tool calls" if key[2] and key[2][0] != "m" else "model calls"] += 1

    def _may_write(self, run_id: str) -> bool:
        record = Run(self.objects, run_id).record
        return record.mode == "run" and record.origin is None

    def _settle(self, run_id: str, driver: Driver, killed_at: float | None) -> None:
        """A driver has left: what it was answered is in the store, or what it was answered in its last second is not."""
        bill, found = self.bills[run_id], self._stored(run_id)
        # of a run that ended early the rest is of no use
        beyond = {task for known in self.runs if known.run_id == run_id for task in known.rows if task not in known.expected}
        bill.kept = {key for key in bill.kept if key[0] not in beyond}
        safe = {key for key, at in driver.answered.items() if key[0] not in beyond and (killed_at is None or at < killed_at - WINDOW_S)}
        assert driver.zombie or safe <= found, f"answered and not kept: {safe - found}"
        assert bill.kept <= found, f"kept and no longer there: {bill.kept - found}"
        bill.kept = found
        bill.lost.update(driver.asked - found if not driver.zombie else driver.asked)

    def _stored(self, run_id: str) -> set[Key]:
        run = Run(self.objects, run_id)
        found = self._kept(run.steps(columns=["task_id", "node", "outcome"]).to_pylist()).union(*(self._kept(table.to_pylist()) for table in run.spooled()))
        return found | {(row["task_id"], row["node"], _key(row)) for row in (run.calls().to_pylist() if self.agents else ()) if row["source"] == "live"}

    def _kept(self, rows: list[Any]) -> set[Key]:
        """The answers in rows of parts and spool files."""
        found: set[Key] = {(row["task_id"], row["node"], "") for row in rows if row["outcome"] in ("done", "borrowed") and row["node"] not in self.agents}
        return found | {(row["task_id"], row["node"], _key(call)) for row in rows for call in row.get("call_rows") or () if call["source"] == "live"}

    def _look(self, known: Known) -> None:
        """What an accident left half done may be there or not: both are right, and the store says which."""
        run = Run(self.objects, known.run_id)
        known.finished = run.finished
        known.marked = unfinished(self.objects, run.record.key) is not None
        known.cut = run.record.tasks if run.record.cut_from else None

    # -- running -------------------------------------------------------------------------------

    def _some(self, draw: st.DataObject, runs: list[Known]) -> Known:
        return draw.draw(st.sampled_from(runs))

    @property
    def open(self) -> list[Known]:
        return [known for known in self.runs if not known.finished and known.sound]

    @property
    def ended(self) -> list[Known]:
        return [known for known in self.runs if known.finished and known.sound]

    @rule(definition=definitions, early=st.booleans(), left=deaths, late=st.booleans())
    def run(self, definition: Definition, early: bool, left: int | None, late: bool) -> None:
        """beam-ray run, or a side of a backtest that may stop early."""
        self._begin(
            ("run", definition, early),
            self._plan(definition, early),
            self._rows(definition, [f"t{index}" for index in range(TASKS)], None, None, False),
            None,
            left,
            late,
        )

    @precondition(lambda self: self.ended)
    @rule(draw=st.data(), definition=definitions, early=st.booleans(), left=deaths, late=st.booleans())
    def borrow(self, draw: st.DataObject, definition: Definition, early: bool, left: int | None, late: bool) -> None:
        """A candidate that borrows what has not changed."""
        origin = self._some(draw, self.ended)
        plan = self._plan(definition, early, origin=origin.run_id, borrow=True, allow_writes=False)
        rows = self._rows(definition, [f"t{index}" for index in range(TASKS)], origin, None, True)
        self._begin(("borrow", definition, early, origin.run_id), plan, rows, origin, left, late)

    @precondition(lambda self: self.ended)
    @rule(draw=st.data(), definition=definitions, start=st.sampled_from([None, *ORDER]), left=deaths, late=st.booleans())
    def rerun(self, draw: st.DataObject, definition: Definition, start: str | None, left: int | None, late: bool) -> None:
        """Some tasks of a run again: whole, or from a node."""
        origin = self._some(draw, self.ended)
        chosen = draw.draw(st.sets(st.sampled_from(sorted(origin.expected)), min_size=1))
        tasks = [task for task in origin.expected if task in chosen]
        plan = make_rerun(self.objects, Run(self.objects, origin.run_id), tasks, self._workflow(definition), {"m": model()}, options=RerunOptions(start))
        rows = self._rows(definition, tasks, origin, start, False)
        told = {node.node: node.run for node in plan.nodes}
        self._begin(("rerun", definition, origin.run_id, start, *tasks), plan, rows, origin, left, late)
        for node in ORDER[:1]:
            assert told[node] == sum(made[node].outcome == "done" for made in rows.values())

    def _plan(self, definition: Definition, early: bool, **lineage: Any) -> Plan:
        return make_plan(self._workflow(definition), self.tasks, {"m": model()}, source=self.source, lineage=Lineage(pauses=PAUSES if early else (), **lineage))

    def _begin(self, command: tuple[Any, ...], plan: Plan, rows: Rows, origin: Known | None, left: int | None, late: bool) -> None:
        record = plan.record
        if not record.early:
            record = record.model_copy(update={"shards": plan_shards(record.rows, 1, 3)})
        before = next((known for known in self.runs if known.command == command and known.marked), None)
        found: RunRecord | None
        try:
            found = begin(self._mortal(left, late), record, plan.tasks)
        except Stopped:
            found = unfinished(self.objects, record.key)
        if before:
            assert found is None or found.run_id == before.run_id
            if found and before.finished:
                Run(self.objects, found.run_id).tidy()
                close(self.objects, found)
                before.marked = False
        elif found:
            planned = {key: prompt for task, made in rows.items() for node, row in made.items() for key, prompt in row.planned(task, node).items()}
            for row in [row for made in rows.values() for row in made.values()]:
                row.run_id = found.run_id
            bill = self.bills[found.run_id] = Bill(planned)
            COUNTS["runs"] += 1
            self.runs.append(Known(found.run_id, command, rows, bill, origin, record.early))

    def _mortal(self, left: int | None, late: bool) -> Mortal:
        disk = Mortal(self.folder / "store")
        disk.left, disk.late = left, late
        return disk

    @precondition(lambda self: self.open)
    @rule(
        draw=st.data(),
        how=st.sampled_from(["finish", "finish", "stop", "kill", "freeze"]),
        calls=st.integers(0, 25),
        left=deaths,
        late=st.booleans(),
        linger_s=st.sampled_from([0.0, 0.5, 2.0]),
        cut=st.booleans(),
        takeover=st.booleans(),
    )
    def go(self, draw: st.DataObject, how: str, calls: int, left: int | None, late: bool, linger_s: float, cut: bool, takeover: bool) -> None:
        """Start or resume a run, until it is done, stopped, killed, or frozen."""
        known = self._some(draw, self.open)
        disk = self._mortal(left, late)
        if known.frozen and not takeover:
            with pytest.raises((RunIsTaken, Stopped)):
                Driver(disk, known.run_id, self._told)
            return
        try:
            driver = Driver(disk, known.run_id, self._told, None if how == "finish" else calls, takeover)
        except Stopped:
            self._overtaken(known)
            bury(self.objects, known.run_id)
            return
        self._overtaken(known)
        rows = PAUSES[calls % 2] if known.early and known.cut is None and cut else None
        self._drive(known, driver, how, rows, linger_s)

    def _overtaken(self, known: Known) -> None:
        epochs = [int(key.rsplit("/", 1)[-1].partition(".")[0]) for key, _ in self.objects.keys(f"runs/{known.run_id}/lease/")]
        if known.frozen and known.frozen.lease.epoch < max(epochs):
            known.frozen.zombie = True
            known.bill.lost.update(known.frozen.asked - self._stored(known.run_id))
            known.frozen.asked.clear()
            COUNTS["takeovers"] += 1
            known.zombies.append(known.frozen)
            known.frozen = None

    def _drive(self, known: Known, driver: Driver, how: str, rows: int | None, linger_s: float) -> None:
        killed_at: float | None = None
        try:
            finished = driver.go(rows, linger_s)
            if finished:
                if rows:
                    Run(driver.disk, known.run_id).cut(sum(start < rows for start, _ in driver.runner.record.shards))
                driver.finish()
            elif how == "freeze":
                lend(self.objects, known.run_id)
                known.frozen = driver
                self.bills[known.run_id].kept |= self._stored(known.run_id)
                return
            elif how == "kill":
                driver.end()
                killed_at = driver.disk.died_at
            else:
                driver.stop()
        except Stopped:
            assert driver.disk.dead
            killed_at = driver.disk.died_at
            driver.end()
        if killed_at is not None:
            COUNTS["drivers killed"] += 1
            bury(self.objects, known.run_id)
        self._look(known)
        self._settle(known.run_id, driver, killed_at)

    @precondition(lambda self: [known for known in self.runs if known.zombies or (known.frozen and known.sound)])
    @rule(draw=st.data(), works=st.booleans(), calls=st.integers(0, 25), how=st.sampled_from(["finish", "kill", "stop"]))
    def wake(self, draw: st.DataObject, works: bool, calls: int, how: str) -> None:
        """A frozen driver continues, or notices that another one has the run; it may do some work before that."""
        known = self._some(draw, [known for known in self.runs if known.zombies or (known.frozen and known.sound)])
        if known.frozen and known.sound:
            driver, known.frozen = known.frozen, None
            driver.thaw(None if how == "finish" else calls)
            self._drive(known, driver, how, driver.rows, 0.0)
            return
        driver = known.zombies.pop()
        if works:
            driver.thaw(calls)
            with contextlib.suppress(BeamRayError):
                driver.go()
        with pytest.raises(RunIsTaken):
            driver.lease.beat()
        with contextlib.suppress(BeamRayError):
            driver.stop()
        driver.end()
        if known.sound:
            self._settle(known.run_id, driver, None)

    # -- versions ------------------------------------------------------------------------------

    @rule(definition=definitions, left=deaths, late=st.booleans())
    def publish(self, definition: Definition, left: int | None, late: bool) -> None:
        """A version more, unless it is the current one."""
        if self.published and self.published[-1] == definition:
            with pytest.raises(Unusable, match="there is nothing to publish"):
                publish(self.objects, self._workflow(definition), reason="r")
            return
        try:
            publish(self._mortal(left, late), self._workflow(definition), reason="r")
        except Stopped:
            if len(versions(self.objects, "w")) == len(self.published):
                return
        self.published.append(definition)

    @precondition(lambda self: self.published)
    @rule(draw=st.data(), left=deaths, late=st.booleans())
    def rollback(self, draw: st.DataObject, left: int | None, late: bool) -> None:
        """An old definition as a new version."""
        number = draw.draw(st.integers(1, len(self.published)))
        if self.published[number - 1] == self.published[-1]:
            with pytest.raises(Unusable, match="already has the definition of"):
                rollback(self.objects, "w", number)
            return
        try:
            rollback(self._mortal(left, late), "w", number)
        except Stopped:
            if len(versions(self.objects, "w")) == len(self.published):
                return
        self.published.append(self.published[number - 1])

    @invariant()
    def versions_are_those_published(self) -> None:
        """Without a gap, each with its own definition."""
        assert versions(self.objects, "w") == list(range(1, len(self.published) + 1))
        if self.published:
            assert read_version(self.objects, "w").digest == self._workflow(self.published[-1]).digest

    # -- taking away ---------------------------------------------------------------------------

    @rule(aged=st.booleans(), abandoned=st.booleans(), left=deaths, late=st.booleans())
    def gc(self, aged: bool, abandoned: bool, left: int | None, late: bool) -> None:
        """What is of no use goes, once it is old; unfinished runs only where that is asked for."""
        # a frozen driver whose run is gone is a matter of a week
        abandoned = abandoned and not any(known.zombies for known in self.runs)
        if aged:
            self._age()
        disk = self._mortal(left, late)
        try:
            for garbage in collect(self.objects, abandoned=abandoned):
                remove(disk, garbage)
        except Stopped:
            for run_id in find_runs(self.objects):
                if not any(known.frozen and known.run_id == run_id for known in self.runs):
                    bury(self.objects, run_id)
            if aged or self.old:
                self._age()
                for garbage in collect(self.objects, abandoned=abandoned):
                    assert remove(self.objects, garbage)
        there = find_runs(self.objects)
        for known in list(self.runs):
            if known.run_id not in there:
                assert abandoned and known.run_id in self.old and not known.finished and not known.frozen
                assert unfinished_of(self.objects, known) is None
                self.runs.remove(known)

    def _age(self) -> None:
        self.old.update(find_runs(self.objects))
        for path in self.folder.rglob("*"):
            os.utime(path, (time.time() - 10 * 86_400,) * 2)

    # -- damage --------------------------------------------------------------------------------

    @precondition(lambda self: self.ended)
    @rule(draw=st.data(), how=st.sampled_from(["gone", "torn", "flipped"]), where=st.floats(0, 0.999))
    def spoil(self, draw: st.DataObject, how: str, where: float) -> None:
        """A file of a finished run is lost, truncated, or has a flipped bit: every reader gets an error or correct data."""
        known = self._some(draw, [known for known in self.runs if known.finished])
        prefix = f"runs/{known.run_id}/"
        names = sorted(key.removeprefix(prefix) for key, _ in self.objects.keys(prefix) if key.endswith((".json", ".parquet")))
        names = [name for name in names if name.partition("/")[0] not in ("lease", "parts", "spool", "repair")]
        # of run.json, cut.json and the manifest each is made again from the others
        if {"run.json", "manifest.json", "cut.json"} & set(known.damaged):
            names = [name for name in names if not name.endswith(".json")]
        names = [name for name in names if name not in known.damaged]
        if self._awaited(known):
            names = [name for name in names if not name.startswith("calls/")]
        if not names:
            return
        name = draw.draw(st.sampled_from(names))
        self._spoil(prefix + name, how, where)
        COUNTS["files spoilt"] += 1
        known.damaged[name] = how
        with contextlib.suppress(Damaged):
            self._check(known)

    def _awaited(self, known: Known) -> bool:
        """Whether an unfinished run redoes it, directly or not: what that pays depends on what is recorded."""
        for other in [other for other in self.runs if not other.finished]:
            while other.origin:
                other = other.origin
                if other is known:
                    return True
        return False

    def _spoil(self, key: str, how: str, where: float) -> None:
        path = self.folder / "store" / key
        body = bytearray(path.read_bytes())
        if how == "gone":
            path.unlink()
            return
        if how == "torn":
            body = body[: len(body) // 2]
        else:
            body[int(where * len(body))] ^= 1
        path.write_bytes(body)

    @precondition(lambda self: [known for known in self.open if not known.frozen and not known.zombies])
    @rule(draw=st.data())
    def spoil_part(self, draw: st.DataObject) -> None:
        """A part or a spool file of an unfinished run is torn: repair takes it away, keeps all others, and asks nothing."""
        known = self._some(draw, [known for known in self.open if not known.frozen and not known.zombies])
        run = Run(self.objects, known.run_id)
        keys = [key for folder in ("parts", "spool") for key, _ in self.objects.keys(f"{run.prefix}/{folder}/")]
        if not keys:
            return
        key = draw.draw(st.integers(0, len(keys) - 1).map(lambda index: keys[index]))
        self._spoil(key, "torn", 0)
        others = set[Key]()
        for other in keys:
            if other != key and "/_outcome/" not in other:
                others |= self._kept(run.read(other.removeprefix(f"{run.prefix}/"), PART).to_pylist())
        mended = repair(self.objects, known.run_id, {}, lambda record: pytest.fail("nothing is to be run"))

        assert mended.files == (key.removeprefix(f"{run.prefix}/"),)
        assert others <= self._stored(known.run_id)
        known.bill.kept = self._stored(known.run_id)
        self._note_lost_calls(known)
        for each in set(known.bill.planned) - known.bill.kept:
            known.bill.lost[each] = max(known.bill.lost[each], known.bill.paid[each])

    def _note_lost_calls(self, known: Known) -> None:
        """A finished step stays finished, with those of its calls that are still there; one that is not is finished with all."""
        run = Run(self.objects, known.run_id)
        spooled = [row for table in run.spooled() for row in table.to_pylist()]
        there = {(_step(row), _moment(call)): _call(call) for row in spooled for call in row["call_rows"] or () if call["fingerprint"]}
        for node in self.agents:
            parts = [run.part(node, shard) for name, shard in run.parts() if name == node]
            committed = {_step(row): list(map(_call, row["call_rows"] or ())) for part in parts if part for row in part.to_pylist()}
            done_rows = [row for row in spooled if row["outcome"] == "done"]
            ended = {_step(row): row["ended_at"] for row in reversed(done_rows)}
            finished: dict[Any, list[Call]] = {}
            for row in [row for row in done_rows if row["ended_at"] == ended[_step(row)]]:
                kept = [there[key] for call in row["call_rows"] or () if (key := (_step(row), _moment(call))) in there]
                finished[_step(row)] = max(finished.get(_step(row), []), kept, key=len)
            for task, made in known.rows.items():
                made[node].recorded = committed.get((task, node), finished.get((task, node), made[node].calls))
                COUNTS["calls lost"] += len(made[node].calls) - len(made[node].recorded)

    @precondition(lambda self: [known for known in self.runs if known.damaged])
    @rule(draw=st.data(), left=deaths, late=st.booleans(), calls=st.one_of(st.none(), st.integers(0, 8)))
    def mend(self, draw: st.DataObject, left: int | None, late: bool, calls: int | None) -> None:
        """repair, killed at first if so drawn: what was lost is there again and was paid for once."""
        self._mend(self._some(draw, [known for known in self.runs if known.damaged]), left, late, calls)

    def _mend(self, known: Known, left: int | None, late: bool, calls: int | None) -> None:
        if known.origin and not known.origin.sound:
            self._mend(known.origin, None, False, None)
        if not known.damaged:
            return
        lost = {
            key: prompt
            for task, made in known.expected.items()
            for node, row in made.items()
            if f"steps/{node}-000.parquet" in known.damaged and node not in self.agents
            for key, prompt in row.planned(task, node).items()
        }
        lost |= self._lose_calls(known)
        whole = all(how != "flipped" for name, how in known.damaged.items() if name.startswith(("steps/", "calls/")))
        bill, ids = Bill(lost), list[str]()
        first = self._mortal(left, late)

        def drive(record: RunRecord, disk: Mortal, most: int | None) -> None:
            self.bills[record.run_id] = bill
            ids.append(record.run_id)
            driver, killed_at = Driver(disk, record.run_id, self._told, most), None
            try:
                if not driver.go():
                    raise Stopped("killed here")
                driver.finish()
            except Stopped:
                killed_at = disk.died_at if disk.dead else driver.loop.time()
                driver.end()
                raise
            finally:
                if disk.dead:
                    bury(self.objects, record.run_id)
                self._settle(record.run_id, driver, killed_at)

        try:
            repair(first, known.run_id, {"m": model()}, lambda record: drive(record, first, calls))
        except Stopped:
            bury(self.objects, known.run_id)
            # until it is mended every reader is told, or reads what is right
            with contextlib.suppress(Damaged):
                self._check(known)
            repair(self.objects, known.run_id, {"m": model()}, lambda record: drive(record, self._mortal(None, False), None))
        assert len(set(ids)) <= 1
        assert set(bill.paid) == set(lost) if whole else set(bill.paid) <= set(lost)
        assert all(count <= 1 + bill.lost[key] for key, count in bill.paid.items())
        COUNTS["repairs"] += 1
        known.damaged.clear()
        assert diagnose(Run(self.objects, known.run_id)).damaged == ()
        self._check(known)

    def _lose_calls(self, known: Known) -> dict[Key, str]:
        """Let the calls of agents be what they are when the run is mended; what is asked and called for that."""
        asked: dict[Key, str] = {}
        there = inspect(Run(self.objects, known.run_id)) if self.agents else None
        for node in self.agents:
            assert there
            found = {(row["task_id"], *_call(row).place) for row in there.calls[node].to_pylist()}
            for task, row in [(task, made[node]) for task, made in known.expected.items()]:
                kept = [call for call in row.recorded if (task, *call.place) in found]
                COUNTS["calls lost"] += len(row.recorded) - len(kept)
                row.recorded = kept
                if (task, 1) in there.lost[node] and row.outcome == "done":
                    origin = known.origin.expected.get(task, {}).get(node) if known.origin else None
                    row.execute(task, node, origin, kept, writes=False)
                    still = Made("", calls=[call for call in row.calls if call not in kept])
                    asked |= still.planned(task, node) if still.calls else {}
        return asked

    # -- reading -------------------------------------------------------------------------------

    @precondition(lambda self: self.ended)
    @rule(draw=st.data())
    def read(self, draw: st.DataObject) -> None:
        """A finished run says what it must say."""
        self._check(self._some(draw, self.ended))

    def _check(self, known: Known) -> None:
        run, expected = Run(self.objects, known.run_id), known.expected
        rows = run.steps(columns=["task_id", "node", "outcome", "output", "calls", *COUNTED, "diverged_at"]).to_pylist()
        calls = run.calls().to_pylist()
        outcome = run.outcome(["task_id", "passed", "calls", "outcome"]).to_pylist()
        tasks, record, manifest = run.tasks()["task_id"].to_pylist(), run.record, run.manifest
        found = sorted((row["task_id"], row["node"], row["outcome"], row["output"] or "", row["calls"]) for row in rows)
        must = sorted(
            (task, node, row.outcome, f'{{"text": "{row.text}"}}' if row.ran else "", row.paid) for task, made in expected.items() for node, row in made.items()
        )
        made_calls = sorted((row["task_id"], row["node"], row["run_id"], row["attempt"], _call(row)) for row in calls)
        must_calls = sorted((task, node, known.run_id, 1, call) for task, made in expected.items() for node, row in made.items() for call in row.recorded)

        assert found == must
        assert made_calls == must_calls, (sorted(set(made_calls) - set(must_calls))[:3], sorted(set(must_calls) - set(made_calls))[:3])
        for row in rows:
            counts = (*(row[name] for name in COUNTED), row["diverged_at"] is not None)
            assert counts == expected[row["task_id"]][row["node"]].counts, (row["task_id"], row["node"], counts)
        assert [row["task_id"] for row in outcome] == list(expected) == tasks
        assert [row["passed"] for row in outcome] == [made["read"].text > "3" for made in expected.values()]
        assert [row["calls"] for row in outcome] == [sum(row.paid for row in made.values()) for made in expected.values()]
        assert (record.tasks, record.shards[-1][1]) == (len(expected), len(expected))
        assert manifest and manifest["usage"]["rows"] == len(expected)
        assert manifest["usage"]["calls"] == sum(row["calls"] for row in rows)
        assert sum(entry["rows"] for entry in manifest["files"] if entry["name"].startswith("calls/")) == len(calls)
        numbers = _numbers(calls)
        assert all(
            sorted(numbers[task, node]) == list(range(1, len(row.calls) + 1))
            for task, made in expected.items()
            for node, row in made.items()
            if row.calls and len(row.recorded) == len(row.calls)
        )

    def _check_bill(self, known: Known) -> None:
        """Every needed answer was paid for, and twice only where the first died with its process."""
        bill = known.bill
        needed = {key for key in bill.planned if key[0] in known.expected}
        assert needed <= set(bill.paid)
        assert all(count <= 1 + bill.lost[key] for key, count in bill.paid.items()), bill

    def teardown(self) -> None:
        """Everything that was begun is brought to its end, and is right."""
        COUNTS["examples"] += 1
        try:
            if sys.exc_info()[0]:
                return  # a rule has failed, and says more
            for known in self.runs:
                if known.frozen:
                    killed_at = known.frozen.loop.time()
                    known.frozen.end()
                    self._settle(known.run_id, known.frozen, killed_at)
                    known.frozen = None
                for zombie in known.zombies:
                    zombie.end()
                bury(self.objects, known.run_id) if not known.finished else None
            for known in self.runs:
                self._mend(known, None, False, None)
            for known in self.runs:
                if not known.finished:
                    self._drive(known, Driver(self._mortal(None, False), known.run_id, self._told), "finish", None, 0.0)
                assert known.finished
                self._check(known)
                self._check_bill(known)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _call(row: Any) -> Call:
    """A row of the table of calls, as the dictionary has it."""
    request = json.loads(row["request"])
    home = parse(row["recorded_from"]).run if row["recorded_from"] else ""
    if row["kind"] == "model":
        return Call("m", asked_in(request["messages"]), row["occurrence"], row["source"], home=home)
    told = json.loads(row["reply"]) if row["error"] is None else f"Error: {row['error']}"
    return Call(row["name"], asked_of(request), row["occurrence"], row["source"], told, home)


def _step(row: Any) -> tuple[str, str]:
    return row["task_id"], row["node"]


def _moment(call: Any) -> tuple[Any, ...]:
    return call["attempt"], call["number"], call["started_at"]


def _key(row: Any) -> str:
    """A call as keys name it."""
    call = _call(row)
    return f"{call.name} {call.asked}"


def _numbers(calls: list[Any]) -> dict[tuple[str, str], list[int]]:
    """The numbers of each step's calls."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in calls:
        found.setdefault(_step(row), []).append(row["number"])
    return found


def unfinished_of(objects: Disk, known: Known) -> str | None:
    """The run that the mark of its command names, if it is this one."""
    for key, _ in objects.keys("open/"):
        if known.run_id.encode() in objects.read(key):
            return key
    return None
