"""Every JSON document in a store has one typed shape, which whoever writes it and whoever reads it share."""

import asyncio
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import pytest

from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.llm.request import Model
from beam_ray.publish import Version
from beam_ray.store.checksummed_json import RunMark
from beam_ray.store.lease import Lease, StoredLease
from beam_ray.store.libraries import LibraryMetadata, UseDocument, library_at
from beam_ray.store.manifest import Manifest
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.run_record import RunRecord
from tests.conftest import Lab, drive_here
from tests.shapes import misfits
from tests.stores.conftest import RELEASES, run_of
from tests.stores.write import write

SHAPES: dict[str, Any] = {
    r"store\.json": TypedDict("StoreFormat", {"format": int, "proof": str}),
    r"open/\w+\.json": RunMark,
    r"runs/[\w-]+/run\.json": RunRecord,
    r"runs/[\w-]+/lease/\d+\.json": StoredLease,
    r"runs/[\w-]+/manifest\.json": Manifest,
    r"backtests/[\w-]+/sides/[\w-]+\.json": RunMark,
    r"backtests/[\w-]+/verdict\.json": BacktestDocument,
    r"libraries/\w+/used/[\w-]+\.json": UseDocument,
    r"workflows/\w+/\d+\.json": Version,
}
"""Key in the store to the shape of what is kept there."""


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
    found = {path.relative_to(store).as_posix(): json.loads(path.read_text(encoding="utf-8")) for path in store.rglob("*.json")}
    shapes = {key: [shape for pattern, shape in SHAPES.items() if re.fullmatch(pattern, key)] for key in found}

    assert [key for key, fitting in shapes.items() if len(fitting) != 1] == []
    wrong = [
        f"{key}: {line}" for key, [shape] in shapes.items() for line in misfits({name: value for name, value in found[key].items() if name != "seal"}, shape)
    ]
    assert wrong == []
    assert {pattern for pattern in SHAPES if not any(re.fullmatch(pattern, key) for key in found)} == set()


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
        "it.candidates[0].verdict.lines[1].word is 'FINE', not one of ('PASS', 'WARN', 'BLOCK', 'INCONCLUSIVE')",
    ]
