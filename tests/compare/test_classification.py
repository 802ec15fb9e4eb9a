"""Precision, recall, F1 and confusion of a field that is compared with an expected class."""

import json
from itertools import product

import numpy as np
import pytest
from sides import side, step, task

from beam_ray.backtest.conclude import metrics_of
from beam_ray.compare.class_questions import Question, class_criteria
from beam_ray.compare.classification_tables import confusion_table, measures_table
from beam_ray.compare.compare_runs import compare_runs
from beam_ray.compare.comparison import compare
from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.gate_file import load_gate
from beam_ray.compare.grouping import Grouping
from beam_ray.compare.html import html
from beam_ray.compare.markdown import markdown
from beam_ray.compare.report import Result
from beam_ray.compare.terminal import terminal
from beam_ray.compare.verdict import judge
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BadDefinition
from tests.conftest import Lab

CLASSES = ("billing", "delivery", "technical")
WORKFLOW = """
workflow: tickets
model: m
nodes:
  sort:
    llm: {prompt: '{{ task_query }}', returns: {team: {one of: [billing, delivery, technical]}}}
    evaluate: {criteria: [equals: {team: expected.team}]}
"""


def answered(name, answers, expected=None, **more):
    """A side whose tasks gave these answers, one list of trials or one answer a task; None for none, "-" for a node that was not reached."""
    outcome, steps = [], []
    for index, given in enumerate(answers):
        for trial, answer in enumerate(given if isinstance(given, list) else [given], 1):
            right = expected is not None and answer == expected[index]
            failed = answer is None
            outcome.append(task(f"t{index:04d}", 100.0 if right else 0.0, trial=trial, outcome="failed" if failed else "done"))
            state = "skipped" if answer == "-" else "failed" if failed else "done"
            steps.append(step(f"t{index:04d}", None, node="sort", trial=trial, outcome=state, output=json.dumps({"team": answer}) if state == "done" else None))
    return side(name, outcome, steps)


def classified(expected, before, after, options=CLASSES, **how):
    """The classification of these answers."""
    question = Question("sort/team", "sort", "team", tuple(options), {f"t{index:04d}": name for index, name in enumerate(expected) if name})
    found = compare(answered("a", before, expected), answered("b", after, expected), grouping=Grouping(questions=(question,)), **how)
    return found.classifications[0]


def values(found, kind, label=None):
    """Before and after of a measure."""
    metric = found.measure(kind, label).metric
    return metric.before, metric.after


def test_measures_are_those_of_the_definitions():
    """
    Precision, recall and F1 of each class, and macro and micro averages, are what scikit-learn computes.
    """
    metrics = pytest.importorskip("sklearn.metrics")
    chance = np.random.default_rng(5)
    expected = [CLASSES[place] for place in chance.choice(3, 80, p=[0.6, 0.3, 0.1])]
    before, after = ([name if chance.random() < right else CLASSES[chance.integers(3)] for name in expected] for right in (0.5, 0.8))

    found = classified(expected, before, after)

    for place, answers in enumerate((before, after)):
        for average, prefix in (("macro", ""), ("micro", "micro_")):
            numbers = metrics.precision_recall_fscore_support(expected, answers, average=average, labels=CLASSES, zero_division=0)[:3]
            assert numbers == pytest.approx([values(found, f"{prefix}{kind}")[place] / 100 for kind in ("precision", "recall", "f1")])
        each = metrics.precision_recall_fscore_support(expected, answers, average=None, labels=CLASSES, zero_division=0)[:3]
        for label, *numbers in zip(CLASSES, *each, strict=True):
            assert numbers == pytest.approx([values(found, kind, label)[place] / 100 for kind in ("precision", "recall", "f1")])


def test_a_missing_or_invalid_answer_is_counted():
    """
    A failed step and an answer that is no class lower recall and F1, stand in a column of their own, and leave precision alone.
    """
    expected = ["billing"] * 10
    found = classified(expected, ["billing"] * 10, ["billing"] * 7 + [None, None, "nonsense"])

    assert (100.0, 70.0) == values(found, "recall", "billing")
    assert (100.0, 100.0) == values(found, "precision", "billing")
    assert (0.0, 30.0) == values(found, "no_answer")
    assert (100.0, pytest.approx(100 * 14 / 17)) == values(found, "micro_f1")
    assert [("billing", "billing", 10, 7), ("billing", None, 0, 3)] == [tuple(vars(cell).values()) for cell in found.cells]


def test_what_is_not_asked_is_left_out():
    """
    A task that expects nothing, and one whose route leads past the node on both sides, do not count; past it on one side is no answer.
    """
    expected = ["billing", "billing", "billing", None]
    found = classified(expected, ["billing", "-", "-", "billing"], ["billing", "-", "billing", "billing"])

    assert (2, 1, 1) == (found.pairs, found.not_reached, found.without_expected)
    assert (50.0, 100.0) == values(found, "recall", "billing")


def test_a_class_on_one_side_only():
    """
    A class that nobody expects or one side never answers has no precision or recall there, says why, and still counts in the averages.
    """
    expected = ["billing"] * 6 + ["delivery"] * 6
    found = classified(expected, ["billing"] * 12, ["billing"] * 6 + ["delivery"] * 5 + ["technical"])

    assert (None, 100.0) == values(found, "precision", "delivery")
    assert "no answer of this class on the baseline" == found.measure("precision", "delivery").metric.note
    assert (None, None) == values(found, "recall", "technical")
    assert (0.0, pytest.approx(100 * 10 / 11)) == values(found, "f1", "delivery")
    assert (25.0, 100.0) == values(found, "precision")


def test_an_expected_value_beyond_the_field_is_a_class():
    """
    A task may expect what the field cannot say: its class has a recall of 0 and is no missing answer.
    """
    found = classified(["billing"] * 5 + ["sales"] * 5, ["billing"] * 10, ["billing"] * 10)

    assert (*CLASSES, "sales") == found.classes
    assert (0.0, 0.0) == values(found, "recall", "sales")
    assert (0.0, 0.0) == values(found, "no_answer")


def test_small_classes_have_numbers_and_no_interval():
    """
    A class of four tasks shows its recall without an interval and is better or worse for nobody; with five it has one.
    """
    expected = ["billing"] * 4 + ["delivery"] * 5
    found = classified(expected, ["technical"] * 9, list(expected))

    few, enough = found.measure("recall", "billing"), found.measure("recall", "delivery")
    assert (100.0, None, None, 1.0) == (few.metric.change, few.metric.low, few.metric.high, few.p_adjusted)
    assert enough.metric.low is not None
    assert found.measure("recall").metric.low is None
    assert "too few tasks for an interval of some class" == found.measure("recall").metric.note


def test_recall_has_the_interval_of_the_criterion():
    """
    Among the tasks of one class, recall is how often the criterion holds: same change, interval and p-value.
    """
    expected = ["billing"] * 40
    before, after = ["billing"] * 25 + ["technical"] * 15, ["technical"] * 3 + ["billing"] * 37
    question = Question("sort/team", "sort", "team", CLASSES, {f"t{index:04d}": "billing" for index in range(40)})
    found = compare(answered("a", before, expected), answered("b", after, expected), grouping=Grouping(questions=(question,)))

    recall, rate = found.classifications[0].measure("recall", "billing"), found.metric("success_rate")
    assert (recall.metric.low, recall.metric.high) == pytest.approx((rate.low, rate.high))


def test_trials_do_not_count_as_tasks():
    """
    Twenty tasks of five equal trials are twenty answers: as wide an interval as of one trial each.
    """
    expected = ["billing", "delivery"] * 10
    before, after = ["billing"] * 20, ["billing"] * 10 + list(expected[10:])
    once = classified(expected, before, after)
    often = classified(expected, [[name] * 5 for name in before], [[name] * 5 for name in after])

    for kind, label in product(("precision", "recall", "f1"), ("billing", "delivery", None)):
        one, five = once.measure(kind, label).metric, often.measure(kind, label).metric
        assert (one.before, one.after, one.change) == (five.before, five.after, five.change)
        assert (one.low, one.high, *one.after_interval) == pytest.approx((five.low, five.high, *five.after_interval))


def test_swapping_the_sides_turns_every_sign():
    """
    What was gained is lost when the sides change places, interval and matrix and all.
    """
    chance = np.random.default_rng(7)
    expected = [CLASSES[place] for place in chance.integers(0, 3, 50)]
    sides = [[name if chance.random() < right else None for name in expected] for right in (0.6, 0.9)]
    there, back = classified(expected, *sides), classified(expected, *sides[::-1])

    for one, other in zip(there.measures, back.measures, strict=True):
        assert (one.metric.before, one.metric.after, one.p) == (other.metric.after, other.metric.before, other.p)
        if one.metric.low is not None:
            assert one.metric.low == pytest.approx(-other.metric.high)
    assert {(cell.expected, cell.answered, cell.before, cell.after) for cell in there.cells} == {
        (cell.expected, cell.answered, cell.after, cell.before) for cell in back.cells
    }


def test_criteria_that_ask_for_a_class():
    """
    A ``one of`` field, also of one that may be null or in an object, against an expected value; no text, no literal, no expression.
    """
    workflow = Workflow.model_validate(
        {
            "workflow": "w",
            "model": "m",
            "nodes": {
                "a": {
                    "llm": {
                        "prompt": "p",
                        "returns": {
                            "team": {"one of": ["x", "y"]},
                            "kind": {"anyOf": [{"type": "string", "enum": ["k"]}, {"type": "null"}]},
                            "inner": {"type": "object", "properties": {"deep": {"type": "string", "enum": ["d"]}}},
                            "name": "str",
                            "fixed": {"one of": ["x"]},
                        },
                    },
                    "evaluate": {
                        "criteria": [
                            {"equals": {"team": "expected.team", "name": "expected.name", "kind": "expected.k.of", "inner.deep": "expected.deep"}},
                            {"equals": {"fixed": ["x"]}},
                            {"equals": {"team": "expected.team"}, "id": "again"},
                        ]
                    },
                }
            },
        }
    )

    found = [(node, criterion.id, options) for node, criterion, options in class_criteria(workflow)]

    assert [("a", "team", ("x", "y")), ("a", "kind", ("k",)), ("a", "inner.deep", ("d",))] == found


def test_two_runs_of_a_store(lab: Lab):
    """
    Classes come from the workflow and expected values from the tasks; spelling that the criterion ignores does not matter, and gates judge by them.
    """
    rows = [{"id": f"t{index}", "task_query": "q", "expected": {"team": CLASSES[index % 3].upper()}} for index in range(30)]
    text = WORKFLOW.replace("equals: {team: expected.team}", "{equals: {team: expected.team}, ignore: case}")
    before = lab.run(text, rows, lambda request: json.dumps({"team": "billing"}))
    after = lab.run(text, rows, lambda request: json.dumps({"team": CLASSES[int(request.task_id[1:]) % 3]}))
    rules = lab.write("gate.yaml", "gate: g\nrules:\n  sort/team.recall[billing]: {not_worse_than: 60}\n  sort/team.f1: {up_by: 20}\n")

    found = compare_runs(before, after, gate := load_gate(rules, after.record.plan))
    verdict = judge(found, gate)

    assert CLASSES == found.classifications[0].classes
    assert (100 / 6, 100.0) == pytest.approx(values(found.classifications[0], "f1"))
    assert ["PASS", "PASS"] == [line.word for line in verdict.lines]
    assert json.loads(json.dumps(found.document(), allow_nan=False)) == found.document()


def test_a_class_without_a_task_is_left_open():
    """
    A rule about a class that no compared task expects is INCONCLUSIVE, whatever the gate, and never an error after the runs are paid.
    """
    expected = ["billing"] * 20
    question = Question("sort/team", "sort", "team", CLASSES, {f"t{index:04d}": "billing" for index in range(20)})
    nothing = Question("sort/team", "sort", "team", CLASSES, {})
    gate = Gate(name="g", limits=(Limit(rule="sort/team.recall[technical]", kind="at_least", amount=80),))

    for asked in (question, nothing):
        found = compare(answered("a", expected, expected), answered("b", expected, expected), grouping=Grouping(questions=(asked,)))
        line = judge(found, gate).lines[0]
        assert "INCONCLUSIVE" == line.word
        assert "no task of this class on either side" in line.reason


def test_the_gate_names_its_classes(lab: Lab, golden):
    """
    A rule about a field that is no classification, a class that there is not, or an average of one class is refused with what there is.
    """
    workflow = lab.workflow(WORKFLOW.replace("[equals: {team: expected.team}]", "[equals: {team: expected.team}, matches: {team: b}]"))
    rules = ["sort/team.recall[biling]", "sort/team_2.f1", "sort/team.micro_f1[billing]", "sort/team.recal[billing]"]
    path = lab.write("gate.yaml", "gate: g\nrules:\n" + "".join(f"  {rule}: {{at_least: 80}}\n" for rule in rules))

    with pytest.raises(BadDefinition) as caught:
        load_gate(path, workflow)

    golden("class_gate_problems.txt", str(caught.value).replace(f"{path}", "gate.yaml") + "\n")


def result(classes=CLASSES, odd=""):
    """A result with answers of each kind; *odd* is a foreign text in the names of classes."""
    chance = np.random.default_rng(11)
    names = tuple(f"{name}{odd}" for name in classes)
    expected = [names[place] for place in chance.integers(0, len(names), 20 * len(names))]
    before, after = ([name if chance.random() < right else [*names, None][chance.integers(len(names) + 1)] for name in expected] for right in (0.5, 0.9))
    question = Question("sort/team", "sort", "team", names, {f"t{index:04d}": name for index, name in enumerate(expected) if index})
    found = compare(answered("v1", before, expected), answered("v2", after, expected), grouping=Grouping(questions=(question,)))
    return Result(found, judge(found, Gate(name="g", limits=(Limit(rule=f"sort/team.recall[{names[0]}]", kind="up_by", amount=5),))))


def test_faces(golden):
    """
    Terminal and Markdown show measures by class with intervals, and how often each class got each answer before and after.
    """
    golden("classes_terminal.txt", terminal([result()], "tickets"))
    golden("classes.md", markdown([result()], "tickets"))


def test_many_classes_show_their_confusions():
    """
    Of twelve classes the most frequent confusions are listed instead of a matrix of 156 cells.
    """
    found = result(tuple(f"c{index:02d}" for index in range(12))).comparison.classifications[0]

    table = confusion_table(found)
    assert ["sort/team, expected", "answered", "pairs"] == table.header
    assert 12 == len(table.rows)
    assert all(row[0] != row[1] for row in table.rows)
    assert 14 == len(measures_table(found, 95).rows)


def test_a_class_that_reads_like_none_has_a_column_of_its_own():
    """
    Where a class is named "(none)", the column of missing answers has another heading.
    """
    found = result(("(none)", "billing")).comparison.classifications[0]

    header = confusion_table(found).header
    assert (1, "(no answer)") == (header.count("(none)"), header[-1])


def test_names_of_classes_stay_text():
    """
    A class named by someone who means harm is escaped in the page.
    """
    page = html([result(odd="<script>alert(1)</script>")])

    assert "<script>alert" not in page
    assert "Classes of sort/team" in page


def test_names_in_mlflow():
    """
    MLflow takes no brackets: the recall of a class is ``sort/team.recall.billing``, on each side its own.
    """
    document = result().comparison.document()

    before, after = (metrics_of(document, side) for side in ("before", "after"))

    assert (57.1428571429, 100.0) == (before["sort/team.recall.billing"], after["sort/team.recall.billing"])
    assert "sort/team.micro_f1" in after
