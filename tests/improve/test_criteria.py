"""Criteria: proposed ones are tried on stored outputs, present ones are asked whether they tell anything."""

import json
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from beam_ray.errors import Unusable
from beam_ray.improve.criteria import evaluate_criteria, is_expected, present_criteria, propose_criteria, stored_outputs
from beam_ray.improve.drafts import criteria_text, with_criteria
from beam_ray.llm import Request
from beam_ray.review.agreement import cohen, fleiss
from beam_ray.run.plan import load_workflow
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.improve.scripted import Proposer, ask, executor

TEXT = """\
workflow: w
model: m
nodes:
  read:
    llm: {prompt: "read {{ task_query }}", returns: {n: int}}
    evaluate:
      threshold: 100      # all of them
      criteria:
        - range: {n: [0, 5]}     # small
  say:
    after: read
    llm: {prompt: "say {{ read.n }}"}
    evaluate: {criteria: [{check: say.text != ''}]}
"""


def model(request: Request) -> Any:
    """Reads the number that it is given; judges a criterion with EVEN in it, and takes all others to hold."""
    said = str(request.messages[-1]["content"])
    if request.judges:
        number = json.loads(said[said.index("-output>\n") + 9 : said.rindex("</", 0, said.index("The criteria:"))])["n"]
        texts = said[said.index("The criteria:") :].splitlines()[1:]
        asked = [text for text in texts if text.startswith("criterion_")]
        return {text.partition(":")[0]: {"reason": "", "met": "EVEN" not in text or number % 2 == 0} for text in asked}
    return {"n": int(said.rsplit(maxsplit=1)[-1])} if said.startswith("read") else f"it is {said}"


def proposed(*entries: tuple[str, str]) -> str:
    """A proposer's answer: texts and expressions."""
    return json.dumps({"criteria": [{"criterion": text, "expression": check, "reason": "because"} for text, check in entries]})


@pytest.fixture
def ran(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of ten tasks, the numbers 0 to 9, of which 0 to 5 pass; what is expected of a task is its number, but for 0."""
    monkeypatch.chdir(lab.folder)
    tasks = [{"id": f"t{n}", "task_query": str(n), **({"expected": {"n": n if n else 99}} if n < 8 else {})} for n in range(10)]
    return lab.run(lab.workflow(TEXT, "w.yaml"), tasks, model)


def test_proposals_are_tried_on_stored_outputs_without_a_step(lab: Lab, ran: Run):
    """Each comes with how often it holds, on good outputs and on bad ones; only the judge is asked."""
    workflow = ran.record.plan
    asked: list[Request] = []

    def kept(request: Request) -> Any:
        asked.append(request)
        return model(request)

    found, tasks = stored_outputs(lab.objects, workflow, "read", 10)
    fared = evaluate_criteria(
        executor(lab, kept), found, "read", ["EVEN numbers only.", "Always.", {"check": "read.n < 0"}, {"check": "read.n < 4"}], tasks, source=workflow
    )

    assert [(one.met, one.unmet) for one in fared] == [(5, 5), (10, 0), (0, 10), (4, 6)]
    assert [one.useless for one in fared] == ["", "always holds", "never holds", ""]
    assert (fared[3].good, fared[3].bad) == ((4, 6), (0, 4))
    assert len(asked) == 10
    assert all(request.judges for request in asked)


def test_the_same_trial_again_asks_no_judge(lab: Lab, ran: Run):
    """It was paid for."""
    workflow = ran.record.plan
    found, tasks = stored_outputs(lab.objects, workflow, "read", 10)
    first = evaluate_criteria(executor(lab, model), found, "read", ["EVEN numbers only."], tasks, source=workflow, repeats=2)
    asked: list[Request] = []

    again = evaluate_criteria(executor(lab, asked.append), found, "read", ["EVEN numbers only."], tasks, source=workflow, repeats=2)

    assert again == first
    assert not asked


def test_good_and_bad_outputs_are_shown_and_tried(lab: Lab, ran: Run):
    """Of many outputs as many bad ones are taken as good ones, and a proposer sees some of both."""
    proposer = Proposer(proposed(("EVEN numbers only.", "")))

    found, tasks = stored_outputs(lab.objects, ran.record.plan, "read", 6)
    propose_criteria(ask(lab, proposer), ran.record.plan, "read", found, tasks, keep=False)

    assert sorted(tasks) == ["t0", "t1", "t2", "t6", "t7", "t8"]
    assert "-good-1>" in proposer.said and "-bad-3>" in proposer.said
    assert '"n"' in proposer.said
    assert "range" not in proposer.said


def test_a_criterion_that_does_not_load_is_dropped_with_its_reason(lab: Lab, ran: Run):
    """Where only its expression does not, a judge decides; where no criterion is left the proposer is asked once more."""
    workflow = ran.record.plan
    found, tasks = stored_outputs(lab.objects, workflow, "read", 10)
    some = proposed(
        ("It knows.", "oracle.n > 1"),
        ("n lies between 0 and 5", ""),
        ("EVEN numbers only.", ""),
        ("Small.", "read.n < 9"),
        ("", "oracle.n > 1"),
        ("even numbers only.", ""),
    )
    none = Proposer(proposed(("", "oracle.n > 1")), some)

    good, tries, dropped = propose_criteria(ask(lab, none), workflow, "read", found, tasks, keep=True)

    assert [one.written for one in good] == ["It knows.", "EVEN numbers only.", {"check": "read.n < 9", "text": "Small."}]
    assert "a judge decides" in dropped[0]
    assert "already present" in dropped[1]
    assert "oracle" in dropped[2]
    assert dropped[3] == "even numbers only.: proposed twice"
    assert [bool(one.refused) for one in tries] == [True, False]


def test_present_criteria_are_judged_again_and_only_again(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """What the run's own judge said is the first of three judgements; the other two are asked for."""
    monkeypatch.chdir(lab.folder)
    plain = lab.workflow(TEXT.replace("- range: {n: [0, 5]}", "- EVEN numbers only."), "w.yaml")
    run = lab.run(plain, [str(n) for n in range(10)], model)
    asked: list[Request] = []

    def contrary(request: Request) -> Any:
        asked.append(request)
        return {"criterion_1": {"reason": "", "met": not model(request)["criterion_1"]["met"]}}

    [one] = evaluate_criteria(executor(lab, contrary), run, "read", present_criteria(plain, "read"), [f"t{n}" for n in range(10)], source=plain, repeats=3)

    assert (one.met, one.unmet, one.same_verdict) == (5, 5, 0)
    assert len(asked) == 20


@pytest.mark.parametrize("keep", [True, False])
def test_a_draft_of_criteria_is_the_file_but_for_them(lab: Lab, ran: Run, keep: bool):
    """With the present ones or instead of them; comments, order and threshold stay, and what was left out is said at the end."""
    file = lab.folder / "w.yaml"
    workflow = load_workflow(file)[0]
    new = ["EVEN: numbers only.", {"check": "read.n < 9", "text": "Small."}]
    wanted = with_criteria(workflow, "read", [*(present_criteria(workflow, "read") if keep else []), *new])

    text = criteria_text(file, "read", new, ["left out, always holds (10 of 10): Always."], wanted, keep=keep)

    loaded = load_workflow(lab.write("w-criteria.yaml", text))[0]
    assert loaded.digest == wanted.digest
    assert [item.text for item in loaded.nodes["read"].evaluate.criteria][-2:] == ["EVEN: numbers only.", "Small."]
    assert ("# small" in text) is keep
    assert "# all of them" in text
    assert text.endswith("# left out, always holds (10 of 10): Always.\n")


def test_a_judge_that_guesses_is_found_out(lab: Lab, ran: Run):
    """One that answers by the output agrees with itself, one that answers by the number of the repeat does not."""
    workflow = ran.record.plan
    found, tasks = stored_outputs(lab.objects, workflow, "read", 10)

    def moody(request: Request) -> Any:
        said = model(request)
        if request.judges:
            said["criterion_2"]["met"] = (request.seed // 1_000_000 + int(request.task_id[1:])) % 2 == 0
        return said

    even, mood, rule = evaluate_criteria(
        executor(lab, moody), found, "read", ["EVEN numbers only.", "It feels right.", {"check": "read.n < 4"}], tasks, source=workflow, repeats=3
    )

    assert (even.self_agreement, even.same_verdict, even.repeated) == (1.0, 10, 10)
    assert mood.self_agreement == pytest.approx(-1 / 3)
    assert mood.same_verdict == 0
    assert (rule.self_agreement, rule.self_agreement_note) == (None, "a rule")


def test_criteria_are_held_against_what_is_expected(lab: Lab, ran: Run):
    """Where tasks say what they expect, a criterion's verdicts are compared with whether the output is that."""
    workflow = ran.record.plan
    found, tasks = stored_outputs(lab.objects, workflow, "read", 10)

    right, even, always = evaluate_criteria(
        executor(lab, model), found, "read", [{"check": "read.n > 0"}, "EVEN numbers only.", "Always."], tasks, source=workflow
    )

    assert (right.expected, right.labelled) == (1.0, 8)
    labels = [(n % 2 == 0, n > 0) for n in range(8)]
    assert even.expected == pytest.approx(cohen_kappa_score(*zip(*labels, strict=True)))
    assert always.expected == pytest.approx(0.0)


def test_what_is_expected_is_looked_for_in_the_fields_that_both_name():
    """Where they share none nothing is known."""
    cases = [('{"n": 1, "m": 2}', '{"n": 1.0, "x": 3}'), ('{"n": 1}', '{"n": 2}'), ('{"n": 1}', '{"x": 1}'), ('{"n": 1}', None), (None, '{"n": 1}')]

    assert [is_expected(*case) for case in cases] == [True, False, None, None, None]


def test_kappa_is_that_of_the_literature():
    """Fleiss' by hand from his formula, Cohen's as scikit-learn has it; where all say the same it is none."""
    rows = [[True, True, False], [True, True, True], [False, False, False], [False, False, True]]
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15

    # of 12 verdicts 6 are met; two rows agree in 1 of 3 pairs, two in all: (1/3 + 1 + 1 + 1/3) / 4 = 2/3, and by chance 1/2
    assert fleiss(rows) == pytest.approx((2 / 3 - 1 / 2) / (1 - 1 / 2))
    assert cohen(pairs) == pytest.approx(0.4)
    assert cohen(pairs) == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
    assert cohen([(True, True)] * 9) is fleiss([[True, True]] * 9) is fleiss([[True]]) is cohen([]) is None


def test_only_stored_outputs_can_be_judged(lab: Lab, ran: Run):
    """A node that has none is refused, with the command that makes some; runs that only try something out do not count."""
    workflow = ran.record.plan
    found, tasks = stored_outputs(lab.objects, workflow, "read", 10)
    evaluate_criteria(executor(lab, model), found, "read", ["Always."], tasks, source=workflow)

    assert stored_outputs(lab.objects, workflow, "read", 10)[0].run_id == ran.run_id
    other = lab.workflow(TEXT.replace("workflow: w", "workflow: other"), "other.yaml")
    with pytest.raises(Unusable, match="beam-ray run"):
        stored_outputs(lab.objects, other, "read", 10)
