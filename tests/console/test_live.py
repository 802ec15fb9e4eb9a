"""A run that goes on is seen going on, from several tabs, and nothing of it depends on the console."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from tests.console.conftest import PATIENCE_MS, OpenTab, Served, served, wait_for
from tests.console.shop import Shop
from tests.endpoint import Endpoint, endpoint
from tests.kept_ray import command_environment

WORKFLOW = """
workflow: letters
model: m
nodes:
  read: {llm: {prompt: "read {{ task_query }}"}, evaluate: {criteria: [{check: "read.text | length > 0", id: not_empty}]}}
"""
TASKS = 60


@dataclass
class Office:
    """A folder with a workflow whose model takes its time."""

    folder: Path
    model: Endpoint

    @property
    def store(self) -> beam_ray.Store:
        """Its store."""
        return beam_ray.open(self.folder / "store")

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start ``beam-ray`` there."""
        models = ["--models", "models.yaml"] if words[0] == "run" else []
        command = [sys.executable, "-m", "beam_ray", *words, "--store", "store", *models]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=command_environment())


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """An office with an empty store."""
    folder = tmp_path_factory.mktemp("office")
    (folder / "letters.yaml").write_text(WORKFLOW)
    (folder / "tasks.jsonl").write_text("".join(json.dumps({"id": f"l{n}", "task_query": str(n)}) + "\n" for n in range(TASKS)))
    with endpoint(lambda body: "yes", latency_s=0.6) as model:
        (folder / "models.yaml").write_text(f"m: {{base_url: '{model.url}', model: x, concurrency: 2, usd_per_million: {{input: 1, output: 2}}}}\n")
        yield Office(folder, model)


@pytest.fixture(scope="module")
def desk(office: Office, shop: Shop) -> Iterator[Served]:
    """A console over the office, which has a store as soon as something is published."""
    assert office.start("publish", "letters.yaml", "--without-evidence", "first").wait(60) == 0
    with served(office.folder) as found:
        yield found


def test_a_run_is_watched_stopped_and_resumed(new_tab: OpenTab, desk: Served, office: Office):
    """Its progress grows without a reload, a button stops its driver with exit code 3, another resumes it, and no answer is paid for twice."""
    command = office.start("run", "letters", "--tasks", "tasks.jsonl")
    tab = new_tab(desk)
    page = tab.page
    wait_for(lambda: office.store.exists and [run for run in office.store.run_ids() if office.store.progress(run).steps_done])
    tab.open("/")
    page.get_by_role("link", name=re.compile("Run 2")).click()
    page.get_by_role("button", name="Stop").wait_for()
    tab.page.evaluate("window.sameDocument = true")
    first = done(page)
    page.wait_for_function("before => +document.querySelector('.progress p').innerText.match(/(\\d+) of/)[1] > before", arg=first)
    alive = page.evaluate("window.sameDocument")
    listed = tab_text(new_tab, desk, "/tasks?status=running")
    page.get_by_role("button", name="Stop").click()
    page.locator(".head .status").get_by_text("Stopped").wait_for()
    code = command.wait(60)
    page.get_by_role("button", name="Resume").click()
    office.model.latency_s = 0.02
    page.locator(".head .status").get_by_text("Finished").wait_for()
    [run] = office.store.runs()

    assert (alive, code) == (True, 3)
    assert "Running" in listed
    assert (run.finished, run.passed, len(office.model.journal)) == (True, TASKS, TASKS)
    assert f"{TASKS}" in page.locator(".cards").inner_text()


def done(page: Any) -> int:
    """Steps done, as the page says."""
    found = re.search(r"(\d+) of", page.locator(".progress p").inner_text())
    assert found
    return int(found[1])


def tab_text(new_tab: OpenTab, desk: Served, path: str) -> str:
    """What another tab shows."""
    other = new_tab(desk)
    other.open(path)
    return str(other.page.locator("main").inner_text())


def test_a_console_that_is_killed_loses_nothing(new_tab: OpenTab, desk: Served, office: Office):
    """A rerun that it started goes on without it; another console sees it to its end."""
    office.model.latency_s = 0.02
    assert office.start("run", "letters", "--tasks", "tasks.jsonl").wait(90) == 0
    origin = office.store.runs()[0].id
    office.model.latency_s, asked = 0.3, len(office.model.journal)
    before = set(office.store.run_ids())
    with served(office.folder) as doomed:
        tab = new_tab(doomed)
        tab.open(f"/rerun?run={origin}")
        tab.page.get_by_role("button", name=re.compile("Start")).click()
        [made] = wait_for(lambda: set(office.store.run_ids()) - before)
        wait_for(lambda: office.store.progress(made).steps_done)
        doomed.process.kill()
        doomed.process.wait()
        tab.page.context.close()
        tab.faults.clear()  # its stream broke off
    office.model.latency_s = 0.02
    other = new_tab(desk)
    other.open(f"/runs/{made}")
    other.page.locator(".head .status").get_by_text("Finished").wait_for()

    assert office.store.get_run(made).passed == TASKS
    assert len(office.model.journal) - asked == TASKS


def test_eight_tabs_on_something_that_goes_on_all_answer(chromium: Any, desk: Served, office: Office):
    """One stream serves all tabs of a browser, so that none of them takes the last connection; they see what the command line stops."""
    office.model.latency_s = 1.0
    command = office.start("run", "letters", "--tasks", "tasks.jsonl")
    before = set(office.store.run_ids())
    [made] = wait_for(lambda: set(office.store.run_ids()) - before)
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE_MS)
    pages = [context.new_page() for _ in range(8)]
    for page in pages:
        page.goto(desk.address)
        page.goto(f"{desk.base}/runs/{made}")
        page.get_by_role("button", name="Stop").wait_for()
    streams = sum(page.evaluate("performance.getEntriesByType('resource').filter(e => e.name.endsWith('/events')).length") for page in pages)
    stopped = office.start("stop", made).wait(60)
    pages[0].locator(".head .status").get_by_text("Stopped").wait_for()
    context.close()

    assert (stopped, command.wait(60)) == (0, 3)
    assert office.start("stop", made).wait(60) == 2
    assert streams <= 1
