"""Examples of a criterion: the judge reads them, and they are part of its fingerprint where there are any."""

from typing import Any

import pytest

from beam_ray.define.criterion import expand
from beam_ray.errors import BadDefinition
from beam_ray.evaluate.judge import JudgedOutput, judge_messages
from beam_ray.llm import Request
from beam_ray.review.version import criterion_version
from beam_ray.run.plan import make_plan
from tests.conftest import Lab
from tests.review.judged import verdict

TEXT = """
workflow: replies
model: m
nodes:
  reply:
    llm: {{prompt: "reply to {{{{ task_query }}}}", returns: {{text: str, team: str}}}}
    evaluate:
      criteria:
        - id: polite
          text: The reply is polite.
{examples}
        - The reply is short.
"""
TWO = """
          examples:
            - {output: Thank you for waiting., met: true}
            - {output: {text: As I said before., team: sales}, met: false, reason: it blames the customer, task: Where is it?}
"""


def workflow(examples: str = "") -> str:
    return TEXT.format(examples=examples)


def test_the_judge_reads_the_examples_below_their_criterion(lab: Lab) -> None:
    """Each with its output, what was decided and why; criteria without examples are put as ever."""
    asked: list[Request] = []

    def model(request: Request) -> Any:
        if request.judges:
            asked.append(request)
            return verdict(request, True)
        return {"text": "x", "team": "y"}

    lab.run(workflow(TWO), ["q"], model)

    said = str(asked[0].messages[-1]["content"])
    assert said.partition("The criteria:\n")[2].splitlines()[:4] == [
        "criterion_1: The reply is polite.",
        '  example: the output "Thank you for waiting." -> met',
        '  example: asked "Where is it?", the output {"text": "As I said before.", "team": "sales"} -> not met (it blames the customer)',
        "criterion_2: The reply is short.",
    ]
    [plain] = expand("The reply is short.")
    assert "example" not in str(judge_messages([plain], JudgedOutput("q", {"text": "x"}), "mark"))


def test_examples_change_how_outputs_are_scored_and_nothing_else(lab: Lab) -> None:
    """With examples, stored outputs are borrowed and judged again; what people are asked stays the same criterion."""

    def model(request: Request) -> Any:
        return verdict(request, True) if request.judges else {"text": "x", "team": "y"}

    first = lab.run(workflow(), ["q"], model)
    again, other = (lab.run(workflow(examples), ["q"], model, origin=first.run_id, borrow=True) for examples in ("", TWO))

    assert [(sum(run.steps()["calls"].to_pylist()), sum(run.steps()["judge_calls"].to_pylist())) for run in (again, other)] == [(0, 0), (0, 1)]
    before, after = (run.record.plan.nodes["reply"].evaluate.criteria[0] for run in (first, other))  # type: ignore[union-attr]
    assert before != after and criterion_version(before) == criterion_version(after)
    assert first.record.definition_digest != other.record.definition_digest


def test_definitions_without_examples_keep_their_digest(lab: Lab) -> None:
    """As computed before there were examples."""
    assert lab.workflow(workflow()).digest == "68b97e6c274619ff6abb98c18b48c325"


def test_a_definition_with_examples_is_stored_and_read_back(lab: Lab) -> None:
    """The stored form is the same value."""
    written = lab.workflow(workflow(TWO))

    assert type(written).model_validate(written.document()) == written


def test_plans_count_the_examples(lab: Lab) -> None:
    """They are sent with every output."""
    models = {"m": priced()}
    plain, shown = (make_plan(lab.workflow(workflow(examples)), lab.tasks(["q"] * 1), models).nodes[0].judge_usd for examples in ("", TWO))

    assert plain is not None and shown is not None and shown > plain


def priced() -> Any:
    from beam_ray.llm import ScriptedModel
    from beam_ray.llm.prices import Price

    return ScriptedModel(str, Price(1, 1))


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ("[]", "'examples' must be a list of outputs, each with 'met: true' or 'met: false'"),
        ("{output: x, met: true}", "'examples' must be a list of outputs, each with 'met: true' or 'met: false'"),
        ("[It is fine.]", "example 1 must be a mapping with 'output' and 'met', not 'It is fine.'"),
        ("[{output: x, met: true}, {output: x}]", "example 2 must say 'met: true' or 'met: false'"),
        ("[{output: x, met: maybe}]", "example 1 must say 'met: true' or 'met: false', not 'maybe'"),
        ("[{met: true}]", "example 1 has no output"),
        ("[{output: x, met: true, because: y}]", "example 1 has an unknown key 'because'; an example has output, met, reason, task"),
        ("[{output: x, met: true, reason: 3}]", "the reason of example 1 must be a text; put it in quotes"),
        ("[{output: .nan, met: true}]", "the output of example 1 is not JSON; put dates and special values in quotes"),
        (f"[{{output: {'x' * 4_001}, met: true}}]", "the output of example 1 has 4,003 characters; at most 4,000 are allowed"),
        (f"[{{output: x, met: true, reason: {'x' * 501}}}]", "the reason of example 1 has 501 characters; at most 500 are allowed"),
        (f"[{', '.join(['{output: x, met: true}'] * 11)}]", "a criterion may have at most 10 examples, not 11"),
        ("[{output: {txt: x}, met: true}]", "an example of a criterion of node 'reply' has the field 'txt', which the node does not return"),
    ],
)
def test_malformed_examples_are_refused_in_one_line(lab: Lab, examples: str, said: str) -> None:
    """With the place of the criterion."""
    with pytest.raises(BadDefinition) as caught:
        lab.workflow(workflow(f"          examples: {examples}"), "w.yaml")

    [problem] = caught.value.problems
    assert problem.text.splitlines()[0] == said
    assert problem.line == 9


def test_rules_take_no_examples(lab: Lab) -> None:
    """A rule learns nothing."""
    with pytest.raises(ValueError, match="'examples' apply to plain-language criteria only, not to 'check'"):
        expand({"check": "a.x > 0", "examples": [{"output": "x", "met": True}]})
