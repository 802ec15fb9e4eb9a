"""The console with ``--address``: what it starts are Ray jobs, and it may die."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

import beam_ray
from beam_ray.run import cluster
from tests.commands import run_command
from tests.faults.here import Here
from tests.jobs.conftest import Project, until
from tests.ray_nodes import free_ports

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def project(project: Project, tmp_path: Path) -> Project:
    """The project with a store of its own: backtests of other tests would borrow from the runs made here."""
    return replace(project, store=tmp_path / "store")


class Console:
    """``beam-ray console`` in the project, and a browser without a window that is logged in."""

    def __init__(self, project: Project):
        command = [sys.executable, "-m", "beam_ray", "console", "--store", str(project.store), "--models", "models.yaml"]
        command += ["--port", str(free_ports(1)[0]), "--address", project.head.url]
        self.process = subprocess.Popen(command, cwd=project.folder, env=project.head.environment, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        self.address = re.findall(r"http\S+", self.process.stderr.readline())[0]
        self.base = self.address.partition("/?")[0]
        self.browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.browser.open(self.address)

    def get(self, path: str) -> str:
        """A page."""
        return str(self.browser.open(self.base + path).read().decode())

    def post(self, path: str, **fields: str) -> str:
        """Send a form; the address to which it leads."""
        body = urllib.parse.urlencode(fields).encode()
        answer = self.browser.open(urllib.request.Request(self.base + path, body, {"Origin": self.base, "Sec-Fetch-Site": "same-origin"}))
        return str(answer.url).removeprefix(self.base)


def test_a_rerun_of_the_console_is_a_ray_job_and_outlives_it(project: Project, monkeypatch: pytest.MonkeyPatch):
    """Killed in the middle, the console loses nothing: the job ends, another console sees its result, and no answer is paid for twice."""
    monkeypatch.setattr(cluster, "Cluster", Here)
    monkeypatch.chdir(project.folder)
    store = beam_ray.open(str(project.store), models=str(project.folder / "models.yaml"))
    origin = store.run("poor.yaml", "tasks.jsonl").id
    asked = len(project.model.journal)
    project.model.latency_s = 2.0
    console = Console(project)
    try:
        form = console.get(f"/rerun?run={origin}&using=original")
        fields = {
            name: html.unescape(value) for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form.partition('method="post"')[2])
        }
        page = console.post("/rerun", **fields)
        again = console.post("/rerun", **fields)
        shown = html.unescape(console.get(page))
        before = {origin}
        until(lambda: set(store.run_ids()) - before)
        [made] = set(store.run_ids()) - before
        project.model.latency_s = 0.0
    finally:
        os.kill(console.process.pid, signal.SIGKILL)
        console.process.wait()
    until(lambda: store.get_run(made).finished)
    second = Console(project)
    try:
        seen = second.get(f"/runs/{made}")
    finally:
        second.process.terminate()
        second.process.wait(20)
    until(lambda: [key for key, _ in project.objects.keys("jobs/") if key.count("/") == 1 and key.startswith("jobs/rerun-")])
    [job] = [key for key, _ in project.objects.keys("jobs/") if key.count("/") == 1 and key.startswith("jobs/rerun-")]

    assert page == again
    assert f"beam-ray submit --address {project.head.url} rerun --from-run {origin} --using original" in shown
    assert json.loads(project.objects.read(job))["exit_code"] == 0
    assert [key for key, _ in project.objects.keys(job.replace(".json", "/"))] == [job.replace(".json", f"/{made}.json")]
    assert "Finished" in seen
    assert len(project.model.journal) - asked == 24


def test_jobs_need_a_store_that_outlives_them(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A console that could start none says so before it listens."""
    monkeypatch.chdir(project.folder)
    beam_ray.open(project.store).add_to_library("one", [{"id": "a", "task_query": "x"}])
    relative = run_command(capsys, "console", "--address", project.head.url, "--models", "models.yaml", "--store", "here")
    outside = run_command(capsys, "console", "--address", project.head.url, "--models", "../models.yaml", "--store", project.store)

    assert (relative.code, outside.code) == (2, 2)
    assert "there is no store" in relative.err or "would be deleted with the Ray job's temporary folder" in relative.err
    assert "lies outside the folder" in outside.err
