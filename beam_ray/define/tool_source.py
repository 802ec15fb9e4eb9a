"""What a tool or command is as its source files have it, found and read without running it."""

import ast
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from beam_ray.define.agent import EFFECTS, Effects
from beam_ray.define.fingerprint import digest
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import Unusable, did_you_mean


@dataclass(frozen=True)
class Tool:
    """A tool's function as found in its source file, without running it."""

    file: Path
    version: str
    """The digest of the source file, and of the workflow's requirements where it has any."""
    parameters: tuple[str, ...] | None
    """None where the function accepts any keyword."""
    required: tuple[str, ...]
    is_async: bool
    effects: Effects | None = None
    """What the module declares for the function in ``EFFECTS``; None where it declares nothing."""
    positional: tuple[str, ...] = ()
    """Parameters that can only be given by position."""


def find_tool(workflow: Workflow, tool: str, folders: Iterable[Path]) -> Tool:
    """
    The function that *tool* names, found by parsing its source file without importing it.

    Raises:
        Unusable: no allowed folder has the module, or the module does not have the function.
    """
    module, function = tool.split(":")
    looked = list(folders)
    for folder in looked:
        base = folder / Path(*module.split("."))
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file() and file.resolve().is_relative_to(folder.resolve()):
                found = _read_tool(file, function, tool)
                # another version of a package may give other results
                packages = sorted(workflow.requirements)
                return replace(found, version=digest("tool with packages/1", found.version, packages)) if packages else found
    shown = ", ".join(str(folder) for folder in looked) or "no folder"
    raise Unusable(f"the tool {tool!r} was not found\n  searched for {module.replace('.', '/')}.py in {shown}\n  set BEAM_RAY_TOOLS to search further folders")


def find_command(command: Sequence[str], project: Path) -> Sequence[Path]:
    """The files of the project that *command* names, the program itself included where it is one of them."""
    if any("\0" in word for word in command):
        return []
    return [path for path in dict.fromkeys(project / word for word in command) if path.is_file() and path.resolve().is_relative_to(project.resolve())]


def program_version(workflow: Workflow, node: Node, folders: Iterable[Path], project: Path) -> str:
    """
    What the version of a tool or command is where none is declared: the digest of its source file, or of the files that the command names.

    Raises:
        Unusable: the tool was not found.
    """
    if node.tool:
        return find_tool(workflow, node.tool, folders).version
    files = find_command(node.command or (), project)
    return digest("command/1", [hashlib.sha256(file.read_bytes()).hexdigest() for file in files], sorted(workflow.requirements))


def program_versions(workflow: Workflow, folders: Iterable[Path], project: Path | None = None) -> dict[str, str]:
    """
    Every tool and command of the workflow, and every function of its agents, to its version; *project* is the folder that commands start in, by default the working folder.

    Raises:
        Unusable: a tool was not found.
    """
    places = tuple(folders)
    nodes = workflow.nodes.values()
    of_agents = {str(entry.tool): find_tool(workflow, str(entry.tool), places).version for node in nodes if node.agent for entry in node.agent.functions}
    return {node.program: program_version(workflow, node, places, project or Path.cwd()) for node in nodes if node.program} | of_agents


def _read_tool(file: Path, function: str, tool: str) -> Tool:
    text = file.read_bytes()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise Unusable(f"the tool {tool!r}: {file.name}{line} is not valid Python ({getattr(error, 'msg', error)})") from None
    names = {entry.name: entry for entry in tree.body if isinstance(entry, (ast.FunctionDef, ast.AsyncFunctionDef))}
    if function not in names:
        raise Unusable("\n  ".join([f"the tool {tool!r}: {file.name} has no function {function!r}", *did_you_mean(function, names)]))
    arguments = names[function].args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = [argument.arg for argument in positional[: len(positional) - len(arguments.defaults)]]
    required += [argument.arg for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    every = None if arguments.kwarg else tuple(argument.arg for argument in [*positional, *arguments.kwonlyargs])
    version = hashlib.sha256(text).hexdigest()[:32]
    is_async, only_by_position = isinstance(names[function], ast.AsyncFunctionDef), tuple(argument.arg for argument in arguments.posonlyargs)
    return Tool(file, version, every, tuple(required), is_async, _declared_effects(tree, file, function, tool), only_by_position)


def _declared_effects(tree: ast.Module, file: Path, function: str, tool: str) -> Effects | None:
    """What the module's constant ``EFFECTS`` says of the function: one word for all of its functions, or a mapping from function to word."""
    for entry in tree.body:
        targets = entry.targets if isinstance(entry, ast.Assign) else [entry.target] if isinstance(entry, ast.AnnAssign) else []
        if not any(isinstance(target, ast.Name) and target.id == "EFFECTS" for target in targets):
            continue
        try:
            declared = ast.literal_eval(entry.value)  # type: ignore[attr-defined]
            found = declared.get(function) if isinstance(declared, dict) else declared
        except (ValueError, TypeError):
            found = "computed"
        if found is not None and found not in EFFECTS:
            raise Unusable(f"the tool {tool!r}: EFFECTS in {file.name}:{entry.lineno} must say none, read or write for it, not {found!r}")
        return found  # type: ignore[no-any-return]
    return None
