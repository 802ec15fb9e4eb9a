"""``rerun: fresh``: the best candidate once more, on tasks that the comparison did not use."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import beam_ray
from beam_ray.api.backtests import BacktestOptions, _prepared
from beam_ray.backtest.bundle import pack, unpack
from beam_ray.backtest.conclude import conclude
from beam_ray.backtest.notification import slack_message
from beam_ray.backtest.reproduce import reproduce
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.winner_rerun import rerun_plans
from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.errors import BadDefinition, Interrupted, Unusable
from beam_ray.llm import ScriptedModel
from beam_ray.publish import publish
from beam_ray.store.opening import open_objects
from beam_ray.tasks.fresh_tasks import fresh_split
from beam_ray.tasks.sources import read
from tests.conftest import Lab
from tests.improve.scripted import here
from tests.shapes import misfits
from tests.sums import WORKFLOW, numbers, reply

SPEC = """
backtest: sums
workflow: sums.yaml
tasks: tasks.jsonl
baseline: sums.yaml
candidates:
  same: {nodes.say.llm.prompt: "say it is {{ read.n }}"}
  lucky: {nodes.read.llm.prompt: "lucky {{ task_query }}"}
gate: gate.yaml
rerun: fresh
"""
COUNT = 60


def ids(tasks: Any) -> set[str]:
    """The ids of a table of tasks."""
    return set(tasks["task_id"].to_pylist())


class Model:
    """Answers as in ``sums``; a lucky prompt reads only the numbers it was made for."""

    def __init__(self) -> None:
        self.lucky: set[str] = set()
        self.asked = 0
        self.most = 10**9

    def __call__(self, request: beam_ray.Request) -> object:
        self.asked += 1
        word, number = str(request.messages[-1]["content"]).split()[:2]
        if word == "lucky":
            return {"n": int(number) if f"n{number}" in self.lucky or int(number) % 3 == 0 else -1}
        return f"it is {number}" if word == "say" else reply(str(request.messages[-1]["content"]))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A folder with workflow, gate and sixty tasks."""
    lab = Lab(tmp_path, open_objects(str(tmp_path / "store")))
    lab.write("sums.yaml", WORKFLOW)
    lab.write("gate.yaml", "gate: up\nrules: {score: {up_by: 0}}\n")
    lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in numbers(COUNT)))
    return lab


def engine(lab: Lab, model: Model, spec: str = SPEC, **changes: Any) -> Backtest:
    """The backtest of a spec as a command prepares it, to be run in this process."""
    lab.write("spec.yaml", spec)
    store = beam_ray.open(lab.folder / "store", models={"m": ScriptedModel(model)})
    made = _prepared(store, lab.folder / "spec.yaml", BacktestOptions(changes))
    made.execute = here
    model.lucky |= ids(made.tasks)
    return made


@pytest.mark.parametrize(
    ("limit", "compared", "fresh"),
    [(None, 30, 30), (20, 20, 20), (45, 45, 15), ({"first": 20}, 20, 20), (50, 50, 10)],
)
def test_tasks_are_kept_back(lab: Lab, limit: Any, compared: int, fresh: int) -> None:
    """
    Without a limit the tasks are halved; with one, as many others are kept back as are compared, or all that are left.
    """
    tasks, _ = read(lab.objects, str(lab.folder / "tasks.jsonl"))
    one, other = fresh_split(tasks, limit, "tasks.jsonl")

    assert (one.num_rows, other.num_rows) == (compared, fresh)
    assert not ids(one) & ids(other)
    assert fresh_split(tasks, limit, "tasks.jsonl")[1].equals(other)


def test_a_task_under_another_id_is_not_fresh(lab: Lab) -> None:
    """
    Tasks with the inputs of a compared one are on neither side of the rerun.
    """
    tasks, _ = read(lab.objects, str(lab.folder / "tasks.jsonl"))
    ids_ = pa.array([f"again-{name}" for name in tasks["task_id"].to_pylist()])
    twice = pa.concat_tables([tasks, tasks.set_column(0, tasks.schema.field(0), ids_)])
    one, other = fresh_split(twice, 40, "tasks.jsonl")

    assert not set(one["inputs"].to_pylist()) & set(other["inputs"].to_pylist())


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (55, "rerun: fresh needs at least 10 tasks to compare and 10 others; of 60 tasks from tasks.jsonl it compares 55 and leaves 5 other"),
        (5, "it compares 5 and leaves 5 other"),
    ],
)
def test_too_few_tasks(lab: Lab, limit: int, message: str) -> None:
    """
    A split that leaves fewer than ten tasks on a side is refused before anything is run.
    """
    with pytest.raises(Unusable, match=message):
        engine(lab, Model(), SPEC + f"limit: {limit}\n")


@pytest.fixture(scope="module")
def lucky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, BacktestDocument, list[str]]:
    """A backtest whose best candidate is good on the compared tasks alone; and which candidates' use of the fresh tasks was noted."""
    folder = tmp_path_factory.mktemp("lucky")
    lab = Lab(folder, open_objects(str(folder / "store")))
    lab.write("sums.yaml", WORKFLOW)
    lab.write("gate.yaml", "gate: up\nrules: {score: {up_by: 0}}\n")
    lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in numbers(COUNT)))
    made, noted = engine(lab, Model()), list[str]()
    made.before_rerun = lambda side: noted.append(side.name)
    return lab, conclude(made), noted


def test_the_verdict_is_that_of_the_rerun(lucky: tuple[Lab, BacktestDocument, list[str]]) -> None:
    """
    A candidate that passed by chance is found out: it passes among the compared tasks, and the verdict is that of the fresh ones.
    """
    lab, verdict, noted = lucky
    rerun = verdict["rerun"]
    compared, fresh = (
        set(task for run in [entry["run_id"]] for task in ids(beam_ray.store.runs.Run(lab.objects, run).tasks()))
        for entry in (verdict["candidates"][1], rerun["candidate"])
    )

    assert [entry["verdict"]["word"] for entry in verdict["candidates"]] == ["INCONCLUSIVE", "PASS"]
    assert (rerun["candidate"]["name"], rerun["candidate"]["verdict"]["word"], rerun["tasks"]) == ("lucky", "INCONCLUSIVE", 30)
    assert (verdict["word"], verdict["exit_code"], verdict["best"]) == ("INCONCLUSIVE", 5, "lucky")
    assert len(compared) == len(fresh) == 30 and not compared & fresh
    assert noted == ["lucky"]
    assert misfits(verdict, BacktestDocument) == []


def test_reports_say_so(lucky: tuple[Lab, BacktestDocument, list[str]]) -> None:
    """
    Every report has the rerun, and says that the verdict is its own; the terminal ends with it, and the others begin with it.
    """
    lab, verdict, _ = lucky
    found = beam_ray.open(lab.folder / "store", models={}).verdict(verdict["backtest_id"])
    text, comment, page, cases = (found.report(name) for name in ("report.txt", "report.md", "report.html", "junit.xml"))

    assert text.index("candidate same") < text.index("lucky, the best of 2 candidates, was run again on tasks that the comparison did not use.")
    assert text.rstrip().endswith("verdict: INCONCLUSIVE")
    assert comment.index("lucky on fresh tasks against baseline") < comment.index("lucky against baseline")
    assert "The verdict is that of this rerun" in page and 'testsuite name="lucky on fresh tasks"' in cases
    assert found.rerun and (found.rerun.word, found.best.word, len(found.runs)) == ("INCONCLUSIVE", "PASS", 5)
    assert set(found.pairs["candidate"].to_pylist()) == {"same", "lucky", "lucky on fresh tasks"}
    assert "*lucky on fresh tasks*: INCONCLUSIVE" in json.dumps(slack_message(verdict))


def test_publishing_wants_the_rerun_to_pass(lucky: tuple[Lab, BacktestDocument, list[str]]) -> None:
    """
    A backtest whose rerun did not pass is no evidence for its best candidate, whatever the comparison said.
    """
    lab, verdict, _ = lucky
    found = beam_ray.open(lab.folder / "store", models={}).verdict(verdict["backtest_id"])

    with pytest.raises(Unusable, match="ended in INCONCLUSIVE"):
        publish(lab.objects, found.best.workflow, evidence=verdict["backtest_id"])


def test_it_is_reproduced_here_and_elsewhere(lucky: tuple[Lab, BacktestDocument, list[str]], tmp_path: Path) -> None:
    """
    Comparison and rerun are computed again from stored rows, also from a bundle, and a changed number of the rerun is named.
    """
    lab, verdict, _ = lucky
    pack(lab.objects, verdict["backtest_id"], tmp_path / "b.zip")
    other = open_objects(str(tmp_path / "other"))
    unpack(other, tmp_path / "b.zip")

    assert reproduce(lab.objects, verdict["backtest_id"]).difference is None
    found = reproduce(other, verdict["backtest_id"])
    assert found.difference is None and found.rows == 90


def sides(verdict: BacktestDocument) -> dict[str, str]:
    """The runs of a verdict by what they are."""
    return {"baseline": verdict["baseline"]["run_id"], **{entry["name"]: entry["run_id"] for entry in verdict["candidates"]}}


def test_a_killed_rerun_is_resumed(lab: Lab) -> None:
    """
    A backtest that is stopped during the rerun goes on there: nothing that was paid is paid again.
    """
    model, calls = Model(), []

    def stopping(objects: Any, record: Any, models: Any, **how: Any) -> None:
        calls.append(record.run_id)
        if len(calls) == 5:
            raise Interrupted("stopped")
        here(objects, record, models)

    first = engine(lab, model)
    first.execute = stopping
    with pytest.raises(Interrupted):
        conclude(first)
    before = model.asked
    planned = {side.name: plan.calls if plan else 0 for side, plan, _ in rerun_plans(engine(lab, model))}
    verdict = conclude(engine(lab, model))

    assert planned["baseline on fresh tasks"] == 0 and planned["lucky on fresh tasks"] >= model.asked - before > 0
    assert model.asked - before == verdict["rerun"]["candidate"]["paid"]["calls"]
    assert verdict["rerun"]["candidate"]["run_id"] == calls[-1]


def test_the_plan_has_the_dearest_rerun(lab: Lab) -> None:
    """
    Before the best candidate is known, the plan has the baseline and the dearest candidate over the fresh tasks.
    """
    found = rerun_plans(engine(lab, Model()))

    assert [(side.name, plan.calls if plan else None) for side, plan, _ in found] == [("baseline on fresh tasks", 60), ("same on fresh tasks", 60)]


def test_what_is_blocked_is_not_run_again(lab: Lab) -> None:
    """
    Where the comparison blocks every candidate nothing is spent on a rerun, and the verdict is BLOCK.
    """
    lab.write("gate.yaml", "gate: most\nrules: {success_rate: {at_least: 90}}\n")
    model = Model()
    made = engine(lab, model)
    model.lucky.clear()
    verdict = conclude(made)

    assert verdict["word"] == "BLOCK" and "rerun" not in verdict


def test_a_finished_run_as_the_baseline(lab: Lab) -> None:
    """
    A baseline that is a finished run over all tasks is compared on both parts of them, and never run again.
    """
    model = Model()
    whole = lab.run(lab.workflow(WORKFLOW), numbers(COUNT), model)
    before = model.asked
    verdict = conclude(engine(lab, model, SPEC.replace("baseline: sums.yaml", f"baseline: run:{whole.run_id}") + "confirm: 1\n"))

    assert verdict["rerun"]["candidate"]["baseline_run"] == whole.run_id
    assert [entry["comparison"]["tasks"] for entry in (*verdict["candidates"], verdict["rerun"]["candidate"])] == [30, 30, 30]
    assert verdict["rerun"]["candidate"]["comparison"]["unpaired"]["baseline_only"] == []
    assert reproduce(lab.objects, verdict["backtest_id"]).difference is None
    assert model.asked - before < 3 * 60


def test_fresh_tasks_that_do_not_fit_are_refused_at_once(lab: Lab) -> None:
    """
    A task that the workflow cannot take is found before anything is spent, also among those that are kept back.
    """
    rows = numbers(COUNT)
    rows[-1]["task_query"] = {"a": 1}
    lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    with pytest.raises(BadDefinition, match="task 'n59' does not match the inputs"):
        engine(lab, Model(), SPEC + "limit: {first: 30}\n")
