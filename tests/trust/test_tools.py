"""Tools (threats 10 and 30): only from allowed folders, and in a child that is given nothing but its arguments."""

import json
import os

import pytest

from beam_ray.errors import BadDefinition
from tests.conftest import Lab

OUTSIDE = [
    "os:system", "subprocess:run", "shutil:rmtree", "builtins:eval", "json:dumps", "sys:exit", "posix:system", "importlib:import_module", "pathlib:Path",
    "beam_ray.cli:main", "yaml:load", "pickle:loads", "ctypes:CDLL", "elsewhere:find", "..elsewhere:find", "tools...elsewhere:find", "/etc/passwd:x", "tools/t:find",
    "tools\\t:find", "tools.t:find.__globals__", "tools.t:__import__", "tools.t:os", "tools.link:find", "tools.linked.t:find", "tools.t:find; import os", "tools.t:",
    ":find", "tools.t", "tools.t:find:find", "http://example.com/t:find", "tools.t:lambda", "tools.t:Class",
]  # fmt: skip


@pytest.fixture
def project(tmp_path, lab: Lab) -> Lab:
    """A project with a tool in it, one out of it, and links that lead there."""
    lab.folder = tmp_path / "a" / "b"
    lab.write("tools/t.py", "import os\n\ndef find(): return 1\n\nclass Class: pass\n")
    (tmp_path / "elsewhere.py").write_text("def find(): return 1\n")
    (lab.folder / "tools" / "link.py").symlink_to(tmp_path / "elsewhere.py")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "t.py").write_text("def find(): return 1\n")
    (lab.folder / "tools" / "linked").symlink_to(tmp_path / "linked")
    return lab


@pytest.mark.parametrize("reference", OUTSIDE)
@pytest.mark.parametrize("kind", ["tool", "python"])
def test_no_function_is_taken_from_elsewhere(kind, reference, project: Lab):
    """Neither as a tool nor as a criterion; and nothing is imported to find out."""
    node = f"tool: {json.dumps(reference)}" if kind == "tool" else f"llm: {{prompt: x}}\n    evaluate: {{criteria: [{{python: {json.dumps(reference)}}}]}}"

    with pytest.raises(BadDefinition):
        project.workflow(f"workflow: w\nmodel: m\nnodes:\n  a:\n    {node}\n")


def test_a_function_of_the_project_is_taken(project: Lab):
    """The same file with an allowed name is sound, so that the refusals above are about the name."""
    assert project.workflow('workflow: w\nnodes:\n  a: {tool: "tools.t:find"}\n').name == "w"


LOOK = """
import os

def look():
    return {
        "environment": dict(os.environ),
        "files": [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")],
        "group": os.getpgid(0) == os.getpid(),
    }
"""


def test_a_tool_sees_only_what_it_is_given(lab: Lab, monkeypatch, tmp_path):
    """No key, no open file of ours, and a process group of its own that can be killed whole."""
    for name in ("OPENAI_API_KEY", "MODELS_KEY", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "SSH_AUTH_SOCK", "BEAM_RAY_STORE"):
        monkeypatch.setenv(name, "canary-5190")
    monkeypatch.setenv("BEAM_RAY_TOOL_TOKEN", "for the tool")
    lab.write("tools/t.py", LOOK)
    with (tmp_path / "open-secret").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        run = lab.run('workflow: w\nnodes:\n  a: {tool: "tools.t:look"}\n', ["x"], lambda request: "")

    seen = json.loads(lab.steps(run, "a")["t0"]["output"])
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    assert set(seen["environment"]) <= allowed | {"BEAM_RAY_TOOL_TOKEN"}
    assert seen["environment"]["BEAM_RAY_TOOL_TOKEN"] == "for the tool"
    assert "canary" not in json.dumps(seen)
    assert not [name for name in seen["files"] if "open-secret" in name]
    assert seen["group"]
