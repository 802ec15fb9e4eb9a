"""
How far a backtest is that goes on: what its driver tells those who watch it.

    backtests/<backtest>/progress.json      at most once a second, while its command runs; stays as it was at the end

It is advisory, like that of a run: no verdict depends on it, and a backtest whose progress cannot be written goes on.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import TypedDict

from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import Side
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.gate import Gate
from beam_ray.compare.gate_intervals import GateIntervalDocument, gate_intervals
from beam_ray.compare.verdict import judge, settled
from beam_ray.compare.verdict_json import LineDocument, Word
from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import BeamRayError
from beam_ray.run.progress import Progress, ProgressCallback
from beam_ray.store.objects import NotThere, Objects

PAUSE_S = 1.0
"""Seconds between two reports."""
SIGN_OF_LIFE_S = 5.0
"""Seconds after which a driver reports although nothing has moved."""
SILENT_S = 20.0
"""Seconds without a report after which its driver is taken for gone."""


class InterimLine(TypedDict):
    """A line of the gate at an interim analysis."""

    line: LineDocument
    interval: GateIntervalDocument | None


class InterimAnalysis(TypedDict):
    """What was found when a backtest that may stop early was looked at."""

    candidate: str
    tasks: int
    newly_failing: int
    newly_passing: int
    word: Word | None
    """The word that more tasks would not change; null while there is none."""
    lines: list[InterimLine]


class StoredBacktest(TypedDict):
    """The content of progress.json."""

    at: float
    """When it was written, in seconds since 1970."""
    started_at: float
    backtest_id: str
    name: str
    workflow: str
    source: str
    tasks: int
    trials: int
    candidates: list[str]
    gate: JsonObject
    budget: dict[str, float]
    pauses: list[int]
    """Numbers of tasks at the interim analyses; empty where it does not stop early."""
    driver: str
    """Process and host; empty once it has ended."""
    side: str
    """The side that is being run."""
    message: str
    """What was last said for people."""
    looks: list[InterimAnalysis]


def interim_analysis(candidate: str, comparison: Comparison, gate: Gate) -> InterimAnalysis:
    """The gate's lines for what is compared so far, in words and numbers."""
    numbers = {(each.rule, each.text): each.document() for each in gate_intervals(gate, comparison.document())}
    lines = [line.document() for line in judge(comparison, gate).lines]
    return {
        "candidate": candidate,
        "tasks": comparison.tasks,
        "newly_failing": len(comparison.newly_failing),
        "newly_passing": len(comparison.newly_passing),
        "word": settled(comparison, gate) if comparison.planned else None,
        "lines": [{"line": line, "interval": numbers.get((line["rule"], line["allowed"]))} for line in lines],
    }


class BacktestBroadcast:
    """Puts the progress of a backtest into the store, from a thread of its own."""

    def __init__(self, backtest: Backtest, gate: Gate):
        spec = backtest.resolved.spec
        self._objects, self._key, self._gate = backtest.objects, f"{backtest.prefix}/progress.json", gate
        known = read_backtest_progress(backtest.objects, backtest.backtest_id)
        self._document: StoredBacktest = {
            "at": 0.0,
            "started_at": known["started_at"] if known else time.time(),
            "backtest_id": backtest.backtest_id,
            "name": spec.name,
            "workflow": backtest.resolved.baseline.workflow.name,
            "source": backtest.source,
            "tasks": backtest.tasks.num_rows,
            "trials": spec.trials,
            "candidates": [side.name for side in backtest.resolved.candidates],
            "gate": gate.document(),
            "budget": dict(spec.budget),
            "pauses": list(backtest.pauses),
            "driver": f"process {os.getpid()} on {socket.gethostname()}",
            "side": "",
            "message": "",
            "looks": known["looks"] if known else [],
        }
        self._moved, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._report, name="backtest progress", daemon=True)
        self._thread.start()

    def watching(self, callback: ProgressCallback) -> ProgressCallback:
        """*callback*, which is also what is reported."""

        def watched(progress: Progress) -> None:
            message, side = progress.message or self._document["message"], progress.title or self._document["side"]
            if (message, side) != (self._document["message"], self._document["side"]):
                self._document |= {"message": message, "side": side}
                self._moved.set()
            callback(progress)

        return watched

    def looked(self, side: Side, comparison: Comparison) -> None:
        """Report an interim analysis."""
        with contextlib.suppress(BeamRayError, ValueError):
            look = interim_analysis(side.name, comparison, self._gate)
            # a resumed backtest analyses again what it analysed before
            others = [each for each in self._document["looks"] if (each["candidate"], each["tasks"]) != (look["candidate"], look["tasks"])]
            self._document |= {"looks": [*others, look]}
            self._moved.set()

    def close(self) -> None:
        """Report for the last time."""
        self._document |= {"driver": ""}
        self._ended.set()
        self._moved.set()
        self._thread.join(2.0)

    def _report(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.is_set()
            self._moved.clear()
            with contextlib.suppress(BeamRayError, OSError):
                self._objects.put(self._key, json.dumps({**self._document, "at": time.time()}).encode())
            if not ended:
                self._ended.wait(PAUSE_S)
                self._moved.wait(SIGN_OF_LIFE_S)


@contextlib.contextmanager
def broadcasting(backtest: Backtest, gate: Gate) -> Iterator[None]:
    """Report the progress of the backtest, unless it has its verdict."""
    if backtest.verdict is not None:
        yield
        return
    broadcast = BacktestBroadcast(backtest, gate)
    backtest.progress, backtest.on_analysis = broadcast.watching(backtest.progress), broadcast.looked
    try:
        yield
    finally:
        broadcast.close()


def read_backtest_progress(objects: Objects, backtest_id: str) -> StoredBacktest | None:
    """How far the backtest's driver was when it last said so; None where it has not said it."""
    try:
        found: StoredBacktest = json.loads(objects.read(f"backtests/{backtest_id}/progress.json"))
        return found if isinstance(found, dict) and "looks" in found else None
    except (NotThere, ValueError):
        return None
