"""What ``--json`` prints has the shape that the ``document()`` of each result declares."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import beam_ray
from beam_ray.store.lookup import newest_first
from tests.shapes import misfits
from tests.stores.conftest import RELEASES
from tests.stores.write import models

RESULTS: dict[str, Callable[[beam_ray.Store], Any]] = {
    "run": lambda store: store.get_run(store.backtests()[0].baseline_run.id),
    "task": lambda store: store.backtests()[0].baseline_run.task("n1"),
    "step": lambda store: store.backtests()[0].baseline_run.task("n1").steps[0],
    "plan": lambda store: store.plan("sums", beam_ray.Tasks("library:sums@1")),
    "verdict": lambda store: store.backtests()[0],
    "comparison": lambda store: store.compare(store.backtests()[0].baseline_run.id, store.backtests()[0].best.run.id),
    "version": lambda store: store.versions("sums")[0],
    "library": lambda store: store.library("sums"),
    "library check": lambda store: store.library("sums").check("sums"),
    "ledger": lambda store: store.ledger("sums"),
    "flow": lambda store: store.flow("sums"),
    "flow of a backtest": lambda store: store.flow("sums", backtest=store.backtests()[0].id),
    "flow in short": lambda store: store.flows()[0],
    "health": lambda store: store.health("sums@1"),
    "diagnosis": lambda store: store.diagnose(store.backtests()[0].baseline_run.id),
    "garbage": lambda store: store.gc(),
    "draft": lambda store: store.create_draft("sums", "shape"),
    "draft with problems": lambda store: store.edit_draft(store.create_draft("sums", "odd"), [beam_ray.DraftEdit("nodes.read.auto_rerun.max", 9)]),
    "evidence": lambda store: store.evidence("sums")[0],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> beam_ray.Store:
    """A store with versions, a library, a backtest, a rerun and an unfinished run."""
    folder = tmp_path_factory.mktemp("documents") / "store"
    shutil.copytree(Path(__file__).parent.parent / "stores" / RELEASES[-1], folder)
    return beam_ray.open(folder, models=models())


@pytest.mark.parametrize("made", RESULTS.values(), ids=RESULTS)
def test_documents_have_their_declared_shapes(store: beam_ray.Store, made: Callable[[beam_ray.Store], Any]) -> None:
    """
    No key more and none less, down to the last field.
    """
    result = made(store)

    assert misfits(result.document(), get_type_hints(type(result).document)["return"]) == []


def test_a_list_of_reruns_has_its_declared_shape(store: beam_ray.Store) -> None:
    """
    The history of a task is a list, of one entry per run.
    """
    rerun = next(run for run in newest_first(store.objects) if run.record.mode == "rerun")
    found = store.history(f"{rerun.run_id}/n1")

    assert len(found.document()) == 3
    assert misfits(found.document(), get_type_hints(type(found).document)["return"]) == []
