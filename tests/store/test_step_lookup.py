"""Finding rows by task: only what holds them is read, and only what was written is believed."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from beam_ray.errors import Damaged
from beam_ray.llm import ScriptedModel
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import Lineage, make_plan
from beam_ray.run.runner import Runner
from beam_ray.store import parquet, row_groups
from beam_ray.store.beginning import begin
from beam_ray.store.disk import Disk
from beam_ray.store.parquet import encode
from beam_ray.store.run_record import plan_shards
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import STEPS, TASKS
from beam_ray.store.task_rows import TaskRows
from tests.conftest import Lab, drive_here

TEXT = "workflow: w\nmodel: m\nnodes:\n  one: {llm: {prompt: '{{ task_query }}'}}\n  two: {after: one, llm: {prompt: 'two {{ one.text }}'}}\n"
COUNT = 80
KEYS = [(f"t{number}", 1) for number in range(COUNT)]


class Counting(Disk):
    """A store that counts the bytes that are read of each file."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.bytes: Counter[str] = Counter()

    def read(self, key: str) -> bytes:
        return self._counted(key, super().read(key))

    def read_range(self, key: str, start: int, size: int) -> bytes:
        return self._counted(key, super().read_range(key, start, size))

    def _counted(self, key: str, body: bytes) -> bytes:
        self.bytes[key.partition("/")[2].partition("/")[2]] += len(body)
        return body


def said(request):
    """A text that no compression makes short."""
    return random.Random(request.messages[-1]["content"]).randbytes(1_000).hex()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged files have row groups of ten rows, and of a file's end little more than its footer is read at first."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 10)
    monkeypatch.setattr(row_groups, "TAIL", 100)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A store that counts."""
    return Lab(tmp_path, Counting(tmp_path / "store"))


def begun(lab: Lab, lineage: Lineage | None = None, order: list[str] | None = None, shard: int = 10):
    """A run that is begun, with shards of ten tasks."""
    tasks = lab.tasks([{"id": name, "task_query": f"query of {name}"} for name in order or [name for name, _ in KEYS]])
    plan = make_plan(lab.workflow(TEXT), tasks, {"m": ScriptedModel(said)}, lineage=lineage)
    record = plan.record.model_copy(update={"shards": plan_shards(COUNT, 1, shard)})
    return begin(lab.objects, record, plan.tasks)


@pytest.fixture
def run(lab: Lab) -> Run:
    """A finished run of eighty tasks, whose counts of bytes begin anew."""
    record = begun(lab)
    asyncio.run(drive_here(lab.objects, record, {"m": ScriptedModel(said)}))
    lab.objects.bytes.clear()
    return Run(lab.objects, record.run_id)


def size(lab: Lab, run: Run, name: str) -> int:
    """Bytes of a file of the run."""
    return (lab.folder / "store" / run.prefix / name).stat().st_size


def test_of_a_large_file_only_the_row_groups_of_the_tasks_are_read(lab: Lab, run: Run):
    """Where they are expected they are found at once, without the ids of the others."""
    found = StepRows(run).rows("one", KEYS[40:50], near=40)
    read = dict(lab.objects.bytes)

    assert found == {key: row for row in run.steps(["one"]).to_pylist() if (key := (row["task_id"], row["trial"])) in KEYS[40:50]}
    assert read["steps/one-000.parquet"] < size(lab, run, "steps/one-000.parquet") / 2
    assert read["outcome.parquet"] < size(lab, run, "outcome.parquet") * 0.8


@pytest.mark.parametrize("near", [None, 0, 35, 79, 5_000])
def test_tasks_are_found_wherever_they_are(run: Run, near: int | None):
    """In any order, scattered, with strangers among them, and wherever they were expected."""
    keys = random.Random(3).sample(KEYS, 30)
    rows = StepRows(run)

    assert list(rows.rows("two", [*keys, ("nobody", 1), (keys[0][0], 2)], near)) == sorted(keys, key=KEYS.index)
    assert list(rows.rows("one", keys[:3])) == sorted(keys[:3], key=KEYS.index)


def test_columns_of_rows_are_read_by_their_places(run: Run):
    """Across row groups, in order; of a node that the run has not there are none."""
    places, rows = [0, 9, 10, 11, 37, 79], StepRows(run)

    assert rows.table("two", places, ["task_id", "output"]).equals(run.steps(["two"], ["task_id", "output"]).take(places))
    assert rows.table("three", places, ["task_id"]).num_rows == 0


def test_damage_is_met_where_it_is(lab: Lab, run: Run):
    """A row group with a flipped bit is refused, and the others are read."""
    path = lab.folder / "store" / run.prefix / "steps/one-000.parquet"
    body = bytearray(path.read_bytes())
    body[2_000] ^= 1
    path.write_bytes(body)

    assert len(StepRows(run).rows("one", KEYS[40:])) == 40
    with pytest.raises(Damaged, match="some of its rows are not what was written"):
        StepRows(run).rows("one", KEYS[:5])


def test_a_file_that_is_another_one_is_refused(lab: Lab, run: Run):
    """The manifest vouches for the footer, and the footer for the rows."""
    rows = [{**row, "score": 100.0} for row in run.steps(["one"]).to_pylist()]
    (lab.folder / "store" / run.prefix / "steps/one-000.parquet").write_bytes(encode(STEPS, rows, row_group=10))

    with pytest.raises(Damaged, match="footer is not the one in the manifest"):
        StepRows(run).rows("one", KEYS[:5])


def test_a_reader_of_an_unfinished_run_finds_what_is_done_since(lab: Lab):
    """Shards that were done after it began to read, and all once the parts were merged."""
    record = begun(lab)
    run = Run(lab.objects, record.run_id)

    async def shards(numbers: range) -> None:
        runner = Runner(Assignment(str(lab.objects.folder), run.run_id, {"m": ScriptedModel(said)}, f"r{numbers.start}", 8))
        for shard in numbers:
            await asyncio.gather(*(runner.step(shard, node) for node in record.plan.order))
        await runner.stop()

    rows = StepRows(run)
    asyncio.run(shards(range(2)))
    assert list(rows.rows("one", KEYS[10:30])) == KEYS[10:20]
    asyncio.run(shards(range(2, 4)))
    assert list(rows.rows("one", KEYS[10:30])) == KEYS[10:30]
    asyncio.run(drive_here(lab.objects, record, {"m": ScriptedModel(said)}))

    assert list(rows.rows("two", KEYS[10:30])) == KEYS[10:30]
    assert list(rows.rows("one", KEYS)) == KEYS


def test_tasks_are_read_by_their_places(lab: Lab, run: Run):
    """As the whole table has them, and of a large file little more than the row group that holds them."""
    tasks = lab.tasks([{"id": f"t{number}", "task_query": said_of(number)} for number in range(COUNT)])
    name = f"{run.prefix}/tasks.parquet"
    lab.objects.put(name, encode(TASKS, tasks, row_group=10))
    lab.objects.bytes.clear()
    found = TaskRows(run).tasks(35, 45)

    assert found == tasks.slice(35, 10)
    assert lab.objects.bytes["tasks.parquet"] < size(lab, run, "tasks.parquet") * 0.6


def said_of(number: int) -> str:
    """A long query."""
    return random.Random(number).randbytes(1_000).hex()


def test_a_runner_reads_of_its_origin_what_its_shard_needs(lab: Lab, run: Run):
    """One of eight shards takes less than a third of the origin's files."""
    record = begun(lab, Lineage(origin=run.run_id, borrow=True, mode="rerun"))
    lab.objects.bytes.clear()

    async def one_shard() -> None:
        runner = Runner(Assignment(str(lab.objects.folder), record.run_id, {"m": ScriptedModel(said)}, "r", 8))
        runner._borrowable.origin.run.objects = lab.objects
        await asyncio.gather(*(runner.step(5, node) for node in record.plan.order))
        await runner.stop()

    asyncio.run(one_shard())
    part = Run(lab.objects, record.run_id).part("two", 5)

    assert part is not None and part["borrowed_from"].to_pylist() == [f"{run.run_id}/t{number}/two" for number in range(50, 60)]
    assert lab.objects.bytes["steps/two-000.parquet"] < size(lab, run, "steps/two-000.parquet") / 2
