"""
How fast the console's pages are over a large store: 200 runs of 500 tasks with 4 steps, and a backtest.

One run is made by a runner in this process; the others are copies of it under other ids and days. The
console is the command itself, asked over HTTP, so that a page is measured from the request to its last byte;
CPU time is that of its process. It is started twice: first over a store that this machine never saw.
"""

import asyncio
import contextlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import beam_ray
from beam_ray.run.plan import make_plan
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from beam_ray.tasks.parse import read_tasks
from benchmarks.speed.copies import Copies, Unsynced
from benchmarks.speed.ours import workflow
from benchmarks.speed.parts.store import _drive
from benchmarks.speed.report import Report
from benchmarks.speed.slow_store import slow_store
from tests.ray_nodes import free_ports

RUNS, TASKS_OF_RUN = 200, 500
S3_RUNS = 40
MODELS = "m: {answers: [{answer: ok}]}\n"
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
        ids, backtest = _make(folder)
        report.progress(f"made {RUNS} runs of {TASKS_OF_RUN} tasks and a backtest in {time.perf_counter() - began:.0f} s")
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        with _console(folder, environment) as first:
            report.at_most("console: command to the first page of tasks, over a store never seen", first.started_s, 1.5, " s")
            _wait_until_read(report, first)
            report.note(f"The first page of a store never seen took {first.started_cpu_s:.2f} s of CPU.")
            report.at_most("console: memory after reading a store never seen", first.resident_mb, 300, " MB")
        with _console(folder, environment) as page:
            report.at_most("console: command to the first page of tasks", page.started_s, 1.5, " s")
            report.note(f"The first page of a store seen before took {page.started_cpu_s:.2f} s of CPU.")
            _pages(report, page, ids, backtest)
            report.note(f"Of its memory, {page.mapped_mb:.0f} MB are pages of the index, which the system takes back when memory is short.")
            report.at_most("console: memory after all pages", page.resident_mb, 300, " MB")
            _tabs(report, page, ids)
    _on_s3(report)


def _pages(report: Report, page: "_Pages", ids: list[str], backtest: str) -> None:
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
        ("a flow, all runs", lambda: "/flows/chain?numbers=all", 200),
        ("home", lambda: "/", 200),
        ("a flow", lambda: "/flows/chain", 200),
        ("a backtest", lambda: f"/backtests/{backtest}", 200),
        ("a pair", lambda: f"/backtests/{backtest}/flips?group=newly+passing&at={dice.randrange(1, 100)}", 200),
    ]
    rows = []
    for what, path, limit in kinds:
        page(path())
        times, cpu = [], page.cpu_s
        for _ in range(REQUESTS):
            began = time.perf_counter()
            size = page(path())
            times.append(1000 * (time.perf_counter() - began))
        median, last = np.percentile(times, [50, 95])
        rows.append([what, float(median), float(last), limit, 1000 * (page.cpu_s - cpu) / REQUESTS, size / 1000])
        report.at_most(f"console: {what}, 95th percentile", float(last), limit, "ms")
    report.table([f"page, {RUNS * TASKS_OF_RUN:,} tasks", "median ms", "95th percentile ms", "limit ms", "CPU ms", "kB"], rows)


def _wait_until_read(report: Report, page: "_Pages") -> None:
    began = time.perf_counter()
    while "first time" in page.text("/tasks"):
        time.sleep(0.1)
    report.note(f"All {RUNS} runs were read {time.perf_counter() - began:.1f} s after the first page.")


def _tabs(report: Report, page: "_Pages", ids: list[str]) -> None:
    """Eight clients at once, beside the stream of events that one of them keeps open."""

    def visit(number: int) -> list[float]:
        times = []
        for turn in range(12):
            began = time.perf_counter()
            page(["/tasks", f"/tasks/{ids[(number * 12 + turn) % len(ids)]}/t7", f"/runs/{ids[number]}"][turn % 3])
            times.append(1000 * (time.perf_counter() - began))
        return times

    stream = page.open("/events")
    with ThreadPoolExecutor(8) as threads:
        times = [each for found in threads.map(visit, range(8)) for each in found]
    stream.close()
    report.at_most("console: a page while 8 tabs ask at once, 95th percentile", float(np.percentile(times, 95)), 1_000, " ms")


def _on_s3(report: Report) -> None:
    """Requests of pages to a store on the S3 server of the tests."""
    with slow_store(0.0) as server, tempfile.TemporaryDirectory() as name:
        os.environ.update(server.environment)
        folder = Path(name)
        uri = "s3://beam/console"
        objects = open_objects(uri)
        (folder / "models.yaml").write_text(MODELS)
        first = _first_run(folder, objects)
        ids = [first.run_id, *(Copies(first).make(number, number).run_id for number in range(1, S3_RUNS))]
        rows = []
        with _console(folder, {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}, uri) as page:
            _wait_until_read(report, page)
            visits = [
                ("tasks", "/tasks?sort=score", 3),
                ("the first task of a run", f"/tasks/{ids[3]}/t0", 9),
                ("another task of it", f"/tasks/{ids[3]}/t1", 6),
            ]
            for what, path, limit in visits:
                page("/tasks")
                server.forget()
                page(path)
                asked = len(server.requests())
                rows.append([what, asked])
                report.at_most(f"console on S3, {S3_RUNS} runs, 4 nodes: requests of {what}", asked, limit)
        report.table(["page", "requests to S3"], rows)


@contextlib.contextmanager
def _console(folder: Path, environment: dict[str, str], store: str = "store") -> "Iterator[_Pages]":
    """The console, with its first page of tasks asked for."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "beam_ray", "console", "--store", store, "--models", "models.yaml", "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr
        said = process.stderr.readline()
        found = re.search(r"token=(\S+)", said)
        if not found:
            raise RuntimeError(f"the console did not start: {said}{process.stderr.read()[-2000:]}")
        page = _Pages(found[1], process.pid, port)
        page("/tasks")
        page.started_s, page.started_cpu_s = time.perf_counter() - began, page.cpu_s
        yield page
    finally:
        process.terminate()
        process.wait(10)


class _Pages:
    """Asks for pages as a browser does."""

    def __init__(self, token: str, pid: int, port: int):
        self.cookie, self.pid, self.port = "", pid, port
        self.started_s = 0.0
        """From the command to its first page."""
        self.started_cpu_s = 0.0
        self.text(f"/?token={token}")

    def __call__(self, path: str) -> int:
        """The page's bytes."""
        return len(self.text(path).encode())

    @property
    def resident_mb(self) -> float:
        """Resident memory of the console."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1000 if found else 0.0

    @property
    def mapped_mb(self) -> float:
        """Resident pages of the files that the index is mapped from."""
        text = Path(f"/proc/{self.pid}/smaps").read_text()
        return sum(int(size) for size in re.findall(r"\.arrow\nSize:[^\n]*\n(?:[^\n]*\n){2}Rss:\s+(\d+) kB", text)) / 1000

    @property
    def cpu_s(self) -> float:
        """CPU time of the console so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open(self, path: str) -> http.client.HTTPConnection:
        """A connection on which the page was asked for."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers={"Cookie": self.cookie} if self.cookie else {})
        return connection

    def text(self, path: str) -> str:
        """The page."""
        connection = self.open(path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status == 303:
            self.cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
        elif answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[-300:]!r}")
        return body.decode()


def _make(folder: Path) -> tuple[list[str], str]:
    """The store; the ids of its runs, and of its backtest."""
    objects = open_objects(str(folder / "store"))
    first = _first_run(folder, objects)
    changed = workflow(folder, changed="again ")
    (folder / "models.yaml").write_text(MODELS)
    (folder / "spec.yaml").write_text(
        f"backtest: b\nworkflow: chain-model4.yaml\nbaseline: run:{first.run_id}\ntasks: tasks.jsonl\ncandidates: {{last: {changed.name}}}\ngate: none\n"
    )
    words = [sys.executable, "-m", "beam_ray", "backtest", "spec.yaml", "--mlflow", "none", "--store", "store", "--models", "models.yaml"]
    subprocess.run(words, cwd=folder, capture_output=True, check=True)
    copies = Copies(Run(Unsynced(folder / "store"), first.run_id))
    return [first.run_id, *(copies.make(number, number).run_id for number in range(1, RUNS))], objects.folders("backtests")[0]


def _first_run(folder: Path, objects: Objects) -> Run:
    dice = random.Random(3)
    rows = [{"id": f"t{n}", "task_query": " ".join(dice.choices(WORDS, k=60)), "labels": dice.sample(LABELS, dice.randrange(3))} for n in range(TASKS_OF_RUN)]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = {"m": beam_ray.ScriptedModel(_answer)}
    plan = make_plan(beam_ray.load(workflow(folder)), read_tasks(folder / "tasks.jsonl", objects), models)
    asyncio.run(_drive(objects, plan.record, plan.tasks, models))
    return Run(objects, plan.record.run_id)


def _answer(request: beam_ray.Request) -> str:
    return f"{'ok' if hash((request.task_id, request.node)) % 7 else 'no'} {request.task_id} {' '.join(WORDS)}"
