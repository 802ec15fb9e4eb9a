"""Every JSON document in a store has one typed shape, which whoever writes it and whoever reads it share."""

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.llm.request import Model
from beam_ray.store.lease import Lease
from beam_ray.store.libraries import LibraryMetadata, library_at
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.run_record import RunRecord
from tests.conftest import Lab, drive_here
from tests.shapes import misfits, undeclared
from tests.stores.conftest import RELEASES, run_of
from tests.stores.write import write


@pytest.fixture(scope="module", params=[*RELEASES, "now"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a release, and one that the code of now wrote: versions, a library, runs finished and not, a backtest."""
    folder = tmp_path_factory.mktemp("documents") / "store"
    if request.param != "now":
        return Path(shutil.copytree(Path(__file__).parent / request.param, folder))

    def here(objects: Objects, record: RunRecord, models: Mapping[str, Model], **_: Any) -> None:
        asyncio.run(drive_here(objects, record, models))

    write(folder, execute=here)
    Lease(run_of(Lab(folder.parent, open_objects(str(folder))), "run"))
    return folder


def test_every_document_of_a_store_has_the_shape_that_is_declared(store: Path) -> None:
    """No key more, none less: what a new version adds is declared, and need not be there in what an older one wrote."""
    assert undeclared(store) == []


def test_a_librarys_metadata_has_the_shape_that_is_declared(store: Path) -> None:
    """It stands in the metadata of the library's Parquet file."""
    found = library_at(open_objects(str(store)), "sums")

    assert misfits({name: getattr(found, name) for name in LibraryMetadata.__annotations__}, LibraryMetadata) == []


def test_a_key_that_is_not_declared_is_noticed(store: Path) -> None:
    """The check can fail: a key too many, one too few, and a value of another type, also deep inside."""
    [path] = store.glob("backtests/*/verdict.json")
    verdict = json.loads(path.read_text(encoding="utf-8"))
    del verdict["seal"], verdict["candidates"][0]["comparison"]["metrics"][2]["unit"]
    verdict["candidates"][0]["verdict"]["lines"][1] |= {"word": "FINE", "colour": "green"}

    assert sorted(misfits(verdict, BacktestDocument)) == [
        "it.candidates[0].comparison.metrics[2].unit is missing",
        "it.candidates[0].verdict.lines[1].colour is not in LineDocument",
        "it.candidates[0].verdict.lines[1].word is 'FINE', not one of ('PASS', 'WARN', 'BLOCK', 'INCONCLUSIVE', 'NONE')",
    ]
