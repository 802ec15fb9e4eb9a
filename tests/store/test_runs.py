"""Runs in a store: the same on a disk and on a real S3 server."""

import asyncio
import json
import subprocess
import sys

import pytest

from beam_ray.errors import Damaged
from beam_ray.llm import ScriptedModel
from beam_ray.repair import repair
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Runner
from beam_ray.store.beginning import begin
from beam_ray.store.gc import collect, remove
from beam_ray.store.opening import open_objects
from beam_ray.store.run_record import plan_shards
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from tests.conftest import Lab, drive_here
from tests.endpoint import endpoint
from tests.kept_ray import command_environment

TEXT = "workflow: w\nmodel: m\nnodes:\n  one: {llm: {prompt: '{{ task_query }}'}}\n  two: {after: one, llm: {prompt: 'two {{ one.text }}'}}\n"


def said(request):
    """What was said."""
    return request.messages[-1]["content"]


def test_a_finished_run_has_every_step_once_and_nothing_else(uri, tmp_path):
    """Parts and spool are gone, the manifest names every file, and each row stands once."""
    lab = Lab(tmp_path, open_objects(uri))
    run = lab.run(TEXT, [f"q{index}" for index in range(60)], said)
    names = [key.removeprefix(f"runs/{run.run_id}/") for key, _ in lab.objects.keys(f"runs/{run.run_id}/")]

    assert [name for name in names if not name.startswith("lease/")] == [
        "manifest.json",
        "outcome.parquet",
        "run.json",
        "steps/one-000.parquet",
        "steps/two-000.parquet",
        "tasks.parquet",
    ]
    assert [(row["node"], row["task_id"]) for row in run.steps(["one"]).to_pylist()] == [("one", f"t{index}") for index in range(60)]
    assert list(lab.objects.keys("open/")) == []


def test_beginning_the_same_twice_goes_on_with_the_first(uri, tmp_path):
    """The same command has one unfinished run, however often it is given."""
    lab = Lab(tmp_path, open_objects(uri))
    models = {"m": ScriptedModel(said)}
    plans = [make_plan(lab.workflow(TEXT), lab.tasks(["x"]), models) for _ in range(2)]

    assert [begin(lab.objects, plan.record, plan.tasks).run_id for plan in plans] == [plans[0].record.run_id] * 2


def test_rows_of_given_tasks_are_found_without_reading_all(uri, tmp_path):
    """The index is by task and trial; what is not there is not invented."""
    lab = Lab(tmp_path, open_objects(uri))
    run = lab.run(TEXT, [f"q{index}" for index in range(60)], said)
    found = StepRows(run).rows("two", [("t44", 1), ("t3", 1), ("none", 1), ("t3", 2)])

    assert {key: json.loads(row["output"])["text"] for key, row in found.items()} == {("t3", 1): "two q3", ("t44", 1): "two q44"}


def test_a_run_that_was_cut_off_goes_on_to_the_same_result(uri, tmp_path):
    """Half of the shards are done, one more is spooled: the same result as if undisturbed, and no call twice."""
    lab, asked = Lab(tmp_path, open_objects(uri)), []
    texts = [f"q{index}" for index in range(150)]

    def answer(request):
        asked.append(said(request))
        return said(request)

    models = {"m": ScriptedModel(answer)}
    plan = make_plan(lab.workflow(TEXT), lab.tasks(texts), models, source="tasks.jsonl")
    record = begin(lab.objects, plan.record, plan.tasks)

    async def half() -> None:
        runner = Runner(Assignment(lab.objects.uri, record.run_id, models, "first", 32))
        await asyncio.gather(*(runner.step(shard, node) for shard in (0, 2) for node in ("one", "two")))
        await runner.step(1, "one")
        await runner.stop()

    asyncio.run(half())
    asyncio.run(drive_here(lab.objects, record, models))
    run = Run(lab.objects, record.run_id)

    assert sorted(asked) == sorted([*texts, *(f"two {text}" for text in texts)])
    assert [json.loads(row["output"])["text"] for row in run.steps(["two"]).to_pylist()] == [f"two {text}" for text in texts]
    assert run.manifest["usage"]["calls"] == 300


def test_a_damaged_run_is_mended_and_what_is_left_behind_is_taken_away(uri, tmp_path):
    """repair and gc, the same on every kind of store."""
    lab, asked = Lab(tmp_path, open_objects(uri)), []
    run = lab.run(TEXT, [f"q{index}" for index in range(12)], said)
    before, where = run.steps(columns=["task_id", "node", "output"]), f"{run.prefix}/steps/two-000.parquet"
    body = lab.objects.read(where)
    lab.objects.put(where, body[:500] + bytes([body[500] ^ 1]) + body[501:])

    def answer(request):
        asked.append(said(request))
        return said(request)

    models = {"m": ScriptedModel(answer)}
    repair(lab.objects, run.run_id, models, lambda record: asyncio.run(drive_here(lab.objects, record, models)))
    lab.objects.create(f"{run.prefix}/parts/one/000000.parquet", body)
    removed = [(garbage.kind, remove(lab.objects, garbage)) for garbage in collect(lab.objects)]

    assert len(asked) == 12 and all(text.startswith("two") for text in asked)
    assert Run(lab.objects, run.run_id).steps(columns=["task_id", "node", "output"]).equals(before)
    assert removed == [("merged parts", True)] and collect(lab.objects) == []


@pytest.mark.parametrize("name", ["steps/one-000.parquet", "outcome.parquet"])
def test_a_changed_byte_is_noticed_and_the_file_is_named(lab: Lab, name):
    """A number from a damaged file is not a number."""
    run = lab.run(TEXT, ["x", "y"], said)
    path = lab.folder / "store" / "runs" / run.run_id / name
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)

    with pytest.raises(Damaged, match=rf"runs/{run.run_id}/{name} is damaged"):
        Run(lab.objects, run.run_id).steps() if name.startswith("steps") else Run(lab.objects, run.run_id).outcome()


@pytest.mark.parametrize(("tasks", "trials", "size"), [(1, 1, 10), (60, 1, 10), (7, 3, 4), (100_000, 1, 500)])
def test_shards_cover_every_row_once_and_keep_trials_together(tasks, trials, size):
    """The plan of shards is a division of the rows."""
    shards = plan_shards(tasks * trials, trials, size)

    assert [row for start, stop in shards for row in range(start, stop)] == list(range(tasks * trials))
    assert all(start % trials == 0 for start, _ in shards)


def test_the_command_line_runs_on_s3_and_duckdb_reads_it(s3_uri, tmp_path):
    """A run on Ray whose only store is the S3 server; its Parquet is read without us."""
    import duckdb
    import pyarrow.parquet as pq

    lab = Lab(tmp_path, open_objects(s3_uri))
    lab.write("w.yaml", TEXT)
    lab.write("tasks.jsonl", "".join(json.dumps({"task_query": f"q{index}"}) + "\n" for index in range(20)))
    with endpoint(lambda body: body["messages"][-1]["content"]) as model:
        lab.write("models.yaml", f"m: {{base_url: '{model.url}', model: x}}\n")
        command = [sys.executable, "-m", "beam_ray", "run", "w.yaml", "--tasks", "tasks.jsonl", "--models", "models.yaml", "--store", s3_uri, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=command_environment(), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    prefix = f"runs/{json.loads(done.stdout)['run_id']}/steps/"
    for key, _ in lab.objects.keys(prefix):
        (tmp_path / key.rsplit("/", 1)[-1]).write_bytes(lab.objects.read(key))
    counted = duckdb.sql(f"select node, outcome, count(*) from '{tmp_path}/*-000.parquet' group by all order by 1").fetchall()
    assert counted == [("one", "done", 20), ("two", "done", 20)]
    assert pq.read_metadata(tmp_path / "one-000.parquet").num_rows == 20
