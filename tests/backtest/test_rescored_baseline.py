"""Whether a baseline is scored again by a candidate's criteria."""

import pytest

from beam_ray import Evaluation, LlmCall, Node, Workflow
from beam_ray.backtest.rescored_baseline import with_criteria_of


def workflow(model: str, criterion: object) -> Workflow:
    """A workflow of one node."""
    node = Node(llm=LlmCall(prompt="{{ task_query }}", returns={"n": "int"}), evaluate=Evaluation(criteria=[criterion]))
    return Workflow(name="w", model=model, nodes={"x": node})


@pytest.mark.parametrize(("criterion", "again"), [({"check": "x.n > 0"}, False), ("The number is even.", True)], ids=["rule", "plain language"])
def test_another_model_judges_only_criteria_in_plain_language(criterion: object, again: bool):
    """A candidate with another model leaves the baseline as it is, unless that model judges it."""
    baseline = workflow("a", criterion)

    assert (with_criteria_of(baseline, workflow("b", criterion)).digest != baseline.digest) is again
