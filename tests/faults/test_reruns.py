"""A rerun is killed; the same command goes on with it, also where it names its tasks by what is newest."""

import json

import pytest

from tests.faults.conftest import Bench


@pytest.mark.parametrize("point", ["part.open", "open.delete"])
@pytest.mark.parametrize("words", [("t3",), ("--from-run", "last", "--status", "below")], ids=["task", "last"])
def test_a_killed_rerun_is_resumed_by_the_same_command(words: tuple[str, ...], point: str, bench: Bench):
    """Killed before its end or just after it, the rerun is not taken for the run that is to be rerun: there is one rerun, of the original."""
    original = json.loads(bench.run().out)["run_id"]
    rerun = ("rerun", *words, "--using", "original", "--models", "models.yaml", "--store", bench.uri, "--json")
    killed = bench.run(*rerun, fail=f"{point}:1:kill")
    again = bench.run(*rerun)

    assert (killed.code, again.code) == (-9, 0)
    assert json.loads(again.out)["origin"] == original
    assert len(bench.runs) == 2


@pytest.mark.parametrize("words", [("t3",), ("--from-run", "last", "--status", "below")], ids=["task", "last"])
def test_a_rerun_that_died_before_it_stored_its_tasks_is_passed_over(words: tuple[str, ...], bench: Bench):
    """It has no task, so that the same command finds those of the original."""
    original = json.loads(bench.run().out)["run_id"]
    rerun = ("rerun", *words, "--using", "original", "--models", "models.yaml", "--store", bench.uri, "--json")
    killed = bench.run(*rerun, fail="run.sync:1:kill")
    again = bench.run(*rerun)

    assert (killed.code, again.code) == (-9, 0)
    assert json.loads(again.out)["origin"] == original
