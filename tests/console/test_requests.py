"""How much a page asks of a store on S3, and what it shows of a store that was never read."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

import beam_ray
from beam_ray.console.commands import Commands
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.pages import home, task, tasks
from beam_ray.console.reading import Reader
from beam_ray.console.rendering import respond
from beam_ray.console.server import shared_values
from beam_ray.console.site import Site
from beam_ray.store.opening import open_objects
from beam_ray.store.run_index import LOOSE_RUNS
from benchmarks.speed.copies import Copies
from benchmarks.speed.counted import Counted
from tests.conftest import Lab

WORKFLOW = """
workflow: chain
model: m
nodes:
  one: {llm: {prompt: "{{ task_query }}"}}
  two: {after: one, llm: {prompt: "{{ one.text }}"}}
  three: {after: two, llm: {prompt: "{{ two.text }}"}}
"""


@pytest.fixture
def s3_lab(tmp_path: Path, s3_uri: str) -> Lab:
    """A lab on the S3 server, with a few more runs than a pack of the index takes."""
    lab = Lab(tmp_path, open_objects(s3_uri))
    copies = Copies(lab.run(WORKFLOW, ["a", "b", "c"], lambda request: "yes"))
    for number in range(1, LOOSE_RUNS + 2):
        copies.make(number, number)
    return lab


def test_a_list_asks_three_times_and_a_task_twice_and_once_per_node(s3_lab: Lab):
    """However many runs there are; of a run that was not opened before its record and manifest are read first."""
    objects = Counted(open_objects(s3_lab.objects.uri))
    store = beam_ray.open(s3_lab.objects.uri)
    store.__dict__["objects"] = objects
    site = Site(store, ConsoleOptions(), Reader(store), Commands(store))
    tasks.tasks(site, "/tasks", {})
    objects.requests()
    tasks.tasks(site, "/tasks", {"status": ["passed"], "sort": ["-started"]})
    of_list = objects.requests()
    runs = [run.id for run in store.runs()]
    objects.requests()
    asked = []
    for name in ("t0", "t1"):
        tasks.tasks(site, "/tasks", {})
        objects.requests()
        task.task(site, f"/tasks/{runs[3]}/{name}", {"step": ["two"], "tab": ["prompt"]})
        asked.append(objects.requests())

    assert of_list <= 3
    assert asked[0] <= 3 + 2 + 3
    assert asked[1] <= 2 + 3


class Held(Counted):
    """A store whose tables come when they may."""

    def __init__(self, objects: Any):
        super().__init__(objects)
        self.may = threading.Event()

    def read(self, key: str) -> bytes:
        """See Objects."""
        if key.endswith("outcome.parquet"):
            self.may.wait(30)
        return super().read(key)


@pytest.mark.parametrize("make", [tasks.tasks, home.home], ids=["tasks", "home"])
def test_a_store_that_was_never_read_is_shown_as_far_as_it_is(make: Any, lab: Lab):
    """The page says how many runs are missing, is kept up to date, and has them all in the end."""
    copies = Copies(lab.run(WORKFLOW, ["a", "b", "c"], lambda request: "yes"))
    for number in range(1, LOOSE_RUNS + 2):
        copies.make(number, number)
    objects = Held(lab.objects)
    store = beam_ray.open(lab.objects.uri)
    store.__dict__["objects"] = objects
    site = Site(store, ConsoleOptions(), Reader(store), Commands(store), patience=0.0)
    request = Request({"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [], "form_token": "x"})
    page = make(site, "/", {})
    text = bytes(respond(request, page, "html", shared_values(site, "")).body).decode()
    objects.may.set()
    whole = make(replace(site, patience=None), "/", {})

    assert page.live
    assert f"{LOOSE_RUNS + 2} runs are" in text
    assert not whole.live
    assert "first time" not in bytes(respond(request, whole, "html", shared_values(site, "")).body).decode()


def test_the_console_starts_without_what_only_some_pages_need():
    """Ray, scipy and MLflow would take a second at each start, and a hundred megabytes."""
    program = "import sys, beam_ray.console.server; print([name for name in ('ray', 'scipy', 'mlflow', 'openai', 'pandas') if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
