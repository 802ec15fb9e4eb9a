"""Stores of an earlier release are read, resumed, rerun and compared by the current code."""

import asyncio
import json

import pytest

from beam_ray.address import Address
from beam_ray.backtest.conclude import conclude
from beam_ray.backtest.results import read_verdict, report
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import resolve_spec
from beam_ray.compare.compare_runs import compare_runs
from beam_ray.define.load import load
from beam_ray.llm import ScriptedModel
from beam_ray.publish import read_version, versions
from beam_ray.rerun import family
from beam_ray.run.summary import committed_counts
from beam_ray.store.attachments import read_attachment
from beam_ray.store.libraries import library_at, uses
from beam_ray.store.run_record import tasks_digest
from beam_ray.store.runs import Run
from beam_ray.tasks.sources import read
from tests.conftest import Lab, drive_here
from tests.stores.conftest import run_of
from tests.stores.write import SPEC, WORKFLOW, answer, models


def test_its_versions_libraries_and_attachments_are_read(old: Lab):
    """Versions with their evidence, a library with its use, a task with its attachment."""
    verdict = read_verdict(old.objects, "sums-v2")
    library = library_at(old.objects, "sums")
    [note] = library.tasks["attachments"].to_pylist()[3]
    first, second = (read_version(old.objects, "sums", number) for number in versions(old.objects, "sums"))

    assert (first.reason, first.source, second.verdict, second.evidence) == ("the first", WORKFLOW, "PASS", verdict["backtest_id"])
    assert [version.plan.digest for version in (first, second)] == [first.digest, second.digest]
    assert load(old.write("sums.yaml", WORKFLOW))[0].model_copy(update={"tools_from": ""}).digest == first.digest
    assert (str(library), library.change, library.tasks.num_rows) == ("sums@1", "the first three dozen", 36)
    assert [use.backtest_id for use in uses(old.objects, "sums")] == [verdict["backtest_id"]]
    assert read_attachment(note, old.objects)["text"] == "the number is written above\n"


def test_its_finished_runs_say_what_they_said(old: Lab):
    """Steps, outcome and the manifest's summary."""
    run = run_of(old, "baseline")
    steps = {row["task_id"]: row for row in run.steps(["read"]).to_pylist()}

    assert run.manifest["usage"] | {"passed": 12, "rows": 36, "calls": 96, "auto_reruns": 24} == run.manifest["usage"]
    assert run.outcome()["passed"].to_pylist() == [index % 3 == 0 for index in range(36)]
    assert json.loads(steps["n4"]["output"]) == {"n": -1} and len(steps["n4"]["attempts"]) == 2
    assert tasks_digest(run.tasks()) == run.record.tasks_digest


def test_its_unfinished_run_goes_on_and_pays_for_nothing_twice(old: Lab):
    """What its parts and its spool hold is not asked again; the result is that of a run of today."""
    run, asked = run_of(old, "run"), []

    def noted(request):
        asked.append(request.messages[-1]["content"])
        return answer(request)

    parts = {(row["node"], row["task_id"], row["trial"]) for row in run.steps().to_pylist()}
    spooled = [row for table in run.spooled() for row in table.to_pylist() if (row["node"], row["task_id"], row["trial"]) not in parts]
    paid = committed_counts(run).calls + sum(row["calls"] for row in spooled)
    asyncio.run(drive_here(old.objects, run.record, {"m": ScriptedModel(noted)}))
    fresh = old.run(run.record.plan, run.tasks(), answer, trials=2)
    again = Run(old.objects, run.run_id)
    columns = ["task_id", "trial", "node", "outcome", "score", "output", "fingerprint", "criteria_fingerprint"]

    assert len(parts) == 26 and len(spooled) == 10
    assert len(asked) == fresh.manifest["usage"]["calls"] - paid
    assert again.steps(columns=columns).equals(fresh.steps(columns=columns))


def test_its_runs_are_redone_and_borrowed_from(old: Lab):
    """A rerun from a node borrows the steps before it, and can be rerun in turn."""
    origin = run_of(old, "baseline")
    again = old.rerun(origin, ["n1"], origin.record.plan, answer, start_node="say")
    rows = {row["node"]: row for row in again.steps().to_pylist()}

    assert (rows["read"]["outcome"], rows["read"]["borrowed_from"], rows["say"]["outcome"]) == ("borrowed", f"{origin.run_id}/n1/read", "done")
    assert [member["mode"] for member in family(old.objects, Address(again.run_id, "n1"))] == ["baseline", "candidate", "rerun", "rerun"]


def test_its_runs_compare_as_they_did_and_its_backtest_is_not_run_again(old: Lab):
    """The same spec finds the verdict that was kept; the same two runs give the same comparison."""
    kept = read_verdict(old.objects, "sums-v2")
    candidate = kept["candidates"][0]
    comparison = compare_runs(Run(old.objects, candidate["baseline_run"]), Run(old.objects, candidate["run_id"]), names=("version 1", "v2"))
    backtest = Backtest(old.objects, resolve_spec(old.objects, old.write("spec.yaml", f"{SPEC}baseline: 1\n")), *read(old.objects, "library:sums@1"), models())

    assert [list(comparison.newly_passing), list(comparison.newly_failing)] == [candidate["comparison"]["newly_passing"], []]
    # a document of 0.1 has nine digits
    for was in candidate["comparison"]["metrics"]:
        metric = comparison.metric(was["name"])
        assert (metric.name, metric.before, metric.after) == (was["name"], pytest.approx(was["before"]), pytest.approx(was["after"]))
    assert conclude(backtest) == kept
    assert report(old.objects, kept["backtest_id"]).startswith(f"{kept['backtest_id']} · 36 tasks")
