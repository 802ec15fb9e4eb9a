"""A backtest of several candidates, from its spec to its documents."""

import json
from pathlib import Path

import pytest

import beam_ray
from beam_ray.backtest.conclude import conclude
from beam_ray.backtest.overview_metrics import overview_metrics
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import resolve_spec
from beam_ray.compare.verdict_json import OverviewDocument
from beam_ray.llm import ScriptedModel
from beam_ray.llm.prices import Price
from beam_ray.store.opening import open_objects
from beam_ray.tasks.sources import read
from tests.conftest import Lab
from tests.improve.scripted import here
from tests.shapes import misfits
from tests.sums import WORKFLOW, numbers, reply

SPEC = """
backtest: sums
workflow: sums.yaml
tasks: tasks.jsonl
baseline: sums.yaml
candidates: {same: {nodes.say.llm.prompt: "say it is {{ read.n }}"}}
matrix:
  nodes.read.llm.prompt: ["better {{ task_query }}", "some {{ task_query }}"]
gate: gate.yaml
"""


def answer(request: beam_ray.Request) -> object:
    """See ``sums.reply``; with some more words a few more numbers are read."""
    word, number = str(request.messages[-1]["content"]).split()[:2]
    if word == "some":
        return {"n": int(number) if int(number) % 3 == 0 or int(number) < 10 else -1}
    return f"it is {number}" if word == "say" else reply(str(request.messages[-1]["content"]))


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> beam_ray.Verdict:
    """The verdict over thirty tasks: one candidate reads all numbers, one a few more than the baseline, and one the same."""
    folder: Path = tmp_path_factory.mktemp("several")
    lab = Lab(folder, open_objects(str(folder / "store")))
    lab.write("sums.yaml", WORKFLOW)
    lab.write("spec.yaml", SPEC)
    lab.write("gate.yaml", "gate: up\nrules: {score: {up_by: 0}}\n")
    lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in numbers(30)))
    tasks, source = read(lab.objects, str(folder / "tasks.jsonl"))
    made = conclude(
        Backtest(lab.objects, resolve_spec(lab.objects, folder / "spec.yaml"), tasks, source, {"m": ScriptedModel(answer, price=Price(1.0, 2.0))}, execute=here)
    )
    return beam_ray.open(folder / "store", models={}).verdict(made["backtest_id"])


def test_each_verdict_is_there_with_and_without_correction(verdict: beam_ray.Verdict) -> None:
    """
    What passes alone and not among three candidates is INCONCLUSIVE, and its own word stays beside it.
    """
    words = {each.name: (each.word, each.own_word) for each in verdict.candidates}

    assert words == {"same": ("INCONCLUSIVE", "INCONCLUSIVE"), "prompt-1": ("PASS", "PASS"), "prompt-2": ("INCONCLUSIVE", "PASS")}
    assert (verdict.word, verdict.best.name, verdict.exit_code) == ("PASS", "prompt-1", 0)


def test_the_document_has_gains_and_fronts(verdict: beam_ray.Verdict) -> None:
    """
    verdict.json has each gain as found and shrunk and each side's place, of its declared shape, and MLflow is told of them by side.
    """
    found = verdict.overview
    assert found
    told = overview_metrics(verdict.document(), "prompt-1")

    assert misfits(found, OverviewDocument) == []
    assert {(each["name"], each["metric"]) for each in found["gains"]} == {
        (name, metric) for name in ("same", "prompt-1", "prompt-2") for metric in ("score", "success_rate")
    }
    assert all(each["shrunk"] < each["found"] for each in found["gains"] if each["name"] == "prompt-1")
    assert told["Candidates/score_gain"] > told["Candidates/score_gain_shrunk"] > 0 and told["Candidates/on_front_score_usd"] == 1.0
    assert "Candidates/score_gain" not in overview_metrics(verdict.document(), "baseline")


def test_the_verdict_is_reproduced_with_its_correction(verdict: beam_ray.Verdict) -> None:
    """
    Computed again from the stored rows, the corrected verdict is as recorded.
    """
    again = beam_ray.open(Path(str(verdict.store.uri)), models={}).reproduce(verdict.id)

    assert again.difference is None and again.word == "PASS"
