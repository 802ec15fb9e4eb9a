"""repair, by the command that people type."""

from tests.cli.conftest import Desk


def test_repair_says_what_it_will_do_and_does_only_that(desk: Desk):
    """--plan exits with code 6 and calls no model; repair executes the lost rows again; afterwards the run is as before, and a second repair finds nothing."""
    run = desk("run", "sums.yaml", "--tasks", "tasks.jsonl", "--json").json
    before, asked = desk("tasks", "--run", run["run_id"], "--json").json, len(desk.model.journal)
    path = desk.lab.folder / "store" / "runs" / run["run_id"] / "steps" / "read-000.parquet"
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 1
    path.write_bytes(body)

    assert desk("tasks", "--run", run["run_id"]).code == 0
    assert desk("show", f"{run['run_id']}/n4").code == 6
    plan = desk("repair", run["run_id"], "--plan", "--json")
    assert (plan.code, plan.json["calls"], plan.json["calls_at_most"], len(desk.model.journal)) == (6, 36, 72, asked)
    assert plan.json["nodes"] == [{"node": "read", "redo": 36, "follow": 0}, {"node": "say", "redo": 0, "follow": 36}]
    assert [damage["name"] for damage in plan.json["damaged"]] == ["steps/read-000.parquet"]

    mended = desk("repair", run["run_id"])
    assert mended.code == 0 and "36 model calls, 72 if everything that follows changes too" in mended.out
    assert "repaired: outcome.parquet, steps/read-000.parquet" in mended.out
    assert len(desk.model.journal) == asked + 36
    assert [(row["task"], row["score"]) for row in desk("tasks", "--run", run["run_id"], "--json").json] == [(row["task"], row["score"]) for row in before]
    assert desk("show", f"{run['run_id']}/n4").code == 0
    assert desk("repair", run["run_id"]).out == f"run {run['run_id']}: every file is intact\n"
