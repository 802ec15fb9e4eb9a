"""
One, two and four Ray nodes on this machine, and the loss of one of four half-way.

Nodes are started one after the other, because concurrent starts would use each other's sockets. Each
node has one CPU and is pinned to one core of the machine, so a second node adds a second core; the
third and fourth share the cores of the first two.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.speed.endpoint import ROOT, Call, endpoint, span_s
from benchmarks.speed.report import Report
from benchmarks.speed.resources import Used, run_measured
from benchmarks.speed.work import CONCURRENCY, MEDIAN_S, STEPS, Latency
from tests.ray_nodes import cluster_environment, dashboard_answers, end_node, head_command, head_ports, node_command

MODEL_TASKS, TOOL_TASKS, TOOL_S = 1_000, 400, 0.02
PAUSE_S = 2.0


@dataclass
class Nodes:
    """A separate Ray cluster with a token, on this machine."""

    folder: Path
    environment: dict[str, str] = field(repr=False)
    port: int = 0
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        """Start one more node; the first is the head."""
        cores = sorted(os.sched_getaffinity(0))
        core = cores[len(self.running) % len(cores)]
        ports = {} if self.running else head_ports()
        self.port = ports.get("port", self.port)
        words = node_command(f"127.0.0.1:{self.port}") if self.running else head_command(self.folder, ports, cpus=1)
        with open(self.folder / f"log-{len(self.running)}", "w") as log:
            ray = subprocess.Popen(["taskset", "-c", str(core), *words], env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self.running.append(ray)
        if len(self.running) == 1:
            self._until(lambda: dashboard_answers(ports["dashboard-port"]))
        self._until(lambda: self.alive() == len(self.running))
        time.sleep(PAUSE_S)

    def alive(self) -> int:
        """Number of live nodes in the cluster."""
        look = "import ray; ray.init(logging_level='ERROR'); print('NODES', sum(node['Alive'] for node in ray.nodes()))"
        said = subprocess.run([sys.executable, "-c", look], env=self.connected, capture_output=True, text=True, check=False).stdout
        return int((said.partition("NODES ")[2].split() or ["0"])[0])

    @property
    def connected(self) -> dict[str, str]:
        """The environment of a process that uses this cluster."""
        return {**self.environment, "RAY_ADDRESS": f"127.0.0.1:{self.port}"}

    def lose(self, number: int) -> None:
        """Kill a node and everything on it."""
        os.killpg(self.running[number].pid, signal.SIGKILL)

    def end(self) -> None:
        """End all nodes, the head last."""
        for ray in reversed(self.running):
            end_node(ray)

    def _until(self, holds, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline or self.running[-1].poll() is not None:
                raise RuntimeError(f"a Ray node did not start: {(self.folder / f'log-{len(self.running) - 1}').read_text()[-2000:]}")
            time.sleep(0.3)


@contextlib.contextmanager
def cluster() -> Iterator[Nodes]:
    """A cluster without nodes; nodes that are started end with the block."""
    folder = Path(tempfile.mkdtemp(prefix="brn-", dir="/tmp"))  # a socket's path has at most 107 characters
    nodes = Nodes(folder, {**cluster_environment(folder), "PYTHONPATH": str(ROOT)})
    try:
        yield nodes
    finally:
        nodes.end()
        shutil.rmtree(folder, ignore_errors=True)


def measure(report: Report) -> None:
    """Measure rows per second with one, two and four nodes; then kill one of four."""
    rows, first = [], dict[str, float]()
    ideal = Latency().ideal_s(MODEL_TASKS)
    with cluster() as nodes, endpoint() as model:
        for count in (1, 2, 4):
            while len(nodes.running) < count:
                nodes.start()
            report.progress(f"{count} nodes")
            for kind, tasks in (("model", MODEL_TASKS), ("burn", TOOL_TASKS), ("wait", TOOL_TASKS)):
                model.forget()
                used = _ours(nodes, model.url, tasks, kind)
                seconds = float(used.printed["seconds"])
                first.setdefault(kind, seconds)
                against = seconds / ideal if kind == "model" else ""
                if count == 4 and kind == "model":
                    report.at_most("4 Ray nodes, model steps: makespan / ideal", seconds / ideal, 1.15)
                rows.append([f"{count}", KINDS[kind], tasks, seconds, tasks * STEPS / seconds, first[kind] / seconds, against])
                report.progress(f"{kind}: {seconds:.1f} s")
        model.forget()
        lost = _lost(nodes, model)
    report.table(["nodes", "work", "tasks", "makespan s", "steps/s", "x one node", "x ideal"], rows)
    calls = [call for call in lost if 0 <= call.task < MODEL_TASKS]
    twice = len(calls) - MODEL_TASKS * STEPS
    report.note(
        f"One of four nodes killed after half of the {MODEL_TASKS * STEPS:,} calls: {span_s(calls):.1f} s in total ({span_s(calls) / ideal:.2f} x ideal), "
        f"{twice} calls repeated, every step recorded once."
    )
    # the calls that one of four runners had in flight, and those answered in its last second
    report.at_most("one of 4 nodes lost half-way: repeated calls", twice, (CONCURRENCY + CONCURRENCY / MEDIAN_S) / 4)


KINDS = {"model": "model steps of 0.2 s", "burn": f"tool steps of {TOOL_S:g} s CPU", "wait": f"tool steps that wait {TOOL_S:g} s"}


def _ours(nodes: Nodes, url: str, tasks: int, kind: str = "model") -> Used:
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "benchmarks.speed.ours", folder, url, str(tasks), "--kind", kind, "--seconds", str(TOOL_S)]
        used = run_measured(words, ROOT, timeout_s=300, **nodes.connected)
    if used.printed["passed"] != tasks:
        raise RuntimeError(f"{used.printed['passed']} of {tasks} tasks passed")
    return used


def _lost(nodes: Nodes, model) -> list[Call]:
    over = threading.Event()

    def kill_half_way() -> None:
        while not over.wait(0.3):
            if sum(0 <= call.task < MODEL_TASKS for call in model.calls()) >= MODEL_TASKS * STEPS // 2:
                nodes.lose(1)
                return

    killer = threading.Thread(target=kill_half_way, daemon=True)
    killer.start()
    try:
        _ours(nodes, model.url, MODEL_TASKS)
    finally:
        over.set()
        killer.join()
    return list(model.calls())
