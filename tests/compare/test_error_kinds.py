"""Errors by kind: timeouts, refusals, bad answers, errors of tools, and others."""

import pytest
from sides import side, step, task

from beam_ray.compare.comparison import compare
from beam_ray.compare.error_kinds import error_kind
from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.verdict import judge


@pytest.mark.parametrize(
    ("error_type", "message", "kind"),
    [
        ("ModelUnavailable", "no answer within 120 s", "timeouts"),
        ("ModelUnavailable", "Error code: 504 - Gateway Timeout", "timeouts"),
        ("ModelUnavailable", "Connection error.", "other_errors"),
        ("ToolFailed", "tools.crm:find took longer than 5 s and was killed", "timeouts"),
        ("ToolFailed", "tools.crm:find: ReadTimeout: the server was slow", "timeouts"),
        ("ToolFailed", "tools.crm:find: ValueError: timeout must be positive", "tool_errors"),
        ("ModelRefused", "no", "refusals"),
        ("BadAnswer", "the answer is no JSON", "bad_answers"),
        ("BelowThreshold", "below 90", "other_errors"),
        ("FailedInProduction", "the request timed out", "timeouts"),
        (None, None, "other_errors"),
    ],
)
def test_the_kind_of_an_error(error_type, message, kind):
    """
    What took too long is a timeout, whoever took it; all else goes by its type.
    """
    assert kind == error_kind(error_type, message)


def failing(name, errors, count=20):
    """A side whose first tasks fail with these errors."""
    given = [*errors, *[None] * (count - len(errors))]
    outcome = [task(f"t{index:02d}", None if error else 100.0, outcome="failed" if error else "done", passed=not error) for index, error in enumerate(given)]
    steps = [
        step(f"t{index:02d}", None if error else 100.0, outcome="failed" if error else "done", **dict(zip(("error_type", "error"), error or (), strict=False)))
        for index, error in enumerate(given)
    ]
    return side(name, outcome, steps)


def test_shares_before_and_after():
    """
    Timeouts fall from 15 to 5 % of the tasks, with an interval that a gate can judge, whether a model or a tool took too long.
    """
    slow, slow_tool, refused = ("ModelUnavailable", "no answer within 9 s"), ("ToolFailed", "a:b took longer than 9 s"), ("ModelRefused", "no")
    found = compare(failing("a", [slow, slow, slow_tool]), failing("b", [slow_tool, refused]))

    timeouts = found.metric("timeouts")
    assert (15.0, 5.0, -10.0) == pytest.approx((timeouts.before, timeouts.after, timeouts.change))
    assert timeouts.low < -10 < timeouts.high
    assert (0.0, 5.0) == (found.metric("refusals").before, found.metric("refusals").after)
    assert (0.0, 0.0) == (found.metric("other_errors").before, found.metric("bad_answers").after)
    assert 5.0 == found.metric("tool_errors").before
    gate = Gate(
        name="g", limits=(Limit(rule="timeouts", kind="at_most", amount=2, by="estimate"), Limit(rule="refusals", kind="at_most", amount=5, by="estimate"))
    )
    assert ["BLOCK", "PASS"] == [line.word for line in judge(found, gate).lines]
