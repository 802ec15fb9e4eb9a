"""Gate files: what they may say, and what is answered when they say something else."""

from pathlib import Path

import pytest

from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.gate_file import default_gate, load_gate
from beam_ray.define.load import load
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BadDefinition, Unusable

GATES = Path(__file__).parents[2] / "configs" / "gates"


def _load(folder, text, workflow=None):
    path = folder / "gate.yaml"
    path.write_text(text)
    return load_gate(path, workflow)


def _said(gate):
    return [(limit.rule, limit.text, limit.level) for limit in gate.limits]


def test_the_default_gate_asks_for_no_harm():
    """
    Quality, regressions, cost, time and errors decide; the targets of an improvement are shown, and an open question is a warning.
    """
    gate = load_gate("no-harm")

    assert default_gate() == gate
    assert not gate.strict
    assert [
        ("success_rate", "not worse than 5", "block"),
        ("score", "not worse than 5", "block"),
        ("regressions", "at most 0", "block"),
        ("compared", "at least 95 %", "block"),
        ("usd", "up by at most 25 %", "block"),
        ("seconds", "up by at most 100 %", "block"),
        ("tool_errors", "up by at most 10", "block"),
        ("answer_errors", "up by at most 10", "block"),
        ("success_rate", "at least 90 %", "target"),
        ("score", "up by 10", "target"),
        ("failing", "down by 50 %", "target"),
        ("score_sd", "up by at most 0", "target"),
    ] == _said(gate)


def test_the_gate_for_improvements_has_the_limits_of_the_default_gate_of_0_1():
    """
    Success rate, score, failures and regressions decide; a wider spread warns.
    """
    assert [
        ("success_rate", "at least 90 %", "block"),
        ("score", "up by 10", "block"),
        ("failing", "down by 50 %", "block"),
        ("score_sd", "up by at most 0", "warn"),
        ("regressions", "at most 0", "block"),
        ("compared", "at least 95 %", "block"),
    ] == _said(load_gate("improve"))
    assert load_gate("improve").strict


def test_the_gate_for_savings_asks_for_the_quality_of_the_default_gate():
    """
    ``cheaper`` has the rules of ``no-harm``, but that the cost must fall; it shows no targets of an improvement.
    """
    cheaper, harmless = load_gate("cheaper"), load_gate("no-harm")

    assert ("usd", "down by 10 %", "block") in _said(cheaper)
    assert [line for line in _said(harmless) if line[0] != "usd" and line[2] == "block"] == [line for line in _said(cheaper) if line[0] != "usd"]


def test_a_file_extends_a_gate(tmp_path):
    """
    Its rules take the place of those of the same name, its margin that of the gate, and null leaves a rule out.
    """
    (tmp_path / "team.yaml").write_text("gate: team\nextends: no-harm\nmargin: 2\nrules: {usd: {up_by_at_most: 5 %}, seconds: null}\ntargets: {}\n")
    gate = _load(tmp_path, "gate: mine\nextends: team.yaml\nstrict: true\nrules: {regressions: {at_most: 2}, calls: {up_by_at_most: 0}}\n")

    assert ("mine", True) == (gate.name, gate.strict)
    assert [
        ("success_rate", "not worse than 2", "block"),
        ("score", "not worse than 2", "block"),
        ("regressions", "at most 2", "block"),
        ("compared", "at least 95 %", "block"),
        ("usd", "up by at most 5 %", "block"),
        ("tool_errors", "up by at most 10", "block"),
        ("answer_errors", "up by at most 10", "block"),
        ("calls", "up by at most 0", "block"),
    ] == _said(gate)


def test_a_file_may_only_change_the_margin(tmp_path):
    """
    A file that extends a gate needs no rules of its own.
    """
    gate = _load(tmp_path, "gate: mine\nextends: no-harm\nmargin: 3\n")

    assert load_gate("no-harm").limits[2:] == gate.limits[2:]
    assert [3.0, 3.0] == [limit.amount for limit in gate.limits[:2]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: improv", "did you mean 'improve'?"),
        ("extends: none", "has no rules to extend"),
        ("extends: gate.yaml", "extends this file in turn"),
        ("extends: other.yaml", "cannot be read"),
        ("extends: 1", "must be the name of a gate or a file"),
        ("extends: no-harm\nmargin: 0", "'margin' must be"),
        ("extends: no-harm\nstrict: maybe", "'strict' must be true or false"),
        ("extends: no-harm\nrules: {first_score: null}", "there is no rule 'first_score' to leave out"),
        ("rules: {score: {not_worse_than: 0}}", "must be more than 0"),
        ("rules: {score: {up_by: 1, any_loss: block}}", "belongs to 'not_worse_than'"),
        ("rules: {score: {up_by: 1, optional: 1}}", "'optional' must be false or true"),
        ("rules: {score: {up_by: 1}}\ntargets: {score: {up_by: 1, level: warn}}", "unknown limit 'level'"),
    ],
)
def test_what_a_gate_cannot_extend_or_say(tmp_path, text, said):
    """
    Each mistake in the new words has its place and its reason.
    """
    with pytest.raises(BadDefinition) as caught:
        _load(tmp_path, f"gate: mine\n{text}\n")

    [problem] = caught.value.problems
    assert problem.file.endswith("gate.yaml") and problem.line > 1
    assert said in str(caught.value)


def test_an_unknown_name_is_no_gate():
    """
    A misspelt name is answered with the names there are.
    """
    with pytest.raises(Unusable, match="did you mean 'cheaper'"):
        load_gate("cheeper")


def test_the_example_extends_the_default_gate():
    """
    The gate of the orders workflow is stricter than the package's, and fits the workflow.
    """
    gate = load_gate(GATES / "orders.yaml", load(GATES.parent / "workflows" / "orders.yaml")[0])

    assert ("success_rate", "not worse than 3", "block") == _said(gate)[0]


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
