"""Backtests of many tasks as Ray jobs: the four ways to leave, and a connection that is lost meanwhile."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.jobs.conftest import MANY, Project, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def large(project: Project) -> Project:
    """Backtests of many tasks against the poor prompt; and one of the poor prompt against the good one."""
    for name, before, after in (("loses", "good", "poor"), ("unclear", "poor", "lucky"), ("costly", "poor", "good")):
        (project.folder / f"{name}.yaml").write_text(
            f"backtest: {name}\nworkflow: {before}.yaml\nbaseline: {before}.yaml\ntasks: many.jsonl\ncandidates: {{new: {after}.yaml}}\ngate: gate.yaml\n"
        )
    return project


def left(project: Project, name: str) -> tuple[int, int]:
    """How the job left, by what Ray and by what the store says."""
    return project.job(name)["driver_exit_code"], json.loads(project.objects.read(f"jobs/{name}.json"))["exit_code"]


def backtest(project: Project, name: str, spec: str, *more: str) -> tuple[int, int]:
    """How a backtest left that was submitted by Ray's own command."""
    options = ["--store", str(project.store), "--models", "models.yaml", "--mlflow", "none", *more]
    said = project.ray_job(name, "python", "jobs/backtest.py", spec, *options).stdout
    assert "backtest" in said
    return left(project, name)


def test_tasks_that_decide_nothing_are_5(large: Project):
    """INCONCLUSIVE is 5, for Ray and in the store."""
    assert backtest(large, "unclear-1", "unclear.yaml") == (5, 5)


def test_a_budget_that_is_reached_is_3_and_raising_it_pays_for_the_rest_only(large: Project):
    """The job stops before its end; the same command with a larger budget resumes to its PASS, 0, and repeats at most the calls in flight."""
    asked = len(large.model.journal)
    large.model.latency_s = 0.05
    stopped = backtest(large, "costly-1", "costly.yaml", "--fresh", "--budget", f"max_calls={MANY // 2}")
    large.model.latency_s = 0.0
    between = len(large.model.journal) - asked
    done = backtest(large, "costly-2", "costly.yaml", "--fresh", "--budget", f"max_calls={10 * MANY}")

    assert (stopped, done) == ((3, 3), (0, 0))
    assert MANY // 2 <= between < 2 * MANY
    assert 2 * MANY <= len(large.model.journal) - asked <= 2 * MANY + 64


class Line:
    """A connection to a server, which can be cut: then all that is open breaks, and nothing new gets through."""

    def __init__(self, port: int):
        self.port, self.whole, self.open = port, True, list[socket.socket]()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        self.whole = False
        for each in self.open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.open.clear()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                if not self.whole:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.port))
                self.open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                target.sendall(piece)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def line(url: str) -> Iterator[Line]:
    """A line to the server at *url*."""
    made = Line(int(url.rpartition(":")[2]))
    try:
        yield made
    finally:
        made.cut()
        made.listening.close()


def test_a_lost_connection_to_the_dashboard_does_not_change_the_exit_code(large: Project):
    """The dashboard is away, as while it restarts, until the job has ended; submit waits, and leaves with the verdict: BLOCK is 4."""
    large.model.latency_s = 0.05
    with line(large.head.url) as wire:
        words = ["submit", "--address", wire.url, "--json", "backtest", "loses.yaml", "--fresh", "--store", large.store, "--models", "models.yaml"]
        asked, before = len(large.model.journal), len(words_of(large))
        submit = large.start(*words, "--mlflow", "none")
        until(lambda: len(large.model.journal) > asked + 50 or submit.poll() is not None)
        wire.cut()
        large.model.latency_s = 0.0
        until(lambda: len(words_of(large)) > before)
        wire.whole = True
        out, err = submit.communicate(timeout=120)

    assert submit.returncode == 4, err
    assert left(large, json.loads(out)["submission"]) == (4, 4)


def words_of(project: Project) -> list[str]:
    """The last words of all jobs that have ended."""
    return [key for key, _ in project.objects.keys("jobs/") if key.count("/") == 1]
