"""Gate files: what they may say, and what is answered when they say something else."""

from pathlib import Path

import pytest

from beam_ray.compare.gate import DEFAULT_GATE, Gate, Limit, load_gate
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BadDefinition

GATES = Path(__file__).parents[2] / "configs" / "gates"


def _load(folder, text, workflow=None):
    path = folder / "gate.yaml"
    path.write_text(text)
    return load_gate(path, workflow)


def test_the_default_gate_is_its_file():
    """
    The gate that is used without a file is the one that people can read.
    """
    assert load_gate(GATES / "default.yaml") == DEFAULT_GATE


def test_the_demo_gate_asks_for_no_success_rate():
    """
    A very small model can meet the demo's gate.
    """
    gate = load_gate(GATES / "demo.yaml")

    assert {"score", "failing", "regressions", "compared", "seconds"} == {limit.rule for limit in gate.limits}


def test_every_form_of_a_limit(tmp_path):
    """
    Levels, targets and guards, in units and percent, with level and evidence, of metrics, nodes and criteria.
    """
    gate = _load(
        tmp_path,
        """
gate: all
confidence: 90
rules:
  success_rate: {at_least: 80 %}
  score: {up_by: 5, at_least: 60, by: estimate}
  usd: {up_by_at_most: 10 %, level: warn}
  extract/vendor: {down_by_at_most: 1.5}
  regressions: {at_most: 5 %}
""",
    )

    assert (
        Gate(
            name="all",
            confidence=90,
            limits=(
                Limit(rule="success_rate", kind="at_least", amount=80),
                Limit(rule="score", kind="up_by", amount=5, by="estimate"),
                Limit(rule="score", kind="at_least", amount=60, by="estimate"),
                Limit(rule="usd", kind="up_by_at_most", amount=10, percent=True, level="warn"),
                Limit(rule="extract/vendor", kind="down_by_at_most", amount=1.5),
                Limit(rule="regressions", kind="at_most", amount=5, percent=True),
            ),
        )
        == gate
    )
    assert Gate.model_validate(gate.document()) == gate


def test_all_problems_are_reported_at_once(tmp_path, monkeypatch, golden):
    """
    Each problem has its place, what is allowed there, and the nearest word.
    """
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadDefinition) as caught:
        _load(
            tmp_path,
            """gate: My Gate
confidnce: 95
rules:
  sucess_rate: {at_least: 90}
  score: {up_byy: 10}
  failing: {down_by: half}
  seconds: {up_by_at_most: 10, level: warning}
  usd: {}
  regressions: {up_by: 1}
  tokens: 5
  calls: {at_most: 10 %}
  first_score: {at_least: 101}
""",
        )

    golden("gate_problems.txt", f"{caught.value}\n")


def test_nodes_and_criteria_are_known(tmp_path):
    """
    With the workflow at hand, a misspelt node or criterion is found before anything is spent.
    """
    workflow = Workflow.model_validate(
        {"workflow": "orders", "nodes": {"extract": {"llm": {"prompt": "x"}, "evaluate": {"criteria": [{"check": "true", "id": "vendor"}]}}}}
    )
    text = "gate: g\nrules:\n  extract/score: {up_by: 1}\n  extract/vendor: {up_by: 1}\n"
    assert 2 == len(_load(tmp_path, text, workflow).limits)

    with pytest.raises(BadDefinition) as caught:
        _load(tmp_path, f"{text}  extarct/vendor: {{up_by: 1}}\n  extract/vendr: {{up_by: 1}}\n", workflow)

    assert ["did you mean 'extract'?", "did you mean 'vendor'?"] == [problem.notes[-1] for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "gate: g", "gate: g\nrules: []", "gate: g\nrules: {}", "rules: {score: {up_by: 1}}", "gate: g\nconfidence: true\nrules: {score: {up_by: 1}}"],
)
def test_what_is_no_gate_is_refused(tmp_path, text):
    """
    A file that is not a gate is a problem and no crash.
    """
    with pytest.raises(BadDefinition):
        _load(tmp_path, text)
