"""What a run asks of a store on S3, which answers late."""

import shutil
from dataclasses import replace
from pathlib import Path

import beam_ray
from beam_ray.run.connection import Connection
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from tests.conftest import Lab
from tests.faults.here import Here
from tests.store.proxy import Proxy

WORKFLOW = """
workflow: w
model: m
nodes:
  one: {llm: {prompt: "{{ task_query }}"}}
  two: {after: one, llm: {prompt: "{{ one.text }}"}}
  three: {after: two, llm: {prompt: "{{ two.text }}"}}
"""


def test_a_new_run_asks_a_store_on_s3_only_for_what_it_must(tmp_path: Path, s3_uri: str, s3_proxy: Proxy):
    """Its record, tasks, mark and lease are written, and nothing of its parts is looked for before the first row; they are deleted together."""
    asked: list[int] = []

    def answer(request: beam_ray.Request) -> str:
        asked.append(s3_proxy.done.total())
        return "ok"

    (tmp_path / "w.yaml").write_text(WORKFLOW)
    tasks = [{"id": f"t{number}", "task_query": f"{number}"} for number in range(60)]
    store = replace(beam_ray.open(s3_uri, models={"m": beam_ray.ScriptedModel(answer)}), connection=Connection(cluster=Here()))  # type: ignore[arg-type]
    _ = store.objects
    before = s3_proxy.done.total()
    run = store.run(tmp_path / "w.yaml", tasks)
    left = [key.split("/")[2] for key, _ in store.objects.keys(f"runs/{run.id}/")]

    # libraries, two marks; record, tasks, mark; lease, tasks; and two of the progress, by the clock
    assert asked[0] - before <= 8 + 2
    assert sorted({name.partition(".")[0] for name in left}) == ["lease", "manifest", "outcome", "run", "steps", "tasks"]


def test_a_run_that_is_closed_needs_nothing_more_of_its_store(tmp_path: Path):
    """A store that fails then cannot take away the result, which the same command would pay for again."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    opened = beam_ray.open(tmp_path / "store", models={"m": beam_ray.ScriptedModel(lambda request: "ok")})
    store = replace(opened, connection=Connection(cluster=Here()))  # type: ignore[arg-type]
    run = store.run(tmp_path / "w.yaml", [{"id": "t", "task_query": "1"}])
    shutil.rmtree(tmp_path / "store")

    assert run.document()["passed"] == 1
    assert run.source


def test_a_run_whose_beginner_died_before_its_tasks_were_stored_is_begun_by_the_same_command(lab: Lab):
    """The mark may be there before the tasks; whoever finds it writes them down."""
    plan = make_plan(lab.workflow(WORKFLOW), lab.tasks(["a", "b"]), {"m": beam_ray.ScriptedModel(lambda request: "ok")})
    first = begin(lab.objects, plan.record, plan.tasks)
    lab.objects.delete(f"runs/{first.run_id}/tasks.parquet")
    run = lab.run(WORKFLOW, ["a", "b"], lambda request: "ok")

    assert run.run_id == first.run_id
    assert run.outcome()["task_id"].to_pylist() == ["t0", "t1"]
