"""Drafts in reruns, backtests and as evidence, and specs without a file."""

import json
from pathlib import Path

import pytest

import beam_ray
from beam_ray import DraftEdit
from beam_ray.errors import Unusable
from tests.sums import numbers

BETTER = [DraftEdit("nodes.read.llm.prompt", "better {{ task_query }}")]


def test_a_draft_is_rerun_backtested_and_published_on_that_evidence(store: beam_ray.Store) -> None:
    """
    Runs store the whole definition; the backtest is evidence for the revision that it tested and for no other, and its kept spec names that revision.
    """
    store.publish("sums.yaml", without_evidence="the first")
    store.add_to_library("sums", numbers(30))
    draft = store.edit_draft(store.create_draft("sums", "better"), BETTER)
    assert draft.definition is not None
    spec = {"backtest": "try", "workflow": "sums", "tasks": "library:sums", "candidates": {"better": "sums@better"}, "gate": "none"}
    plan = store.plan_backtest(spec)
    Path("gate.yaml").write_text("gate: up\nrules: {score: {up_by: 0}}\n")
    verdict = store.backtest({**spec, "gate": "gate.yaml"})
    store.edit_draft(draft, [DraftEdit("nodes.read.evaluate.threshold", 50)])

    assert verdict.id == plan.id
    assert verdict.best.run.record.definition == draft.definition.document()
    assert store.backtest_spec(verdict.id) == {**spec, "gate": "gate.yaml", "candidates": {"better": "sums@better:2"}}
    assert store.backtest(verdict.id).id == verdict.id
    assert [(each.backtest, each.why_not) for each in store.evidence("sums@better:2")] == [(verdict.id, "")]
    assert "different definition" in store.evidence("sums@better")[0].why_not
    assert list(store.backtest_runs(verdict.id)) == ["baseline", "better"]
    with pytest.raises(Unusable, match=r"tested a different definition \(differences: read.evaluate.threshold"):
        store.publish("sums@better", evidence=verdict)
    version = store.publish("sums@better:2", evidence=verdict)
    assert (version.evidence, version.digest) == (verdict.id, draft.definition.digest)

    [rerun] = store.rerun(verdict.baseline_run.task("n1"), using="sums@better:1", because="as it was")
    assert rerun.run.record.definition_digest == store.versions("sums")[1].digest


def test_a_published_candidate_keeps_the_comments_of_the_published_text(store: beam_ray.Store) -> None:
    """
    Drafts of the new version begin with the text of the version that it replaces, with what the candidate changes.
    """
    text = Path("sums.yaml").read_text().replace("model: m\n", "model: m  # the small one\n")
    Path("sums.yaml").write_text(text)
    store.publish("sums.yaml", without_evidence="the first")
    store.add_to_library("sums", numbers(2))
    verdict = store.backtest(
        {
            "backtest": "try",
            "workflow": "sums",
            "tasks": "library:sums",
            "candidates": {"v2": {"nodes.read.llm.prompt": "better {{ task_query }}"}},
            "gate": "none",
        }
    )
    store.publish(verdict.best, without_evidence="as it was tested")

    next_draft = store.create_draft("sums", "next")
    assert next_draft.definition is not None
    assert next_draft.definition.digest == verdict.best.workflow.digest
    assert "model: m  # the small one" in next_draft.text


def test_a_spec_comes_from_standard_input(store: beam_ray.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    ``-`` reads the spec that is piped in, and its problems say so.
    """
    import io

    store.publish("sums.yaml", without_evidence="the first")
    store.add_to_library("sums", numbers(30))
    store.create_draft("sums", "same")
    spec = {"backtest": "piped", "workflow": "sums", "tasks": "library:sums", "candidates": {"same": "sums@same"}}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(spec)))
    assert store.plan_backtest("-").id.startswith("piped-")

    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**spec, "candidates": {"same": "sums@gone"}})))
    with pytest.raises(Unusable, match=r"standard input:1:.*'sums' has no draft 'gone'"):
        store.plan_backtest("-")
    with pytest.raises(Unusable, match="no backtest with this id whose spec is kept"):
        store.plan_backtest("nothing-3f9c2a10")


def test_a_kept_spec_names_its_files_from_where_the_command_ran(store: beam_ray.Store) -> None:
    """
    A spec in another folder, whose files are beside it, is kept so that its id resumes it.
    """
    folder = Path("specs")
    folder.mkdir()
    (folder / "tasks.jsonl").write_text("".join(f"{json.dumps(task)}\n" for task in numbers(4)))
    (folder / "better.txt").write_text("better {{ task_query }}")
    (folder / "spec.yaml").write_text(
        "backtest: beside\nworkflow: sums\ntasks: [tasks.jsonl]\ngate: none\ncandidates: {better: {nodes.read.llm.prompt: better.txt}}\n"
    )
    store.publish("sums.yaml", without_evidence="the first")
    verdict = store.backtest(folder / "spec.yaml")

    kept = store.backtest_spec(verdict.id)
    assert kept is not None
    assert (kept["tasks"], kept["gate"]) == (["specs/tasks.jsonl"], "none")
    assert kept["candidates"] == {"better": {"nodes.read.llm.prompt": "specs/better.txt"}}
    assert store.plan_backtest(verdict.id).id == verdict.id
