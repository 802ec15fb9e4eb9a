"""The cluster files, held against Ray's own checks; nothing is reached over the network."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ray._version import version
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

HERE = Path(__file__).parents[2]
FILES = ["cluster.yaml", "cluster-local.yaml"]


@pytest.fixture(params=FILES)
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A cluster file as Ray prepares it."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return dict(prepare_config(YAML(typ="safe").load(HERE / request.param)))


def test_ray_finds_a_cluster_file_valid(cluster: dict[str, Any]):
    """Ray's schema and its own rules have nothing to say."""
    validate_config(cluster)


def test_a_cluster_asks_for_its_token_and_keeps_its_dashboard_to_itself(cluster: dict[str, Any]):
    """Every node starts with token authentication, and the dashboard listens on loopback."""
    head, worker = cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]

    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert "--dashboard-host=127.0.0.1" in head
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_commands_of_a_cluster_are_sound_shell(cluster: dict[str, Any]):
    """A shell can read each of them, and the Python in them compiles."""
    commands = [line for name in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands") for line in cluster[name]]
    for line in commands:
        done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if ' -c "' in line:
            compile(line.split(' -c "')[1].rpartition('"')[0], "setup", "exec")


def test_the_ray_that_is_named_is_the_ray_that_is_locked():
    """The files say which Ray the lock file installs."""
    assert f"\nray=={version} " in (HERE / "requirements.txt").read_text()
    assert all(f"Ray {version}" in (HERE / name).read_text() for name in FILES)
