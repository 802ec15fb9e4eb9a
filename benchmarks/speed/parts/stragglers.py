"""Stragglers: whether other rows wait for rows that take twenty times as long, and whether permits are idle at the end."""

import sys
import tempfile

from benchmarks.speed.endpoint import ROOT, Call, endpoint
from benchmarks.speed.report import Report
from benchmarks.speed.resources import run_measured
from benchmarks.speed.work import CONCURRENCY, STEPS, Latency

TASKS = 1_000
SLOW = tuple(range(3, TASKS // 2, 50))
"""Ten of the first half, so that a good scheduler finishes them with the others."""
LAST_S = 2.0


def measure(report: Report) -> None:
    """Measure with and without slow rows."""
    rows = []
    for what, slow in (("none slow", ()), (f"{len(SLOW)} slow", SLOW)):
        latency = Latency("fixed", slow)
        with endpoint("--slow", ",".join(map(str, slow))) as model, tempfile.TemporaryDirectory() as folder:
            used = run_measured([sys.executable, "-m", "benchmarks.speed.ours", folder, model.url, str(TASKS)], ROOT)
            calls = [call for call in model.calls() if 0 <= call.task < TASKS]
        ends, began = latency.in_order(TASKS), min(call.began for call in calls)
        others = max(end for task, end in enumerate(ends) if task not in slow)
        seen = max(call.ended for call in calls if call.task not in slow) - began
        whole, busy, last = float(used.printed["seconds"]), *busy_at_the_end(calls)
        rows.append([what, max(ends), whole, whole / max(ends), others, seen, seen / others, 100 * busy, last, latency.of_task(0)])
        report.at_most(f"{what}: makespan / in order", whole / max(ends), 1.10)
        report.at_most(f"{what}: last fast row done / in order", seen / others, 1.10)
        report.at_least(f"{what}: permits in use in the last {LAST_S:g} s with at least as many rows as permits", 100 * busy, 95, "%")
    report.table(
        [
            f"{TASKS:,} tasks",
            "in order s",
            "makespan s",
            "x in order",
            "fast rows in order s",
            "fast rows done s",
            "x",
            "% permits in use",
            "after that s",
            "one row s",
        ],
        rows,
    )


def busy_at_the_end(calls: list[Call]) -> tuple[float, float]:
    """
    The share of permits in use in the last LAST_S seconds with at least as many rows as permits; and the seconds after that.

    After that point permits are idle with any scheduler, because the steps of a row are sequential.
    """
    ends = sorted(call.ended for call in calls if call.step == STEPS)
    turn = ends[-CONCURRENCY]
    used = sum(max(min(call.ended, turn) - max(call.began, turn - LAST_S), 0) for call in calls)
    return used / (LAST_S * CONCURRENCY), max(call.ended for call in calls) - turn
