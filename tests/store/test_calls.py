"""The table of calls: committed with the steps, and a table of its own once the run is finished."""

import datetime

from beam_ray.llm import ScriptedModel
from beam_ray.run.plan import Lineage, make_plan
from beam_ray.run.summary import summarise
from beam_ray.store.beginning import begin
from beam_ray.store.call_table import CallRow
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from tests.conftest import Lab

NOON = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)


def call(number: int, reply: str) -> CallRow:
    """A call of a tool."""
    return {
        "attempt": 1, "number": number, "kind": "tool", "name": "find", "api": None, "request": "{}", "request_sha256": None, "reply": reply,
        "reply_sha256": None, "fingerprint": f"f{number}", "occurrence": 1, "source": "live", "recorded_from": None, "effects": "read", "error": None,
        "started_at": NOON, "ended_at": NOON, "seconds": 0.5, "waited": 0.0, "calls": 0, "input_tokens": 0, "output_tokens": 0, "cached_tokens": None,
        "reasoning_tokens": None, "usd": 0.0, "estimated": False,
    }  # fmt: skip


def test_calls_are_committed_with_their_steps_and_become_a_table_of_their_own(lab: Lab):
    """An unfinished and a finished run have the same calls, by task; steps without calls have none, and no step of the finished run carries any."""
    workflow = lab.workflow("workflow: w\nmodel: m\nnodes: {n: {llm: {prompt: 'Say {{ task_query }}'}}, o: {after: n, llm: {prompt: o}}}")
    done = lab.run(workflow, ["a", "b", "c"], lambda request: "x")
    models = {"m": ScriptedModel(lambda request: "x")}
    plan = make_plan(workflow, done.tasks(), models, lineage=Lineage(because="another", sample=1))
    run = Run(lab.objects, begin(lab.objects, plan.record, plan.tasks).run_id)
    made = {"t0": [call(1, '"ä"'), call(2, '"\ud800"')], "t2": [call(1, "[1]")]}
    for node in ("n", "o"):
        run.commit_part(node, 0, [{**row, "call_rows": made.get(row["task_id"]) if node == "n" else None} for row in done.steps([node]).to_pylist()])
    run.commit_outcome(0, done.outcome().to_pylist())
    keys = [("t0", 1), ("t1", 1), ("t2", 1)]
    before = run.calls().to_pylist(), StepRows(run).calls("n", keys)
    files = [entry for node in ("n", "o", "_outcome") for entry in run.merge(node, 1)]
    run.finish(files, summarise(run, files))
    finished = Run(lab.objects, run.run_id)

    assert [entry["name"] for entry in files] == ["steps/n-000.parquet", "calls/n-000.parquet", "steps/o-000.parquet", "outcome.parquet"]
    assert finished.calls().to_pylist() == before[0]
    assert StepRows(finished).calls("n", keys) == before[1]
    assert {key: [row["reply"] for row in rows] for key, rows in before[1].items()} == {("t0", 1): ['"ä"', '"?"'], ("t2", 1): ["[1]"]}
    assert StepRows(finished).calls("n", keys[1:2]) == {}
    assert "call_rows" not in finished.steps().column_names
    assert finished.calls(["o"]).num_rows == 0
