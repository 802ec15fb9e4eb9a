"""
beam_ray in containers: without a name, a home, a writable root, or shared memory.

The container is a mount namespace of this machine, which takes root; without it those tests are skipped.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = 23_456
"""A user that no machine has an entry for."""

CONTAINER = """
set -e
mount --make-rprivate /
# an interpreter in the home of root is for nobody else: only its own folder is left of what hides it
if [ -n "$HIDDEN" ]; then
  mount --bind "$PYTHON" /mnt && mount -t tmpfs -o mode=755 none "$HIDDEN"
  mkdir -p "$PYTHON" && mount --bind /mnt "$PYTHON" && umount /mnt
fi
mount -t tmpfs -o ro,size=64k none /dev/shm
for folder in "$KEPT" "$RAY"; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro /
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups env -u USER -u LOGNAME -u TMPDIR HOME=/nonexistent "$@"
"""
"""A read-only root but for the store and Ray's folder, a tiny read-only /dev/shm, and a user without name, home or rights."""


@pytest.fixture
def project() -> Iterator[Path]:
    """A folder with a workflow of one tool, a task, and a backtest; its path is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="brc-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "w.yaml").write_text("workflow: w\nnodes:\n  a: {tool: 't:find'}\n")
        (folder / "t.py").write_text("def find(): return {'found': True}\n")
        (folder / "tasks.jsonl").write_text(json.dumps({"id": "t1", "task_query": "x"}) + "\n")
        (folder / "models.yaml").write_text("m: {base_url: 'http://127.0.0.1:9/v1', model: x}\n")
        (folder / "spec.yaml").write_text(
            "backtest: b\nworkflow: w.yaml\nbaseline: w.yaml\ntasks: tasks.jsonl\ncandidates: {c: {nodes.a.timeout_s: 3.0}}\ngate: gate.yaml\n"
        )
        (folder / "gate.yaml").write_text("gate: g\nrules: {regressions: {at_most: 0}}\n")
        (folder / "ray").mkdir()
        (folder / "store").mkdir()
        yield folder


def beam_ray(folder: Path, *words: str, inside: tuple[str, ...] = (), **environment: str) -> "subprocess.CompletedProcess[str]":
    """A beam-ray command in the folder, *inside* of what is put before it."""
    command = [*inside, sys.executable, "-m", "beam_ray", *words, "--store", str(folder / "store"), "--models", "models.yaml"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BEAM_RAY_", "MLFLOW_"))}
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    return subprocess.run(command, cwd=folder, env={**clean, "PYTHONPATH": paths, **environment}, capture_output=True, text=True, timeout=200)


def container(folder: Path) -> "tuple[tuple[str, ...], dict[str, str]]":
    """What is put before a command to run it in the container, and its environment."""
    if os.getuid() or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces take root on Linux")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o777 if path.is_dir() else 0o644)
    python = Path(sys.base_prefix)
    hidden = next((str(above) for above in reversed(python.parents) if not above.stat().st_mode & 0o001), "")
    return ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh"), {
        "USER_ID": str(USER), "KEPT": str(folder / "store"), "RAY": str(folder / "ray"), "RAY_TMPDIR": str(folder), "PYTHON": str(python), "HIDDEN": hidden,
    }  # fmt: skip


@pytest.mark.timeout(300)
def test_backtest_in_a_locked_container(project: Path) -> None:
    """
    A user without a name and a home has a verdict, with only the store and Ray's folder to write to; and nothing complains.
    """
    inside, environment = container(project)
    done = beam_ray(project, "backtest", "spec.yaml", "--mlflow", "none", "--json", inside=inside, **environment)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["word"] == "PASS"
    assert "Traceback" not in done.stderr
    assert "nonexistent" not in done.stderr
    assert next((project / "store").rglob("report.html")).stat().st_uid == USER


def test_local_ray_needs_no_home(project: Path) -> None:
    """
    A run does not need a home that can be written, and its token is in no file.
    """
    (project / "home").write_text("no folder")
    done = beam_ray(project, "run", "w.yaml", "--tasks", "tasks.jsonl", "--json", HOME=str(project / "home"), RAY_TMPDIR=str(project))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] == 1
    assert [path for path in project.rglob("*") if "auth_token" in path.name] == []


def test_ray_folder_that_cannot_be_written(project: Path) -> None:
    """
    A local Ray that has no place for its files is refused in words that name the place and the remedy.
    """
    done = beam_ray(project, "run", "w.yaml", "--tasks", "tasks.jsonl", RAY_TMPDIR=str(project / "t.py"))

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"cannot start a local Ray: it cannot write to {project}/t.py/ray (Not a directory)",
        "  set RAY_TMPDIR to a folder that can be written",
    ]


def test_read_only_root(project: Path) -> None:
    """
    A read-only root without a folder for Ray is said at once.
    """
    inside, environment = container(project)
    done = beam_ray(project, "run", "w.yaml", "--tasks", "tasks.jsonl", inside=inside, **{**environment, "RAY_TMPDIR": "/usr"})

    assert done.returncode == 2
    assert "cannot start a local Ray: it cannot write to /usr/ray (" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_loopback_network(project: Path) -> None:
    """
    Without a loopback network Ray would wait for minutes; that is said at once.
    """
    if os.getuid() or subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        pytest.skip("network namespaces take root on Linux")
    done = beam_ray(project, "run", "w.yaml", "--tasks", "tasks.jsonl", inside=("unshare", "--net"), RAY_TMPDIR=str(project))

    assert done.returncode == 2
    assert "its processes cannot reach each other at 127.0.0.1 (Network is unreachable)" in done.stderr


def test_path_too_long_for_sockets(project: Path) -> None:
    """
    Whatever else keeps Ray from starting is told by its first line, and never with a traceback.
    """
    deep = project / ("x" * 100)
    deep.mkdir()
    done = beam_ray(project, "run", "w.yaml", "--tasks", "tasks.jsonl", RAY_TMPDIR=str(deep))

    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("cannot start a local Ray: validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes")
    assert f"its log is in {deep}/ray/session_latest/logs" in done.stderr
    assert "Traceback" not in done.stderr
