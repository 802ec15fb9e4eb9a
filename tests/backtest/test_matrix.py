"""Candidates from a matrix: their names, what is refused, and that steps which they share are paid for once."""

import json
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.backtest.matrix import cells
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import resolve_spec
from beam_ray.define.returns import Faults
from beam_ray.errors import BadDefinition
from beam_ray.llm import ScriptedModel
from beam_ray.store.opening import open_objects
from beam_ray.tasks.sources import read
from tests.conftest import Lab
from tests.improve.scripted import here
from tests.sums import WORKFLOW, numbers, reply

TASKS = 12
SPEC = """
backtest: sums
workflow: sums.yaml
tasks: tasks.jsonl
baseline: sums.yaml
matrix:
  nodes.read.llm.prompt: [prompts/better.md, prompts/worse.md]
  nodes.say.llm.model: [m, vendor/other]
gate: none
"""


@pytest.mark.parametrize(
    ("matrix", "names"),
    [
        ({"model": ["hosted/small", "hosted/gpt-4.1-Mini"]}, ["small", "gpt-4-1-mini"]),
        ({"model": ["a/x", "b/x"]}, ["a-x", "b-x"]),
        ({"nodes.read.llm.temperature": [0, 0.2]}, ["temperature-0", "temperature-0-2"]),
        ({"nodes.read.llm.prompt": ["say it", "do say {{ it }}"]}, ["prompt-1", "prompt-2"]),
        ({"nodes.read.auto_rerun": [None, {"max": 2}]}, ["auto_rerun-none", "auto_rerun-2"]),
        ({"model": ["a", "b"], "nodes.read.llm.prompt": ["p/one.md", "p/two.md"]}, ["a-one", "a-two", "b-one", "b-two"]),
        ({"model": ["a", "b"], "judge": ["j"]}, ["a", "b"]),
        ({"model": ["a", "baseline"]}, ["a", "candidate-2"]),
        ({"model": ["a", "b"], "judge": ["j", "k"], "exclude": [{"model": "a", "judge": "k"}]}, ["a-j", "b-j", "b-k"]),
        ({"model": ["a", "a-b"], "judge": ["b-c", "c"]}, ["a-b-c".replace("a-b-c", "candidate-1"), "a-c", "a-b-b-c", "candidate-4"]),
    ],
)
def test_names(matrix: dict[str, Any], names: list[str]) -> None:
    """
    A combination is named by what is short and different in its values; where that says nothing, by its number.
    """
    assert [cell.name for cell in cells(matrix)] == names


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ({"model": "a"}, "'model' in the matrix must be a list of values, not 'a'"),
        ({"model": []}, "'model' in the matrix has no values"),
        ({"model": ["a", "b", "a"]}, "'model' in the matrix has 'a' twice"),
        (
            {"a": list(range(7)), "b": list(range(7))},
            "the matrix makes 49 candidates, and at most 32 are compared: leave out values, or 'exclude' combinations",
        ),
        ({str(axis): list(range(100)) for axis in range(9)}, "the matrix makes 1,000,000,000,000,000,000 candidates, and at most 32 are compared"),
        ({"model": ["a"], "exclude": [{"judge": "a"}]}, "'exclude' names 'judge', which is not in the matrix"),
        ({"model": ["a"], "exclude": [{"model": "b"}]}, "'exclude' names 'b', which is no value of 'model' in the matrix"),
        ({"model": ["a"], "exclude": [{"model": "a"}]}, "the matrix makes no candidate: 'exclude' leaves none"),
        ({"model": ["a"], "exclude": [{}]}, "an empty entry of 'exclude' would exclude everything"),
        ({"model": ["a"], "exclude": ["a"]}, "'exclude' must be a list of combinations such as {model: hosted/large}"),
    ],
)
def test_what_is_refused(matrix: dict[str, Any], message: str) -> None:
    """
    A matrix that makes no sense, or more candidates than can be compared, is refused in one line, at once.
    """
    with pytest.raises(Faults, match=r".*") as refused:
        cells(matrix)

    assert str(refused.value).startswith(message)


class Counting:
    """Models that answer as in ``sums``, and know what they were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, request: beam_ray.Request) -> Any:
        text = str(request.messages[-1]["content"])
        self.asked.append(text)
        return {"n": -1} if text.startswith("worse") else reply(text)

    @property
    def models(self) -> dict[str, ScriptedModel]:
        return {name: ScriptedModel(self, identity=name) for name in ("m", "vendor/other", "vendor/third")}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A folder with the workflow, twelve tasks and two prompts."""
    lab = Lab(tmp_path, open_objects(str(tmp_path / "store")))
    lab.write("sums.yaml", WORKFLOW)
    lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in numbers(TASKS)))
    (tmp_path / "prompts").mkdir()
    for word in ("better", "worse"):
        lab.write(f"prompts/{word}.md", f"{word} {{{{ task_query }}}}")
    return lab


def engine(lab: Lab, spec: str, models: dict[str, ScriptedModel], **how: Any) -> Backtest:
    """The backtest of a spec over all tasks, run in this process."""
    lab.write("spec.yaml", spec)
    tasks, source = read(lab.objects, str(lab.folder / "tasks.jsonl"))
    return Backtest(lab.objects, resolve_spec(lab.objects, lab.folder / "spec.yaml"), tasks, source, models, execute=here, **how)


def run_sides(backtest: Backtest) -> dict[str, int]:
    """All sides brought to their end, and what each paid, in model calls."""
    baseline = backtest.finish("baseline", backtest.baseline())
    runs = {"baseline": baseline} | {side.name: backtest.finish(side.name, backtest.candidate(side, baseline)) for side in backtest.resolved.candidates}
    return {name: run.manifest["usage"]["calls"] for name, run in runs.items() if run.manifest}


def test_shared_steps_are_paid_for_once(lab: Lab) -> None:
    """
    Candidates with the same prompt ask the model for it once, and candidates with the same model share answers to the same question.
    """
    counting = Counting()
    paid = run_sides(engine(lab, SPEC, counting.models))
    reads = [text for text in counting.asked if not text.startswith("say")]

    assert len(reads) == len(set(reads)) == 3 * TASKS
    assert paid == {
        "baseline": 2 * TASKS,
        # of the twelve numbers the baseline reads four, and -1 for all others: so often its next step is that of the candidate
        "better-m": TASKS + 8,
        "better-other": TASKS,
        "worse-m": TASKS + 4,
        "worse-other": TASKS,
    }


def test_fresh_candidates_borrow_nothing_from_each_other(lab: Lab) -> None:
    """
    Under ``fresh`` every step of every candidate is executed.
    """
    counting = Counting()
    paid = run_sides(engine(lab, SPEC + "fresh: true\n", counting.models))

    assert set(paid.values()) == {2 * TASKS}


def test_a_matrix_that_grows_pays_only_for_what_is_new(lab: Lab) -> None:
    """
    With a further value, candidates of the earlier backtest cost nothing again, unless it is run with --again.
    """
    counting = Counting()
    run_sides(engine(lab, SPEC, counting.models))
    more = SPEC.replace("vendor/other]", "vendor/other, vendor/third]")
    grown = engine(lab, more, counting.models)
    planned = {side.name: plan.calls if plan else 0 for side, plan, _ in grown.plans()}
    before = len(counting.asked)
    paid = run_sides(grown)
    asked = len(counting.asked) - before
    again = run_sides(engine(lab, more.replace("backtest: sums", "backtest: again"), counting.models, again=True))

    assert {name: count for name, count in paid.items() if name != "baseline" and count} == {"better-third": TASKS, "worse-third": TASKS}
    assert asked == 2 * TASKS
    assert {name: planned[name] for name in ("better-m", "better-other", "better-third")} == {"better-m": 0, "better-other": 0, "better-third": TASKS}
    assert again["better-third"] == TASKS and again["better-m"] == TASKS + 8


def test_the_plan_knows_what_candidates_share(lab: Lab) -> None:
    """
    Before anything has run, steps that an earlier candidate will have run are planned as borrowed from it.
    """
    found = engine(lab, SPEC, Counting().models).plans()
    nodes = {side.name: {node.node: node for node in plan.nodes} for side, plan, _ in found if plan}

    assert nodes["better-m"]["read"].run == TASKS
    assert (nodes["better-other"]["read"].run, nodes["better-other"]["read"].why) == (0, ("as in better-m",))
    assert nodes["better-other"]["say"].run == TASKS


def test_combinations_that_change_nothing_are_left_out(lab: Lab) -> None:
    """
    A combination that is the baseline, or another one under another name, is no candidate, and a warning says so.
    """
    lab.write("prompts/same.md", "better {{ task_query }}")
    spec = SPEC.replace("prompts/worse.md", "prompts/same.md, 'read {{ task_query }}'").replace(", vendor/other", "")
    resolved = engine(lab, spec, Counting().models).resolved

    assert [side.name for side in resolved.candidates] == ["better"]
    assert [problem.text for problem in resolved.warnings] == [
        "same is the same as better and is left out",
        "prompt-3 is the same as the baseline and is left out",
    ]


def test_a_matrix_in_python(lab: Lab) -> None:
    """
    A matrix in Python makes the candidates that it makes in a spec, and is refused as there.
    """
    models = Counting().models
    store = beam_ray.open(lab.folder / "store", models=models)
    described = {"name": "sums", "workflow": lab.folder / "sums.yaml", "baseline": lab.folder / "sums.yaml", "tasks": numbers(TASKS)}
    plan = store.plan_backtest(beam_ray.Backtest(**described, matrix={"nodes.say.llm.model": ["vendor/other", "vendor/third"]}))

    assert [side.name for side in plan.sides] == ["baseline", "other", "third"]
    with pytest.raises(BadDefinition, match="'model' in the matrix has no values"):
        store.plan_backtest(beam_ray.Backtest(**described, matrix={"model": []}))


def test_a_wrong_value_is_named_where_it_stands(lab: Lab) -> None:
    """
    A value that fits nowhere is a single problem, at its place in the matrix, however many candidates it would be part of.
    """
    with pytest.raises(BadDefinition) as refused:
        engine(lab, SPEC.replace("nodes.say.llm", "nodes.tell.llm"), Counting().models)

    assert [(problem.line, problem.column) for problem in refused.value.problems] == [(8, 26), (8, 29)]
