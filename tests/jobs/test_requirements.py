"""Packages that tools need: a missing one is said before the first row, and a cluster installs those that a workflow names."""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import beam_ray
from tests.ray_nodes import cluster_environment, dashboard_answers, end_node, head_command, head_ports

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
TOOL = "import brpackage\n\ndef find(): return {'version': brpackage.VERSION}\n"


def wheel(folder: Path, version: str) -> None:
    """A wheel of the package brpackage in the folder."""
    facts = f"brpackage-{version}.dist-info"
    files = {
        "brpackage.py": f"VERSION = {version!r}\n",
        f"{facts}/METADATA": f"Metadata-Version: 2.1\nName: brpackage\nVersion: {version}\n",
        f"{facts}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{facts}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{facts}/RECORD"])
    with zipfile.ZipFile(folder / f"brpackage-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@dataclass
class Project:
    """A folder with a workflow whose tool needs a package, a folder of wheels, and a cluster."""

    folder: Path
    url: str
    environment: dict[str, str] = field(repr=False)

    def workflow(self, name: str, *requirements: str) -> None:
        """A workflow file; its requirements are taken from the folder of wheels."""
        (self.folder / f"{name}.yaml").write_text(
            f"workflow: {name}\n{f'requirements: {name}.txt' if requirements else ''}\nnodes:\n  look: {{tool: 't:find'}}\n"
        )
        (self.folder / f"{name}.txt").write_text("\n".join(["# packages of its tools", "--no-index", f"--find-links {self.folder}", *requirements, ""]))

    def beam_ray(self, *words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        """A beam-ray command in the folder."""
        command = [sys.executable, "-m", "beam_ray", *map(str, words)]
        return subprocess.run(command, cwd=self.folder, env={**self.environment, **environment}, capture_output=True, text=True, timeout=240)

    def run(self, name: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """A run of the workflow on the cluster, over one task."""
        return self.beam_ray("run", f"{name}.yaml", *self.options, "--json", RAY_ADDRESS=self.environment["HEAD"], **environment)

    @property
    def options(self) -> list[str]:
        """Tasks, store and models."""
        return ["--tasks", "tasks.jsonl", "--store", str(self.folder / "store"), "--models", "models.yaml"]

    def output(self, done: "subprocess.CompletedProcess[str]", key: str = "run_id") -> str:
        """What the tool of the run returned."""
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)[key]
        run = found if isinstance(found, str) else found[0]
        return str(beam_ray.open(self.folder / "store").task(f"{run}/t1").step("look").output)


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """
    On a cluster of one node, whose Python has beam_ray's packages by a link.

    Ray copies the environment of a node for each set of requirements: this one is small.
    """
    with tempfile.TemporaryDirectory(prefix="brq-", dir="/tmp") as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        paths = dict.fromkeys([str(ROOT), sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))])
        packages = folder / "venv/lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (packages / "linked.pth").write_text("\n".join(paths) + "\n")
        (folder / "t.py").write_text(TOOL)
        (folder / "tasks.jsonl").write_text(json.dumps({"id": "t1", "task_query": "x"}) + "\n")
        (folder / "models.yaml").write_text("m: {base_url: 'http://127.0.0.1:9/v1', model: x}\n")
        wheel(folder, "1.0")
        wheel(folder, "2.0")
        ports = head_ports()
        environment = {
            **cluster_environment(folder),
            "PATH": f"{folder}/venv/bin:{os.environ['PATH']}",
            "RUNTIME_ENV_RETRY_TIMES": "1",
            "PYTHONPATH": str(ROOT),
            "HEAD": f"127.0.0.1:{ports['port']}",
        }
        command = [str(folder / "venv/bin/python"), "-m", "ray.scripts.scripts", *head_command(folder, ports, cpus=1)[1:]]
        with open(folder / "log", "w") as log:
            ray = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 200
            # the dashboard answers before the node has joined
            while not (dashboard_answers(ports["dashboard-port"]) and "will now block" in (folder / "log").read_text()):
                assert time.monotonic() < deadline and ray.poll() is None, (folder / "log").read_text()
                time.sleep(0.3)
            yield Project(folder, f"http://127.0.0.1:{ports['dashboard-port']}", environment)
        finally:
            end_node(ray)


def test_missing_module_on_a_cluster(project: Project) -> None:
    """
    A module that the cluster does not have stops the run before the first row, with the node and the line to add.
    """
    project.workflow("bare")
    done = project.run("bare")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "workflow bare, node look: t:find needs the module 'brpackage', which is not installed on the cluster; "
        "add requirements: requirements.txt to it, and the line  brpackage  to that file"
    )
    assert list((project.folder / "store").rglob("parts/*")) == []


def test_requirements_are_installed_on_a_cluster(project: Project) -> None:
    """
    A workflow that names its requirements has them on the cluster, each version for itself.
    """
    project.workflow("one", "brpackage==1.0")
    project.workflow("two", "brpackage==2.0  # newer")

    assert project.output(project.run("one")) == "{'version': '1.0'}"
    assert project.output(project.run("two")) == "{'version': '2.0'}"


def test_requirements_of_a_submitted_command(project: Project) -> None:
    """
    A submitted run has the requirements of its workflow, which the machine that submits need not have.
    """
    project.workflow("one", "brpackage==1.0")
    done = project.beam_ray("submit", "--address", project.url, "--json", "run", "one.yaml", *project.options, "--trials", "2")

    assert project.output(done, "runs") == "{'version': '1.0'}"


def test_requirements_that_cannot_be_installed(project: Project) -> None:
    """
    What pip says of a requirement that nobody has is the one line of the error.
    """
    project.workflow("three", "brpackage==3.0")
    done = project.run("three")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "the cluster cannot install the workflow's requirements: No matching distribution found for brpackage==3.0"
