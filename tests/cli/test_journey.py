"""The journey from a file to a verdict, by the commands that people type."""

import pytest

from beam_ray.compare.regressions import repeats_again
from tests.cli.conftest import Desk, answer
from tests.sums import WORKFLOW


def test_the_whole_journey(ray_desk: Desk):
    """check, plan, publish, run, tasks, show, backtest, publish on evidence, rerun, rollback; on Ray."""
    desk = ray_desk
    assert desk("check", "sums.yaml").code == 0
    assert desk("plan", "sums.yaml", "--tasks", "tasks.jsonl", "--json").json["calls"] == 72
    assert desk.model.journal == []

    assert desk("publish", "sums.yaml", "--without-evidence", "first").code == 0
    run = desk("run", "sums", "--tasks", "tasks.jsonl", "--json").json
    assert (run["tasks"], run["passed"], run["calls"], run["usd"]) == (36, 12, 72, pytest.approx(72 * 20e-6))

    assert len(desk("tasks", "--run", "last", "--status", "below", "--label", "even", "--json").json) == 12
    timeline = desk("show", "n4").out
    assert "read: not met: n equals expected.n (-1 is not 4)" in timeline

    before = len(desk.model.journal)
    # scripted answers take no time that could be compared
    desk.lab.write("gate.yaml", "gate: sums\nextends: no-harm\nrules: {seconds: null}\n")
    verdict = desk("backtest", "spec.yaml", "--gate", "gate.yaml", "--json")
    assert (verdict.code, verdict.json["word"]) == (0, "PASS")
    assert len(desk.model.journal) - before == 36 + 24

    again = desk("backtest", "spec.yaml", "--gate", "gate.yaml")
    assert (again.code, len(desk.model.journal) - before) == (0, 60)
    assert "has a verdict already; nothing is run" in again.err

    desk.lab.write("sums.yaml", (desk.lab.folder / "sums.yaml").read_text().replace("read {{", "better {{"))
    published = desk("publish", "sums.yaml", "--evidence", verdict.json["backtest_id"], "--json").json
    assert (published["version"], published["verdict"]) == (2, "PASS")

    redone = desk("rerun", "n4", "--from-run", run["run_id"], "--from", "read", "--because", "a better prompt", "--json").json
    assert redone["tasks_redone"][0]["word"] == "solved"
    assert "a better prompt" in desk("history", "n4").out
    third = desk("rerun", redone["run_id"] + "/n4", "--using", "original", "--json").json
    chain = desk("show", third["run_id"] + "/n4").out
    assert f"{third['run_id']} reruns run {redone['run_id']}" in chain
    assert f"{redone['run_id']} reruns run {run['run_id']} from read, because: a better prompt" in chain

    assert desk("library", "add", "hard", "--from-run", run["run_id"], "--where", "task_id in ['n1', 'n2']").code == 0
    library = desk("rerun", "--library", "hard", "--using", "original", "--json").json
    assert [entry["task"].rpartition("/")[2] for entry in library["tasks_redone"]] == ["n1", "n2"]

    assert desk("rollback", "sums", "1", "--json").json["version"] == 3
    assert [version["version"] for version in desk("versions", "sums", "--json").json] == [3, 2, 1]
    assert "read.llm.prompt" in desk("diff", "sums@1", "sums@2").out


def test_the_verdict_is_the_exit_code(desk: Desk):
    """A candidate that breaks passing tasks exits with code 4, an inconclusive one with 5."""
    desk("publish", "sums.yaml", "--without-evidence", "first")
    worse = desk.lab.write(
        "worse.yaml", (desk.lab.folder / "spec.yaml").read_text().replace("sums-v2", "worse").replace('"better {{ task_query }}"', '"read -{{ task_query }}"')
    )

    assert desk("backtest", worse).code == 4
    assert desk("backtest", "spec.yaml", "--set", "limit=6", "--gate", "improve").code == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chek", "sums.yaml"], "there is no command 'chek'\n  did you mean 'check'?"),
        (["check", "sum.yaml"], "sum.yaml: there is no such file\n  did you mean 'sums.yaml'?"),
        (["run", "sums.yaml", "--tasks", "task.jsonl"], "task.jsonl: there is no such file\n  did you mean 'tasks.jsonl'?"),
        (["run", "nothing", "--tasks", "tasks.jsonl"], "no version of 'nothing' is published in store"),
        (["run", "sums.yaml", "--tasks", "tasks.jsonl", "--models", "none.yaml"], "none.yaml: models file not found"),
        (["run", "sums.yaml", "--tasks", "tasks.jsonl", "--budget", "max_dollars=1"], "budget: unknown limit 'max_dollars'"),
        (["run", "sums.yaml", "--tasks", "library:none"], "there is no task library 'none'"),
        (["publish", "sums.yaml"], "publishing needs evidence"),
        (["publish", "sums.yaml", "--evidence", "none"], "there is no finished backtest 'none'"),
        (["rerun", "n1"], "there is no task 'n1'"),
        (["show", "261123-000000/x"], "there is no run '261123-000000'"),
        (["backtest", "spec.yaml"], "no version of 'sums' is published"),
        (["resume", "nothing"], "there is no run 'nothing'"),
        (["tasks", "--where", "score <"], "--where: unexpected 'end of template'"),
    ],
)
def test_bad_input_costs_nothing(desk: Desk, words, said):
    """Exit 2, what is wrong and what to do, no traceback, and no call."""
    result = desk(*words)

    assert said in result.err
    assert "Traceback" not in result.err
    assert result.code == 2
    assert desk.model.journal == []


def test_an_endpoint_that_does_not_answer_is_found_before_the_run_begins(desk: Desk):
    """The address is named, and no run is written down."""
    desk.lab.write("models.yaml", "m: {base_url: 'http://127.0.0.1:9/v1', model: x}\n")
    result = desk("run", "sums.yaml", "--tasks", "tasks.jsonl")

    assert result.code == 2
    assert "the model 'm': no server answers at http://127.0.0.1:9/v1" in result.err
    assert desk.lab.objects.folders("runs") == []


def test_a_model_without_a_price_is_refused_under_a_budget_in_dollars(desk: Desk):
    """A limit that could not hold is no limit."""
    desk.lab.write("models.yaml", f"m: {{base_url: '{desk.model.url}', model: x}}\n")
    result = desk("run", "sums.yaml", "--tasks", "tasks.jsonl", "--budget", "max_usd=1")

    assert (result.code, "has no price, so max_usd cannot be enforced" in result.err) == (2, True)


def test_a_budget_stops_the_run_and_raising_it_pays_nothing_twice(desk: Desk):
    """Exit code 3 with the command that resumes; no call is repeated."""
    desk.model.latency_s = 0.4
    stopped = desk("run", "sums.yaml", "--tasks", "tasks.jsonl", "--budget", "max_calls=8")
    desk.model.latency_s = 0.0
    done = desk("run", "sums.yaml", "--tasks", "tasks.jsonl", "--json")
    asked = [call.said for call in desk.model.journal if call.said.startswith("read")]

    assert stopped.code == 3
    assert "the budget is reached: max_calls" in stopped.err
    assert done.json["passed"] == 12
    assert len(asked) - len(set(asked)) <= 16


def test_a_budget_holds_for_the_whole_backtest(desk: Desk):
    """What the baseline's run spent is deducted for the candidate's; a larger budget resumes without repeating a call."""
    desk("publish", "sums.yaml", "--without-evidence", "first")
    desk.model.latency_s = 0.3
    stopped = desk("backtest", "spec.yaml", "--budget", "max_calls=80")
    desk.model.latency_s = 0.0
    reads = [call.said for call in desk.model.journal if not call.said.startswith("say")]

    assert stopped.code == 3
    assert sum(said.startswith("read") for said in reads) == 36
    assert sum(said.startswith("better") for said in reads) < 36
    assert "resume with:  beam-ray backtest spec.yaml --store store" in stopped.err
    assert desk("backtest", "spec.yaml", "--budget", "max_calls=500").code == 0


def test_a_newly_failing_task_counts_when_its_repeats_fail_too(desk: Desk):
    """Each is repeated on both sides, and what fails again once more; what was run before is borrowed, and only the repeats are asked for."""
    desk("publish", "sums.yaml", "--without-evidence", "first")
    desk.lab.write("worse.yaml", (desk.lab.folder / "spec.yaml").read_text().replace('"better {{ task_query }}"', '"read -{{ task_query }}"') + "confirm: 3\n")
    verdict = desk("backtest", "worse.yaml", "--json")
    comparison = verdict.json["candidates"][0]["comparison"]

    assert verdict.code == 4
    assert sorted(comparison["newly_failing"]) == sorted(comparison["regressions"]["confirmed"])
    assert sum(call.said == "read 3" for call in desk.model.journal) == 1 + 3 + repeats_again(len(comparison["newly_failing"]))


def test_a_baseline_against_itself_shows_the_noise(desk: Desk):
    """A second sample with other seeds is paid for; what differs is called noise, it has no gate, and is evidence of nothing."""
    desk.lab.write("sums.yaml", (desk.lab.folder / "sums.yaml").read_text().replace('{prompt: "read', '{temperature: 0.5, prompt: "read'))
    desk("publish", "sums.yaml", "--without-evidence", "first")
    desk.model.answer = lambda body: {"n": 1} if body["seed"] > 1_000 and body["messages"][-1]["content"] == "read 1" else answer(body)
    done = desk("backtest", "spec.yaml", "--aa", "--json")
    comparison = done.json["candidates"][0]["comparison"]
    shown = desk("backtest", "spec.yaml", "--aa").out

    assert done.code == 0
    assert (comparison["same"], comparison["newly_passing"]) == (True, ["n1"])
    assert len({call.body["seed"] for call in desk.model.journal if call.said == "read 3"}) == 2
    assert "1 of 36 tasks flipped although nothing changed (2.8 %)" in shown
    assert "Noise floor" in shown
    assert "gate" not in shown
    desk("publish", "sums.yaml", "--without-evidence", "again")
    desk.lab.write("other.yaml", WORKFLOW.replace("say {{", "tell {{"))
    assert "it measures noise and is no evidence" in desk("publish", "other.yaml", "--evidence", done.json["backtest_id"]).err


def test_exit_zero(desk: Desk):
    """For schedulers that retry failures, every verdict ends with 0; the verdict itself is the same."""
    desk("publish", "sums.yaml", "--without-evidence", "first")
    words = ("backtest", "spec.yaml", "--set", "limit=6", "--gate", "improve", "--json")

    assert desk(*words).code == 5
    assert (desk(*words, "--exit-zero").code, desk(*words, "--exit-zero").json["word"]) == (0, "INCONCLUSIVE")


def test_the_spec_can_be_changed_on_the_command_line(desk: Desk):
    """A candidate's override, a model for another on every side, and a number."""
    desk("publish", "sums.yaml", "--without-evidence", "first")
    desk.lab.write("models.yaml", (desk.lab.folder / "models.yaml").read_text() + f"n: {{base_url: '{desk.model.url}', model: y}}\n")
    words = ("--set", "models.m=n", "--set", "limit=12", "--set", "candidates.v2.nodes.read.llm.temperature=0.3", "--set", "candidates.v3.model=m")
    done = desk("backtest", "spec.yaml", *words, "--json").json

    assert {call.body["model"] for call in desk.model.journal} == {"y"}
    assert {call.body["temperature"] for call in desk.model.journal if call.said.startswith("better")} == {0.3}
    assert [entry["name"] for entry in done["candidates"]] == ["v2", "v3"]
    assert done["candidates"][0]["comparison"]["tasks"] == 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("models.q=n", "no side uses the model 'q'"),
        ("gate.x=1", "only models.NAME and candidates.NAME"),
        ("candidates.v2.nodes.rea.llm.temperature=1", "there is no 'rea'"),
        ("stop=soon", "spec.yaml"),
        ("trials=many", "spec.yaml"),
    ],
)
def test_a_change_that_fits_nothing_is_refused(desk: Desk, change, said):
    """Exit 2, and no call."""
    desk("publish", "sums.yaml", "--without-evidence", "first")
    result = desk("backtest", "spec.yaml", "--set", change)

    assert (result.code, said in result.err) == (2, True), result.err
    assert desk.model.journal == []


@pytest.mark.usefixtures("mlflow_forks")
def test_mlflow_shows_which_prompts_are_published(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """The alias 'production' follows publish and rollback; without a database nothing is made, and a server that is away is a warning."""
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    desk("publish", "sums.yaml", "--without-evidence", "first")
    assert not (desk.lab.folder / "store" / "mlflow.db").exists()

    uri = f"sqlite:///{desk.lab.folder / 'mlflow.db'}"
    desk.lab.write("sums.yaml", WORKFLOW.replace("read {{ task_query", "better {{ task_query"))
    assert desk("publish", "sums.yaml", "--without-evidence", "second", "--mlflow", uri).code == 0
    registry = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert "better" in registry.get_prompt_version_by_alias("sums.read", "production").template

    assert desk("rollback", "sums", "1", "--mlflow", uri).code == 0
    assert "better" not in registry.get_prompt_version_by_alias("sums.read", "production").template
    away = desk("rollback", "sums", "2", "--mlflow", "http://127.0.0.1:9")
    assert (away.code, "warning" in away.err) == (0, True)
