"""The index of finished runs and of their tasks: what it spares, and that it is never believed over the runs."""

import json
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.errors import Damaged
from beam_ray.run.plan import make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.checksummed_json import seal
from beam_ray.store.lookup import newest_first
from beam_ray.store.opening import open_objects
from beam_ray.store.outcome_index import OutcomeIndex
from beam_ray.store.run_index import LOOSE_RUNS, RunIndex
from beam_ray.store.runs import Run
from beam_ray.store.step_counts import RunCounts
from benchmarks.speed.copies import Copies
from benchmarks.speed.counted import Counted
from tests.conftest import Lab

WORKFLOW = "workflow: w\nmodel: m\nnodes:\n  one: {llm: {prompt: '{{ task_query }}'}}\n"


@pytest.fixture
def many(lab: Lab) -> Lab:
    """A store with enough runs for a pack, of three tasks each."""
    copies = Copies(lab.run(WORKFLOW, ["a", "b", "c"], lambda request: "yes"))
    for number in range(1, LOOSE_RUNS + 2):
        copies.make(number, number)
    return lab


def anew(lab: Lab) -> Counted:
    """The store as a new process sees it, which counts what is asked of it."""
    return Counted(open_objects(lab.objects.uri))


def listed(objects: Any, folder: Path) -> list[dict[str, Any]]:
    """The rows of all tasks."""
    rows: list[dict[str, Any]] = OutcomeIndex(objects, folder).table().to_pylist()
    return rows


def test_packed_runs_are_listed_without_reading_them(many: Lab, tmp_path: Path):
    """With the same records, numbers and tasks as when they are read one by one; one of them is compared."""
    first = listed(many.objects, tmp_path / "a")
    plain = sorted((Run(many.objects, name).record for name in many.objects.folders("runs")), key=lambda record: record.created_at, reverse=True)
    objects = anew(many)
    runs = newest_first(objects)

    assert [run.record for run in runs] == plain
    assert [run.usage for run in runs] == [Run(many.objects, run.run_id).usage for run in runs]
    assert listed(objects, tmp_path / "b") == first
    assert [row["run_id"] for row in first] == [record.run_id for record in plain for _ in range(3)]
    # one manifest by each of the two lists
    assert sorted(key.rsplit("/", 1)[-1] for key in objects.read_keys if key.startswith("runs/")) == ["manifest.json", "manifest.json"]


def test_more_runs_are_no_more_requests(many: Lab, tmp_path: Path):
    """Also for a machine that never saw the store, once somebody has made a pack."""
    asked = []
    for number in range(2):
        copies = Copies(Run(many.objects, many.objects.folders("runs")[-1]))
        for other in range(LOOSE_RUNS * number):
            copies.make(100 + other, 100)
        listed(many.objects, tmp_path / f"made {number}")
        objects = anew(many)
        listed(objects, tmp_path / f"new {number}")
        asked.append(objects.requests())

    # two lists, the two files of each pack, and one manifest that is compared
    assert asked == [2 + 2 + 1, 2 + 4 + 1]


def test_what_is_kept_on_a_machine_is_made_again_where_it_is_damaged(many: Lab, tmp_path: Path):
    """And nobody else on the machine may read it."""
    folder = tmp_path / "kept"
    first = listed(many.objects, folder)
    [file] = folder.glob("*.arrow")
    body = file.read_bytes()
    file.write_bytes(body[:1000] + bytes([body[1000] ^ 1]) + body[1001:])

    assert listed(many.objects, folder) == first
    [again] = folder.glob("*.arrow")
    assert (again.stat().st_mode & 0o077, folder.stat().st_mode & 0o077) == (0, 0)


def test_counts_of_a_run_are_made_once_and_again_where_what_was_kept_is_damaged(many: Lab):
    """A new process reads no steps for them; it does where the kept file is not what was written."""

    def counted() -> tuple[Any, list[str]]:
        objects = anew(many)
        counts = RunCounts(objects)
        runs = [counts.run(note.run_id) for note in counts.notes()]
        found = (
            counts.steps_of(runs, "one"),
            counts.task_numbers(runs).tolist(),
            [counts.paths(run) for run in runs],
            [counts.criteria(run, "one") for run in runs],
        )
        return found, [key for key in objects.read_keys if "/steps/" in key]

    first, read = counted()
    again, read_again = counted()
    [file, *_] = RunIndex(many.objects).cache.folder.glob("*.counts")
    body = file.read_bytes()
    file.write_bytes(body[:-3] + bytes([body[-3] ^ 1]) + body[-2:])
    mended, read_mended = counted()

    assert (len(read), len(read_again), len(read_mended)) == (LOOSE_RUNS + 2, 0, 1)
    assert first == again == mended
    assert file.read_bytes() == body


@pytest.mark.parametrize("kind", ["runs", "tasks"])
def test_a_damaged_pack_is_made_again_from_the_runs(kind: str, many: Lab, tmp_path: Path):
    """Its name says what it covers, and so does its content once more."""
    first = listed(many.objects, tmp_path / "a")
    [pack] = (Path(many.objects.uri) / "index").glob(f"*.{kind}.parquet")
    body = pack.read_bytes()
    pack.write_bytes(body[:-20])

    assert listed(anew(many), tmp_path / "b") == first
    assert listed(anew(many), tmp_path / "c") == first
    assert pack.read_bytes() == body


def test_a_run_that_is_gone_is_in_no_list(many: Lab, tmp_path: Path):
    """Whatever the pack says."""
    first = listed(many.objects, tmp_path / "a")
    gone = first[0]["run_id"]
    for key, _ in list(many.objects.keys(f"runs/{gone}/")):
        many.objects.delete(key)

    assert listed(anew(many), tmp_path / "b") == [row for row in first if row["run_id"] != gone]


def test_a_repaired_run_is_read_itself(many: Lab, tmp_path: Path):
    """Its manifest is another one, of which the repair leaves word."""
    index = OutcomeIndex(many.objects, tmp_path / "a")
    index.table()
    newest = newest_first(many.objects)[0]
    path = Path(many.objects.uri) / f"{newest.prefix}/outcome.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    beam_ray.open(many.objects.uri, models={"m": beam_ray.ScriptedModel(lambda request: "no")}).repair(newest.run_id)

    found = [each.table().to_pylist() for each in (index, OutcomeIndex(anew(many), tmp_path / "b"))]
    packed = [run.run_id for _, runs in RunIndex(anew(many)).listing().packs for run in runs]

    assert [row["outcome"] for row in found[0] if row["run_id"] == newest.run_id] == ["done"] * 3
    assert found[0] == found[1]
    assert newest.run_id not in packed
    assert len(packed) == LOOSE_RUNS + 1


def test_an_entry_that_is_not_its_run_is_found_out(many: Lab):
    """Also where whoever changed the run left no word of it: one entry is compared at every look, and the others learn of it."""
    index = RunIndex(many.objects)
    packed = [run for _, runs in index.listing().packs for run in runs]
    for run in packed:
        path = Path(many.objects.uri) / f"{run.prefix}/manifest.json"
        manifest = {name: value for name, value in json.loads(path.read_bytes()).items() if name != "seal"}
        path.write_bytes(seal({**manifest, "finished_at": "2026-01-01T00:00:00+00:00"}))
    left = [sum(len(runs) for _, runs in RunIndex(many.objects).listing().packs) for _ in range(3)]

    assert left == [len(packed) - 1, len(packed) - 2, len(packed) - 3]


def test_a_damaged_run_of_a_pack_is_damaged_when_it_is_read(many: Lab):
    """A list may come from the index; a run's rows never do."""
    newest = newest_first(many.objects)[0]
    (Path(many.objects.uri) / f"{newest.prefix}/outcome.parquet").write_bytes(b"nothing")
    store = beam_ray.open(many.objects.uri)

    with pytest.raises(Damaged):
        store.task(f"{newest.run_id}/t0").outcome  # noqa: B018


def test_a_store_that_cannot_be_written_is_read_run_by_run(many: Lab, tmp_path: Path):
    """With the same result, and no error."""
    first = listed(many.objects, tmp_path / "a")
    for key, _ in list(many.objects.keys("index/")):
        many.objects.delete(key)
    objects = anew(many)
    objects.writable = False

    assert listed(objects, tmp_path / "b") == first
    assert list(many.objects.keys("index/")) == []


def test_a_plan_lists_the_runs_once_however_many_candidates_look_for_something_to_borrow(many: Lab, tmp_path: Path):
    """And the next plan lists them anew."""
    (many.folder / "two.yaml").write_text(WORKFLOW.replace("{{ task_query }}", "{{ task_query }}?"))
    store = beam_ray.open(many.objects.uri, models={"m": beam_ray.ScriptedModel(lambda request: "no")})
    store.__dict__["objects"] = objects = Runs(open_objects(many.objects.uri))
    candidates = {f"c{number}": {"nodes.one.llm.prompt": f"{{{{ task_query }}}} {number}"} for number in range(3)}
    spec = beam_ray.Backtest(
        name="b", workflow=many.folder / "workflow.yaml", tasks=[{"id": "x", "task_query": "x"}], candidates=candidates, baseline=many.folder / "two.yaml"
    )
    listed = []
    for _ in range(2):
        store.plan_backtest(spec)
        listed.append(objects.listed)

    assert listed == [1, 2]


def test_a_list_of_tasks_knows_its_runs_without_listing_them_again(many: Lab):
    """Those of the tasks it shows, and all that are unfinished."""
    store = beam_ray.open(many.objects.uri)
    store.__dict__["objects"] = objects = Runs(open_objects(many.objects.uri))
    begun = plan(many)
    found = store.list_tasks(beam_ray.TaskQuery(limit=4, ended=True))

    assert [(run.id, run.finished) for run in found.runs] == [(begun, False), *((run, True) for run in dict.fromkeys(task["run_id"] for task in found.tasks))]
    assert objects.listed == 1


class Runs(Counted):
    """A store that counts how often its runs are listed."""

    listed = 0

    def folders(self, prefix: str) -> list[str]:
        """See Objects."""
        self.listed += prefix == "runs"
        return super().folders(prefix)


def plan(lab: Lab) -> str:
    """A run that is begun and not executed."""
    made = make_plan(lab.workflow(WORKFLOW), lab.tasks(["z"]), {"m": beam_ray.ScriptedModel(lambda request: "yes")})
    return begin(lab.objects, made.record, made.tasks).run_id
