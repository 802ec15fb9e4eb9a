"""Names as paths (threat 12): no id, name, label or attachment leads anywhere, and task ids are data and never files."""

import re
from pathlib import Path

import pytest

from beam_ray.errors import Unusable
from beam_ray.store.disk import Disk
from beam_ray.store.libraries import write_library
from beam_ray.store.opening import open_objects
from tests.conftest import Lab
from tests.corpus.command import give

NAMES = [
    "..", ".", "../..", "../../..", "../secret", "../../secret", "../secret.txt", "../../secret.txt", "./x", "a/../b", "a/../../b", "a/./b", "a//b", "a/b", "/",
    "//", "/etc/passwd", "/tmp", "//etc/passwd", "\\..\\secret", "..\\..\\secret", "C:\\secret", "C:/secret", "file:///etc/passwd", "~", "~root", "~/secret",
    "$HOME", "${HOME}", "%2e%2e", "%2e%2e%2fsecret", "..%2fsecret", "%252e%252e", "..;/secret", "....//secret", "..././secret", "\u2025/secret", "\uff0e\uff0e/secret",
    "\u2024\u2024/secret", "../other/runs", "../other", "../../other/workflows/w", "x" * 300, "x/" * 200, "con", "nul", "aux.yaml.", ".hidden", "-", "--", "*", "?", "[a]",
    "{a,b}", "a b", " ", "a\tb", "a\nb", "|id", ";id", "`id`", "$(id)", "&", "<x>", "'", '"', "@", "@1", "#", "w@../1", "w@-1", "w@1e3", "w@\u0661",
]  # fmt: skip

COMMANDS = {
    "resume": ("resume", "{}"),
    "tasks --run": ("tasks", "--run", "{}"),
    "show": ("show", "{}"),
    "show in a run": ("show", "{}/t0"),
    "history": ("history", "{}"),
    "rerun": ("rerun", "{}"),
    "rerun --from-run": ("rerun", "--from-run", "{}"),
    "compare": ("compare", "{}", "{}"),
    "check": ("check", "{}"),
    "versions": ("versions", "{}"),
    "rollback": ("rollback", "{}", "1"),
    "diff": ("diff", "{}", "{}"),
    "publish --evidence": ("publish", "w.yaml", "--evidence", "{}"),
    "mlflow-sync": ("mlflow-sync", "{}"),
    "run": ("run", "{}", "--tasks", "tasks.jsonl"),
    "run --tasks library:": ("run", "w.yaml", "--tasks", "library:{}"),
    "run --tasks run:": ("run", "w.yaml", "--tasks", "run:{}"),
    "library show": ("library", "show", "{}"),
    "optimise": ("optimise", "{}", "--step", "a"),
    "optimise --library": ("optimise", "w.yaml", "--library", "{}", "--budget", "max_calls=9"),
    "criteria": ("criteria", "{}", "--check"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run, beside another one and a secret."""
    root = tmp_path_factory.mktemp("names")
    for name in ("other", "inner"):
        (root / name).mkdir()
        lab = Lab(root / name, open_objects(str(root / name / "store")))
        lab.run("workflow: w\nmodel: m\nnodes:\n  a: {llm: {prompt: x}}\n", ["x"], lambda request: "yes")
    (root / "inner" / "w.yaml").write_text("workflow: w\nmodel: m\nnodes:\n  a: {llm: {prompt: x}}\n")
    (root / "inner" / "models.yaml").write_text("m: {base_url: 'http://127.0.0.1:9/v1', model: x}\n")
    (root / "secret").write_text("canary-7261")
    (root / "secret.txt").write_text("canary-7261")
    return root


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_leads_out_of_the_store(command, place, monkeypatch, capsys):
    """Every name that is no name is refused as something to be fixed; nothing is read, made or changed elsewhere."""
    monkeypatch.chdir(place / "inner")
    monkeypatch.setenv("BEAM_RAY_STORE", str(place / "inner" / "store"))
    monkeypatch.setenv("BEAM_RAY_MODELS", "models.yaml")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    before = _files(place)
    wrong = {}
    for name in NAMES:
        if name.startswith("-"):
            continue  # an option, to every command
        said = give(capsys, *(word.format(name) for word in COMMANDS[command]))
        if said.code != 2 or "canary-7261" in said.out + said.err or "shows the usage" in said.err or "\n\n" in said.err:
            wrong[name] = said

    assert wrong == {}
    assert _files(place) == before


@pytest.mark.parametrize("key", ["../x", "../../x", "runs/../../x", "/etc/passwd", "runs/../../store2/x", "..", "a/../../../x"])
def test_no_key_leads_out_of_a_folder(key, tmp_path):
    """The store's own last line, whatever name was let through; a folder beside it with the same beginning is outside too."""
    objects = Disk(tmp_path / "store")

    for act in (
        lambda: objects.create(key, b"x"),
        lambda: objects.put(key, b"x"),
        lambda: objects.read(key),
        lambda: objects.delete(key),
        lambda: list(objects.keys(f"{key}/x")),
    ):
        with pytest.raises(Unusable, match="is outside the store"):
            act()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("con", "nul")])
def test_a_library_takes_no_such_name(name, lab: Lab):
    """Neither on the command line nor by the public function."""
    with pytest.raises(Unusable, match="cannot name a library"):
        write_library(lab.objects, name, lab.tasks(["x"]), 0)


KEYS = re.compile(
    r"store\.json|open/[0-9a-f]+\.json|attachments/[0-9a-f]{64}"
    r"|runs/[0-9a-f-]+/(run\.json|manifest\.json|tasks\.parquet|outcome\.parquet|lease/\d+\.json|steps/a-\d+\.parquet|parts/\w+/\d+\.parquet|spool/[\w-]+\.parquet)"
)


def test_task_ids_and_labels_are_data(lab: Lab):
    """Whatever a task is called, the store's files have names of ours; the ids are kept as they are."""
    ids = [name for name in NAMES if name.isprintable() and len(name) <= 200]
    rows = [{"id": name, "task_query": "x", "labels": [name]} for name in ids]

    run = lab.run("workflow: w\nmodel: m\nnodes:\n  a: {llm: {prompt: x}}\n", rows, lambda request: "yes")

    assert sorted(run.outcome()["task_id"].to_pylist()) == sorted(ids)
    assert [key for key, _ in lab.objects.keys("") if not KEYS.fullmatch(key)] == []


def test_an_address_survives_any_task_id():
    """What stands between the slashes is never taken for one."""
    from beam_ray.address import Address, parse

    for name in NAMES:
        address = Address("261123-a3f1", name, 2, "extract", 3)

        assert parse(str(address)) == address
