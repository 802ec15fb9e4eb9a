"""Runs that go on: how far they are, who drives them, and stopping them."""

import time
from dataclasses import dataclass
from typing import TypedDict

from beam_ray.api.location import Location
from beam_ray.api.runs import Run, get_run
from beam_ray.errors import Unusable
from beam_ray.store.lease import driver_of
from beam_ray.store.live import read_progress, request_stop


class NodeProgress(TypedDict):
    """How far one node of an unfinished run is, by what is committed."""

    node: str
    steps: int
    steps_done: int


class RunProgressDocument(TypedDict):
    """How far a run is, as ``--json`` prints it."""

    run_id: str
    state: str
    steps: int
    steps_done: int
    steps_failed: int
    tasks: int
    tasks_done: int
    calls: int
    tokens: int
    usd: float | None
    seconds: float
    remaining_s: float | None
    waits_for: str
    driver: str
    age: float | None
    nodes: list[NodeProgress]
    used_up: dict[str, float]


@dataclass(frozen=True)
class RunProgress:
    """
    How far a run is, as the store has it.

    Counts of a run that goes on are those of its driver, at most a second or two old; where it has not
    reported any, those of committed shards.
    """

    run_id: str
    state: str
    """running (a process drives it), stopped (unfinished, and none does) or finished."""
    steps: int
    steps_done: int
    steps_failed: int
    tasks: int
    """Tasks and trials."""
    tasks_done: int
    calls: int
    """Model calls so far, judges included."""
    tokens: int
    usd: float | None
    """US dollars so far; None when a model has no price."""
    seconds: float
    """Since its driver started; of a finished run from its first step to its last."""
    waits_for: str
    """The batches that it waits for; empty while it goes on."""
    driver: str
    """Process and host; empty where none drives it."""
    age: float | None
    """Seconds since the driver last reported; None where it never did."""
    nodes: tuple[NodeProgress, ...]
    used_up: tuple[tuple[str, float], ...] = ()
    """Of a stopped run the limit of its budget that stopped it, such as ``("max_usd", 2.0)``."""

    @property
    def share(self) -> float:
        """Steps done of all steps, 0 to 1."""
        return self.steps_done / self.steps if self.steps else 1.0

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until a running run is finished; None where there is no rate yet."""
        if self.state != "running" or not self.steps_done:
            return None
        return (self.steps - self.steps_done) * self.seconds / self.steps_done

    def document(self) -> RunProgressDocument:
        """The progress as a JSON document."""
        return {
            "run_id": self.run_id,
            "state": self.state,
            "steps": self.steps,
            "steps_done": self.steps_done,
            "steps_failed": self.steps_failed,
            "tasks": self.tasks,
            "tasks_done": self.tasks_done,
            "calls": self.calls,
            "tokens": self.tokens,
            "usd": self.usd,
            "seconds": self.seconds,
            "remaining_s": self.remaining_s,
            "waits_for": self.waits_for,
            "driver": self.driver,
            "age": self.age,
            "nodes": list(self.nodes),
            "used_up": dict(self.used_up),
        }


def run_progress(store: Location, name: str) -> RunProgress:
    """See ``Store.progress``."""
    run = get_run(store, name)
    return _finished(run) if run.finished else _unfinished(run)


def stop(store: Location, name: str) -> RunProgress:
    """See ``Store.stop``."""
    run = get_run(store, name)
    if run.finished:
        raise Unusable(f"run {run.id} is finished; there is nothing to stop")
    if not request_stop(run.stored):
        raise Unusable(f"run {run.id} is not running: no process drives it\n  beam-ray resume {run.id}{store.option}  resumes it")
    return _unfinished(run)


def _finished(run: Run) -> RunProgress:
    record, numbers = run.record, run.summary
    steps = record.rows * len(record.plan.order)
    return RunProgress(
        run.id,
        "finished",
        steps,
        steps,
        numbers["steps_failed"],
        record.rows,
        record.rows,
        numbers["calls"],
        numbers["input_tokens"] + numbers["output_tokens"],
        numbers["usd"],
        numbers["seconds"],
        "",
        "",
        None,
        tuple({"node": name, "steps": record.rows, "steps_done": record.rows} for name in record.plan.order),
    )


def _unfinished(run: Run) -> RunProgress:
    record, driver, told = run.record, driver_of(run.stored), read_progress(run.stored)
    rows = {shard: stop - start for shard, (start, stop) in enumerate(record.shards)}
    committed = dict.fromkeys(record.plan.order, 0)
    tasks_done = 0
    for node, shard in run.stored.parts():
        if node in committed:
            committed[node] += rows.get(shard, 0)
        else:
            tasks_done += rows.get(shard, 0)
    nodes: tuple[NodeProgress, ...] = tuple({"node": name, "steps": record.rows, "steps_done": done} for name, done in committed.items())
    steps = record.rows * len(record.plan.order)
    numbers = run.summary if told is None else None
    return RunProgress(
        run.id,
        "running" if driver else "stopped",
        steps,
        max(sum(committed.values()), told["steps_done"] if told else 0),
        told["steps_failed"] if told else 0,
        record.rows,
        tasks_done,
        told["calls"] if told else numbers["calls"] if numbers else 0,
        told["tokens"] if told else numbers["input_tokens"] + numbers["output_tokens"] if numbers else 0,
        told["usd"] if told else numbers["usd"] if numbers else 0.0,
        told["seconds"] if told else 0.0,
        told["waits_for"] if told else "",
        f"process {driver['pid']} on {driver['host']}" if driver else "",
        max(time.time() - told["at"], 0.0) if told else None,
        nodes,
        tuple(told.get("used_up", {}).items()) if told and not driver else (),
    )
