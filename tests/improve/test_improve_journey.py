"""From a run with a weak prompt to its rerun, its ledger and its health, by commands alone."""

import json

from tests.cli.conftest import Desk, desk  # noqa: F401


def test_rerun_ledger_and_health(desk: Desk):  # noqa: F811
    """A weak step warns; what fails is redone with a better prompt; the ledger says what changed, what it solved and what it cost."""
    retried = (
        (desk.lab.folder / "sums.yaml")
        .read_text()
        .replace("criteria: [{equals: {n: expected.n}}]}", "criteria: [{equals: {n: expected.n}}]}\n    auto_rerun: {max: 1}")
    )
    desk.lab.write("sums.yaml", retried)
    desk.lab.write("better.yaml", retried.replace("read {{ task_query }}", "better {{ task_query }}"))
    desk("publish", "sums.yaml", "--without-evidence", "first")
    planned = desk("plan", "sums", "--tasks", "tasks.jsonl").out
    assert "72 model calls and at most 36 auto-reruns, ≤ $" in planned
    assert " without auto-reruns, " in planned
    run = desk("run", "sums", "--tasks", "tasks.jsonl", "--json").json["run_id"]

    signs = {sign["rule"]: sign for sign in desk("health", "sums", "--json").json["signs"]}
    assert {rule: sign["word"] for rule, sign in signs.items()} == {"used_up": "WARNING", "auto_reruns": "WARNING", "uplift": "WARNING", "seconds": "unknown"}
    assert signs["used_up"]["figures"]["used_up"] == 24

    desk("rerun", "--from-run", run, "--failed", "--using", "better.yaml", "--because", "asked more plainly")
    told = desk("history", "sums", "--html", "ledger.html", "--markdown", "ledger.md", "--json")
    bought = told.json["bought"]
    assert (told.code, bought["tasks"], bought["solved"], bought["points"]) == (0, 24, 24, 2400.0)
    assert bought["solved_per_usd"] == 24 / bought["usd"] > 0
    assert "asked more plainly" in (desk.lab.folder / "ledger.html").read_text()
    assert "asked more plainly" in (desk.lab.folder / "ledger.md").read_text()

    shown = desk("history", "sums", "--report").out
    assert shown.startswith("sums: 1 rerun of 24 tasks: 24 solved, 0 newly failing")
    assert [member["solved"] for member in json.loads(desk("history", f"{run}/n1", "--json").out)] == ["", "solved"]
