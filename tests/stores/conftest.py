"""Copies of the stores that earlier releases wrote."""

import shutil
from pathlib import Path

import pytest

from beam_ray.store.lookup import find_runs
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.conftest import Lab

RELEASES = sorted(path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and (path / "store.json").is_file())


@pytest.fixture(params=RELEASES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    """A lab over a copy of the store that the release wrote."""
    shutil.copytree(Path(__file__).parent / request.param, tmp_path / "store")
    return Lab(tmp_path, open_objects(str(tmp_path / "store")))


def run_of(lab: Lab, mode: str) -> Run:
    """The store's one run of that mode."""
    [found] = [run for run in (Run(lab.objects, run_id) for run_id in find_runs(lab.objects)) if run.record.mode == mode]
    return found
