"""A verdict is computed again from stored rows, here or from a bundle in another store."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import beam_ray
from beam_ray.backtest import bundle as bundles
from beam_ray.backtest.conclude import conclude
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import resolve_spec
from beam_ray.errors import BeamRayError, Damaged, Unusable
from beam_ray.llm import ScriptedModel
from beam_ray.store.checksummed_json import seal
from beam_ray.store.opening import open_objects
from beam_ray.tasks.sources import read
from tests.commands import run_command
from tests.conftest import Lab
from tests.improve.scripted import here
from tests.shapes import misfits
from tests.stores.conftest import RELEASES
from tests.sums import WORKFLOW, numbers, reply

SPEC = """
backtest: sums
workflow: sums.yaml
tasks: tasks.jsonl
baseline: sums.yaml
candidates:
  better: {nodes.read.llm.prompt: "better {{ task_query }}"}
  worse: {nodes.read.llm.prompt: "worse {{ task_query }}", nodes.read.evaluate.threshold: 50}
gate: gate.yaml
confirm: 2
"""


def answer(request: beam_ray.Request) -> Any:
    """See ``sums.reply``; with a worse prompt nothing is read."""
    text = str(request.messages[-1]["content"])
    return {"n": -1} if text.startswith("worse") else reply(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with a backtest of a better candidate and of a worse one that other criteria judge, whose newly failing tasks were repeated; and its id."""
    folder = tmp_path_factory.mktemp("reproduce")
    lab = Lab(folder, open_objects(str(folder / "store")))
    for name, text in {"sums.yaml": WORKFLOW, "spec.yaml": SPEC, "note.txt": "a note", "gate.yaml": "gate: mine\nrules: {score: {up_by: 10}}\n"}.items():
        lab.write(name, text)
    rows = numbers(12)
    rows[3]["attachments"] = ["note.txt"]
    lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    tasks, source = read(lab.objects, str(folder / "tasks.jsonl"))
    verdict = conclude(Backtest(lab.objects, resolve_spec(lab.objects, folder / "spec.yaml"), tasks, source, {"m": ScriptedModel(answer)}, execute=here))
    (folder / "gate.yaml").unlink()
    return folder / "store", verdict["backtest_id"]


@pytest.fixture
def copy(made: tuple[Path, str], tmp_path: Path) -> tuple[beam_ray.Store, str]:
    """A copy of the store that may be changed, opened without models."""
    shutil.copytree(made[0], tmp_path / "store")
    return beam_ray.open(tmp_path / "store", models={}), made[1]


@pytest.fixture
def bundle(made: tuple[Path, str], tmp_path: Path) -> Path:
    """The backtest as a bundle."""
    beam_ray.open(made[0]).export_backtest(made[1], tmp_path / "b.zip")
    return tmp_path / "b.zip"


def test_a_verdict_is_reproduced_without_models_and_gate_file(copy: tuple[beam_ray.Store, str]) -> None:
    """
    Comparison, verdict and table of two candidates with repeats are as recorded, from all of their runs, and the document has its declared shape.
    """
    found = copy[0].reproduce(copy[1])

    assert (found.reproduced, found.difference, found.exit_code, found.gate) == (True, None, 0, "mine")
    assert len(found.runs) == 8  # both candidates, the baseline as each judges it, and both rounds of repeats of the worse one, on both sides
    assert misfits(found.document(), get_type_hints(type(found).document)["return"]) == []


def change_number(verdict: dict[str, Any]) -> None:
    """A mean score that was not found."""
    next(metric for metric in verdict["candidates"][1]["comparison"]["metrics"] if metric["name"] == "score")["after"] += 0.001


def change_repeats(verdict: dict[str, Any]) -> None:
    """Confirmed regressions that were only noise."""
    regressions = verdict["candidates"][1]["comparison"]["regressions"]
    regressions["noise"], regressions["confirmed"] = regressions["confirmed"], []


def change_word(verdict: dict[str, Any]) -> None:
    """A verdict that the gate did not give."""
    verdict["candidates"][1]["verdict"]["word"] = "PASS"


@pytest.mark.parametrize(
    ("change", "place", "recorded"),
    [
        (change_number, "candidates[worse].comparison.metrics[score].after", 0.001),
        (change_repeats, "candidates[worse].comparison.regressions.confirmed (entries)", 0),
        (change_word, "candidates[worse].verdict.word", "PASS"),
    ],
)
def test_the_first_difference_is_named(copy: tuple[beam_ray.Store, str], change: Callable[[dict[str, Any]], None], place: str, recorded: Any) -> None:
    """
    A sealed verdict that does not follow from the rows is found out, with place and value.
    """
    store, name = copy
    verdict: dict[str, Any] = dict(store.verdict(name).document())
    change(verdict)
    store.objects.put(f"backtests/{name}/verdict.json", seal(verdict))

    found = store.reproduce(name)

    assert found.difference is not None
    assert (found.exit_code, found.difference.place, found.difference.recorded) == (6, place, recorded)


def test_what_only_a_newer_version_writes_is_no_difference(copy: tuple[beam_ray.Store, str]) -> None:
    """
    A verdict of a version that had fewer metrics and no classes is reproduced.
    """
    store, name = copy
    verdict: dict[str, Any] = dict(store.verdict(name).document())
    for candidate in verdict["candidates"]:
        comparison = candidate["comparison"]
        comparison["metrics"] = [metric for metric in comparison["metrics"] if metric["name"] not in ("timeouts", "refusals")]
        del comparison["classifications"]
    store.objects.put(f"backtests/{name}/verdict.json", seal(verdict))

    assert store.reproduce(name).reproduced


def test_a_run_that_is_not_the_one_judged_is_named(copy: tuple[beam_ray.Store, str]) -> None:
    """
    A run whose manifest was written anew, with a sound seal, is a difference of its sha256.
    """
    store, name = copy
    run = store.verdict(name).candidates[0].run.id
    manifest = dict(store.get_run(run).stored.manifest or {})
    store.objects.put(f"runs/{run}/manifest.json", seal({**manifest, "finished_at": "2026-01-01"}))

    found = store.reproduce(name)

    assert found.difference is not None
    assert found.difference.place == f"runs/{run}/manifest.json (sha256)"


def test_a_backtest_without_manifest(tmp_path: Path) -> None:
    """
    One that an earlier version finished is refused with what to do.
    """
    shutil.copytree(Path(__file__).parent.parent / "stores" / RELEASES[0], tmp_path / "store")

    with pytest.raises(Unusable, match="has no manifest"):
        beam_ray.open(tmp_path / "store").reproduce("sums")


def test_a_bundle_is_reproduced_in_another_store(made: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    One command writes the file and one reads it into an empty store, in which the backtest is reproduced, its reports and attachments are there,
    and a second import changes nothing.
    """
    out, other = tmp_path / "b.zip", tmp_path / "other"
    written = run_command(capsys, "reproduce", made[1], "--bundle", out, "--store", made[0])
    first = run_command(capsys, "reproduce", out, "--store", other)
    second = run_command(capsys, "reproduce", out, "--store", other)

    assert (written.code, first.code, second.code) == (0, 0, 0)
    assert written.out == first.out == second.out
    assert "INCONCLUSIVE" in first.out or "PASS" in first.out
    assert beam_ray.open(other).report(made[1]) == beam_ray.open(made[0]).report(made[1])
    assert len(list((other / "attachments").iterdir())) == 1


def test_a_bundle_that_differs_from_the_store_is_refused(copy: tuple[beam_ray.Store, str], bundle: Path) -> None:
    """
    Nothing is replaced: the key whose content is another is named.
    """
    store, name = copy
    store.objects.put(f"backtests/{name}/report.txt", b"something else")

    with pytest.raises(Unusable, match=f"other content under 1 keys; nothing was imported\n  backtests/{name}/report.txt"):
        store.import_backtest(bundle)


def again(bundle: Path, change: Callable[[dict[str, bytes]], None], *, sealed: bool = False) -> None:
    """Write the bundle anew with other files; *sealed* with an index that fits them."""
    with zipfile.ZipFile(bundle) as old:
        files = {name: old.read(name) for name in old.namelist()}
    change(files)
    if sealed:
        index = json.loads(files["bundle.json"])
        index["files"] = {
            name: {"bytes": len(body), "sha256": bundles.hashlib.sha256(body).hexdigest()} for name, body in files.items() if name != "bundle.json"
        }
        index.pop("seal")
        files["bundle.json"] = seal(index)
    with zipfile.ZipFile(bundle, "w") as new:
        for name, body in files.items():
            new.writestr(name, body)


def run_file(files: dict[str, bytes]) -> str:
    """Some run's outcome in the bundle."""
    return next(name for name in files if name.endswith("outcome.parquet"))


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], Any], bool, type[BeamRayError], str]] = {
    "a damaged file": (lambda files: files.update({run_file(files): files[run_file(files)][:-1] + b"?"}), False, Damaged, r"1 of \d+ files are damaged"),
    "a damaged index": (lambda files: files.update({"bundle.json": files["bundle.json"].replace(b"sums", b"sumz")}), False, Damaged, "bundle.json is damaged"),
    "a path outside": (lambda files: files.update({"runs/../../evil": b"x"}), True, Unusable, "'runs/../../evil' is no file of the backtest"),
    "an absolute path": (lambda files: files.update({"/etc/evil": b"x"}), True, Unusable, "'/etc/evil' is no file of the backtest"),
    "a published version": (lambda files: files.update({"workflows/sums/000001.json": b"x"}), True, Unusable, "is no file of the backtest"),
    "another run": (lambda files: files.update({"runs/evil/run.json": b"x"}), True, Unusable, "its runs are not those"),
    "a false attachment": (lambda files: files.update({f"attachments/{'a' * 64}": b"x"}), True, Unusable, "is no file of the backtest"),
    "a file too many": (lambda files: files.update({"runs/x/run.json": b"x"}), False, Unusable, "is in the bundle or in its bundle.json"),
    "no verdict": (lambda files: files.pop(next(name for name in files if name.endswith("verdict.json"))), True, Unusable, "it has no backtests/"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_changes_nothing(bundle: Path, tmp_path: Path, name: str) -> None:
    """
    What is damaged, or is no file of the backtest, is refused by name before anything is written.
    """
    change, sealed, error, says = HOSTILE[name]
    again(bundle, change, sealed=sealed)
    store = beam_ray.open(tmp_path / "new" / "store")

    with pytest.raises(error, match=says):
        store.import_backtest(bundle)

    assert [path.name for path in (tmp_path / "new").rglob("*") if path.is_file()] == ["store.json"]


@pytest.mark.parametrize("limit", ["MAX_FILE", "MAX_TOTAL", "MAX_FILES", "MAX_INDEX"])
def test_sizes_are_bounded(bundle: Path, tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A bundle above a limit is refused before it is written.
    """
    monkeypatch.setattr(bundles, limit, 5)
    store = beam_ray.open(tmp_path / "new")

    with pytest.raises(Unusable):
        store.import_backtest(bundle)

    assert store.objects.folders("") == []


def test_what_is_no_bundle(tmp_path: Path) -> None:
    """
    Another file is refused in one line.
    """
    (tmp_path / "b.zip").write_bytes(b"PK no zip")

    with pytest.raises(Unusable, match="not a bundle of a backtest"):
        beam_ray.open(tmp_path / "new").import_backtest(tmp_path / "b.zip")
