"""gc: what is of no use goes, and nothing that anything needs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_ray.cli import beam_ray, main
from beam_ray.errors import Stopped
from beam_ray.rerun import RerunOptions, make_rerun
from beam_ray.store.beginning import unfinished
from beam_ray.store.checksummed_json import seal
from beam_ray.store.gc import collect, remove
from beam_ray.store.lookup import find_runs
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from beam_ray.tasks.parse import read_tasks
from tests.store.dying import Dying
from tests.stores.write import models

STORE = Path(__file__).parent.parent / "stores" / "0.1"
SHA = "f" * 64


def copied(folder: Path) -> Objects:
    """A store with some of everything, written ten days ago."""
    shutil.copytree(STORE, folder / "store")
    age(folder / "store")
    return open_objects(str(folder / "store"))


def age(folder: Path, days: float = 10) -> None:
    """Let every file be so old."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - days * 86_400,) * 2)


def run_of(store: Objects, mode: str) -> Run:
    """The store's one run of that mode."""
    return next(run for run in (Run(store, name) for name in find_runs(store)) if run.record.mode == mode)


def merged_parts(store: Objects) -> None:
    """A driver died between its manifest and tidying up."""
    source, run = run_of(store, "run"), run_of(store, "baseline")
    for folder in ("parts/", "spool/"):
        for key, _ in list(store.keys(f"{source.prefix}/{folder}")):
            store.create(key.replace(source.prefix, run.prefix), store.read(key))


def temporary(store: Objects) -> None:
    """Writers died in the middle of a file."""
    Path(store.uri, "runs", ".tmp-1-a").write_bytes(b"half a file")
    Path(store.uri, run_of(store, "baseline").prefix, "steps", ".tmp-2-b").write_bytes(b"half")


def attachment(store: Objects) -> None:
    """Whoever kept it never began a run with it."""
    store.create(f"attachments/{SHA}", b"unused")


def open_mark(store: Objects) -> None:
    """A mark whose run is gone."""
    store.create("open/0123.json", seal({"run_id": "261101-000000"}))


def half_begun(store: Objects) -> None:
    """A driver died between writing down a run and beginning it."""
    document = json.loads(store.read(f"{run_of(store, 'baseline').prefix}/run.json"))
    document.pop("seal")
    store.create("runs/261101-111111/run.json", seal({**document, "run_id": "261101-111111", "mode": "half"}))


LEFT = {"merged parts": merged_parts, "temporary files": temporary, "attachments": attachment, "open marks": open_mark, "run never begun": half_begun}


def commands(store: Objects) -> list[Any]:
    """Queries of finished runs, and their answers."""
    told: list[Any] = []
    runs = [run for run in (Run(store, name) for name in find_runs(store)) if run.finished]
    for run in runs:
        told += [run.record, run.steps().to_pylist(), run.outcome().to_pylist(), run.tasks().to_pylist(), run.manifest]
    baseline, candidate, again = (run_of(store, mode).run_id for mode in ("baseline", "candidate", "rerun"))
    for words in (
        ["show", f"{baseline}/n3"],
        ["history", f"{again}/n3"],
        ["tasks", "--run", candidate, "--json"],
        ["compare", baseline, candidate, "--json"],
        ["versions", "sums", "--json"],
        ["diff", "sums@1", "sums@2"],
        ["library", "list", "--json"],
    ):
        said = CliRunner().invoke(beam_ray, [*words, "--store", store.uri])
        told.append((words, said.exit_code, said.stdout))
    plan = make_rerun(store, Run(store, candidate), ["n3"], Run(store, baseline).record.plan, models(), options=RerunOptions("say"))
    return [*told, [(node.node, node.run, node.borrow, node.why) for node in plan.nodes], plan.tasks.to_pylist()]


@settings(max_examples=10, deadline=None)
@given(st.sets(st.sampled_from(sorted(LEFT))), st.booleans())
def test_after_gc_every_command_on_a_finished_run_says_what_it_said(left: set[str], abandoned: bool):
    """Whatever was left behind, and whether abandoned runs go too: all that was left goes, and a second look finds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        store = copied(Path(folder))
        before = commands(store)
        assert all(code in (0, 4, 5) for _, code, _ in [told for told in before if isinstance(told, tuple)])
        for name in left:
            LEFT[name](store)
        age(Path(folder))
        found = collect(store, abandoned=abandoned)

        assert {garbage.kind for garbage in found} == left | ({"abandoned run"} if abandoned else set())
        assert all(remove(store, garbage) for garbage in found)
        assert commands(store) == before
        assert collect(store, abandoned=abandoned) == []


def test_what_is_young_is_left_alone(tmp_path: Path):
    """Its writer may be at work."""
    store = copied(tmp_path)
    for leave in LEFT.values():
        leave(store)

    # the parts of a finished run are of no use however young they are
    assert {garbage.kind for garbage in collect(store)} == {"merged parts"}


def test_an_unfinished_run_goes_only_when_asked_for_and_old(tmp_path: Path):
    """With its mark, so that the same command begins anew."""
    store = copied(tmp_path)
    run = run_of(store, "run")

    assert [collect(store), collect(store, abandoned=True, older_than_s=11 * 86_400)] == [[], []]
    [garbage] = collect(store, abandoned=True)
    assert garbage.place == run.prefix and remove(store, garbage)
    assert run.run_id not in find_runs(store) and unfinished(store, run.record.key) is None


def test_a_run_that_is_driven_is_not_touched(tmp_path: Path):
    """Neither listed, nor deleted if a driver started after it was listed."""
    store = copied(tmp_path)
    run = run_of(store, "run")
    listed = collect(store, abandoned=True)
    script = f"from beam_ray.store.opening import open_objects\nfrom beam_ray.store.lease import *\nLease(Run(open_objects({store.uri!r}), {run.run_id!r}))\nprint('held', flush=True)\ninput()"
    driver = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout.readline() == "held\n"
    before = list(store.keys(f"{run.prefix}/parts/"))
    age(tmp_path)
    why: list[str] = []
    now_listed = collect(store, abandoned=True, kept=lambda kept: why.append(kept.why))
    removed = [remove(store, garbage) for garbage in listed]
    driver.kill()
    driver.wait()

    assert (now_listed, removed, list(store.keys(f"{run.prefix}/parts/"))) == ([], [False], before)
    assert why == [f"process {driver.pid} on {os.uname().nodename} drives it"]


def test_an_unfinished_side_of_a_backtest_is_needed(tmp_path: Path):
    """The backtest resumes it."""
    store = copied(tmp_path)
    store.create("backtests/other-1/sides/v3.json", seal({"run_id": run_of(store, "run").run_id}))

    assert collect(store, abandoned=True) == []


def test_a_finished_run_that_lost_its_manifest_is_not_taken_for_abandoned(tmp_path: Path):
    """Its rows are all there, and repair makes the manifest again."""
    store, why = copied(tmp_path), list[str]()
    run, others = run_of(store, "baseline"), collect(store, abandoned=True)
    store.delete(f"{run.prefix}/manifest.json")

    assert collect(store, abandoned=True, kept=lambda kept: why.append(kept.why)) == others
    assert f"{run.prefix}/manifest.json is missing, though the run is finished" in why


def test_the_mark_of_a_finished_run_stays(tmp_path: Path):
    """By it the same command finds its result, where its driver died right after the manifest, and pays nothing again."""
    store = copied(tmp_path)
    run = run_of(store, "baseline")
    store.create(f"open/{run.record.key}.json", seal({"run_id": run.run_id}))
    age(tmp_path)

    assert collect(store) == []


def test_no_attachment_goes_while_some_tasks_cannot_be_read(tmp_path: Path):
    """They may be the ones that have it."""
    store = copied(tmp_path)
    attachment(store)
    store.put(f"{run_of(store, 'baseline').prefix}/tasks.parquet", b"torn")
    age(tmp_path)
    why: list[str] = []

    assert collect(store, kept=lambda kept: why.append(kept.why)) == []
    assert any("tasks.parquet is damaged" in text for text in why)


def test_an_old_attachment_that_is_used_anew_is_young_again(tmp_path: Path):
    """A command that is being planned keeps it, though no run has it yet."""
    store = copied(tmp_path)
    (tmp_path / "a.txt").write_text("unused")
    (tmp_path / "t.jsonl").write_text('{"task_query": "x", "attachments": ["a.txt"]}\n')
    read_tasks(tmp_path / "t.jsonl", store)
    age(tmp_path)
    [garbage] = collect(store)
    read_tasks(tmp_path / "t.jsonl", store)

    assert collect(store) == []
    remove(store, garbage)
    assert store.read(garbage.keys[0]) == b"unused"


def cut_off_merge(store: Objects) -> Run:
    """A finished run as it was when its driver was about to write the manifest."""
    run = run_of(store, "baseline")
    for node in run.record.plan.order:
        rows = run.steps([node]).to_pylist()
        for shard, (start, stop) in enumerate(run.record.shards):
            run.commit_part(node, shard, rows[start:stop])
    for shard, (start, stop) in enumerate(run.record.shards):
        run.commit_outcome(shard, run.outcome().to_pylist()[start:stop])
    store.delete(f"{run.prefix}/manifest.json")
    return Run(store, run.run_id)


@pytest.mark.parametrize("left", [lambda store: run_of(store, "run"), cut_off_merge], ids=["half done", "while it was merged"])
def test_a_removal_that_was_cut_off_is_finished_by_the_next(tmp_path: Path, left: Callable[[Objects], Run]):
    """At each of its changes."""
    deaths = 0
    while True:
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        store = copied(tmp_path)
        for backtest in store.folders("backtests"):
            shutil.rmtree(tmp_path / "store" / "backtests" / backtest)
        run = left(store)
        key = run.record.key
        age(tmp_path)
        [garbage] = [found for found in collect(store, abandoned=True) if found.place == run.prefix]
        dying = Dying(tmp_path / "store")
        dying.left = deaths
        try:
            remove(dying, garbage)
            break
        except Stopped:
            deaths += 1
        for key, _ in store.keys(f"{run.prefix}/lease/"):
            if key.endswith(".json"):
                store.put(key, store.read(key).replace(b'"process"', b'"died"'))  # whoever held the lease is gone
        age(tmp_path)
        for found in collect(store, abandoned=True):
            assert remove(store, found)

        assert list(store.keys(f"{run.prefix}/")) == [] and unfinished(store, key) is None

    assert deaths > 8


def test_the_command_only_lists_unless_told_to_delete(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A table with bytes and the command that deletes; --json has every key."""
    store = copied(tmp_path)
    attachment(store)
    age(tmp_path)

    def give(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["gc", *words, "--store", store.uri])
        return int(left.value.code or 0), capsys.readouterr().out

    code, out = give()
    assert code == 0 and "6 bytes; nothing was deleted" in out and f"beam-ray gc --delete --store {store.uri}" in out
    document = json.loads(give("--json")[1])
    assert ([garbage["keys"] for garbage in document["garbage"]], document["bytes"], document["deleted"]) == ([[f"attachments/{SHA}"]], 6, [])
    assert "deleted 1 of 1" in give("--delete")[1]
    assert give()[1] == "there is nothing to delete\n"
