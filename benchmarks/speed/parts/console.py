"""
How fast the console's pages are over a large store: 200 runs of 500 tasks with 4 steps.

One run is made by a runner in this process; the others are copies of it under other ids and days. The
console is the command itself, asked over HTTP, so that a page is measured from the request to its last byte.
"""

import asyncio
import http.client
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import beam_ray
from beam_ray.run.plan import make_plan
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from beam_ray.tasks.parse import read_tasks
from benchmarks.speed.copies import Copies
from benchmarks.speed.ours import workflow
from benchmarks.speed.parts.store import _drive
from benchmarks.speed.report import Report

RUNS, TASKS_OF_RUN = 200, 500
REQUESTS = 100
LABELS = ("scan", "mail", "phone", "edge", "large")
WORDS = [
    "invoice",
    "order",
    "parcel",
    "refund",
    "delivery",
    "customer",
    "account",
    "number",
    "please",
    "thank",
    "total",
    "amount",
    "item",
    "warehouse",
    "address",
    "contract",
]


def measure(report: Report) -> None:
    """Pages, by their 95th percentile of 100 requests, the start, and the memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        ids = _make(folder)
        report.progress(f"made {RUNS} runs of {TASKS_OF_RUN} tasks in {time.perf_counter() - began:.0f} s")
        (folder / "models.yaml").write_text("m: {answers: [{answer: ok}]}\n")
        command = [sys.executable, "-m", "beam_ray", "console", "--store", "store", "--models", "models.yaml", "--port", "8093"]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr
            found = re.search(r"token=(\S+)", process.stderr.readline())
            assert found
            page = _Pages(found[1])
            page("/tasks")
            start = time.perf_counter() - began
            _pages(report, page, ids)
            report.at_most("console: command to the first page of tasks", start, 1.5, "s")
            report.at_most("console: memory", _resident_mb(process.pid), 300, "MB")
        finally:
            process.terminate()
            process.wait(10)


def _pages(report: Report, page: "_Pages", ids: list[str]) -> None:
    dice = random.Random(7)

    def run() -> str:
        return dice.choice(ids)

    lists = ["sort=score", "sort=-started", "sort=-usd", "status=failing", "label=scan", f"run={ids[0]}", "min_score=50", "since=2026-03-01&sort=-seconds"]
    kinds: list[tuple[str, Callable[[], str], float]] = [
        ("tasks, newest first", lambda: "/tasks", 100),
        ("tasks, filtered or sorted", lambda: f"/tasks?{dice.choice(lists)}", 100),
        ("tasks, text search", lambda: f"/tasks?q={dice.choice(WORDS)}+{dice.choice(WORDS)}", 250),
        ("tasks, expression", lambda: "/tasks?where=score+%3C+60+and+auto_reruns+%3D%3D+0", 150),
        ("a task", lambda: f"/tasks/{run()}/t{dice.randrange(TASKS_OF_RUN)}", 120),
        ("a task's prompt", lambda: f"/tasks/{run()}/t{dice.randrange(TASKS_OF_RUN)}?step=s3&tab=prompt", 120),
        ("a run", lambda: f"/runs/{run()}", 200),
        ("home", lambda: "/", 200),
    ]
    rows = []
    for what, path, limit in kinds:
        page(path())
        times = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            size = page(path())
            times.append(1000 * (time.perf_counter() - began))
        median, last = np.percentile(times, [50, 95])
        rows.append([what, float(median), float(last), limit, size / 1000])
        report.at_most(f"console: {what}, 95th percentile", float(last), limit, "ms")
    report.table([f"page, {RUNS * TASKS_OF_RUN:,} tasks", "median ms", "95th percentile ms", "limit ms", "kB"], rows)


def _resident_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


class _Pages:
    """Asks for pages as a browser does."""

    def __init__(self, token: str):
        self.cookie = ""
        self._ask(f"/?token={token}")

    def __call__(self, path: str) -> int:
        """The page's bytes."""
        return len(self._ask(path))

    def _ask(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", 8093, timeout=60)
        connection.request("GET", path, headers={"Cookie": self.cookie} if self.cookie else {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status == 303:
            self.cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
        elif answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[-300:]!r}")
        return body


def _make(folder: Path) -> list[str]:
    """The store; the ids of its runs."""
    dice = random.Random(3)
    objects = open_objects(str(folder / "store"))
    rows = [{"id": f"t{n}", "task_query": " ".join(dice.choices(WORDS, k=60)), "labels": dice.sample(LABELS, dice.randrange(3))} for n in range(TASKS_OF_RUN)]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = {"m": beam_ray.ScriptedModel(_answer)}
    plan = make_plan(beam_ray.load(workflow(folder)), read_tasks(folder / "tasks.jsonl", objects), models)
    asyncio.run(_drive(objects, plan.record, plan.tasks, models))
    first = Run(objects, plan.record.run_id)
    copies = Copies(first)
    return [first.run_id, *(copies.make(number, number).run_id for number in range(1, RUNS))]


def _answer(request: beam_ray.Request) -> str:
    return f"{'ok' if hash((request.task_id, request.node)) % 7 else 'no'} {request.task_id} {' '.join(WORDS)}"
