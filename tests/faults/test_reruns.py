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


@pytest.mark.parametrize("point", ["manifest.open:2", "open.delete:1"], ids=["in the second run", "after both"])
@pytest.mark.parametrize("by", ["address", "library"])
def test_a_killed_rerun_of_tasks_of_two_runs_pays_for_none_of_them_again(by: str, point: str, bench: Bench):
    """The run that was finished before the kill is found again as well as the one that was not."""
    lines = (bench.folder / "tasks.jsonl").read_text().splitlines(keepends=True)
    originals = []
    for name, part in (("some", lines[:2]), ("others", lines[2:4])):
        (bench.folder / f"{name}.jsonl").write_text("".join(part))
        ended = bench.run("run", "work.yaml", "--tasks", f"{name}.jsonl", "--models", "models.yaml", "--store", bench.uri, "--json")
        originals.append(json.loads(ended.out)["run_id"])
    (bench.folder / "four.jsonl").write_text("".join(lines[:4]))
    assert bench.run("library", "add", "four", "--tasks", "four.jsonl", "--store", bench.uri).code == 0
    chosen = ("--library", "four") if by == "library" else (f"{originals[0]}/t1", f"{originals[1]}/t3")
    rerun = ("rerun", *chosen, "--using", "original", "--models", "models.yaml", "--store", bench.uri, "--json")
    killed = bench.run(*rerun, fail=f"{point}:kill")
    asked = len(bench.model.journal)
    again = bench.run(*rerun)

    assert (killed.code, again.code) == (-9, 0)
    assert sorted(each["origin"] for each in json.loads(again.out)) == sorted(originals)
    assert (len(bench.runs), len(bench.model.journal)) == (4, asked)


def test_tasks_of_two_runs_are_rerun_together_or_not_at_all(bench: Bench):
    """The second one's workflow is another than the file's: nothing is paid for the first."""
    first = json.loads(bench.run().out)["run_id"]
    (bench.folder / "other.yaml").write_text((bench.folder / "work.yaml").read_text().replace("workflow: work", "workflow: other"))
    ended = bench.run("run", "other.yaml", "--tasks", "tasks.jsonl", "--models", "models.yaml", "--store", bench.uri, "--json")
    second, asked = json.loads(ended.out)["run_id"], len(bench.model.journal)
    words = ("rerun", f"{first}/t1", f"{second}/t1", "--using", "work.yaml", "--models", "models.yaml", "--store", bench.uri)
    refused = bench.forge(bench.folder, *words)

    assert refused.code == 2
    assert f"run {second} was of 'other'" in refused.err
    assert (len(bench.runs), len(bench.model.journal)) == (2, asked)


def test_a_rerun_of_two_runs_that_stopped_says_that_the_same_command_resumes_it(bench: Bench):
    """To resume the one that was stopped would leave out the other."""
    originals = [json.loads(bench.run().out)["run_id"] for _ in range(2)]
    words = ("rerun", *(f"{run}/t1" for run in originals), "--using", "original", "--models", "models.yaml", "--store", bench.uri, "--budget", "max_calls=1")

    assert "resume with:  the same command" in bench.run(*words).err
