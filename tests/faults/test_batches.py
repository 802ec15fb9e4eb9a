"""The batch lane: equal stores in both lanes, and nothing lost or submitted twice whatever fails."""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beam_ray.failpoint import CALLS
from beam_ray.llm.settings import ModelSettings
from beam_ray.run import waves
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import make_plan
from beam_ray.run.progress import Progress
from beam_ray.store.beginning import begin
from beam_ray.store.lookup import find_runs
from beam_ray.store.runs import Run
from tests.batch_endpoint import batch_endpoint
from tests.conftest import Lab
from tests.endpoint import refused
from tests.faults.batches import ENDPOINT, QUICK, Post, assert_half_the_price, backtest, make_post, spent, usd
from tests.faults.conftest import WORKFLOW, Forge, answer, essence, opened

THINGS = ("outbox", "wave", "input", "batch", "answers", "ended")
STORE = ("link", "kept", "read", "delete")
"""Calls of the store at which the command is killed; ``make soak`` takes all."""


@pytest.fixture
def post(tmp_path: Path, forge: Forge) -> Iterator[Post]:
    """A post whose endpoint does all it is asked."""
    with batch_endpoint(answer) as server:
        yield make_post(tmp_path / "post", forge, server)


@pytest.fixture(scope="module")
def interactive(tmp_path_factory: pytest.TempPathFactory, forge: Forge) -> Run:
    """The same work, asked call by call."""
    with batch_endpoint(answer) as server:
        calm = make_post(tmp_path_factory.mktemp("interactive"), forge, server)
        calm("run", "work.yaml", "--tasks", "tasks.jsonl", "--lane", "interactive")
        assert not server.batches
        return calm.finished


def test_both_lanes_give_equal_stores(post: Post, interactive: Run):
    """Through batches every row is the same, nothing is asked interactively, and the price is half."""
    post.run()

    assert essence(post.finished) == essence(interactive)
    assert spent(post.finished) == spent(interactive)
    assert usd(post.finished) == pytest.approx(usd(interactive) / 2)
    assert not post.server.journal
    assert len(post.server.batches) == 6
    assert not list(opened(post.uri).keys(f"{post.finished.prefix}/batches/"))
    post.assert_once()


def test_killed_at_each_step(post: Post, interactive: Run):
    """At each call to the endpoint, and at each by which the store keeps what a batch needs: the same command goes on, and nothing shows."""
    seen = post.run(fail="*.*:0:kill").hits
    post.anew()
    calls = tuple(CALLS) if "SOAK" in os.environ else (*STORE, *ENDPOINT)
    points = [point for point in seen if point.partition(".")[0] in THINGS and point.partition(".")[2] in calls]
    killed = []
    for point in points:
        ended = post.run(fail=f"{point}:1:kill", code=None)
        if ended.code == 0:
            assert essence(post.finished) == essence(interactive)
            post.anew()
            ended = post.run(fail=f"{point}:1:kill", code=None)
        assert ended.code == -9 and f"killed at {point}" in ended.err, (point, ended)
        killed.append(point)
    post.run()

    assert essence(post.finished) == essence(interactive)
    assert {point.partition(".")[2] for point in killed} >= {*ENDPOINT, "link", "kept", "read"}
    post.assert_once()


@pytest.mark.parametrize("calls", [("create",), ("upload", "list", "get", "content")])
def test_lost_replies(calls: tuple[str, ...], post: Post, interactive: Run):
    """The reply to every second call is lost after it was done: batches are found by their marks, and not created again."""
    post.server.loses = lambda name, times: name in calls and times % 2 == 1
    post.run()

    assert essence(post.finished) == essence(interactive)
    post.assert_once()
    assert not post.server.journal


def test_refused_calls_are_made_again(post: Post, interactive: Run):
    """Calls that are refused with 429 and 503 for a moment do not end the run."""
    post.server.refuses = lambda name, times: 0 if times % 4 else (429, 503)[times % 8 == 0]
    post.run()

    assert essence(post.finished) == essence(interactive)
    post.assert_once()


def test_interrupted_while_it_waits(post: Post, interactive: Run):
    """Ctrl-C leaves the batches running and says so; whoever resumes collects their answers."""
    post.server.polls = 10**6
    ended, _ = post.interrupted("get")
    run_id = next(iter(find_runs(opened(post.uri))))

    assert "1 batch goes on at the endpoint; resuming the run collects their answers" in ended.err
    assert f"resume with:  beam-ray resume {run_id}" in ended.err

    listed = json.loads(post("batches", "--json").out)

    assert [(each["run_id"], each["batch_id"], each["model"], each["rows"], each["status"]) for each in listed] == [(run_id, "batch-0", "m", 16, "in_progress")]
    assert listed[0]["max_usd"] == pytest.approx(16 * (9 * 1 + 1024 * 2) / 2e6, rel=0.01)
    assert "batch-0" in post("batches").out

    post.server.polls = 1
    post("resume", run_id)

    assert essence(post.finished) == essence(interactive)
    post.assert_once()
    assert "no unfinished run waits for a batch" in post("batches").out


def test_rows_of_expired_batches_are_in_the_next_wave(post: Post, interactive: Run):
    """What an expired batch answered is kept, and only the rest is asked again."""
    post.server.skips = lambda line, times: times < 3 and int(line["custom_id"][-1], 16) % 3 == 0
    post.run()

    assert essence(post.finished) == essence(interactive)
    assert "expired" in {batch.status for batch in post.server.batches}
    post.assert_once()


@pytest.mark.parametrize("fallback", ["fail", "interactive"])
def test_rows_that_three_batches_did_not_answer(fallback: str, post: Post):
    """They fail, or are asked interactively, as the models file says."""
    post.server.skips = lambda line, times: "read #3#" in str(line["body"]["messages"]) and "criterion_1" not in str(line["body"])
    post.models(f"batch: {{fallback: {fallback}}}")
    post.run()
    [row] = [row for row in post.finished.steps(["read"]).to_pylist() if row["task_id"] == "t3"]

    assert max(count for name, count in post.server.counts.items() if name.startswith("row ")) == 3
    assert [call.said for call in post.server.journal] == ([] if fallback == "fail" else ["read #3#"])
    assert row["outcome"] == ("failed" if fallback == "fail" else "done")
    assert row["error"] == ("no answer in 3 batches: the batch ended without an answer (expired)" if fallback == "fail" else None)


def test_errors_of_single_rows(post: Post):
    """A row that is refused fails alone, with the same words in both lanes."""

    def refusing(body: dict[str, Any]) -> Any:
        if "even #4#" in str(body["messages"]):
            return 400, {}, {"error": {"message": "The response was filtered", "code": "content_filter"}}
        return answer(body)

    post.server.answer = refusing
    post.run()
    in_batches, post.uri = post.finished, post.uri + "+"
    post("run", "work.yaml", "--tasks", "tasks.jsonl")

    assert essence(in_batches) == essence(post.finished)
    assert spent(in_batches) == spent(post.finished)


def test_a_refused_setting_stops_the_run(post: Post, interactive: Run):
    """A setting that the endpoint refuses stops the run with its words, and once it is mended the same command goes on."""
    post.server.answer = lambda body: refused("top_k") if "top_k" in body else answer(body)
    post.models("extra: {top_k: 3}")
    ended = post.run(code=3)

    assert "x at http" in ended.err and "refuses 'top_k'" in ended.err

    post.models()
    post.run()

    assert essence(post.finished)[1] == essence(interactive)[1]


def test_a_batch_that_fails_stops_the_run(post: Post, interactive: Run):
    """An input file that the endpoint does not take stops the run with its reason; with smaller batches it goes on."""
    post.server.max_rows = 5
    ended = post.run(code=3)

    assert "batch batch-0 failed: the batch has more than 5 lines" in ended.err

    post.models("batch: {rows: 5}")
    post.run()

    assert essence(post.finished) == essence(interactive)
    assert max(len(batch.lines) for batch in post.server.batches[1:]) == 5
    post.assert_once()


def test_files_are_split_by_bytes(post: Post, interactive: Run):
    """No input file is larger than the models file says."""
    post.models("batch: {megabytes: 0.002}")
    post.run()

    assert max(len(body) for name, body in post.server.files.items() if name.startswith("file-")) <= 2_000
    assert essence(post.finished) == essence(interactive)
    post.assert_once()


def test_a_full_queue_is_waited_for(post: Post, interactive: Run):
    """A batch that does not fit in the endpoint's queue is created again when there is room."""
    post.server.queue = 8
    post.models("batch: {rows: 6}")
    post.run()

    assert essence(post.finished) == essence(interactive)
    assert "failed" in {batch.status for batch in post.server.batches}
    assert not [name for name, count in post.server.rows.items() if count > 1]


def test_the_budget_is_reserved_before_a_wave_is_submitted(post: Post, interactive: Run):
    """A wave that may cost more than is left is not submitted: exit code 3, and a larger budget resumes."""
    ended = post.run("--budget", "max_usd=0.01", code=3)

    assert "the budget does not cover the next batches: 16 requests may take up to $0.0164 of max_usd, and $0.0100 is left; none was submitted" in ended.err
    assert "raise max_usd by $0.0064" in ended.err
    assert not post.server.batches

    post.run("--budget", "max_usd=1")

    assert essence(post.finished) == essence(interactive)


def test_a_judge_may_be_asked_interactively(post: Post, interactive: Run):
    """A model with lane interactive is asked call by call, while the others go in batches."""
    post.models(judge="lane: interactive")
    (post.folder / "work.yaml").write_text(WORKFLOW.replace("model: m", "model: m\njudge: judge", 1))
    post.run()

    assert spent(post.finished) == spent(interactive)
    assert {"criterion_1" in str(call.body) for call in post.server.journal} == {True}
    assert len(post.server.journal) == 12
    assert len(post.server.batches) == 4


def test_a_panel_of_judges_goes_in_the_same_batches(post: Post, interactive: Run):
    """Also two judges whose requests are alike: each is asked once, and scores are those of one judge that says the same."""
    post.models(second="", third="")
    (post.folder / "work.yaml").write_text(WORKFLOW.replace("model: m", "model: m\njudge: [m, second, third]", 1))
    post.run()

    assert [row[:7] for row in essence(post.finished)[0]] == [row[:7] for row in essence(interactive)[0]]
    judged = [row for row in post.finished.steps(["odd"]).to_pylist() if row["criteria"]]
    assert {tuple(said["judge"] for said in row["criteria"][0]["judges"]) for row in judged} == {("m", "second", "third")}
    assert spent(post.finished)["calls"] == spent(interactive)["calls"] + 2 * 12
    assert not post.server.journal
    assert len(post.server.batches) <= 12
    post.assert_once()


def test_a_run_may_change_its_lane(post: Post, interactive: Run):
    """Resumed interactively, it takes what its open batches bring, and asks the rest call by call."""
    post.run(fail="answers.kept:1:kill", code=-9)
    post("run", "work.yaml", "--tasks", "tasks.jsonl", "--lane", "interactive")

    assert essence(post.finished) == essence(interactive)
    assert len(post.server.batches) == 1
    assert len(post.server.journal) == 48


def test_batches_that_somebody_cancelled(post: Post, interactive: Run):
    """Resumed interactively, the run asks call by call what a cancelled batch did not answer."""
    post.server.polls = 10**6
    post.interrupted("get")
    post.server.batches[0].status = "cancelling"
    post("run", "work.yaml", "--tasks", "tasks.jsonl", "--lane", "interactive")

    assert essence(post.finished) == essence(interactive)
    assert (len(post.server.batches), len(post.server.journal)) == (1, 64)


def test_damaged_answers_are_fetched_again(post: Post, interactive: Run):
    """A bit that flips in a stored answer is noticed, and after a repair the answers are fetched from the endpoint once more."""
    post.run(fail="ended.kept:1:kill", code=-9)
    [path] = Path(post.uri).glob("runs/*/batches/answers/*/*.parquet")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(body)

    assert "batches/answers/000000/0001-" in post.run(code=6).err

    post("repair", path.parts[-5])
    post.run()

    assert essence(post.finished) == essence(interactive)
    post.assert_once()


def test_an_endpoint_that_hangs_delays_no_interrupt(post: Post):
    """While a look at a batch gets no reply, Ctrl-C still ends the command within seconds."""
    post.server.polls = 10**6
    post.server.loses = lambda call, times: call == "get" and times > 1 and bool(time.sleep(60))
    ended, seconds = post.interrupted("get")

    assert seconds < 20
    assert "1 batch goes on at the endpoint" in ended.err


def test_a_comparison_of_two_lanes_says_so(post: Post):
    """Where only one side was asked in batches, the report says that cost and time follow from that."""
    post("run", "work.yaml", "--tasks", "tasks.jsonl")
    first = post.finished.run_id
    post.run()
    [second] = [run_id for run_id in find_runs(opened(post.uri)) if run_id != first]
    said = post("compare", first, second).out

    assert "not compared: the baseline was asked interactively, the candidate in batches, and batches cost half" in said
    assert "not compared: the time that batches take is not measured" in said
    assert "batches cost half" not in post("compare", first, first).out


@pytest.mark.parametrize("seed", range(int(os.environ.get("CRASH_SEEDS", "1"))))
def test_a_backtest_killed_again_and_again(seed: int, tmp_path: Path, forge: Forge):
    """Killed twenty times at random places, a backtest in batches has the verdict of an undisturbed interactive one, at half the price."""
    tasks, dice = int(os.environ.get("BATCH_TASKS", "40")), random.Random(seed)
    with batch_endpoint(answer) as server:
        calm = make_post(tmp_path / "calm", forge, server, tasks)
        backtest(calm, "interactive")
    with batch_endpoint(answer) as server:
        post = make_post(tmp_path / "post", forge, server, tasks)

        assert backtest(post, "batch", dice) == 20
        assert_half_the_price(post, calm)


def test_the_responses_api_goes_in_batches(tmp_path: Path, forge: Forge):
    """Lines are written for the address that the model is called at, and replies of its shape are read."""
    text = "workflow: work\nmodel: m\nnodes:\n  one: {llm: {prompt: '{{ task_query }}'}}\n  two: {after: one, llm: {prompt: 'again {{ one.text }}'}}\n"
    with batch_endpoint(lambda body: f"<{body['input'][-1]['content']}>") as server:
        post = make_post(tmp_path / "post", forge, server, 3)
        (post.folder / "work.yaml").write_text(text)
        post.models("api: responses")
        post.run()

        assert {batch.endpoint for batch in server.batches} == {"/v1/responses"}
        assert not server.journal
    assert [json.loads(row["output"])["text"] for row in post.finished.steps(["two"]).to_pylist()] == ["<again <0>>", "<again <1>>", "<again <2>>"]


def test_repeats_that_confirm_a_regression_go_in_batches(tmp_path: Path, forge: Forge):
    """Both lanes repeat the newly failing tasks as often and confirm the same regressions."""

    def worse(body: dict[str, Any]) -> Any:
        word, number = str(body["messages"][-1]["content"]).split()
        return {"n": -1 if word == "worse" and int(number) % 5 == 0 else int(number)}

    text = "workflow: work\nmodel: m\nnodes:\n  read:\n    llm: {prompt: 'read {{ task_query }}', returns: {n: int}}\n    evaluate: {criteria: [{check: read.n >= 0}]}\n"
    spec = "backtest: now\nworkflow: work\ntasks: tasks.jsonl\nbaseline: published\nconfirm: 2\ngate: improve\ncandidates: {now: {nodes.read.llm.prompt: 'worse {{ task_query }}'}}\n"
    found = {}
    for lane in ("interactive", "batch"):
        with batch_endpoint(worse) as server:
            post = make_post(tmp_path / lane, forge, server, 12)
            (post.folder / "work.yaml").write_text(text)
            (post.folder / "spec.yaml").write_text(spec)
            post("publish", "work.yaml", "--without-evidence", "the first")
            verdict = json.loads(post("backtest", "spec.yaml", "--mlflow", "none", "--json", "--exit-zero", "--lane", lane).out)
            found[lane] = (verdict["word"], verdict["candidates"][0]["comparison"]["regressions"])
            assert bool(server.journal) == (lane == "interactive")

    assert found["batch"] == found["interactive"]
    assert found["batch"][1]["confirmed"]


HEAVY = """
workflow: heavy
model: m
nodes:
  read: {llm: {prompt: "{{ task_query }}", returns: {n: int}}}
  twice: {after: read, tool: "tools.t:double", with: {x: "{{ read.n }}"}, resources: {num_cpus: 1}}
  again: {after: twice, llm: {prompt: "{{ twice.y }}", returns: {n: int}}, resources: {num_cpus: 1}}
  end: {after: again, llm: {prompt: "{{ again.n }}", returns: {n: int}}}
"""


def test_on_ray_no_runner_is_up_while_it_waits(ray_lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Nodes that run as Ray tasks wait for batches too, and a run that waits leaves the cluster to others."""
    for name, seconds in QUICK.items():
        monkeypatch.setattr(waves, name.partition(":")[2], seconds)
    monkeypatch.setattr(waves, "REST_AFTER_S", 0.0)
    ray_lab.write("tools/t.py", "def double(x: int) -> dict:\n    return {'y': 2 * x}\n")
    workflow, tasks = ray_lab.workflow(HEAVY), ray_lab.tasks([str(number) for number in range(30)])
    cluster, waiting = ray_lab.cluster, []
    assert cluster

    def seen(progress: Progress) -> None:
        if progress.waits_for:
            waiting.append((progress.waits_for.partition(":")[0], len(cluster._idle)))

    with batch_endpoint(lambda body: {"n": int(body["messages"][-1]["content"]) + 1}, polls=3) as server:
        models = {"m": ModelSettings(base_url=server.url, model="x", lane="batch")}
        plan = make_plan(workflow, tasks, models)
        record = begin(ray_lab.objects, plan.record, plan.tasks)
        execute(ray_lab.objects, record, models, connection=Connection(cluster=cluster), progress=seen)

        assert [json.loads(row["output"])["n"] for row in Run(ray_lab.objects, record.run_id).steps(["end"]).to_pylist()] == [
            2 * (number + 1) + 2 for number in range(30)
        ]
        assert len(server.batches) == 3
    assert {text for text, _ in waiting} == {"node 1 of 4", "node 3 of 4", "node 4 of 4"}
    assert waiting[-1][1] == 0
