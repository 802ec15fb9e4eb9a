"""A new project: the files with which everything can be tried at once."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.define.prompt_variables import to_template
from beam_ray.define.template import TemplateFault
from beam_ray.errors import BadDefinition, Problem, Unusable

TASKS = 10
"""Tasks of a project that begins with a prompt."""


class ProjectDocument(TypedDict):
    """A new project as ``--json`` prints it."""

    folder: str
    files: list[str]
    model: str
    commands: list[str]


@dataclass(frozen=True, repr=False)
class Project(Displayed):
    """A folder with the files of a new project."""

    folder: Path
    files: tuple[str, ...]
    """The files that were written, relative to the folder."""
    model: str
    """The model that the workflow asks, as configs/models.yaml names it."""
    workflow: str
    tasks: str
    spec: str
    prompt: str
    """The file of the first node's prompt."""

    @property
    def commands(self) -> tuple[str, str, str]:
        """What to do next, in the folder: run the workflow, publish it, and backtest it after a change."""
        return (
            f"beam-ray run {self.workflow} --tasks {self.tasks}",
            f"beam-ray publish {self.workflow} --without-evidence 'the first version'",
            f"beam-ray backtest {self.spec}",
        )

    def display(self) -> Display:
        return Display(str(self.folder), (("model", self.model),), ("next",), [(command,) for command in self.commands])

    def document(self) -> ProjectDocument:
        """The project as a JSON document."""
        return {"folder": str(self.folder), "files": list(self.files), "model": self.model, "commands": list(self.commands)}


def init(folder: str | Path = ".", *, prompt: str | Path | None = None, scripted: bool | None = None) -> Project:
    """
    Write a new project: models file, workflow, tasks, gate, backtest spec, CI recipe and .rayignore.

    Args:
        folder: Where; made if it is not there.
        prompt: A file with a prompt that the workflow begins with: its ``{{ name }}`` or ``{name}`` become variables of tasks.
        scripted: Whether answers come from a script in the models file. None: where the embedded model is not installed.

    Raises:
        BadDefinition: the prompt is no template; with its line.
        Unusable: one of the files exists already, or the prompt cannot be read; nothing is written.
    """
    from beam_ray.llm.local import installed

    if scripted is None:
        scripted = not installed()
    place = Path(folder)
    name, written = _of_prompt(Path(prompt)) if prompt is not None else ("tickets", _of_tickets())
    words = {"NAME": name, "MODEL": "scripted/small" if scripted else "local/small", "PACKAGE": "beam-ray" if scripted else "'beam-ray[local]'"}
    contents = {
        "configs/models.yaml": _starter("scripted_models.yaml" if scripted else "embedded_models.yaml") + _starter("hosted_models.yaml"),
        **written,
        f"configs/gates/{name}.yaml": _filled(_starter("gate.yaml"), words),
        f"configs/backtests/{name}.yaml": _filled(_starter("backtest.yaml"), words),
        ".github/workflows/backtest.yaml": _filled(_starter("ci.yaml"), words),
        ".rayignore": _starter("rayignore"),
    }
    workflow = f"configs/workflows/{name}.yaml"
    contents[workflow] = _filled(contents[workflow], words)
    taken = [file for file in contents if (place / file).exists()]
    if taken:
        raise Unusable(f"{place / taken[0]} exists already; init overwrites nothing, so choose another folder")
    try:
        for file, text in contents.items():
            path = place / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unusable(f"{place / file} cannot be written ({error.strerror or error})") from None
    first = next(file for file in contents if file.endswith(".md"))
    return Project(place, tuple(contents), words["MODEL"], workflow, f"configs/tasks/{name}.jsonl", f"configs/backtests/{name}.yaml", first)


def _of_tickets() -> dict[str, str]:
    return {
        "configs/workflows/tickets.yaml": _starter("workflow.yaml"),
        "configs/workflows/prompts/sort.md": _starter("sort.md"),
        "configs/workflows/prompts/reply.md": _starter("reply.md"),
        "configs/tasks/tickets.jsonl": _starter("tasks.jsonl"),
    }


def _of_prompt(path: Path) -> tuple[str, dict[str, str]]:
    """The name of the workflow, and its files."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable(f"{path}: the file is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise Unusable(f"{path}: the prompt cannot be read ({error.strerror or error})") from None
    try:
        template, variables = to_template(text)
    except TemplateFault as fault:
        raise BadDefinition(problems=[Problem(str(path), fault.line, 1, f"invalid template: {fault}")]) from None
    if not template.strip():
        raise Unusable(f"{path}: the prompt is empty")
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:60] or "prompt"
    return name, {
        f"configs/workflows/{name}.yaml": _starter("prompt_workflow.yaml"),
        "configs/workflows/prompts/answer.md": template,
        f"configs/tasks/{name}.jsonl": "".join(json.dumps(_example(number, variables), ensure_ascii=False) + "\n" for number in range(1, TASKS + 1)),
    }


def _example(number: int, variables: tuple[str, ...]) -> dict[str, object]:
    """A task to be replaced by a real one."""
    filled = {"variables": {name: f"{name} {number}" for name in variables}} if variables else {}
    return {"id": f"t-{number:02d}", "task_query": f"example {number}", **filled, "labels": ["replace"]}


def _starter(name: str) -> str:
    return (files("beam_ray") / "starter" / name).read_text(encoding="utf-8")


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = re.sub(rf"\b{word}\b", value, text)
    return text
