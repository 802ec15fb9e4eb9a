"""Repairing runs: what is intact stays and is not paid again, what was lost is there again, and a crash half-way harms nothing."""

import asyncio
import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from beam_ray.diagnosis import diagnose
from beam_ray.errors import Damaged, RunIsTaken, Stopped, Unusable
from beam_ray.llm import ScriptedModel
from beam_ray.repair import repair
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import Lineage, make_plan
from beam_ray.run.runner import Runner
from beam_ray.store import parquet, runs
from beam_ray.store.beginning import begin
from beam_ray.store.disk import Disk
from beam_ray.store.lease import Lease
from beam_ray.store.libraries import write_library
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.tasks.sources import shuffled
from tests.conftest import Lab, drive_here
from tests.store.dying import Dying

TEXT = """
workflow: w
model: m
nodes:
  one: {llm: {prompt: "{{ task_query }}"}, evaluate: {criteria: [{check: "one.text != ''"}]}}
  two: {after: one, llm: {prompt: "two {{ one.text }}"}}
  side: {after: one, llm: {prompt: "side {{ task_query }}"}}
"""
TASKS = 120


class Asked:
    """A model that repeats what it was told, and remembers it."""

    def __init__(self, end: str = "") -> None:
        self.said: list[str] = []
        self.end = end

    def __call__(self, request):
        self.said.append(request.messages[-1]["content"])
        return self.said[-1] + (self.end if self.said[-1].startswith("q") else "")


@pytest.fixture
def run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run whose files have pieces of two shards each."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 15)
    write_library(lab.objects, "qs", lab.tasks([f"q{index}" for index in range(TASKS)]), 0)
    tasks, source = tables_of(lab)
    plan = make_plan(lab.workflow(TEXT), tasks, {"m": ScriptedModel(Asked())}, source=source)
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, {"m": ScriptedModel(Asked())}))
    return Run(lab.objects, record.run_id)


def tables_of(lab: Lab):
    """The library's tasks."""
    from beam_ray.tasks.sources import read

    return read(lab.objects, "library:qs")


def spoil(lab: Lab, run: Run, name: str, where: float = 0.3) -> None:
    """Flip one bit."""
    path = lab.folder / "store" / run.prefix / name
    body = bytearray(path.read_bytes())
    body[int(len(body) * where)] ^= 1
    path.write_bytes(body)


def mend(lab: Lab, run: Run, answer=None, objects=None, **how):
    """Repair with the model in this process."""
    models = {"m": ScriptedModel(answer or Asked())}
    return repair(objects or lab.objects, run.run_id, models, lambda record: asyncio.run(drive_here(lab.objects, record, models)), **how)


def contents(lab: Lab, run: Run) -> dict[str, bytes]:
    """Every file of the run but the lease."""
    folder = lab.folder / "store" / run.prefix
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "lease" not in path.parts}


def tear(lab: Lab, run: Run, name: str) -> None:
    """Half of the file is gone; nothing in the other half can be believed."""
    path = lab.folder / "store" / run.prefix / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def merged_and_died(lab: Lab, text: str, queries: list[str], answer: Any, node: str) -> Run:
    """An unfinished run with all its parts, whose driver died once it had merged *node*."""
    models = {"m": ScriptedModel(answer)}
    plan = make_plan(lab.workflow(text), lab.tasks(queries), models)
    record = begin(lab.objects, plan.record, plan.tasks)

    async def merged() -> None:
        runner = Runner(Assignment(lab.objects.uri, record.run_id, models, "first", 32))
        await asyncio.gather(*(runner.step(shard, name) for shard in range(len(record.shards)) for name in record.plan.order))
        await runner.merge(node)
        await runner.stop()

    asyncio.run(merged())
    return Run(lab.objects, record.run_id)


def result(lab: Lab, run: Run):
    """What the run says, times left out."""
    again = Run(lab.objects, run.run_id)
    columns = ["run_id", "task_id", "trial", "node", "outcome", "score", "shard", "output", "fingerprint"]
    return again.steps(columns=columns).to_pylist(), again.outcome(["run_id", "task_id", "passed", "score", "output", "calls"]).to_pylist()


@pytest.mark.parametrize("name", ["outcome.parquet", "manifest.json", "run.json", "tasks.parquet"])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_what_can_be_computed_is_made_again_without_a_call(lab: Lab, run: Run, name: str, how: str):
    """The same files, byte for byte where no time stands in them."""
    before, said = contents(lab, run), result(lab, run)
    spoil(lab, run, name) if how == "flipped" else (lab.folder / "store" / run.prefix / name).unlink()
    asked = Asked()
    diagnosis = diagnose(Run(lab.objects, run.run_id))
    mended = mend(lab, run, asked)

    assert ([damage.name for damage in diagnosis.damaged], diagnosis.calls, asked.said) == ([name], 0, [])
    assert name in mended.files and diagnose(Run(lab.objects, run.run_id)).damaged == ()
    after = contents(lab, run)
    assert {key for key in before if before[key] != after[key]} <= {"manifest.json"} and set(after) == set(before)
    assert result(lab, run) == said
    assert Run(lab.objects, run.run_id).manifest["usage"] == run.manifest["usage"]


def test_only_the_damaged_piece_is_asked_again(lab: Lab, run: Run):
    """Of 120 rows the 40 of one piece; what follows from them is kept, since their outputs are the same."""
    said = result(lab, run)
    spoil(lab, run, "steps/one-000.parquet")
    asked = Asked()
    diagnosis = diagnose(Run(lab.objects, run.run_id), {"m": ScriptedModel(asked)})
    mended = mend(lab, run, asked)
    piece = diagnosis.nodes[0].redo

    assert 0 < piece < TASKS / 2
    assert [(node.node, node.redo, node.follow) for node in diagnosis.nodes] == [("one", piece, 0), ("two", 0, piece), ("side", 0, piece)]
    assert (diagnosis.calls, diagnosis.most_calls, diagnosis.usd) == (piece, 3 * piece, 0.0)
    assert len(asked.said) == mended.calls == piece and all(text.startswith("q") for text in asked.said)
    assert result(lab, run) == said
    assert mended.files == ("outcome.parquet", "steps/one-000.parquet")
    [story] = Run(lab.objects, run.run_id).manifest["repairs"]
    assert (story["rows"], story["calls"], story["repair_run"]) == (piece, piece, mended.repair_run)


def test_what_a_new_answer_changes_is_redone_after_it(lab: Lab, run: Run):
    """Every row fits the ones that it came from; the outcome says what the run has cost."""
    spoil(lab, run, "steps/one-000.parquet")
    asked = Asked(end="!")
    mended = mend(lab, run, asked)
    again = Run(lab.objects, run.run_id)
    one, two = ({row["task_id"]: json.loads(row["output"])["text"] for row in again.steps([node]).to_pylist()} for node in ("one", "two"))
    new = {task for task, text in one.items() if text.endswith("!")}

    assert len(new) == mended.rows and two == {task: f"two {text}" for task, text in one.items()}
    assert len([text for text in asked.said if text.startswith("two")]) == len(new)
    assert [text for text in asked.said if text.startswith("side")] == []
    assert mended.calls == len(asked.said) == 2 * len(new)
    assert [row["calls"] for row in again.outcome().to_pylist()] == [3] * TASKS


def test_a_file_without_its_footer_is_redone_whole_and_others_stay(lab: Lab, run: Run):
    """Nothing in a torn file can be believed."""
    said, path = result(lab, run), lab.folder / "store" / run.prefix / "steps/two-000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    asked = Asked()
    mend(lab, run, asked)

    assert len(asked.said) == TASKS and all(text.startswith("two") for text in asked.said)
    assert result(lab, run) == said


def test_a_sound_run_is_left_alone(lab: Lab, run: Run):
    """Not a byte is written."""
    before = contents(lab, run)

    assert (diagnose(run).damaged, mend(lab, run).files) == ((), ())
    assert contents(lab, run) == before


def test_readers_that_borrow_find_the_mended_rows(lab: Lab, run: Run):
    """A rerun of a mended run is as one of a sound run."""
    spoil(lab, run, "steps/one-000.parquet")
    with pytest.raises(Damaged):
        StepRows(Run(lab.objects, run.run_id)).rows("one", [(f"t{number}", 1) for number in range(TASKS)])
    mend(lab, run)
    again = lab.rerun(Run(lab.objects, run.run_id), ["t3", "t59"], run.record.plan, Asked(), start_node="two")

    assert {row["borrowed_from"] for row in again.steps(["one"]).to_pylist()} == {f"{run.run_id}/t3/one", f"{run.run_id}/t59/one"}


def test_a_repair_that_dies_anywhere_is_finished_by_the_same_command_and_pays_once(lab: Lab, run: Run):
    """At each of its writes: before the end every reader gets correct rows or an error, and afterwards the run is as before the damage."""
    said = result(lab, run)
    spoil(lab, run, "steps/one-000.parquet")
    spoil(lab, run, "tasks.parquet")
    shutil.copytree(lab.folder / "store", lab.folder / "spoilt")
    deaths = 0
    while True:
        shutil.rmtree(lab.folder / "store")
        shutil.copytree(lab.folder / "spoilt", lab.folder / "store")
        asked, dying = Asked(), Dying(lab.folder / "store")
        dying.left = deaths
        try:
            mend(lab, run, asked, dying)
            break
        except Stopped:
            deaths += 1
        try:
            assert result(lab, run) == said
        except Damaged:
            pass
        mend(lab, run, asked)

        assert result(lab, run) == said and diagnose(Run(lab.objects, run.run_id)).damaged == ()
        assert len(asked.said) == 40
        assert not list(lab.objects.keys(f"{run.prefix}/repair/"))

    assert deaths > 15


def test_a_second_repairer_is_refused_while_the_first_lives(lab: Lab, run: Run):
    """The lease of the run is the repairer's."""
    spoil(lab, run, "steps/one-000.parquet")
    script = f"from beam_ray.store.opening import open_objects\nfrom beam_ray.store.lease import *\nLease(Run(open_objects({str(lab.folder / 'store')!r}), {run.run_id!r}))\nprint('held', flush=True)\ninput()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RunIsTaken, match=f"is driven by process {other.pid} on "):
        mend(lab, run)
    other.kill()
    other.wait()


def test_a_repairer_that_wakes_after_a_takeover_puts_nothing_in_place(lab: Lab, run: Run):
    """It notices that it lost, and the driver that took over uses the answers that it paid for."""
    spoil(lab, run, "steps/one-000.parquet")
    before, asked = contents(lab, run), Asked()
    models = {"m": ScriptedModel(asked)}

    def slow(record):
        asyncio.run(drive_here(lab.objects, record, models))
        Lease(Run(lab.objects, run.run_id), takeover=True)

    with pytest.raises(RunIsTaken):
        repair(lab.objects, run.run_id, models, slow)
    assert {name: body for name, body in contents(lab, run).items() if "repair/" not in name} == before
    paid = len(asked.said)
    mend(lab, run, asked)

    assert len(asked.said) == paid == 40


def test_what_cannot_be_made_again_is_said_and_nothing_is_changed(lab: Lab):
    """Tasks that came from a file stand nowhere else."""
    run = lab.run(TEXT, ["q0", "q1"], Asked())
    spoil(lab, run, "tasks.parquet")
    before = contents(lab, run)
    with pytest.raises(Damaged, match=r"tasks.parquet cannot be restored: the tasks came from tasks.jsonl"):
        mend(lab, run)

    assert contents(lab, run) == before


def test_rows_are_not_redone_with_another_model(lab: Lab, run: Run):
    """The run would be of two models, and every sound row would be paid for again."""
    spoil(lab, run, "steps/one-000.parquet")
    models = {"m": ScriptedModel(Asked(), identity="another")}
    with pytest.raises(Unusable, match="was made with another model under the name 'm'"):
        repair(lab.objects, run.run_id, models, lambda record: None)


@pytest.mark.parametrize("name", ["parts/one/000001.parquet", "parts/_outcome/000000.parquet", "spool"])
def test_damaged_parts_of_an_unfinished_run_are_taken_away_and_resume_does_the_rest(lab: Lab, name: str):
    """Rows in sound parts and spools are not paid again, also those that came after the damaged ones."""
    first = Asked()
    texts, models = [f"q{index}" for index in range(TASKS)], {"m": ScriptedModel(first)}
    plan = make_plan(lab.workflow(TEXT), lab.tasks(texts), models)
    record = begin(lab.objects, plan.record, plan.tasks)
    run = Run(lab.objects, record.run_id)

    async def half() -> None:
        runner = Runner(Assignment(lab.objects.uri, record.run_id, models, "first", 32))
        await asyncio.gather(*(runner.step(shard, node) for shard in (0, 1) for node in record.plan.order))
        await runner.step(2, "one")
        await runner.stop()

    asyncio.run(half())
    spools = [key.removeprefix(f"{run.prefix}/") for key, _ in lab.objects.keys(f"{run.prefix}/spool/")]
    for spool in spools if name != "spool" else []:
        lab.objects.delete(f"{run.prefix}/{spool}")  # so that only the part has the rows
    name = spools[0] if name == "spool" else name
    spoil(lab, run, name)
    lost = {"parts/one/000001.parquet": 1, "parts/_outcome/000000.parquet": 0}.get(name, 0) + 2  # nodes of a shard; those of the third were in the spool
    rows = record.shards[1][1] - record.shards[1][0]
    mended, asked = mend(lab, run), Asked()
    asyncio.run(drive_here(lab.objects, record, {"m": ScriptedModel(asked)}))

    assert mended.files == (name,) and diagnose(Run(lab.objects, record.run_id)).damaged == ()
    assert len(asked.said) == 3 * TASKS - len(first.said) + lost * rows
    assert [json.loads(row["output"])["text"] for row in Run(lab.objects, record.run_id).steps(["two"]).to_pylist()] == [f"two {text}" for text in texts]


def test_of_several_trials_only_the_lost_ones_are_asked_again(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Each trial is a row of its own, also where a piece of a file ends between two of a task."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 15)
    run = lab.run(TEXT, [f"q{index}" for index in range(20)], Asked(), trials=3)
    said = result(lab, run)
    spoil(lab, run, "steps/one-000.parquet")
    asked = Asked()
    mended = mend(lab, run, asked)

    assert 0 < mended.rows == len(asked.said) < 60
    assert result(lab, run) == said
    assert [row["trial"] for row in Run(lab.objects, run.run_id).outcome(["trial"]).to_pylist()] == [1, 2, 3] * 20


@pytest.mark.parametrize(("node", "calls"), [("one", 0), ("two", TASKS), ("side", 0)])
def test_what_was_borrowed_is_borrowed_again(lab: Lab, run: Run, node: str, calls: int):
    """From the same run, without a call; only what the run had made itself is asked."""
    text = TEXT.replace("two {{ one.text }}", "2 {{ one.text }}")
    candidate = lab.run(text, run.tasks(), Asked(), origin=run.run_id, borrow=True, mode="candidate", allow_writes=False)
    said = result(lab, candidate)
    tear(lab, candidate, f"steps/{node}-000.parquet")
    asked = Asked()
    mend(lab, candidate, asked)

    assert len(asked.said) == calls
    assert result(lab, candidate) == said
    from_origin = {row["borrowed_from"] for row in Run(lab.objects, candidate.run_id).steps(["one"]).to_pylist()}
    assert from_origin == {f"{run.run_id}/t{index}/one" for index in range(TASKS)}


def test_what_was_borrowed_from_a_further_run_is_borrowed_again(lab: Lab, run: Run):
    """A step that its origin does not have comes from the run that it came from before, without a call."""
    text = TEXT.replace("two {{ one.text }}", "2 {{ one.text }}")
    other = lab.run(text, run.tasks(), Asked(), origin=run.run_id, borrow=True, mode="candidate", allow_writes=False)
    lent = {"origin": run.run_id, "borrow_from": (other.run_id,), "borrow": True, "mode": "candidate", "allow_writes": False}
    made = Asked()
    candidate = lab.run(text, run.tasks(), made, **lent)
    said = result(lab, candidate)
    tear(lab, candidate, "steps/two-000.parquet")
    asked = Asked()
    mend(lab, candidate, asked)

    assert (made.said, asked.said) == ([], [])
    assert result(lab, candidate) == said


@pytest.mark.parametrize(("name", "calls"), [("steps/one-000.parquet", 0), ("steps/two-000.parquet", 2), ("steps/side-000.parquet", 0), ("tasks.parquet", 0)])
def test_a_rerun_is_mended_from_its_original(lab: Lab, run: Run, name: str, calls: int):
    """What stands before its start is taken from there again, and so are its tasks."""
    again = lab.rerun(run, ["t3", "t59"], run.record.plan, Asked(end="!"), start_node="two")
    said = result(lab, again)
    tear(lab, again, name)
    asked = Asked(end="!")
    mend(lab, again, asked)

    assert len(asked.said) == calls
    assert result(lab, again) == said


def shortened(lab: Lab, *, in_random_order: bool = False) -> Run:
    """A run of 120 tasks that ended after 20."""
    write_library(lab.objects, "qs", lab.tasks([f"q{index}" for index in range(TASKS)]), 0)
    tasks, source = tables_of(lab)
    models = {"m": ScriptedModel(Asked())}
    plan = make_plan(lab.workflow(TEXT), shuffled(tasks) if in_random_order else tasks, models, source=source, lineage=Lineage(pauses=(20, 40)))
    run = Run(lab.objects, begin(lab.objects, plan.record, plan.tasks).run_id)
    run.cut(sum(start < 20 for start, _ in run.record.shards))
    asyncio.run(drive_here(lab.objects, run.record, models))
    return Run(lab.objects, run.run_id)


@pytest.mark.parametrize("how", ["torn", "gone"])
@pytest.mark.parametrize("name", ["cut.json", "manifest.json", "run.json", "tasks.parquet", "outcome.parquet", "steps/one-000.parquet"])
def test_a_run_that_ended_early_stays_as_short_as_it_was(lab: Lab, name: str, how: str):
    """Of the tasks that it left out none is asked, and every file is there again."""
    run = shortened(lab, in_random_order=how == "gone")
    before, said = contents(lab, run), result(lab, run)
    tear(lab, run, name) if how == "torn" else (lab.folder / "store" / run.prefix / name).unlink()
    diagnosis, asked = diagnose(Run(lab.objects, run.run_id)), Asked()
    mend(lab, run, asked)

    assert [damage.name for damage in diagnosis.damaged] == [name]
    assert len(asked.said) == diagnosis.calls == (20 if name.startswith("steps") else 0)
    assert result(lab, run) == said and len(said[1]) == 20
    assert Run(lab.objects, run.run_id).record == run.record
    after = contents(lab, run)
    assert {key for key in before if before[key] != after.get(key)} <= {"manifest.json", name, "outcome.parquet"} and set(after) == set(before)


@pytest.mark.parametrize("how", ["torn", "gone"])
def test_a_lost_cut_does_not_lengthen_a_run(lab: Lab, how: str):
    """The manifest says how many tasks were done; readers never see tasks without rows."""
    run = shortened(lab)
    tear(lab, run, "cut.json") if how == "torn" else (lab.folder / "store" / run.prefix / "cut.json").unlink()
    again = Run(lab.objects, run.run_id)

    assert (again.record.tasks, again.tasks().num_rows, again.outcome().num_rows) == (20, 20, 20)


WRITES = """
workflow: w
model: m
nodes:
  say: {llm: {prompt: "{{ task_query }}"}}
  keep: {after: say, tool: "tools.w:store", with: {x: "{{ say.text }}"}, effects: write}
  tell: {after: keep, llm: {prompt: "told {{ keep.id if keep else 'nothing' }}"}}
"""


@pytest.fixture
def written(lab: Lab) -> Run:
    """A run of which a tool wrote something into the world: the log beside it."""
    lab.write("tools/w.py", "import os\ndef store(x):\n    open(os.path.join(os.path.dirname(__file__), 'log'), 'a').write(x)\n    return {'id': x}\n")
    return lab.run(WRITES, ["q0"], Asked())


def test_a_write_is_not_called_again_and_what_was_paid_after_it_stays(lab: Lab, written: Run):
    """Its lost row says why it is not there; the sound row after it was made when the tool was called, and is kept."""
    tear(lab, written, "steps/keep-000.parquet")
    told = lab.steps(written, "tell")["t0"]
    asked = Asked()
    mend(lab, written, asked)
    again = Run(lab.objects, written.run_id)
    kept = lab.steps(again, "keep")["t0"]

    assert (lab.folder / "tools/log").read_text() == "q0"
    assert (kept["outcome"], "no recorded output to replay" in kept["reason"]) == ("skipped", True)
    assert lab.steps(again, "tell")["t0"] == told
    assert [row["path"] for row in again.outcome().to_pylist()] == [["say", "tell"]]


def test_a_write_is_called_again_where_that_is_allowed(lab: Lab, written: Run):
    """Whoever says so knows what it does."""
    said = result(lab, written)
    tear(lab, written, "steps/keep-000.parquet")
    mend(lab, written, Asked(), allow_writes=True)

    assert (lab.folder / "tools/log").read_text() == "q0q0"
    assert result(lab, written) == said


@pytest.mark.parametrize("allow_writes", [False, True])
def test_a_replayed_write_is_replayed_again(lab: Lab, written: Run, allow_writes: bool):
    """A rerun that was not allowed to write is not by being repaired."""
    again = lab.rerun(written, ["t0"], written.record.plan, Asked())
    said = result(lab, again)
    tear(lab, again, "steps/keep-000.parquet")
    mend(lab, again, Asked(), allow_writes=allow_writes)

    assert (lab.folder / "tools/log").read_text() == "q0"
    assert result(lab, again) == said


class Told(Disk):
    """A disk that remembers in which order its objects changed, and tells who wants to know."""

    def __init__(self, folder, at_commit=lambda: None):
        super().__init__(folder)
        self.changed: list[str] = []
        self.at_commit = at_commit

    def create(self, key: str, body: bytes) -> bool:
        made = super().create(key, body)
        self.changed.append(key)
        if key.endswith("repair/manifest.json"):
            self.at_commit()
        return made

    def put(self, key: str, body: bytes) -> None:
        super().put(key, body)
        self.changed.append(key)


def test_every_file_is_there_before_the_word_that_it_is(lab: Lab, run: Run):
    """The mended files before the commit that names them, and in their places before the manifest."""
    spoil(lab, run, "steps/one-000.parquet")
    disk = Told(lab.folder / "store")
    mend(lab, run, Asked(end="!"), disk)
    files = [index for index, key in enumerate(disk.changed) if "/repair/files/" in key]
    places = [index for index, key in enumerate(disk.changed) if key.startswith(f"{run.prefix}/steps/") or key == f"{run.prefix}/outcome.parquet"]

    assert len(files) == len(places) == 3
    assert max(files) < disk.changed.index(f"{run.prefix}/repair/manifest.json") < min(places)
    assert max(places) < disk.changed.index(f"{run.prefix}/manifest.json")


def test_a_repairer_that_is_overtaken_after_its_commit_leaves_the_rest_to_the_other(lab: Lab, run: Run):
    """Two that put files in their places at once could leave a mixture."""
    said = result(lab, run)
    spoil(lab, run, "steps/one-000.parquet")
    before = contents(lab, run)
    disk = Told(lab.folder / "store", lambda: Lease(Run(lab.objects, run.run_id), takeover=True))
    with pytest.raises(RunIsTaken):
        mend(lab, run, Asked(), disk)

    assert {name: body for name, body in contents(lab, run).items() if "repair/" not in name} == before
    asked = Asked()
    mend(lab, run, asked)
    assert (asked.said, result(lab, run)) == ([], said)


@pytest.mark.parametrize(("torn", "again"), [("two", 0), ("side", 1), ("one", 1)])
def test_an_unfinished_run_whose_merge_was_cut_off_is_mended_and_finished(lab: Lab, torn: str, again: int):
    """Rows of a torn part that were merged are not paid for again; what was merged says no more that the run was finished."""
    run = merged_and_died(lab, TEXT, [f"q{index}" for index in range(TASKS)], Asked(), "two")
    record = run.record
    for key, _ in list(lab.objects.keys(f"{run.prefix}/spool/")):
        lab.objects.delete(key)
    tear(lab, run, f"parts/{torn}/000001.parquet")
    mend(lab, run)
    assert Run(lab.objects, record.run_id).parts()
    asked = Asked()
    asyncio.run(drive_here(lab.objects, record, {"m": ScriptedModel(asked)}))

    start, stop = record.shards[1]
    assert len(asked.said) == again * (stop - start)
    assert diagnose(Run(lab.objects, record.run_id)).damaged == ()


@pytest.mark.parametrize("name", ["steps/one-000.parquet", "steps/side-000.parquet", "outcome.parquet"])
def test_a_lost_manifest_and_a_torn_file_are_mended_together(lab: Lab, run: Run, name: str):
    """The new manifest has entries of the intact files as they are, and of the torn one as it is made again."""
    said = result(lab, run)
    (lab.folder / "store" / run.prefix / "manifest.json").unlink()
    tear(lab, run, name)
    mend(lab, Run(lab.objects, run.run_id))

    assert result(lab, run) == said
    assert diagnose(Run(lab.objects, run.run_id)).damaged == ()


def test_a_lost_manifest_is_made_again_of_nodes_with_several_files(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Each with its own rows."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 15)
    monkeypatch.setattr(runs, "FILE_BYTES", 4_000)
    run = lab.run(TEXT, [f"q{index}" for index in range(TASKS)], Asked())
    files = run.manifest["files"]
    (lab.folder / "store" / run.prefix / "manifest.json").unlink()
    mend(lab, Run(lab.objects, run.run_id))

    assert len(files) > 8
    assert Run(lab.objects, run.run_id).manifest["files"] == files


def test_a_torn_part_beyond_the_end_of_a_run_that_ended_early_is_taken_away(lab: Lab, run: Run):
    """A shard was begun before the run ended: it has no rows in it, and repair asks nothing."""
    models = {"m": ScriptedModel(Asked())}
    plan = make_plan(lab.workflow(TEXT), lab.tasks([f"q{index}" for index in range(40)]), models, lineage=Lineage(pauses=(20,)))
    record = begin(lab.objects, plan.record, plan.tasks)
    early = Run(lab.objects, record.run_id)
    early.commit_part("one", len(record.shards) - 1, run.steps(["one"]).to_pylist()[:1])
    tear(lab, early, f"parts/one/{len(record.shards) - 1:06d}.parquet")
    early.cut(sum(start < 20 for start, _ in record.shards))

    assert mend(lab, Run(lab.objects, record.run_id)).files == (f"parts/one/{len(record.shards) - 1:06d}.parquet",)


def test_a_manifest_that_is_lost_while_parts_are_left_makes_no_run_unfinished(lab: Lab, run: Run):
    """A driver that died while it took parts away, or a zombie, left one: what was merged is not paid for again."""
    rows = run.steps(["one"]).to_pylist()
    start, stop = run.record.shards[0]
    run.commit_part("one", 0, rows[start:stop])
    (lab.folder / "store" / run.prefix / "manifest.json").unlink()
    with pytest.raises(Damaged, match=r"manifest.json is missing, though the run is finished"):
        Run(lab.objects, run.run_id).parts()
    asked = Asked()
    mended = mend(lab, run, asked)

    assert (mended.files, asked.said) == (("manifest.json",), [])
