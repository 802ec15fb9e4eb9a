"""Modules that tools need: tried before the first row, and part of what identifies a tool."""

import json
from collections.abc import Callable
from functools import partial

import pytest

import beam_ray
from beam_ray.errors import BadDefinition, Unusable
from tests.commands import CommandResult, run_command
from tests.conftest import Lab

TOOL = "workflow: w\nmodel: m\n{}nodes:\n  say: {{llm: {{prompt: '{{{{ task_query }}}}'}}}}\n  look: {{after: say, tool: 't:find'}}\n"


@pytest.fixture
def give(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Gives commands in the lab's folder."""
    monkeypatch.chdir(lab.folder)
    return partial(run_command, capsys)


def test_run_stops_before_the_first_row(ray_lab: Lab) -> None:
    """
    A tool whose module is not installed ends the run before the model is called, in one line.
    """
    ray_lab.write("t.py", "import no_such_module.part\n\ndef find(): return 1\n")
    asked: list[object] = []

    with pytest.raises(Unusable) as refused:
        ray_lab.run(TOOL.format(""), ["a", "b"], lambda request: asked.append(request) or "x")

    assert str(refused.value) == (
        "workflow w, node look: t:find needs the module 'no_such_module', which is not installed here; "
        "add requirements: requirements.txt to it, and the line  no_such_module  to that file, and  pip install no_such_module"
    )
    assert list((ray_lab.folder / "store").rglob("spool/*")) == []


@pytest.mark.parametrize(
    ("module", "written", "says"),
    [
        ("yamlx", "requirements: [yamlx>=1]\n", "its requirements name yamlx, so  pip install yamlx"),
        ("yamlx", "requirements: [yamlx-more]\n", "add the line  yamlx  to its requirements, and  pip install yamlx"),
        ("bs4", "requirements: [lxml]\n", "add the line  beautifulsoup4  to its requirements, and  pip install beautifulsoup4"),
    ],
)
def test_check_warns(module: str, written: str, says: str, lab: Lab, give: Callable[..., CommandResult]) -> None:
    """
    check says which line to add, by the name of the package, and what only has to be installed here; the workflow is sound all the same.
    """
    lab.write("t.py", f"import {module}\n\ndef find(): return 1\n")
    lab.write("w.yaml", TOOL.format(written))
    done = give("check", "w.yaml", "--json")

    assert done.code == 0
    assert [warning for warning in done.json["warnings"] if says in warning]


def test_other_errors_of_an_import_are_left_to_the_rows(lab: Lab, give: Callable[..., CommandResult]) -> None:
    """
    A module that needs something at run time, or that ends its process, is no missing module.
    """
    lab.write("t.py", "import os\nos.environ['NO_SUCH_VARIABLE']\n\ndef find(): return 1\n")
    lab.write("w.yaml", TOOL.format("") + "  end: {tool: 'u:find'}\n")
    lab.write("u.py", "import os\nos._exit(3)\n\ndef find(): return 1\n")

    assert not [warning for warning in give("check", "w.yaml", "--json").json["warnings"] if "needs the module" in warning]


def test_changed_requirements_run_tools_again(lab: Lab, give: Callable[..., CommandResult]) -> None:
    """
    A tool with other packages is another version of it; a model's step is borrowed.
    """
    lab.write("t.py", "def find(): return 1\n")
    lab.run(TOOL.format("requirements: [x==1]\n"), ["a"], lambda request: "x")
    store = beam_ray.open(lab.folder / "store", models={"m": beam_ray.ScriptedModel(lambda request: "x")})
    tasks = json.loads((lab.folder / "tasks.jsonl").read_text())
    run = store.get_run("last").id

    def executed(written: str) -> list[int]:
        workflow = beam_ray.load(lab.write("other.yaml", TOOL.format(written)))
        return [node.run for node in store.plan(workflow, [tasks], borrow_from=run).nodes]

    assert executed("requirements: [x==1]\n") == [0, 0]
    assert executed("requirements: [x==2]\n") == [0, 1]


def test_requirements_file(lab: Lab) -> None:
    """
    The file's lines become part of the definition, without comments and with continued lines joined.
    """
    lab.write("r.txt", "# packages\nx==1  # exactly\n\n--find-links \\\n  wheels\ny # z\n")

    assert lab.workflow(TOOL.format("requirements: r.txt\n").replace("  look: {after: say, tool: 't:find'}\n", "")).requirements == (
        "x==1",
        "--find-links    wheels",
        "y",
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-r more.txt", "names another file"),
        ("--extra-index-url https://me:canary-5190@host/simple", "must not contain a password"),
        ("", "must be one line"),
    ],
)
def test_requirement_that_a_cluster_cannot_use(line: str, says: str, lab: Lab) -> None:
    """
    A line that names another file or contains a password is refused with its place, and the password is not repeated.
    """
    lab.write("t.py", "def find(): return 1\n")
    with pytest.raises(BadDefinition, match=says) as refused:
        lab.workflow(TOOL.format(f"requirements: ['{line}']\n"))

    assert "workflow.yaml:3:" in str(refused.value)
    assert "canary" not in str(refused.value)


def test_missing_requirements_file(lab: Lab) -> None:
    """
    A file that is not there is a problem with its place.
    """
    with pytest.raises(BadDefinition, match=r"workflow.yaml:3:1: the requirements file 'r.txt' cannot be read"):
        lab.workflow(TOOL.format("requirements: r.txt\n"))


def test_definitions_without_requirements_keep_their_identity() -> None:
    """
    The key of a workflow without requirements is not part of its identity, which stored runs have without it.
    """
    workflow = beam_ray.Workflow(name="w", nodes={"a": beam_ray.Node(tool="t:find")})

    assert "requirements" not in workflow.identity()
