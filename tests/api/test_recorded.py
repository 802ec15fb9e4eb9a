"""What production answered as the baseline of a backtest: judged like any other, and never executed, timed or priced."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.errors import BadDefinition, Unusable
from beam_ray.llm.prices import Price
from beam_ray.run.connection import Connection
from tests.faults.here import Brief

COUNT = 48
WORKFLOW = """
workflow: support
model: m
judge: j
nodes:
  read:
    llm: {prompt: "read {{ task_query }}", returns: {n: int}}
    evaluate: {criteria: [{check: read.n >= 0}]}
  sort:
    after: read
    llm: {prompt: "sort {{ read.n }}", returns: {team: str}}
    evaluate:
      criteria:
        - equals: {team: expected.team}
        - The team is one that exists.
"""
TEAMS = ("billing", "delivery", "technical")


def tasks(*, wrong_every: int = 3, **changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tasks of which production answered every third wrongly; *changes* of single tasks by id."""
    made = []
    for number in range(COUNT):
        answered = TEAMS[(number + (number % wrong_every == 0)) % 3]
        task = {"id": f"t{number}", "task_query": str(number), "expected": {"team": TEAMS[number % 3]}, "recorded": {"output": answered}}
        made.append({**task, **changes.get(f"t{number}", {})})
    return made


def answer(request: beam_ray.Request) -> object:
    """Reads and sorts all rightly; as a judge finds that every team exists."""
    if request.judges:
        return {"criterion_1": {"reason": "it does", "met": True}}
    word, number = str(request.messages[-1]["content"]).split()[:2]
    return {"n": int(number)} if word == "read" else {"team": TEAMS[int(number) % 3]}


def opened(folder: Path) -> beam_ray.Store:
    """A store whose models have a price, and a folder with the workflow."""
    (folder / "support.yaml").write_text(WORKFLOW)
    models = {name: beam_ray.ScriptedModel(answer, price=Price(1.0, 2.0)) for name in ("m", "j")}
    return dataclasses.replace(beam_ray.open(folder / "store", models=models), connection=Connection(cluster=Brief()))


def described(folder: Path, given: Any = None, **changes: Any) -> beam_ray.Backtest:
    """A backtest of the workflow against what production answered."""
    parts: dict[str, Any] = {
        "name": "support",
        "workflow": folder / "support.yaml",
        "tasks": given or tasks(),
        "candidates": {"v1": folder / "support.yaml"},
        "baseline": "recorded",
    }
    return beam_ray.Backtest(**{**parts, **changes})


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished backtest, and what its plan said before."""

    folder: Path
    store: beam_ray.Store
    plan: beam_ray.BacktestPlan
    verdict: beam_ray.Verdict


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("recorded")
    store = opened(folder)
    plan = store.plan_backtest(described(folder))
    return Done(folder, store, plan, store.backtest(described(folder)))


@pytest.fixture
def store(tmp_path: Path) -> beam_ray.Store:
    return opened(tmp_path)


def test_no_step_is_executed(done: Done) -> None:
    """
    The last node has the recorded outputs with scores, the node before it no output, and only the judge was asked.
    """
    run = done.verdict.baseline_run
    steps = {node: run.steps([node]).to_pylist() for node in ("read", "sort")}

    assert {(row["outcome"], row["score"]) for row in steps["read"]} == {("skipped", None)}
    assert {row["outcome"] for row in steps["sort"]} == {"borrowed"}
    assert [json.loads(row["output"])["team"] for row in steps["sort"]][:3] == ["delivery", "delivery", "technical"]
    assert [row["score"] for row in sorted(steps["sort"], key=lambda row: int(row["task_id"][1:]))][:3] == [50.0, 100.0, 100.0]
    assert (sum(row["calls"] for row in steps["sort"]), sum(row["judge_calls"] for row in steps["sort"])) == (0, COUNT)


def test_pairs_are_compared(done: Done) -> None:
    """
    The candidate mends the third that production got wrong, and breaks nothing.
    """
    metrics = done.verdict.best.document["comparison"]["metrics"]
    rate = next(metric for metric in metrics if metric["name"] == "success_rate")

    assert (rate["before"], rate["after"]) == (pytest.approx(100 * 2 / 3), 100.0)
    assert len(done.verdict.best.newly_passing) == COUNT // 3
    assert done.verdict.best.newly_failing == ()
    assert set(done.verdict.pairs["diverges_at"].to_pylist()) == {"sort", None}


def test_the_plan_had_the_calls(done: Done) -> None:
    """
    The plan says as many calls and at least as much money as were then made and spent, for the baseline those of the judge alone.
    """
    planned = {side.name: side for side in done.plan.sides}
    made = {"baseline": done.verdict.baseline_run, "v1": done.verdict.best.run}

    assert {name: side.plan.calls for name, side in planned.items() if side.plan} == {"baseline": COUNT, "v1": 3 * COUNT}
    assert {name: run.calls for name, run in made.items()} == {"baseline": COUNT, "v1": 3 * COUNT}
    assert not any(side.is_upper_bound for side in planned.values())
    for name, side in planned.items():
        assert side.plan is not None and side.plan.max_usd is not None
        assert made[name].usd is not None and 0 < made[name].usd <= side.plan.max_usd


def test_unknown_numbers_are_null(done: Done) -> None:
    """
    Costs, times and tokens of the baseline are null in the store, the pairs and the comparison; the candidate's are shown alone.
    """
    outcome = done.verdict.baseline_run.stored.outcome()
    metrics = {metric["name"]: metric for metric in done.verdict.best.document["comparison"]["metrics"]}

    for column in ("work_seconds", "work_calls", "work_tokens", "work_usd", "auto_reruns", "first_score"):
        assert outcome[column].null_count == COUNT
    for column in ("before_seconds", "before_tokens", "before_usd"):
        assert done.verdict.pairs[column].null_count == COUNT
    for name in ("seconds", "seconds_p50", "calls", "tokens", "usd", "auto_reruns", "first_score", "tool_errors"):
        assert (metrics[name]["before"], metrics[name]["change"], metrics[name]["note"]) == (None, None, "not recorded on the baseline")
        assert metrics[name]["after"] is not None
    assert done.verdict.best.document["comparison"]["route_flips"] == []


def test_reports_say_so(done: Done) -> None:
    """
    Every report can be written, and says that the baseline is what production recorded.
    """
    text = done.verdict.report()

    assert "The baseline is what production recorded" in text
    assert "cost per task" in text
    assert "not recorded on the baseline" in text
    for name in ("report.md", "report.html"):
        assert "not recorded on the baseline" in done.verdict.report(name)


def test_a_gate_on_costs(done: Done) -> None:
    """
    A limit on the change of an unknown cost, and one on route changes, are INCONCLUSIVE; a level judges the candidate alone.
    """
    gate = done.folder / "gate.yaml"
    gate.write_text("gate: g\nrules: {usd: {at_most: 1, up_by_at_most: 10 %}, route_changes: {at_most: 5}, score: {up_by: 10}}\n")

    found = done.store.compare(done.verdict.baseline_run.id, done.verdict.best.run.id, gate=gate)
    words = {(line.rule, line.limit): line for line in found.gate}

    assert words["usd", "at most 1"].word == "PASS"
    assert words["usd", "up by at most 10 %"].word == "INCONCLUSIVE"
    assert "judge the candidate alone" in words["usd", "up by at most 10 %"].reason
    assert words["route_changes", "at most 5"].word == "INCONCLUSIVE"
    assert words["score", "up by 10"].word == "PASS"


def test_mlflow_shows_no_costs_of_the_baseline(done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    In MLflow the baseline has scores, but no cost, time, model or prompt, and its traces no duration or tokens.
    """
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    logged = done.store.log_to_mlflow(done.verdict.id, uri)
    client = MlflowClient(tracking_uri=uri)
    baseline, candidate = (client.get_run(logged.run_ids[name]).data for name in ("baseline", "v1"))
    traces = {trace.info.tags["beam_ray.side"]: trace for trace in client.search_traces(locations=[logged.experiment_id], max_results=100)}

    assert baseline.metrics["Overall/score"] < candidate.metrics["Overall/score"]
    assert {"Overall/usd", "Overall/seconds", "Overall/tokens"} <= set(candidate.metrics)
    assert not {"Overall/usd", "Overall/seconds", "Overall/tokens"} & set(baseline.metrics)
    assert baseline.params["version"] == "recorded in production"
    assert not [name for name in baseline.params if name.startswith(("model.", "prompt."))]
    assert baseline.params["judge.sort"].startswith("j")
    assert traces["v1"].info.token_usage is not None
    assert traces["baseline"].info.token_usage is None
    assert not traces["baseline"].info.execution_duration
    assert "3 attempts" not in {found.name for found in traces["baseline"].info.assessments}


def test_another_candidate_pays_no_judge_for_the_baseline_again(done: Done) -> None:
    """
    A backtest of another prompt borrows the baseline's scores, and its plan says so; with other criteria the judge is asked again.
    """
    prompt = described(done.folder, candidates={"v2": {"nodes.read.llm.prompt": "read {{ task_query }} carefully"}})
    criteria = described(done.folder, candidates={"v1": done.folder / "support.yaml", "v3": {"nodes.sort.evaluate.criteria": ["The team is in the list."]}})

    again, other = done.store.plan_backtest(prompt), done.store.plan_backtest(criteria)
    verdict = done.store.backtest(prompt)

    assert {side.name: side.plan.calls for side in again.sides if side.plan}["baseline"] == 0
    assert verdict.baseline_run.calls == 0
    assert verdict.baseline_run.stored.outcome()["score"].to_pylist() == done.verdict.baseline_run.stored.outcome()["score"].to_pylist()
    assert {side.name: side.plan.calls for side in other.sides if side.plan} == {"baseline": 0, "baseline-by-v3": COUNT, "v1": 0, "v3": COUNT}


def test_evidence_for_a_first_version_only(store: beam_ray.Store, tmp_path: Path) -> None:
    """
    What production answered is evidence for the first version; against a published one it is not.
    """
    verdict = store.backtest(described(tmp_path))
    store.publish(tmp_path / "support.yaml", evidence=verdict)
    changed = (tmp_path / "support.yaml").read_text().replace("sort {{", "sort  {{")
    (tmp_path / "support.yaml").write_text(changed)
    second = store.backtest(described(tmp_path))

    assert verdict.word == "PASS"
    with pytest.raises(Unusable, match="a baseline other than the current version"):
        store.publish(tmp_path / "support.yaml", evidence=second)


def test_newly_failing_tasks_are_repeated(store: beam_ray.Store, tmp_path: Path) -> None:
    """
    With repeats a task that production got right and the candidate does not is a confirmed regression; the recorded output is judged again.
    """
    given = tasks(t1={"expected": {"team": "elsewhere"}, "recorded": {"output": {"team": "elsewhere", "extra": 1}}})

    verdict = store.backtest(described(tmp_path, given, confirm=2))

    assert verdict.best.document["comparison"]["regressions"]["confirmed"] == ["t1"]


def test_failures_of_production_and_outputs_that_do_not_fit(store: beam_ray.Store, tmp_path: Path) -> None:
    """
    A failed trace and an output that is not what the last node returns are failed tasks, and the second is said.
    """
    given = tasks(t4={"recorded": {"output": None, "failed": True}}, t5={"recorded": {"output": {"colour": "red"}}})
    said: list[str] = []

    verdict = store.backtest(described(tmp_path, given), progress=lambda progress: said.append(progress.message))
    failed = {row["task_id"]: row["error"] for row in verdict.baseline_run.stored.outcome().to_pylist() if row["outcome"] == "failed"}

    assert set(failed) == {"t4", "t5"}
    assert failed["t4"] == "the execution failed in production"
    assert f"1 of {COUNT} recorded outputs count as failed: t5" in " ".join(said)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (tasks(t3={"recorded": None}), f"1 of {COUNT} tasks cannot be the baseline, no recorded output: t3"),
        ([{**task, "recorded": {"output": {"colour": "red"}}} for task in tasks()], "no recorded output can be judged; of task t0"),
    ],
)
def test_tasks_that_cannot_be_a_baseline(store: beam_ray.Store, tmp_path: Path, given: Any, says: str) -> None:
    """
    Tasks without a recorded output, or none that fits, are refused before anything is spent.
    """
    with pytest.raises(Unusable) as caught:
        store.plan_backtest(described(tmp_path, given))

    assert says in str(caught.value)


def test_a_workflow_that_ends_in_several_nodes(store: beam_ray.Store, tmp_path: Path) -> None:
    """
    Where a workflow ends in a branch, the trace's step of that name says whose output it is; without one the task is refused.
    """
    branches = """
workflow: branches
model: m
nodes:
  read: {llm: {prompt: "read {{ task_query }}", returns: {n: int}}}
  small: {after: read, when: read.n < 10, llm: {prompt: "sort {{ read.n }}", returns: {team: str}}, evaluate: {criteria: [{equals: {team: expected.team}}]}}
  large: {after: read, when: read.n >= 10, llm: {prompt: "sort {{ read.n }}", returns: {team: str}}, evaluate: {criteria: [{equals: {team: expected.team}}]}}
"""
    (tmp_path / "branches.yaml").write_text(branches)
    named = [{**task, "recorded": {**task["recorded"], "steps": {"small" if number < 10 else "large": "x"}}} for number, task in enumerate(tasks())]
    how = {"workflow": tmp_path / "branches.yaml", "candidates": {"v1": tmp_path / "branches.yaml"}}

    verdict = store.backtest(described(tmp_path, named, **how))

    assert [row["path"] for row in verdict.baseline_run.stored.outcome().to_pylist()] == [["small"]] * 10 + [["large"]] * (COUNT - 10)
    assert len(verdict.best.newly_passing) == COUNT // 3
    with pytest.raises(Unusable, match="the workflow ends in small, large"):
        store.plan_backtest(described(tmp_path, tasks(), **how))


def test_a_spec_file(store: beam_ray.Store, tmp_path: Path) -> None:
    """
    In a spec ``baseline: recorded`` may end early and limit its tasks, and refuses an A/A test.
    """
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks()))
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "backtest: s\nworkflow: support.yaml\ntasks: tasks.jsonl\nbaseline: recorded\nstop: early\ngate: gate.yaml\ncandidates: {v1: support.yaml}\n"
    )
    (tmp_path / "gate.yaml").write_text("gate: g\nrules: {score: {up_by: 2}, usd: {at_most: 1}}\n")

    verdict = store.backtest(spec)

    assert verdict.word == "PASS"
    assert verdict.baseline_run.stored.outcome()["work_usd"].null_count == verdict.baseline_run.stored.outcome().num_rows
    with pytest.raises(BadDefinition, match="A/A test"):
        store.plan_backtest(spec, options=beam_ray.BacktestOptions({"aa": True}))


def test_recorded_runs_are_no_executions_of_the_workflow(done: Done) -> None:
    """
    Health and the coverage of a library do not count what production answered.
    """
    done.store.add_to_library("set", tasks())

    check = done.store.library("set").check(done.folder / "support.yaml")

    assert not check.document()["never_run"]
    assert done.store.health(done.folder / "support.yaml").document()["runs"] == (done.verdict.best.run.id,)
