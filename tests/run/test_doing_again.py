"""Borrowing and reruns: what is executed again, what is not, and what stays untouched."""

import hashlib
import json
from pathlib import Path

import pytest

from beam_ray.address import Address
from beam_ray.errors import Unusable
from beam_ray.llm import Answer, ScriptedModel
from beam_ray.rerun import count_borrowed, family
from beam_ray.run.plan import Lineage, make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab

CHAIN = "workflow: chain\nmodel: m\nnodes:\n" + "\n".join(
    f'  s{number}: {{{"" if number == 1 else f"after: s{number - 1}, "}llm: {{prompt: "{number} {{{{ {"task_query" if number == 1 else f"s{number - 1}.text"} }}}}"}}}}'
    for number in range(1, 7)
)


def echo(request):
    """What was said, shortened so that texts do not grow."""
    return request.messages[-1]["content"][:20]


def calls(run: Run) -> dict[str, int]:
    """Model calls per node."""
    found: dict[str, int] = {}
    for row in run.steps(columns=["node", "calls", "judge_calls"]).to_pylist():
        found[row["node"]] = found.get(row["node"], 0) + row["calls"] + row["judge_calls"]
    return found


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_example_of_the_reference_page_steps_4_to_6_of_6(lab: Lab):
    """A rerun from the fourth step borrows the first three and executes the rest."""
    first = lab.run(CHAIN, ["x"], echo)
    before = contents(lab.folder / "store" / "runs" / first.run_id)
    again = lab.rerun(first, ["t0"], lab.workflow(CHAIN.replace("4 {{", "four {{")), echo, start_node="s4")

    assert calls(again) == {"s1": 0, "s2": 0, "s3": 0, "s4": 1, "s5": 1, "s6": 1}
    assert lab.steps(again, "s3")["t0"]["borrowed_from"] == f"{first.run_id}/t0/s3"
    assert again.record.changed == ["s4.llm.prompt"]
    assert contents(lab.folder / "store" / "runs" / first.run_id) == before


def test_a_full_rerun_has_the_same_input_and_a_record_of_its_own(lab: Lab):
    """Query, variables and attachments are the original's, byte for byte."""
    lab.write("a.txt", "attached")
    rows = [{"id": "t0", "task_query": "x\u00e9 \u2028", "variables": {"b": 1, "a": [1.5]}, "attachments": ["a.txt"]}]
    first = lab.run(CHAIN, rows, echo)
    again = lab.rerun(first, ["t0"], first.record.plan, echo)
    keys = ["task_query", "variables", "attachments", "inputs"]

    assert again.run_id != first.run_id
    assert again.tasks().select(keys).to_pylist() == first.tasks().select(keys).to_pylist()
    assert again.tasks()["origin"].to_pylist() == [f"{first.run_id}/t0"]
    assert sum(calls(again).values()) == 6


def test_a_changed_route_takes_the_other_path(lab: Lab):
    """Routes after the start are decided anew."""
    text = """
    workflow: r
    model: m
    nodes:
      read: {llm: {prompt: "{{ task_query }}"}}
      size: {after: read, llm: {prompt: "%s {{ read.text }}"}}
      large: {after: size, when: "'large' in size.text", route: large, llm: {prompt: large}}
      small: {after: size, when: "'small' in size.text", route: small, llm: {prompt: small}}
    """
    first = lab.run(text % "large", ["x"], echo)
    again = lab.rerun(first, ["t0"], lab.workflow(text % "small"), echo, start_node="size")

    assert [run.outcome()["path"].to_pylist()[0] for run in (first, again)] == [["read", "size", "large"], ["read", "size", "small"]]


def test_a_start_that_cannot_borrow_is_refused_with_the_nearest_that_can(lab: Lab):
    """A new node upstream has no output in the original."""
    first = lab.run(CHAIN, ["x"], echo)
    longer = lab.workflow(CHAIN.replace("  s3: {after: s2,", "  extra: {after: s2, llm: {prompt: e}}\n  s3: {after: extra,"))

    with pytest.raises(Unusable, match=r"before 's4': extra was added since\n  rerun from an earlier node: --from extra"):
        lab.rerun(first, ["t0"], longer, echo, start_node="s4")


def incremental(lab: Lab, origin: Run, text: str, answer=echo) -> tuple[dict[str, tuple[int, int, int]], Run]:
    """What the plan of an incremental run announces per node (run, borrow, re-score), and the run itself."""
    models = {"m": ScriptedModel(answer)}
    workflow = lab.workflow(text)
    plan = count_borrowed(lab.objects, make_plan(workflow, origin.tasks(), models, lineage=Lineage(origin=origin.run_id, borrow=True)), models)
    run = lab.run(workflow, origin.tasks(), answer, origin=origin.run_id, borrow=True)
    return {node.node: (node.run, node.borrow, node.rescore) for node in plan.nodes}, run


def test_a_change_pays_for_itself_and_for_what_it_reaches(lab: Lab):
    """The plan announces exactly the calls that are then made."""
    first = lab.run(CHAIN, ["x", "y"], echo)
    announced, run = incremental(lab, first, CHAIN.replace("5 {{", "five {{"))

    assert announced == {"s1": (0, 2, 0), "s2": (0, 2, 0), "s3": (0, 2, 0), "s4": (0, 2, 0), "s5": (2, 0, 0), "s6": (2, 0, 0)}
    assert calls(run) == {"s1": 0, "s2": 0, "s3": 0, "s4": 0, "s5": 2, "s6": 2}


def test_a_cosmetic_edit_pays_nothing(lab: Lab):
    """Comments, titles, key order and white space of the YAML are no change."""
    first = lab.run(CHAIN, ["x"], echo)
    _, run = incremental(
        lab,
        first,
        "# a comment\n"
        + CHAIN.replace("s2: {after: s1, llm: {prompt:", "s2: {title: Second, llm:   {prompt:").replace('1.text }}"}}', '1.text }}"}, after: s1}'),
    )

    assert sum(calls(run).values()) == 0


def test_a_step_that_says_the_same_again_stops_the_change(lab: Lab):
    """Early cut-off: what stands behind an unchanged output is borrowed after all."""
    first = lab.run(CHAIN, ["x"], lambda request: "same")
    _, run = incremental(lab, first, CHAIN.replace("2 {{", "two {{"), lambda request: "same")

    assert calls(run) == {"s1": 0, "s2": 1, "s3": 0, "s4": 0, "s5": 0, "s6": 0}


JUDGED = "workflow: j\nmodel: m\nnodes:\n  say: {llm: {prompt: '{{ task_query }}'}, evaluate: {criteria: [%s]}}\n"


def judging(request):
    """Everything is met."""
    return {"criterion_1": {"reason": "so it is", "met": True}} if request.judges else "hello"


def test_a_change_of_criteria_makes_judge_calls_only(lab: Lab):
    """The output is borrowed and scored anew."""
    first = lab.run(JUDGED % "It is polite.", ["x"], judging)
    announced, run = incremental(lab, first, JUDGED % "It is short.", judging)
    step = lab.steps(run, "say")["t0"]

    assert announced == {"say": (0, 0, 1)}
    assert (step["outcome"], step["calls"], step["judge_calls"]) == ("borrowed", 0, 1)
    assert [item["text"] for item in step["criteria"]] == ["It is short."]


def test_a_write_is_replayed_and_not_repeated(lab: Lab):
    """A tool that writes is called in a run, and neither in a rerun nor in a backtest."""
    lab.write("tools/w.py", "import os\ndef store(x):\n    open(os.path.join(os.path.dirname(__file__), 'log'), 'a').write(x)\n    return {'id': x}\n")
    text = 'workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: "{{ task_query }}"}}\n  keep: {after: say, tool: "tools.w:store", with: {x: "{{ say.text }}"}, effects: write}\n'
    first = lab.run(text, ["x"], echo)
    again = lab.rerun(first, ["t0"], first.record.plan, lambda request: "changed")
    step = lab.steps(again, "keep")["t0"]

    assert (lab.folder / "tools/log").read_text() == "x"
    assert (step["outcome"], json.loads(step["output"])) == ("borrowed", {"id": "x"})
    assert step["reason"] == "write not repeated: the recorded output of the original run is replayed"


def test_a_changed_tool_is_called_again(lab: Lab):
    """A tool's version is the digest of its source."""
    lab.write("tools/v.py", "def f(x): return {'y': x}\n")
    text = 'workflow: w\nmodel: m\nnodes:\n  a: {tool: "tools.v:f", with: {x: "{{ task_query }}"}}\n  b: {after: a, llm: {prompt: "{{ a.y }}"}}\n'
    first = lab.run(text, ["x"], echo)
    lab.write("tools/v.py", "def f(x): return {'y': x + '!'}\n")
    _, run = incremental(lab, first, text)

    assert [row["outcome"] for row in run.steps().to_pylist()] == ["done", "done"]


def test_many_reruns_leave_the_original_as_it_was(lab: Lab):
    """The original's files are byte-identical, and each rerun is a record of its own."""
    first = lab.run("workflow: w\nmodel: m\nnodes: {only: {llm: {prompt: '{{ task_query }}'}}}\n", ["x"], echo)
    before = contents(lab.folder / "store" / "runs" / first.run_id)
    made = {lab.rerun(first, ["t0"], first.record.plan, echo).run_id for _ in range(20)}

    assert len(made) == 20
    assert contents(lab.folder / "store" / "runs" / first.run_id) == before


def test_a_run_that_goes_on_cannot_be_redone(lab: Lab):
    """Only tasks that ended can be."""
    models = {"m": ScriptedModel(echo)}
    plan = make_plan(lab.workflow(CHAIN), lab.tasks(["x"]), models)
    record = begin(lab.objects, plan.record, plan.tasks)

    with pytest.raises(Unusable, match="is not finished"):
        lab.rerun(Run(lab.objects, record.run_id), ["t0"], plan.workflow, echo)


def test_a_failed_task_can_be_redone_and_is_solved(lab: Lab):
    """The family tells what was redone, why, and whether it helped."""
    first = lab.run(CHAIN, ["x"], lambda request: "" if request.node == "s3" else "fine")
    again = lab.rerun(first, ["t0"], first.record.plan, echo, start_node="s3", because="the endpoint was ill")
    members = family(lab.objects, Address(again.run_id, "t0"))

    assert [(member["run_id"], member["status"], member["because"], member["solved"]) for member in members] == [
        (first.run_id, "failed", "", ""),
        (again.run_id, "passed", "the endpoint was ill", "solved"),
    ]


def test_fifty_tasks_are_compared_without_a_single_write(lab: Lab):
    """A candidate's run over 50 tasks replays every write, whatever its own steps say."""
    lab.write("tools/w.py", "import os\ndef store(x):\n    open(os.path.join(os.path.dirname(__file__), 'log'), 'a').write('.')\n    return {'id': x}\n")
    text = 'workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: "{{ task_query }}"}}\n  keep: {after: say, tool: "tools.w:store", with: {x: "{{ say.text }}"}, effects: write}\n'
    first = lab.run(text, [f"q{index}" for index in range(50)], echo)
    candidate = lab.workflow(text.replace('"{{ task', '"again {{ task'))
    run = lab.run(candidate, first.tasks(), echo, origin=first.run_id, borrow=True, allow_writes=False)

    assert (lab.folder / "tools/log").read_text() == "." * 50
    assert {row["outcome"] for row in run.steps(["keep"]).to_pylist()} == {"borrowed"}


def test_what_auto_reruns_bring_and_cost_is_told_with_the_run(lab: Lab):
    """First-attempt and final scores side by side, and the tokens and dollars in between."""
    text = """
    workflow: a
    model: m
    nodes:
      say:
        llm: {prompt: "{{ task_query }}"}
        evaluate: {criteria: [{check: "say.text == '2'"}]}
        auto_rerun: {max: 2}
    """
    run = lab.run(text, ["x"], lambda request: Answer(str(request.attempt), 100, 10))
    usage = run.manifest["usage"]

    assert (usage["first_score"], usage["score"], usage["auto_reruns"], usage["auto_rerun_tokens"], usage["auto_rerun_usd"]) == (0.0, 100.0, 1, 110, 0)


def test_shards_that_are_opened_at_the_same_time_borrow_from_the_same_files(lab: Lab):
    """Eight shards read the origin at once, each in its thread, and every row is borrowed."""
    first = lab.run(CHAIN, [f"q{index}" for index in range(200)], echo)
    for _ in range(5):
        again = lab.run(first.record.plan, first.tasks(), echo, origin=first.run_id, borrow=True)

        assert {row["outcome"] for row in again.steps(columns=["outcome"]).to_pylist()} == {"borrowed"}
