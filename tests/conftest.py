"""What tests share: a folder, a store in it, and a real local Ray, started once."""

import asyncio
import atexit
import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from beam_ray.define.workflow import Workflow
from beam_ray.llm import Request, ScriptedModel
from beam_ray.rerun import RerunOptions, make_rerun
from beam_ray.run.assignment import Assignment
from beam_ray.run.cluster import Cluster
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import Lineage, load_workflow, make_plan
from beam_ray.run.runner import Runner
from beam_ray.run.shard import OUTCOME_NODE
from beam_ray.run.summary import summarise
from beam_ray.store.beginning import begin, close
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run
from beam_ray.tasks.parse import read_tasks
from tests.mlflow_forks import mlflow_forks  # noqa: F401
from tests.s3 import s3_proxy, s3_server, s3_uri  # noqa: F401

# the suite tries the same examples each time; new ones are sought by make fuzz and make machine
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")

# commands of tests neither find the local Ray that a developer keeps up, nor leave one
os.environ["BEAM_RAY_KEEP"] = "0"

# what is kept of stores is kept in a folder of the tests
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="beam-ray-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# in the environment of every process that a test starts, and for no tool to see
os.environ["BEAM_RAY_TEST_SECRET"] = "canary"


LONG = ("tests/jobs/", "tests/faults/", "tests/console/", "tests/run/", "tests/cli/")
"""Folders whose files take longest. They begin first, so that at the end no process waits long for another one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first."""
    items.sort(key=lambda item: next((place for place, folder in enumerate(LONG) if item.nodeid.startswith(folder)), len(LONG)))


class _InOrder(LoadFileScheduling):
    """The tests of a file run in one process, and so do all that use the Ray cluster of ``tests/jobs``; files begin in the order above."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/jobs" if nodeid.startswith("tests/jobs/") else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """How files are given to the processes of ``make test``."""
    config.option.loadscopereorder = False
    return _InOrder(config, log)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """A local Ray that all tests share."""
    cluster = Cluster("local")
    yield cluster
    cluster.close()
    cluster.disconnect()


@dataclass
class Lab:
    """A folder to write workflows and tasks in, a store, and a Ray to run on."""

    folder: Path
    objects: Objects
    cluster: Cluster | None = None

    def write(self, name: str, text: str) -> Path:
        """A file of the lab."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def workflow(self, text: str, name: str = "workflow.yaml") -> Workflow:
        """The checked workflow that *text* describes."""
        return load_workflow(self.write(name, text))[0]

    def tasks(self, rows: Sequence[Mapping[str, Any] | str]) -> Any:
        """Tasks; a text stands for its query."""
        full = [{"id": f"t{index}", "task_query": row} if isinstance(row, str) else row for index, row in enumerate(rows)]
        path = self.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in full))
        return read_tasks(path, self.objects)

    def run(self, workflow: Workflow | str, rows: Any, answer: Callable[[Request], Any], *, concurrency: int = 64, **how: Any) -> Run:
        """A finished run; the model 'm' answers by *answer*, so many at a time."""
        found = self.workflow(workflow) if isinstance(workflow, str) else workflow
        models = {"m": ScriptedModel(answer, concurrency=concurrency)}
        tasks = self.tasks(rows) if isinstance(rows, list) else rows
        lineage = Lineage(**{name: how.pop(name) for name in list(how) if name in Lineage.model_fields})
        plan = make_plan(found, tasks, models, source="tasks.jsonl", lineage=lineage, **how)
        return self._drive(begin(self.objects, plan.record, plan.tasks), models)

    def rerun(self, origin: Run, task_ids: list[str], workflow: Workflow, answer: Callable[[Request], Any], *, version: int | None = None, **how: Any) -> Run:
        """A finished rerun of tasks of *origin*."""
        models = {"m": ScriptedModel(answer)}
        plan = make_rerun(self.objects, origin, task_ids, workflow, models, version=version, options=RerunOptions(**how))
        return self._drive(begin(self.objects, plan.record, plan.tasks), models)

    def _drive(self, record: RunRecord, models: Mapping[str, Any]) -> Run:
        if self.cluster is None:
            asyncio.run(drive_here(self.objects, record, models))
        else:
            execute(self.objects, record, models, connection=Connection(cluster=self.cluster))
        return Run(self.objects, record.run_id)

    @staticmethod
    def steps(run: Run, node: str) -> dict[str, dict[str, Any]]:
        """The rows of one node by task."""
        return {row["task_id"]: row for row in run.steps([node]).to_pylist()}


async def drive_here(objects: Objects, record: RunRecord, models: Mapping[str, Any]) -> None:
    """Do what is left of a run with one runner in this process: the same runner that Ray would start elsewhere."""
    asked = {name: models[name] for name in record.plan.models}
    runner = Runner(Assignment(objects.uri, record.run_id, asked, "here", 32, unfinished=frozenset(range(len(record.shards)))))
    order = record.plan.order
    try:
        await asyncio.gather(*(runner.step(shard, node) for shard in range(len(record.shards)) for node in order))
        files = [entry for node in (*order, OUTCOME_NODE) for entry in await runner.merge(node)]
        run = Run(objects, record.run_id)
        run.finish(files, summarise(run, files))
        close(objects, record)
    finally:
        await runner.stop()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab whose runs are done by a runner in this process."""
    return Lab(tmp_path, open_objects(str(tmp_path / "store")))


@pytest.fixture
def ray_lab(tmp_path: Path, ray_cluster: Cluster) -> Lab:
    """A lab whose runs are done on Ray."""
    return Lab(tmp_path, open_objects(str(tmp_path / "store")), ray_cluster)
