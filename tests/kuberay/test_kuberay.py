"""The Kubernetes files fit KubeRay's resources, and their end means what docs/kubernetes.md says."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CRDS = json.loads((Path(__file__).parent / "crds.json").read_text())
"""Names, types and choices of the fields of KubeRay 1.7's RayJob and RayCronJob, of pods those that are commonly written."""


def read(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / "configs/kuberay" / name).read_text())


def faults(document: Any) -> list[str]:
    schema = {**CRDS[document["kind"]], **{name: CRDS[name] for name in ("RayJob", "Pod")}}
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


@pytest.mark.parametrize("name", ["rayjob.yaml", "cronjob.yaml"])
def test_fits_the_crd(name: str) -> None:
    """
    Every field of the file is one that KubeRay's resource has, with a value of its type.
    """
    assert faults(read(name)) == []


def test_the_schema_refuses_a_slip() -> None:
    """
    A misspelt field anywhere in the job, pods included, is found.
    """
    document = read("rayjob.yaml")
    document["spec"]["backofLimit"] = 1
    document["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imge"] = "x"

    assert len(faults(document)) == 2


def test_the_schedule_runs_the_same_job() -> None:
    """
    The cron job's template is the job's spec.
    """
    assert read("cronjob.yaml")["spec"]["jobTemplate"] == read("rayjob.yaml")["spec"]


def test_the_entrypoint_survives_two_shells() -> None:
    """
    KubeRay pastes the entrypoint into a shell line and Ray runs what came of it in another: both leave it as it is.
    """
    entrypoint = read("rayjob.yaml")["spec"]["entrypoint"]

    first = subprocess.run(f"printf '%s\\n' {entrypoint}", shell=True, capture_output=True, text=True, check=True).stdout.splitlines()

    assert subprocess.list2cmdline(first) == entrypoint


def test_keys_come_from_a_secret() -> None:
    """
    No environment variable with a key stands in the files; pods take them from a Secret, and the cluster asks for a token.
    """
    text = (ROOT / "configs/kuberay/rayjob.yaml").read_text()
    spec = read("rayjob.yaml")["spec"]["rayClusterSpec"]
    pods = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]

    assert not re.search(r"(KEY|TOKEN|SECRET|PASSWORD)\s*:", text)
    assert spec["authOptions"] == {"mode": "token"}
    assert all("secretRef" in pod["spec"]["containers"][0]["envFrom"][0] for pod in pods)


def test_the_image_has_the_ray_of_the_lock_file() -> None:
    """
    rayVersion is the version that requirements.txt pins, with which the image is built.
    """
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)

    assert pinned
    assert read("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


@pytest.mark.skipif(
    shutil.which("hadolint") is None and not (ROOT / ".venv/bin/hadolint").exists(), reason="hadolint is not installed (make install brings it)"
)
def test_the_dockerfile_is_clean() -> None:
    """
    hadolint finds nothing to say about the Dockerfile.
    """
    tool = shutil.which("hadolint") or str(ROOT / ".venv/bin/hadolint")

    done = subprocess.run([tool, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")
