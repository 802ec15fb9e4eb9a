"""A thousand tasks as a Ray job: the four ways to leave, and a connection that is lost meanwhile."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from tests.jobs.conftest import Project, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def thousand(project: Project) -> Project:
    """Backtests of 1,000 tasks against the poor prompt; and one of the poor prompt against the good one."""
    for name, before, after in (("gains", "poor", "good"), ("loses", "good", "poor"), ("unclear", "poor", "lucky"), ("costly", "poor", "good")):
        (project.folder / f"{name}.yaml").write_text(
            f"backtest: {name}\nworkflow: {before}.yaml\nbaseline: {before}.yaml\ntasks: thousand.jsonl\ncandidates: {{new: {after}.yaml}}\ngate: gate.yaml\n"
        )
    return project


def left(project: Project, name: str, spec: str, *more: str) -> tuple[int, int]:
    """How the job left, by what Ray and by what the store says."""
    options = ["--store", str(project.store), "--models", "models.yaml", "--mlflow", "none", *more]
    said = project.ray_job(name, "python", "jobs/backtest.py", spec, *options).stdout
    assert "backtest" in said
    return project.job(name)["driver_exit_code"], json.loads(project.objects.read(f"jobs/{name}.json"))["exit_code"]


@pytest.fixture(scope="module")
def ended(thousand: Project) -> dict[str, tuple[int, int]]:
    """How three jobs left that were submitted at once."""
    specs = ["gains", "loses", "unclear"]
    with ThreadPoolExecutor() as pool:
        return dict(zip(specs, pool.map(lambda spec: left(thousand, f"thousand-{spec}", f"{spec}.yaml"), specs), strict=True))


@pytest.mark.parametrize(("spec", "code"), [("gains", 0), ("loses", 4), ("unclear", 5)])
def test_a_thousand_tasks_leave_with_their_verdict(ended: dict[str, tuple[int, int]], spec: str, code: int):
    """PASS is 0, BLOCK is 4, INCONCLUSIVE is 5, for Ray and in the store; also beside two others on the same cluster."""
    assert ended[spec] == (code, code)


def test_a_budget_that_is_reached_is_3_and_raising_it_pays_for_the_rest_only(thousand: Project):
    """The job stops before its end; the same command with a larger budget resumes, and repeats at most the calls in flight."""
    asked = len(thousand.model.journal)
    thousand.model.latency_s = 0.05
    stopped = left(thousand, "thousand-costly-1", "costly.yaml", "--fresh", "--budget", "max_calls=400")
    thousand.model.latency_s = 0.0
    between = len(thousand.model.journal) - asked
    done = left(thousand, "thousand-costly-2", "costly.yaml", "--fresh", "--budget", "max_calls=10000")

    assert (stopped, done) == ((3, 3), (0, 0))
    assert 400 <= between < 2_000
    assert 2_000 <= len(thousand.model.journal) - asked <= 2_000 + 64


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


def test_a_lost_connection_to_the_dashboard_does_not_change_the_exit_code(thousand: Project):
    """The dashboard is away, as while it restarts, until the job has ended; submit waits, and leaves with the verdict."""
    thousand.model.latency_s = 0.05
    with line(thousand.head.url) as wire:
        words = ["submit", "--address", wire.url, "backtest", "loses.yaml", "--fresh", "--again", "--store", thousand.store, "--models", "models.yaml"]
        asked, before = len(thousand.model.journal), len(words_of(thousand))
        submit = thousand.start(*words, "--mlflow", "none")
        until(lambda: len(thousand.model.journal) > asked + 50 or submit.poll() is not None)
        wire.cut()
        thousand.model.latency_s = 0.0
        until(lambda: len(words_of(thousand)) > before)
        wire.whole = True
        out, err = submit.communicate(timeout=120)

    assert submit.returncode == 4, err
    assert "exit code 4" in out


def words_of(project: Project) -> list[str]:
    """The last words of all jobs that have ended."""
    return [key for key, _ in project.objects.keys("jobs/") if key.count("/") == 1]
