"""Repairing runs: what is intact stays and is not paid again, what was lost is there again, and a crash half-way harms nothing."""

import asyncio
import json
import shutil
import subprocess
import sys

import pytest

from beam_ray.errors import Damaged, RunIsTaken, Stopped, Unusable
from beam_ray.llm import ScriptedModel
from beam_ray.repair import diagnose, repair
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Assignment, Runner
from beam_ray.store import tables
from beam_ray.store.library import write_library
from beam_ray.store.runs import Lease, Run, begin
from beam_ray.store.steps import StepRows
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
TASKS = 60


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
    monkeypatch.setattr(tables, "ROW_GROUP", 15)
    write_library(lab.objects, "qs", lab.tasks([f"q{index}" for index in range(TASKS)]), 0)
    tasks, source = tables_of(lab)
    plan = make_plan(lab.workflow(TEXT), tasks, {"m": ScriptedModel(Asked())}, source=source)
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, {"m": ScriptedModel(Asked())}))
    return Run(lab.objects, record.run_id)


def tables_of(lab: Lab):
    """The library's tasks."""
    from beam_ray.store.sources import read_source

    return read_source(lab.objects, "library:qs")


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


def result(lab: Lab, run: Run):
    """What the run says, times left out."""
    again = Run(lab.objects, run.run_id)
    columns = ["run_id", "task_id", "node", "outcome", "score", "shard", "output", "fingerprint"]
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
    """Of 60 rows the 20 of one piece; what follows from them is kept, since their outputs are the same."""
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
        StepRows(Run(lab.objects, run.run_id)).rows("one", [("t3", 1)])
    mend(lab, run)
    again = lab.rerun(Run(lab.objects, run.run_id), ["t3", "t59"], run.record.plan, Asked(), start="two")

    assert {row["borrowed_from"] for row in again.steps(["one"]).to_pylist()} == {f"{run.run_id}/t3/one", f"{run.run_id}/t59/one"}


def test_a_repair_that_dies_anywhere_is_finished_by_the_same_command_and_pays_once(lab: Lab, run: Run):
    """At each of its writes: before the end every reader has the right rows or is told of damage, and after it all is as it was."""
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
        assert len(asked.said) == 20
        assert not list(lab.objects.keys(f"{run.prefix}/repair/"))

    assert deaths > 15


def test_a_second_repairer_is_refused_while_the_first_lives(lab: Lab, run: Run):
    """The lease of the run is the repairer's."""
    spoil(lab, run, "steps/one-000.parquet")
    script = f"from beam_ray.store.objects import *\nfrom beam_ray.store.runs import *\nLease(Run(open_objects({str(lab.folder / 'store')!r}), {run.run_id!r}))\nprint('held', flush=True)\ninput()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RunIsTaken, match=f"is driven by process {other.pid} on "):
        mend(lab, run)
    other.kill()
    other.wait()


def test_a_repairer_that_wakes_after_a_takeover_puts_nothing_in_place(lab: Lab, run: Run):
    """It learns that it lost, and whoever took over uses what it paid for."""
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

    assert len(asked.said) == paid == 20


def test_what_cannot_be_made_again_is_said_and_nothing_is_changed(lab: Lab):
    """Tasks that came from a file stand nowhere else."""
    run = lab.run(TEXT, ["q0", "q1"], Asked())
    spoil(lab, run, "tasks.parquet")
    before = contents(lab, run)
    with pytest.raises(Damaged, match=r"tasks.parquet cannot be made again: the tasks came from tasks.jsonl"):
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
