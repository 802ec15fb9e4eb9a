"""The commands of a what-if."""

from tests.cli.conftest import Desk


def test_the_command(desk: Desk) -> None:
    """
    ``rerun TASK --with`` prints what was changed; ``show`` and ``tasks`` tell it again, and the ledger counts no rerun.
    """
    desk("run", "sums.yaml", "--tasks", "tasks.jsonl")
    origin = desk("tasks", "--run", "last", "--json").json[0]["run_id"]
    made = desk("rerun", f"{origin}/n1", "--using", "original", "--with", "task_query=6", "--with", "expected.n=6")
    run = made.out.split()[1]
    shown, listed = desk("show", f"{run}/n1"), desk("tasks", "--run", run)
    wrong = desk("rerun", f"{origin}/n1", "--using", "original", "--with", "task_qery=6")
    both = desk("rerun", f"{origin}/n1", "--with", "task_query=6", "--with-file", "f.json")

    assert made.out.startswith(f'run {run} · what-if on 1 task of run {origin}, with a draft\n  task_query = "6"\n  expected.n = 6\n')
    assert "solved" not in made.out
    assert f'  {run} what-if on run {origin}: task_query = "6", expected.n = 6\n' in shown.out
    assert '  changed task_query: "1" => "6"\n  changed expected.n: 1 => 6\n' in shown.out
    assert f'run {run} is a what-if on run {origin}: task_query = "6", expected.n = 6\n' in listed.out
    assert desk("show", f"{run}/n1", "--json").json["changed_inputs"]["task_query"] == {"before": "1", "after": "6"}
    assert [each["solved"] for each in desk("history", f"{run}/n1", "--json").json] == ["", ""]
    assert (wrong.code, wrong.err.splitlines()[0]) == (2, "the task's input has no 'task_qery'")
    assert (both.code, both.err.splitlines()[0]) == (2, "give --with or --with-file: one of the two")
