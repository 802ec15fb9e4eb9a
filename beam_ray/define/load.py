"""
From a YAML file to a workflow, with file:line:column for everything that is wrong.

All problems are reported at once, in the order of the file.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

import pydantic

from beam_ray.define.fingerprint import Json
from beam_ray.define.llm_call import turn_fault
from beam_ray.define.requirements import read_requirements
from beam_ray.define.validation import known_keys, validation_problems
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import Source, display_path, not_utf8, read_yaml, relative_path
from beam_ray.errors import BadDefinition, Problem, Unusable

PROMPT_SUFFIXES = (".md", ".txt", ".j2", ".jinja", ".yaml", ".yml")


def load(path: str | Path, *, project: Path | None = None) -> tuple[Workflow, Source]:
    """
    The workflow in the file, and the file's source for further rules.

    Only its shape is validated here; ``check`` validates what the names in it mean.

    Raises:
        BadDefinition: with every problem of shape found.
    """
    source = read_yaml(Path(path))
    return parse_workflow(source, Path(path).parent, project or Path.cwd()), source


def parse_workflow(source: Source, folder: Path, project: Path, *, files: bool = True) -> Workflow:
    """
    The workflow that *source* describes.

    Args:
        folder: Prompt files are relative to it, and tools are imported from it.
        project: The folder's path is kept relative to it.
        files: Whether prompts and requirements may be in files; otherwise a value that names one is a problem.

    Raises:
        BadDefinition: with every problem of shape found.
    """
    if not isinstance(source.data, Mapping):
        raise BadDefinition(problems=[source.problem((), "a workflow file must be a mapping that begins with 'workflow: NAME'")])
    data, problems = with_prompts(source.data, source, folder, files=files)
    if "tools_from" in data:
        known = known_keys(("tools_from",), Workflow)
        problems.append(source.problem(("tools_from",), "unknown key 'tools_from'", f"allowed keys: {', '.join(known)}"))
    if isinstance(data.get("requirements"), str):
        try:
            if not files:
                raise Unusable(_no_file("requirements file", data["requirements"]))
            data["requirements"] = read_requirements(data["requirements"], folder)
        except Unusable as error:
            problems.append(source.problem(("requirements",), str(error)))
            del data["requirements"]
    data["tools_from"] = relative_path(folder, project)
    try:
        workflow = Workflow.model_validate(data)
    except pydantic.ValidationError as error:
        problems += validation_problems(error, source, Workflow)
        raise BadDefinition(problems=problems) from None
    if problems:
        raise BadDefinition(problems=problems)
    return workflow


def _no_file(kind: str, name: str) -> str:
    return f"a draft reads no files, and {name!r} is the name of a {kind}; write its content here"


def with_prompts(data: Mapping[str, Json], source: Source, folder: Path, *, files: bool = True) -> tuple[dict[str, Json], list[Problem]]:
    """A copy of *data* in which prompt files are replaced by their content; without *files* they are problems."""
    result = dict(data)
    problems: list[Problem] = []
    nodes = data.get("nodes")
    if isinstance(nodes, Mapping):
        result["nodes"] = dict(nodes)
        for name, node in nodes.items():
            kind = "agent" if isinstance(node, Mapping) and "agent" in node else "llm"
            call = node.get(kind) if isinstance(node, Mapping) else None
            if isinstance(call, Mapping) and isinstance(call.get("prompt"), str):
                try:
                    if not files and names_file(call["prompt"]):
                        raise Unusable(_no_file("prompt file", call["prompt"]))
                    prompt = read_prompt(call["prompt"], folder) if files else call["prompt"]
                except BadDefinition as error:
                    problems += error.problems
                    continue
                except Unusable as error:
                    problems.append(source.problem(("nodes", name, kind, "prompt"), str(error)))
                    continue
                result["nodes"][name] = {**node, kind: {**call, "prompt": prompt}}
    return result, problems


def names_file(prompt: str) -> bool:
    """Whether the text of a prompt is the name of a file."""
    return "\n" not in prompt and prompt.strip().endswith(PROMPT_SUFFIXES) and " " not in prompt.strip()


def read_prompt(written: str, folder: Path) -> str | list[dict[str, str]]:
    """
    The prompt that *written* stands for: the turns in the file of that name, or the text itself.

    Raises:
        Unusable: it looks like a file name and there is no such file.
        BadDefinition: the file is not a prompt.
    """
    if not names_file(written):
        return written
    path = folder / written.strip()
    if path.is_dir():
        raise Unusable(f"the prompt file {written!r} is a folder")
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], 1) if path.parent.is_dir() else []
        hint = f"\n  did you mean {near[0]!r}?" if near else ""
        raise Unusable(f"prompt file {written!r} not found (looked in {display_path(path.parent)}){hint}")
    if path.suffix in (".yaml", ".yml"):
        turns = read_yaml(path)
        if not isinstance(turns.data, list) or not all(isinstance(turn, Mapping) and len(turn) == 1 for turn in turns.data):
            raise BadDefinition(problems=[turns.problem((), "a prompt in YAML must be a list of turns such as '- user: …'")])
        faults = [(index, turn, turn_fault(turn)) for index, turn in enumerate(turns.data)]
        if any(fault for *_, fault in faults):
            raise BadDefinition(problems=[turns.problem((index, *turn), fault) for index, turn, fault in faults if fault])
        return [{"role": role, "content": content, "file": turns.file} for turn in turns.data for role, content in turn.items()]
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise Unusable(f"the prompt file {written!r} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise BadDefinition(problems=[not_utf8(display_path(path), raw, error)]) from None
    if not text.strip():
        raise BadDefinition(problems=[Problem(display_path(path), 1, 1, "the prompt is empty")])
    return [{"role": "user", "content": text.rstrip("\n"), "file": display_path(path)}]
