"""A backtest whose judge people have reviewed: its report and JSON have the corrected rates beside the judged ones."""

from pathlib import Path

import beam_ray
from tests.review.judged import answer_all, model, workflow

SPEC = """
backtest: replies-v2
workflow: replies.yaml
tasks: tasks.csv
baseline: replies.yaml
candidates: {v2: {nodes.reply.llm.prompt: "answer {{ task_query }}"}}
gate: none
"""


def truth(number: int) -> bool:
    """What people say."""
    return number % 3 > 0


def test_a_backtest_shows_corrected_rates_and_is_reproduced(store: beam_ray.Store, tmp_path: Path) -> None:
    """Reviews made after a backtest correct it at once; the same backtest again has them in its report, and its verdict can still be reproduced."""
    (tmp_path / "replies.yaml").write_text(workflow())
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "tasks.csv").write_text("id,task_query\n" + "".join(f"t{number},question {number}\n" for number in range(24)))
    answers = model(lambda number: truth(number) or number % 2 == 0)
    asked = beam_ray.open(store.uri, models={"m": beam_ray.ScriptedModel(answers)})
    with_model = beam_ray.Store(asked.uri, asked.models, connection=store.connection)
    first = with_model.backtest("spec.yaml")
    before = first.corrected_rates()
    for run in (first.baseline_run, first.best.run):
        answer_all(with_model, tmp_path, with_model.review_queue("replies", run=run.id), truth)

    [success, polite] = first.corrected_rates("v2")
    again = with_model.backtest("spec.yaml", options=beam_ray.BacktestOptions(again=True))

    [check] = with_model.criteria("replies.yaml", outputs=beam_ray.Outputs(first.baseline_run.id, 24), repeats=2)
    [planned] = with_model.plan_criteria("replies.yaml", outputs=beam_ray.Outputs(first.baseline_run.id, 24), repeats=2)

    assert (planned.outputs, planned.repeats, planned.judge_calls, planned.max_usd) == (24, 2, 2 * 24 + 2 * 24, 0.0)
    assert [(report.criterion, report.drawn) for report in check.judges] == [("polite", 48)]
    assert check.variance is not None and check.variance.between_judgements == 0
    assert before == () and first.document()["candidates"][0]["corrected"] == []
    assert (success.name, success.by, success.reviews) == ("success_rate", "own reviews", (24, 24))
    assert polite.before.value < polite.judged_before.value
    assert [rate["name"] for rate in again.document()["candidates"][0]["corrected"]] == ["success_rate", "reply/polite"]
    assert "reply/polite corrected for the judge's errors: baseline " in again.report() and "corrected for the judge" in again.report("report.html")
    assert with_model.reproduce(again.id).reproduced
