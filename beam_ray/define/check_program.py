"""The rules for commands, and for tools and commands that ask models."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from beam_ray.define.tool_source import find_command
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import Source
from beam_ray.errors import Problem, did_you_mean

_NOT_SEARCHED = ("node_modules", "__pycache__")


def program_problems(workflow: Workflow, source: Source, project: Path) -> Iterator[Problem]:
    """What is wrong with the workflow's commands, and with the models that programs ask; *project* is the folder that commands start in."""
    for name, node in workflow.nodes.items():
        at = ("nodes", name)
        if node.asks and node.call:
            yield source.problem(
                (*at, "asks"), f"node {name!r} is no tool or command; 'asks' is for programs that call models themselves", "write 'model: NAME'"
            )
        if len(set(node.asks)) < len(node.asks):
            yield source.problem((*at, "asks"), f"'asks' of node {name!r} names a model twice")
        for key in ("max_calls", "on_miss"):
            if getattr(node, key) is not None and not node.asks:
                hint = "write it under 'agent'" if node.agent and key == "on_miss" else "add 'asks: [NAME]', names from the models file"
                yield source.problem((*at, key), f"node {name!r} has {key!r} but asks no model itself", hint)
        if node.command is None:
            continue
        spot = (*at, "command")
        empty = next((index for index, word in enumerate(node.command) if not word or "\0" in word), None)
        if empty is not None:
            yield source.problem(
                (*spot, empty), f"the command of node {name!r} has an empty word" if not node.command[empty] else "a command cannot contain a null character"
            )
            continue
        files = find_command(node.command, project)
        program = node.command[0]
        if os.sep in program and not program.startswith(os.sep) and project / program not in files:
            yield source.problem((*spot, 0), f"the program {program!r} of node {name!r} is not in {_shown(project)}, the folder that commands start in")
        elif os.sep in program and not os.access(project / program, os.X_OK) and not program.startswith(os.sep):
            yield source.problem((*spot, 0), f"the program {program!r} of node {name!r} is not executable", f"chmod +x {program}")
        elif not files and not node.version:
            missing = next((word for word in node.command[1:] if Path(word).suffix), None)
            said = f"node {name!r} runs {program!r} with no file of the project, so nothing shows when the program changes"
            if missing:
                said = f"the command of node {name!r} names {missing!r}, which is not in {_shown(project)}, the folder that commands start in"
            yield source.problem(spot, said, *(_elsewhere(missing, project) if missing else ()), 'write version: "1", and another version whenever it changes')


def _elsewhere(word: str, project: Path) -> tuple[str, ...]:
    """A hint at a file of this name, or of a similar one, near the top of the project."""
    found = (path for pattern in ("*", "*/*", "*/*/*") for path in project.glob(pattern))
    near = [path for path in itertools.islice(found, 5_000) if not any(part in _NOT_SEARCHED for part in path.parts)]
    named = [path for path in near if path.name == Path(word).name and path.is_file()]
    if named:
        return (f"did you mean {str(named[0].relative_to(project))!r}?",)
    return did_you_mean(word, [str(path.relative_to(project)) for path in near if path.is_file()])


def _shown(project: Path) -> str:
    return "the working folder" if project == Path.cwd() else str(project)
