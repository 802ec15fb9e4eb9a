"""Makespan relative to the ideal, and CPU per step, of beam_ray, the plain loop and the peers."""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.endpoint import ROOT, Endpoint, endpoint, span_s
from benchmarks.speed.peers import PEERS, command
from benchmarks.speed.report import Report
from benchmarks.speed.resources import Used, run_measured
from benchmarks.speed.work import CONCURRENCY, STEPS, Latency

LIMITS = {2_000: 1.10, 50: 1.20}
"""Number of tasks to the largest allowed ratio of makespan to ideal."""
PAIR_LIMIT = 1.02
"""Largest allowed ratio of our span, from the first call to the last answer, to that of the loop."""
OURS = "beam_ray"
FULL_S = 900


@dataclass(frozen=True)
class Seen:
    """One run of one tool."""

    who: str
    tasks: int
    seconds: float
    span_s: float
    calls: int
    used: Used

    @property
    def cpu_ms(self) -> float:
        """Milliseconds per step, counted from the start of the process."""
        return 1000 * self.used.cpu_s / (self.tasks * STEPS)


def measure(report: Report, sizes: list[int], shape: str, *, repeats: int = 1, largest: Mapping[str, int]) -> None:
    """Run every tool at every size; a peer up to *largest* tasks."""
    with endpoint("--latency", shape) as model:
        found: dict[str, list[Seen]] = {}
        for tasks in sizes:
            for who in ("loop", OURS, *PEERS):
                if who in PEERS and tasks > largest.get(who, 0):
                    continue
                runs = list(_runs(report, model, who, tasks, repeats if who in ("loop", OURS) else 1))
                if runs:
                    found.setdefault(who, []).append(sorted(runs, key=lambda each: each.seconds)[len(runs) // 2])
    _tell(report, found, Latency(shape), shape, sizes)


def pairs(report: Report, sizes: list[int], *, count: int = 5) -> None:
    """Run the loop and beam_ray in turn, *count* times at every size; the median of the pairs' ratios."""
    rows = []
    for shape in ("fixed", "lognormal"):
        with endpoint("--latency", shape) as model:
            for tasks in sizes:
                seen = [(loop, ours) for _ in range(count) for loop in _runs(report, model, "loop", tasks, 1) for ours in _runs(report, model, OURS, tasks, 1)]
                ratios = sorted(ours.span_s / loop.span_s for loop, ours in seen)
                middle = ratios[len(ratios) // 2]
                spans = [sorted(each.span_s for each in column)[len(seen) // 2] for column in zip(*seen, strict=True)]
                rows.append([shape, tasks, *spans, middle, ratios[0], ratios[-1]])
                report.at_most(f"{shape}, {tasks:,} tasks: span / the loop's, median of {count} pairs", middle, PAIR_LIMIT)
    report.table(["latency", "tasks", "loop: span s", "beam_ray: span s", "ratio", "least", "most"], rows)


def _runs(report: Report, model: Endpoint, who: str, tasks: int, repeats: int) -> Iterator[Seen]:
    words = [sys.executable, "-m", "benchmarks.speed.ours"] if who == OURS else command(who)
    if words is None:
        return
    for _ in range(repeats):
        model.forget()
        with tempfile.TemporaryDirectory() as folder:
            given = [folder, model.url, str(tasks)] if who == OURS else [model.url, str(tasks), str(STEPS), str(CONCURRENCY), f"{folder}/out"]
            try:
                used = run_measured([*words, *given], ROOT if who == OURS else Path(folder), timeout_s=FULL_S)
            except RuntimeError as error:
                report.note(f"{who}, {tasks} tasks: {str(error).strip().splitlines()[0]}")
                report.progress(str(error))
                return
        calls = [call for call in model.calls() if call.task < tasks]
        report.progress(f"{who}, {tasks} tasks: {used.printed['seconds']:.2f} s, {used.cpu_s:.1f} CPU s")
        yield Seen(who, tasks, float(used.printed["seconds"]), span_s(calls), len(calls), used)


def _tell(report: Report, found: dict[str, list[Seen]], latency: Latency, shape: str, sizes: list[int]) -> None:
    rows, more = [], dict[str, float]()
    for tasks in sizes:
        ideal = latency.ideal_s(tasks)
        loop = next((each for each in found.get("loop", []) if each.tasks == tasks), None)
        for who, runs in found.items():
            for before, seen in zip([None, *runs], runs, strict=False):
                if seen.tasks != tasks:
                    continue
                further: object = ""
                if "cpu_s" in seen.used.printed:
                    more[who] = further = 1000 * float(seen.used.printed["cpu_s"]) / (tasks * STEPS)
                elif before:
                    more[who] = further = 1000 * (seen.used.cpu_s - before.used.cpu_s) / ((tasks - before.tasks) * STEPS)
                against = seen.cpu_ms / loop.cpu_ms if loop else ""
                lost = seen.tasks * STEPS - seen.calls
                name = who if not lost else f"{who} ({abs(lost)} calls {'missing' if lost > 0 else 'too many'})"
                rows.append([name, tasks, seen.seconds, seen.seconds / ideal, seen.span_s / ideal, seen.cpu_ms, against, further, seen.used.peak_mb])
                if who == OURS and tasks in LIMITS:
                    report.at_most(f"{shape}, {tasks:,} tasks: warm makespan / ideal", seen.seconds / ideal, LIMITS[tasks])
    report.table(
        [shape, "tasks", "makespan s", "x ideal", "calls x ideal", "CPU ms/step", "x loop", "after start", "peak MB"],
        rows,
    )
    if OURS in more and "loop" in more:
        report.at_most(f"{shape}: CPU per step after the start / the loop's", more[OURS] / more["loop"], 1.5)
    if OURS in more and "inspect" in more:
        report.at_most(f"{shape}: CPU per step after the start / Inspect AI's", more[OURS] / more["inspect"], 1 / 3)
