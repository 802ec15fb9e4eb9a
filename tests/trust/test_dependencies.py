"""What we stand on (threat 26): locked with hashes, and above the versions with known holes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "jinja2": (3, 1, 6),  # escapes from the sandbox
    "mlflow": (3, 8, 0),  # code run by its server
    "ray": (2, 52, 0),  # jobs from a browser
    "pyarrow": (14, 0, 1),  # code run by reading Parquet
}


def locked() -> dict[str, str]:
    """Name to the whole entry of the lock file."""
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.txt").read_text(encoding="utf-8"))
    return {re.split(r"[=<>\[ ;]", entry)[0]: entry for entry in entries if "==" in entry.splitlines()[0]}


def test_every_dependency_is_locked_with_its_hash():
    """Whoever swaps a file on an index is refused by pip."""
    entries = locked()

    assert len(entries) > 100
    assert [name for name, entry in entries.items() if "--hash=sha256:" not in entry] == []
    assert "--require-hashes" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FLOORS)
def test_no_version_with_a_known_hole_is_locked(name):
    """The floors that the defences of this package stand on."""
    version = re.search(r"==([0-9.]+)", locked()[name])

    assert version and tuple(map(int, version[1].split("."))) >= FLOORS[name]
