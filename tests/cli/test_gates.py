"""Named gates on the command line: which one judges, and what its verdict is good for."""

from tests.cli.conftest import Desk


def test_the_gate_none_only_compares(desk: Desk) -> None:
    """
    It gives no verdict and exit code 0, is no evidence for publishing, and the same runs can be judged by another gate later.
    """
    desk("publish", "sums.yaml", "--without-evidence", "the first")
    done = desk("backtest", "spec.yaml", "--gate", "none", "--json")
    again = desk("backtest", "spec.yaml", "--gate", "improve")
    [candidate] = done.json["candidates"]
    runs = candidate["baseline_run"], candidate["run_id"]
    refused = desk("publish", "sums.yaml", "--evidence", done.json["backtest_id"], "--candidate", "v2")

    assert (0, "NONE", []) == (done.code, done.json["word"], candidate["verdict"]["lines"])
    assert "verdict: none; the gate 'none' only compares" in again.out
    assert "has a verdict already by the gate 'none', not 'improve'" in again.err
    assert (2, True) == (refused.code, "has no verdict: its gate only compares" in refused.err)
    assert [("NONE", 0), ("BLOCK", 4)] == [
        ((judged := desk("compare", *pair, "--gate", gate, "--json")).json["word"], judged.code) for gate, pair in (("none", runs), ("improve", runs[::-1]))
    ]


def test_a_gate_that_there_is_not(desk: Desk) -> None:
    """
    A misspelt name is answered with the names there are, before a model is called.
    """
    desk("publish", "sums.yaml", "--without-evidence", "the first")
    said = desk("backtest", "spec.yaml", "--gate", "cheeper")

    assert 2 == said.code
    assert "there is no gate 'cheeper'\n  there are: no-harm, improve, cheaper, none, or a file\n  did you mean 'cheaper'?" in said.err
    assert not desk.model.journal
