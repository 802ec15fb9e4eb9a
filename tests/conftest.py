"""What tests share: a folder, a store in it, and a real local Ray, started once."""

import json
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from beam_ray.define.workflow import Workflow
from beam_ray.llm import Request, ScriptedModel
from beam_ray.rerun import make_rerun
from beam_ray.run.cluster import Cluster
from beam_ray.run.execute import execute
from beam_ray.run.plan import load_workflow, make_plan
from beam_ray.store.objects import Objects, open_objects
from beam_ray.store.runs import Run, begin
from beam_ray.store.tasks import read_tasks


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """A local Ray that all tests share, with a secret in its environment that no tool may see."""
    os.environ["BEAM_RAY_TEST_SECRET"] = "canary"
    cluster = Cluster("local")
    yield cluster
    cluster.close()


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

    def run(self, workflow: Workflow | str, rows: Any, answer: Callable[[Request], Any], **lineage: Any) -> Run:
        """A finished run over the shared Ray; the model 'm' answers by *answer*."""
        found = self.workflow(workflow) if isinstance(workflow, str) else workflow
        models = {"m": ScriptedModel(answer)}
        tasks = self.tasks(rows) if isinstance(rows, list) else rows
        plan = make_plan(found, tasks, models, source="tasks.jsonl", **lineage)
        record = begin(self.objects, plan.record, plan.tasks)
        execute(self.objects, record, models, cluster=self.cluster)
        return Run(self.objects, record.run_id)

    def rerun(self, origin: Run, task_ids: list[str], workflow: Workflow, answer: Callable[[Request], Any], **how: Any) -> Run:
        """A finished rerun of tasks of *origin*."""
        models = {"m": ScriptedModel(answer)}
        plan = make_rerun(self.objects, origin, task_ids, workflow, models, **how)
        record = begin(self.objects, plan.record, plan.tasks)
        execute(self.objects, record, models, cluster=self.cluster)
        return Run(self.objects, record.run_id)

    @staticmethod
    def steps(run: Run, node: str) -> dict[str, dict[str, Any]]:
        """The rows of one node by task."""
        return {row["task_id"]: row for row in run.steps([node]).to_pylist()}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab without Ray, for what is known before anything runs."""
    return Lab(tmp_path, open_objects(str(tmp_path / "store")))


@pytest.fixture
def ray_lab(tmp_path: Path, ray_cluster: Cluster) -> Lab:
    """A lab that can run things."""
    return Lab(tmp_path, open_objects(str(tmp_path / "store")), ray_cluster)
