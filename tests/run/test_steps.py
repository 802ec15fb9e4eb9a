"""What happens to a row at a node: routes, tools, attempts, judging. The runner is real, and in this process."""

import asyncio
import json

import pytest

from beam_ray.errors import ModelRefused, Unusable
from beam_ray.llm import Answer, ScriptedModel
from beam_ray.run.assignment import Assignment
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Runner
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.faults.here import Here

ROUTES = """
workflow: routes
model: m
nodes:
  read: {llm: {prompt: "{{ task_query }}", returns: {n: int}}}
  even: {after: read, when: read.n % 2 == 0, route: even, llm: {prompt: "even {{ read.n }}"}}
  odd: {after: read, when: read.n % 2 == 1, route: odd, llm: {prompt: "odd {{ read.n }}"}}
  end: {after: [even, odd], llm: {prompt: "end {{ (even or odd).text }}"}}
"""


def number(request):
    """Answers a number with itself and anything else with what was said."""
    said = request.messages[-1]["content"]
    return {"n": int(said)} if request.node == "read" else said


def test_a_row_takes_one_route_and_both_meet_again(lab: Lab):
    """A merge runs when every predecessor is done or skipped, and at least one is done."""
    run = lab.run(ROUTES, ["1", "2"], number)

    assert [row["path"] for row in run.outcome().to_pylist()] == [["read", "odd", "end"], ["read", "even", "end"]]
    assert json.loads(lab.steps(run, "end")["t0"]["output"]) == {"text": "end odd 1"}


def test_what_follows_a_failed_step_is_skipped_and_says_so(lab: Lab):
    """A failure harms its own row alone."""
    run = lab.run(ROUTES, ["1", "no number"], number)

    assert [row["outcome"] for row in run.outcome().to_pylist()] == ["done", "failed"]
    assert lab.steps(run, "end")["t1"]["reason"] == "upstream failed: read"


ATTEMPTS = """
workflow: attempts
model: m
nodes:
  write:
    llm: {prompt: "{{ task_query }}"}
    evaluate:
      threshold: 90
      criteria:
        - {check: "write.text | int >= 75", weight: 75}
        - {check: "write.text | int >= 85", weight: 10}
        - {check: "write.text | int >= 92", weight: 7}
        - {check: "write.text | int >= 100", weight: 8}
    auto_rerun: {max: %d, feedback: true%s}
  next: {after: write, llm: {prompt: "{{ write.text }}"}}
"""


def improving(request):
    """75, then 85, then 92."""
    if request.node == "next":
        return request.messages[-1]["content"]
    return str([75, 85, 92][request.attempt - 1])


def test_the_example_of_the_reference_page_75_85_92(lab: Lab):
    """Against a threshold of 90 the third attempt passes, and the workflow resumes it."""
    run = lab.run(ATTEMPTS % (3, ""), ["go"], improving)
    step = lab.steps(run, "write")["t0"]

    assert [attempt["score"] for attempt in step["attempts"]] == [75, 85, 92]
    assert (step["score"], step["first_score"], step["passed"]) == (92, 75, True)
    assert json.loads(lab.steps(run, "next")["t0"]["output"]) == {"text": "92"}


def test_every_attempt_is_a_sample_of_its_own_that_knows_what_was_wrong(lab: Lab):
    """The attempt enters the seed, the temperature rises above 0, and the failed criteria are shown."""
    run = lab.run(
        (ATTEMPTS % (1, "")).replace('query }}"}', 'query }}", temperature: 0}', 1), ["go"], lambda request: "75" if len(request.messages) == 1 else "92"
    )
    attempts = lab.steps(run, "write")["t0"]["attempts"]

    assert [(attempt["seed"], attempt["temperature"]) for attempt in attempts] == [(0, 0.0), (1, 0.7)]
    assert attempts[1]["score"] == 92


@pytest.mark.parametrize(("policy", "outcome", "review"), [("best", "done", False), ("review", "done", True), ("fail", "failed", False)])
def test_when_no_attempt_passes_the_policy_decides(lab: Lab, policy, outcome, review):
    """best and review go on with the best attempt, fail does not."""
    run = lab.run(ATTEMPTS % (1, f", on_exhausted: {policy}"), ["go"], improving)
    step = lab.steps(run, "write")["t0"]

    assert (step["outcome"], step["score"], step["passed"], step["review"]) == (outcome, 85, False, review)


def test_a_judge_decides_plain_criteria_and_its_calls_are_counted_apart(lab: Lab):
    """All plain criteria of a node go to the judge in one call."""
    text = """
    workflow: judged
    model: m
    nodes:
      say:
        llm: {prompt: "{{ task_query }}"}
        evaluate: {criteria: [It is polite., It is short., {check: say.text != ""}]}
    """

    def answer(request):
        verdict = {"reason": "it says please", "met": True}
        return {"criterion_1": verdict, "criterion_2": {**verdict, "met": False}} if request.judges else "please"

    step = lab.steps(lab.run(text, ["x"], answer), "say")["t0"]

    assert [item["met"] for item in step["criteria"]] == [True, False, True]
    assert (step["calls"], step["judge_calls"]) == (1, 1)
    assert step["score"] == pytest.approx(66.666667)


def test_a_judge_without_an_answer_leaves_the_step_unscored(lab: Lab):
    """Unscored is a word with a reason, never a number."""
    text = "workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: x}, evaluate: {criteria: [It is polite.]}}\n"
    run = lab.run(text, ["x"], lambda request: "no verdict" if request.judges else "hello")
    step = lab.steps(run, "say")["t0"]

    assert (step["score"], step["passed"]) == (None, None)
    assert step["unscored"].startswith("it_is_polite: the judge's answer cannot be read: not JSON")
    assert run.manifest["usage"]["score"] is None


def test_a_refusal_fails_the_step_and_is_not_asked_again(lab: Lab):
    """Another attempt would not help."""

    def answer(request):
        raise ModelRefused("I would rather not")

    step = lab.steps(lab.run("workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: x}}\n", ["x"], answer), "say")["t0"]

    assert (step["outcome"], step["error_type"], step["calls"]) == ("failed", "ModelRefused", 1)


def test_an_unreadable_answer_is_asked_for_once_more(lab: Lab):
    """Both tries are kept; the second one counts."""
    text = "workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: x, returns: {n: int}}}\n"
    step = lab.steps(lab.run(text, ["x"], lambda request: "oops" if request.attempt == 1 else {"n": 1}), "say")["t0"]

    assert step["outcome"] == "done"
    assert [bool(attempt["error"]) for attempt in step["attempts"]] == [True, False]


TOOLS = """
import os, time
def double(x): return {"y": 2 * x}
def hang(x): time.sleep(600)
def die(x): os._exit(3)
def nan(x): return float("nan")
def loud(x):
    print("noise on standard output")
    return {"y": x}
async def soft(x): return {"y": x + 1}
def environment(x): return {"y": sorted(name for name in os.environ if "SECRET" in name)}
"""


@pytest.mark.parametrize(
    ("tool", "outcome", "said"),
    [
        ("double", "done", '{"y": 14}'),
        ("soft", "done", '{"y": 8}'),
        ("loud", "done", '{"y": 7}'),
        ("environment", "done", '{"y": []}'),
        ("hang", "failed", "tools.t:hang took longer than 1 s and was killed"),
        ("die", "failed", "tools.t:die: its process died (exit 3)"),
        ("nan", "failed", "tools.t:nan: ValueError: Out of range float values are not JSON compliant"),
    ],
)
def test_a_tool_runs_apart_and_its_faults_are_its_rows(lab: Lab, tool, outcome, said):
    """A tool in a child process can hang, die, print or return nonsense: the row says so."""
    lab.write("tools/t.py", TOOLS)
    text = f'workflow: w\nnodes:\n  a: {{tool: "tools.t:{tool}", with: {{x: "{{{{ task_query.x }}}}"}}, timeout_s: 1}}\n'.replace(
        "workflow: w\n", "workflow: w\ninputs: {task_query: {type: object, properties: {x: int}}}\n"
    ).replace("int}", "{type: integer}}")
    step = lab.steps(lab.run(text, [{"task_query": {"x": 7}}], number), "a")["task-00001"]

    assert step["outcome"] == outcome
    assert (step["output"] if outcome == "done" else step["error"]).startswith(said)


MEETING = """
import time
from pathlib import Path
def meet(x):
    here = Path(__file__).with_name("here")
    here.mkdir(exist_ok=True)
    (here / x).touch()
    for _ in range(2_000):
        if len(list(here.iterdir())) == 4: return {"y": x}
        time.sleep(0.01)
    raise TimeoutError("the others did not come")
"""


def test_tools_of_a_small_run_use_every_processor(lab: Lab):
    """A run of so few tasks has one runner, and its tools are not limited to some of the CPUs."""
    lab.write("tools/meeting.py", MEETING)
    text = 'workflow: w\nnodes:\n  a: {tool: "tools.meeting:meet", with: {x: "{{ task_query }}"}}\n'
    plan = make_plan(lab.workflow(text), lab.tasks([str(number) for number in range(4)]), {}, source="tasks.jsonl")
    record, cluster = begin(lab.objects, plan.record, plan.tasks), Here()
    cluster.cpus = 3
    execute(lab.objects, record, {}, connection=Connection(cluster=cluster))

    assert [step["outcome"] for step in lab.steps(Run(lab.objects, record.run_id), "a").values()] == ["done"] * 4


def test_trials_are_samples_of_their_own(lab: Lab):
    """Each repetition has its row, its trial number and its seed."""
    run = lab.run("workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: x}}\n", ["a", "b"], lambda request: str(request.seed), trials=3)
    rows = run.steps().to_pylist()

    assert [(row["task_id"], row["trial"]) for row in rows] == [(task, trial) for task in ("t0", "t1") for trial in (1, 2, 3)]
    assert [json.loads(row["output"])["text"] for row in rows[:3]] == ["0", "1000", "2000"]


def test_a_task_that_does_not_fit_the_inputs_is_refused_before_anything_is_spent(lab: Lab):
    """Bad input costs nothing."""
    text = "workflow: w\nmodel: m\ninputs: {customer: str, age: int}\nnodes:\n  say: {llm: {prompt: '{{ customer }}'}}\n"

    with pytest.raises(Unusable, match="task 't0' does not match the inputs of 'w': /: 'age' is a required property"):
        lab.run(text, [{"id": "t0", "task_query": {"customer": "x"}}], number)


def test_a_node_with_resources_runs_where_they_are(ray_lab: Lab):
    """Such a node is a plain Ray task between streamed ones, over the same store."""
    ray_lab.write("tools/t.py", TOOLS)
    text = """
    workflow: w
    model: m
    nodes:
      read: {llm: {prompt: "{{ task_query }}", returns: {n: int}}}
      heavy: {after: read, tool: "tools.t:double", with: {x: "{{ read.n }}"}, resources: {num_cpus: 1}}
      say: {after: heavy, llm: {prompt: "say {{ heavy.y }}"}}
    """
    run = ray_lab.run(text, [str(index) for index in range(60)], number)

    assert [json.loads(row["output"])["text"] for row in run.steps(["say"]).to_pylist()] == [f"say {2 * index}" for index in range(60)]


def test_a_tasks_output_is_that_of_its_last_nodes_and_not_of_a_write_after_them(lab: Lab):
    """A write is an effect; in a backtest it is only replayed, so it could not tell the sides apart."""
    lab.write("tools/t.py", TOOLS)
    text = """
    workflow: w
    model: m
    nodes:
      read: {llm: {prompt: "{{ task_query }}", returns: {n: int}}}
      keep: {after: read, tool: "tools.t:double", with: {x: "{{ read.n }}"}, effects: write}
    """

    assert json.loads(lab.run(text, ["7"], number).outcome()["output"][0].as_py()) == {"read": {"n": 7}}


def test_an_answer_that_was_cut_off_is_not_asked_for_again(lab: Lab):
    """It would be cut off again, and paid for again."""
    text = "workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: x, returns: {n: int}, max_tokens: 5}}\n"
    step = lab.steps(lab.run(text, ["x"], lambda request: Answer('{"n": 1', 1, 5, finish="length")), "say")["t0"]

    assert (step["outcome"], step["calls"], len(step["attempts"])) == ("failed", 1, 1)
    assert step["error"].startswith("the answer was cut off at max_tokens (5)")


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_changed_code_is_run_as_it_is_now(kind: str, ray_lab: Lab):
    """Runners may outlive a run, but not one that has imported an author's code; and code of the same second and length is not taken for what it was."""
    text = "workflow: w\nnodes:\n  a: {tool: 'changing:now', with: {}}\n"
    seen = []
    for answer in (1, 2):
        ray_lab.write("changing.py", f"{kind} now():\n    return {{'answer': {answer}}}\n")
        run = ray_lab.run(text, ["x"], lambda request: "")
        seen.append(json.loads(ray_lab.steps(run, "a")["t0"]["output"])["answer"])

    assert seen == [1, 2]


def test_spool_files_go_as_their_shards_are_committed(lab: Lab):
    """A run of hours would leave more of them than it has parts; those of shards that go on stay."""
    models = {"m": ScriptedModel(lambda request: "fine")}
    workflow = lab.workflow("workflow: w\nmodel: m\nnodes:\n  one: {llm: {prompt: '{{ task_query }}'}}\n  two: {after: one, llm: {prompt: '{{ one.text }}'}}\n")
    plan = make_plan(workflow, lab.tasks([str(number) for number in range(100)]), models)
    record = begin(lab.objects, plan.record, plan.tasks)
    run = Run(lab.objects, record.run_id)

    def shards() -> set[int]:
        return {shard for table in run.spooled() for shard in table["shard"].to_pylist()}

    async def work() -> None:
        runner = Runner(Assignment(lab.objects.uri, record.run_id, models, "r", 8))
        await runner.step(0, "one")
        await runner.stop()
        assert shards() == {0}
        await runner.step(1, "one")
        await runner.step(0, "one")
        await runner.step(0, "two")
        await runner.drain("enough")
        assert 0 not in shards() and shards()
        await runner.stop()

    assert len(record.shards) == 2
    asyncio.run(work())


def test_prompts_with_a_common_beginning_follow_each_other(lab: Lab):
    """Tasks over two long documents in turn: all questions about one are asked before the other's, so that a cache can serve them."""
    asked = []

    def answer(request):
        asked.append(request.messages[-1]["content"][0])
        return "ok"

    tasks = [{"id": f"t{index}", "task_query": str(index), "variables": {"document": "AB"[index % 2] * 5_000}} for index in range(6)]
    lab.run("workflow: w\nmodel: m\nnodes: {a: {llm: {prompt: '{{ variables.document }} {{ task_query }}'}}}", tasks, answer)

    assert "".join(asked) == "AAABBB"


def test_short_prompts_keep_the_order_of_the_tasks(lab: Lab):
    """Below the length that providers cache nothing is moved."""
    asked = []

    def answer(request):
        asked.append(request.messages[-1]["content"][0])
        return "ok"

    tasks = [{"id": f"t{index}", "task_query": "AB"[index % 2]} for index in range(6)]
    lab.run("workflow: w\nmodel: m\nnodes: {a: {llm: {prompt: '{{ task_query }}'}}}", tasks, answer, concurrency=1)

    assert "".join(asked) == "ABABAB"
