"""A new project: what ``init`` writes runs as it stands."""

import json
import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import beam_ray
from beam_ray.errors import BadDefinition, Unusable
from tests.commands import CommandResult, run_command

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """The command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    return partial(run_command, capsys)


@pytest.mark.usefixtures("ray_cluster")
def test_the_three_commands_run(cli: Callable[..., CommandResult]) -> None:
    """
    In an empty folder each of the commands that ``init`` prints ends with 0, and so does a check of the workflow.
    """
    made = cli("init", "--scripted")
    commands = re.findall(r"^  beam-ray (.*)$", made.out, re.MULTILINE)
    codes = [cli(*shlex.split(command)).code for command in ["check configs/workflows/tickets.yaml", *commands]]
    run = beam_ray.open().runs()[-1]

    assert (made.code, len(commands), codes) == (0, 3, [0, 0, 0, 0])
    assert (run.passed, run.record.tasks) == (10, 10)


@pytest.mark.parametrize(
    ("prompt", "template", "variables"),
    [
        ("Greet {{ customer }} in {{language}}.", "Greet {{ variables.customer }} in {{variables.language}}.", ["customer", "language"]),
        (
            'Greet {customer}. Answer as {{"text": "…"}}, never as {{% x %}}.',
            'Greet {{ variables.customer }}. Answer as {"text": "…"}, never as {{ \'{%\' }} x %}.',
            ["customer"],
        ),
        (
            "{% for item in items %}{{ item }} for {{ user.name | upper }}{% endfor %}",
            "{% for item in variables.items %}{{ item }} for {{ variables.user.name | upper }}{% endfor %}",
            ["items", "user"],
        ),
        ("Sort this.\n\n{{ task_query }}", "Sort this.\n\n{{ task_query }}", []),
        ('Answer as {"a": 1}.', 'Answer as {"a": 1}.', []),
    ],
)
def test_a_prompt_becomes_a_workflow(cli: Callable[..., CommandResult], prompt: str, template: str, variables: list[str]) -> None:
    """
    Its names become variables of the tasks, and the workflow is sound.
    """
    Path("My Prompt.txt").write_text(prompt)
    made = cli("init", "new", "--from-prompt", "My Prompt.txt", "--json").json
    tasks = [json.loads(line) for line in Path("new/configs/tasks/my-prompt.jsonl").read_text().splitlines()]
    checked = cli("check", "new/configs/workflows/my-prompt.yaml")

    assert (checked.code, checked.err) == (0, "")
    assert Path("new/configs/workflows/prompts/answer.md").read_text() == template
    assert [sorted(task.get("variables", {})) for task in tasks] == [sorted(variables)] * 10
    assert sorted(made["files"]) == sorted(str(path.relative_to("new")) for path in Path("new").rglob("*") if path.is_file())


@pytest.mark.usefixtures("ray_cluster")
def test_a_project_from_a_prompt_runs(cli: Callable[..., CommandResult]) -> None:
    """
    Its first command ends with 0 too.
    """
    Path("greet.md").write_text("Greet {{ customer }}.")
    made = beam_ray.init(prompt="greet.md", scripted=True)
    ran = cli(*shlex.split(made.commands[0])[1:], "--json")

    assert (ran.code, ran.json["passed"]) == (0, 10)


def test_nothing_is_overwritten(cli: Callable[..., CommandResult]) -> None:
    """
    One file that is there already is enough, and then nothing is written.
    """
    Path("configs").mkdir()
    Path("configs/models.yaml").write_text("mine")
    said = cli("init")

    assert (said.code, said.err) == (2, "configs/models.yaml exists already; init overwrites nothing, so choose another folder\n")
    assert [str(path) for path in Path().rglob("*") if path.is_file()] == ["configs/models.yaml"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("a\n{% if x %}", r"^p.md:2:1: invalid template: "),
        (" \n", r"^p.md: the prompt is empty$"),
        (b"\xff", r"^p.md: the file is not UTF-8"),
        (None, r"^p.md: the prompt cannot be read \(No such file or directory\)"),
    ],
)
def test_a_prompt_that_cannot_be_used(cli: Callable[..., CommandResult], body: str | bytes | None, said: str) -> None:
    """
    It is refused with its place, and nothing is written.
    """
    if body is not None:
        Path("p.md").write_bytes(body if isinstance(body, bytes) else body.encode())

    with pytest.raises(Unusable, match=said):
        beam_ray.init("new", prompt="p.md")
    assert not Path("new").exists()


def test_the_model_is_the_embedded_one_where_it_is_installed(cli: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without the extra, answers come from a script.
    """
    monkeypatch.setattr("beam_ray.llm.local.installed", lambda: True)
    with_extra = beam_ray.init("a")
    monkeypatch.setattr("beam_ray.llm.local.installed", lambda: False)
    without = beam_ray.init("b")

    assert (with_extra.model, without.model) == ("local/small", "scripted/small")
    assert [[model.name for model in beam_ray.open("s", models=f"{made.folder}/configs/models.yaml").list_models()] for made in (with_extra, without)] == [
        ["local/small"],
        ["scripted/small"],
    ]


def test_the_recipe_is_that_of_the_docs(cli: Callable[..., CommandResult]) -> None:
    """
    The CI recipe differs from the documented one in its files and in what it installs, and in nothing else.
    """
    beam_ray.init(scripted=True)
    ours, documented = (YAML(typ="safe").load(path.read_text()) for path in (Path(".github/workflows/backtest.yaml"), DOCS / "ci" / "backtest.yaml"))
    for recipe in (ours, documented):
        (install,) = [step for step in recipe["jobs"]["backtest"]["steps"] if step.get("name") == "Install"]
        del install["run"], recipe["env"]["SPEC"], recipe["env"]["WORKFLOW"]

    assert ours == documented


def test_answers_written_in_the_models_file(cli: Callable[..., CommandResult]) -> None:
    """
    A list of answers that is wrong is refused with its place.
    """
    beam_ray.init(scripted=True)
    Path("bad.yaml").write_text("m:\n  answers:\n    - {has: 5, answer: x}\n    - {hass: y}\n    - {has: z}\n")

    with pytest.raises(BadDefinition) as caught:
        beam_ray.open("s", models="bad.yaml").list_models()
    assert [(problem.line, problem.text) for problem in caught.value.problems] == [
        (3, "'has' must be a list, not 5"),
        (4, "unknown key 'hass'"),
        (5, "an entry must have either 'answer' or 'call'"),
    ]
