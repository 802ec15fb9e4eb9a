"""Rows that take twenty times as long: whether any other waits for them, and whether permits idle at the end."""

import sys
import tempfile

from benchmarks.speed.endpoint import ROOT, Call, endpoint
from benchmarks.speed.told import Told
from benchmarks.speed.watched import watched
from benchmarks.speed.work import CONCURRENCY, STEPS, Latency

TASKS = 1_000
SLOW = tuple(range(3, TASKS // 2, 50))
"""Ten of the first half: who keeps them apart from the others is done when the others are."""
LAST_S = 2.0


def measure(told: Told) -> None:
    """With slow rows and without."""
    rows = []
    for what, slow in (("none slow", ()), (f"{len(SLOW)} slow", SLOW)):
        latency = Latency("fixed", slow)
        with endpoint("--slow", ",".join(map(str, slow))) as model, tempfile.TemporaryDirectory() as folder:
            used = watched([sys.executable, "-m", "benchmarks.speed.ours", folder, model.url, str(TASKS)], ROOT)
            calls = [call for call in model.calls() if 0 <= call.task < TASKS]
        ends, began = latency.in_order(TASKS), min(call.began for call in calls)
        others = max(end for task, end in enumerate(ends) if task not in slow)
        seen = max(call.ended for call in calls if call.task not in slow) - began
        whole, busy, last = float(used.said["seconds"]), *busy_at_the_end(calls)
        rows.append([what, max(ends), whole, whole / max(ends), others, seen, seen / others, 100 * busy, last, latency.of_task(0)])
        told.at_most(f"{what}: makespan, rows begun in order with no permit idle being 1", whole / max(ends), 1.10)
        told.at_most(f"{what}: last quick row done, the same being 1", seen / others, 1.10)
        told.at_least(f"{what}: permits busy in the last {LAST_S:g} s before fewer rows than permits were left", 100 * busy, 95, " %")
    told.table(
        [f"{TASKS:,} tasks", "in order s", "makespan s", "x in order", "quick rows s", "done s", "x", "permits busy %", "then s", "a row s"],
        rows,
    )


def busy_at_the_end(calls: list[Call]) -> tuple[float, float]:
    """
    The share of permits in use in the LAST_S seconds before fewer rows than permits were left; and the seconds after.

    From then on permits idle whatever one does: the steps of a row follow each other.
    """
    ends = sorted(call.ended for call in calls if call.step == STEPS)
    turn = ends[-CONCURRENCY]
    used = sum(max(min(call.ended, turn) - max(call.began, turn - LAST_S), 0) for call in calls)
    return used / (LAST_S * CONCURRENCY), max(call.ended for call in calls) - turn
