"""Flipped bits and torn files: exit 6 with the name of the part, or the same result; never another one."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_ray.backtest.results import read_verdict, report
from beam_ray.cli import main
from beam_ray.errors import Damaged
from beam_ray.publish import read_version
from beam_ray.store.attachments import read_attachment
from beam_ray.store.beginning import unfinished
from beam_ray.store.libraries import library_at
from beam_ray.store.lookup import find_runs
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows

STORE = Path(__file__).parent.parent / "stores" / "0.1"

BASELINE, OPEN = (
    next(run.run_id for run in (Run(open_objects(str(STORE)), name) for name in find_runs(open_objects(str(STORE)))) if run.record.mode == mode)
    for mode in ("baseline", "run")
)


def first(store: Objects, prefix: str) -> str:
    """The first key below a prefix."""
    return next(key for key, _ in store.keys(prefix))


def attachment(store: Objects) -> Any:
    """What the prompt would see of the one attachment."""
    sha = first(store, "attachments/").rpartition("/")[2]
    return read_attachment({"sha256": sha, "name": "note.txt", "media_type": "text/plain"}, store)


KINDS: dict[str, tuple[Callable[[Objects], str], Callable[[Objects], Any]]] = {
    "steps": (lambda store: f"runs/{BASELINE}/steps/read-000.parquet", lambda store: Run(store, BASELINE).steps().to_pylist()),
    "steps of a few tasks": (
        lambda store: f"runs/{BASELINE}/steps/read-000.parquet",
        lambda store: StepRows(Run(store, BASELINE)).rows("read", [("n3", 1), ("n5", 1)]),
    ),
    "outcome": (lambda store: f"runs/{BASELINE}/outcome.parquet", lambda store: Run(store, BASELINE).outcome().to_pylist()),
    "tasks": (lambda store: f"runs/{BASELINE}/tasks.parquet", lambda store: Run(store, BASELINE).tasks().to_pylist()),
    "manifest": (lambda store: f"runs/{BASELINE}/manifest.json", lambda store: Run(store, BASELINE).manifest),
    "run.json": (lambda store: f"runs/{BASELINE}/run.json", lambda store: Run(store, BASELINE).record),
    "part": (lambda store: f"runs/{OPEN}/parts/read/000001.parquet", lambda store: Run(store, OPEN).steps().to_pylist()),
    "part of a few tasks": (lambda store: f"runs/{OPEN}/parts/read/000000.parquet", lambda store: StepRows(Run(store, OPEN)).rows("read", [("n1", 1)])),
    "outcome part": (lambda store: f"runs/{OPEN}/parts/_outcome/000000.parquet", lambda store: Run(store, OPEN).outcome().to_pylist()),
    "spool": (lambda store: first(store, f"runs/{OPEN}/spool/"), lambda store: [table.to_pylist() for table in Run(store, OPEN).spooled()]),
    "open mark": (lambda store: first(store, "open/"), lambda store: unfinished(store, Run(store, OPEN).record.key)),
    "library": (
        lambda store: "libraries/sums/000001.parquet",
        lambda store: vars(library_at(store, "sums")) | {"tasks": library_at(store, "sums").tasks.to_pylist()},
    ),
    "version": (lambda store: "workflows/sums/000002.json", lambda store: read_version(store, "sums", 2)),
    "verdict": (lambda store: first(store, "backtests/sums-v2").rpartition("/")[0] + "/verdict.json", lambda store: read_verdict(store, "sums-v2")),
    "report": (
        lambda store: first(store, "backtests/sums-v2").rpartition("/")[0] + "/report.txt",
        lambda store: report(store, store.folders("backtests")[0]),
    ),
    "attachment": (lambda store: first(store, "attachments/"), attachment),
}


@pytest.fixture
def store(tmp_path: Path) -> Objects:
    """A store with some of everything."""
    shutil.copytree(STORE, tmp_path / "store")
    return open_objects(str(tmp_path / "store"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_changed_bit_and_no_torn_end_changes_a_result(store: Objects, tmp_path: Path, kind: str):
    """200 seeded flips and 8 truncations of each kind of file."""
    find, read = KINDS[kind]
    key, chance = find(store), random.Random(kind)
    path = tmp_path / "store" / key
    whole, sound, said = path.read_bytes(), read(store), list[str]()
    harms = [_flipped(whole, chance) for _ in range(200)] + [whole[: len(whole) * eighth // 8] for eighth in range(8)]
    for harmed in harms:
        path.write_bytes(harmed)
        try:
            assert read(store) == sound
        except Damaged as error:
            said.append(str(error))

    assert len(said) > 190 and all(key in text for text in said)


def _flipped(whole: bytes, chance: random.Random) -> bytes:
    body = bytearray(whole)
    body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return bytes(body)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("steps/read-000.parquet", ["show", f"{BASELINE}/n1"]),
        ("outcome.parquet", ["tasks", "--run", BASELINE]),
        ("tasks.parquet", ["show", f"{BASELINE}/n1"]),
        ("manifest.json", ["tasks", "--run", BASELINE]),
        ("run.json", ["tasks"]),
    ],
)
@pytest.mark.parametrize("how", ["torn", "gone"])
def test_a_command_ends_with_6_and_names_the_part(store: Objects, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, words: list[str], how: str):
    """One line on standard error, nothing on standard output."""
    path = tmp_path / "store" / "runs" / BASELINE / key
    path.write_bytes(path.read_bytes()[:-7]) if how == "torn" else path.unlink()
    with pytest.raises(SystemExit) as left:
        main([*words, "--store", str(tmp_path / "store")])
    out, err = capsys.readouterr()

    assert (left.value.code, out) == (6, "")
    assert err.startswith(f"runs/{BASELINE}/{key} is ") and ("beam-ray repair" in err) == (how == "gone" and key == "manifest.json")
