"""
Drafts: a copy of a workflow file with one change, everything else as the author wrote it.

Comments, order and layout are preserved. The new text is loaded with the regular loader before
it is written, to verify that it defines exactly the intended workflow.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import LiteralScalarString
from ruamel.yaml.util import load_yaml_guess_indent

from beam_ray.define.check import check
from beam_ray.define.fingerprint import Json
from beam_ray.define.load import load, parse_workflow
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import display_path, read_yaml
from beam_ray.errors import BadDefinition, Unusable
from beam_ray.improve.prompt_text import turns_of, written
from beam_ray.run.tools import tool_folders


def with_prompt(workflow: Workflow, node: str, turns: Sequence[Mapping[str, str]]) -> Workflow:
    """
    *workflow* with another prompt at *node*, checked like a workflow file.

    Raises:
        BadDefinition: The prompt is not a valid template, or uses an undefined variable.
    """
    document = workflow.document()
    document["nodes"][node][workflow.nodes[node].kind]["prompt"] = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    return checked(document)


def with_criteria(workflow: Workflow, node: str, criteria: Sequence[Any]) -> Workflow:
    """
    *workflow* with other criteria at *node*, each as written in a workflow file.

    Raises:
        BadDefinition: A criterion is invalid, or uses an undefined variable.
    """
    document = workflow.document()
    document["nodes"][node].setdefault("evaluate", {})["criteria"] = list(criteria)
    return checked(document)


def checked(document: Mapping[str, Json]) -> Workflow:
    """
    The workflow that *document* defines.

    Raises:
        BadDefinition: The definition is invalid.
    """
    try:
        workflow = Workflow.model_validate(document)
    except ValueError as error:
        raise BadDefinition("; ".join(line.strip() for line in str(error).splitlines()[1:3])) from None
    check(workflow, folders=tool_folders(workflow))
    return workflow


def prompts_text(file: Path, prompts: Mapping[str, Sequence[Mapping[str, str]]], wanted: Workflow) -> str:
    """The text of *file* with other prompts, by node; verified to define *wanted*."""

    def change(data: CommentedMap) -> None:
        for node, turns in prompts.items():
            call = data["nodes"][node][wanted.nodes[node].kind]
            call["prompt"] = _prompt(turns)
            for comment in (call.ca.items.get("prompt") or [])[2:3]:
                # the comment is placed below the text; indented further it would become part of it
                if comment is not None:
                    comment.column = call.lc.col

    return _changed(file, change, wanted)


def criteria_text(file: Path, node: str, criteria: Sequence[Any], notes: Sequence[str], wanted: Workflow, *, keep: bool) -> str:
    """The text of *file* with other criteria at *node*, or with additional ones if *keep* is set; *notes* become comments at its end."""

    def change(data: CommentedMap) -> None:
        at = data["nodes"][node]
        if not isinstance(at.get("evaluate"), CommentedMap):
            at["evaluate"] = CommentedMap()
        written = at["evaluate"].get("criteria")
        if keep and isinstance(written, CommentedSeq):
            written.extend(criteria)
        else:
            at["evaluate"]["criteria"] = CommentedSeq(criteria)

    text = _changed(file, change, wanted)
    return text + ("\n" if notes else "") + "".join(f"# {' '.join(note.split())}\n" for note in notes)


def require_place(file: Path, to: str | None, ending: str) -> Path:
    """
    The path of the draft of *file*: *to*, or a file beside the original.

    Raises:
        Unusable: The draft could not find its prompts and tools there, or cannot be written.
    """
    place = Path(to) if to else file.with_name(f"{file.stem}-{ending}{file.suffix}")
    if place.suffix not in (".yaml", ".yml"):
        raise Unusable(f"--to {to}: a draft is a workflow file, so its name must end in .yaml")
    if place.parent.resolve() != file.parent.resolve():
        raise Unusable(f"--to {to}: the draft must be in the folder of {display_path(file)}\n  its prompts and tools are found relative to that folder")
    if place.resolve() == file.resolve():
        raise Unusable(f"--to {to}: that is the original file; choose another name")
    if not os.access(place.parent, os.W_OK):
        raise Unusable(f"{display_path(place)}: the folder is not writable")
    return place


def write_draft(place: Path, text: str) -> Path:
    """
    Write the draft to *place*, or with the first free number added to its name; returns the path.

    An existing file is never overwritten; one with the same text is reused.
    """
    for free in chain([place], (place.with_name(f"{place.stem}-{number}{place.suffix}") for number in count(2))):
        try:
            with free.open("xb") as file:
                file.write(text.encode())
            return free
        except FileExistsError:
            if free.read_bytes() == text.encode():
                return free
    raise AssertionError("unreachable: numbers do not end")


def file_of(workflow: Workflow, written: str | None) -> Path:
    """
    The file of a stored workflow definition: *written*, or the file in the workflow's folder with the same definition.

    Raises:
        Unusable: There is none, or the named file defines another workflow.
    """
    if written:
        found, _ = load(written)
        if found.name != workflow.name:
            raise Unusable(f"{written} defines the workflow {found.name!r}, not {workflow.name!r}")
        return Path(written)
    folder = Path.cwd() / workflow.tools_from
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            if load(path)[0].digest == workflow.digest:
                return Path(display_path(path))
        except Unusable:
            continue
    raise Unusable(f"no file in {display_path(folder)} has the definition that was run\n  name the workflow file with --using FILE")


def load_same(file: Path, workflow: Workflow, node: str) -> Workflow:
    """
    Load the workflow in *file*, and require that its prompt at *node* is the one in the stored definition *workflow*.

    Raises:
        Unusable: The prompt is different or missing.
    """
    found, source = load(file)
    check(found, source, folders=tool_folders(found))
    call = found.nodes[node].call if node in found.nodes else None
    if call is None or written(call.prompt) != written(turns_of(workflow, node)):
        raise Unusable(
            f"{display_path(file)}: the prompt of {node!r} has changed since the failed run\n  test the present prompt with: beam-ray rerun TASK --using {display_path(file)}"
        )
    return found


def _changed(file: Path, change: Callable[[CommentedMap], None], wanted: Workflow) -> str:
    read_yaml(file)  # enforces the size and depth limits
    written = file.read_bytes().decode("utf-8-sig")
    text = written.replace("\r\n", "\n")
    _, sequence, offset = load_yaml_guess_indent(text)
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    yaml.indent(mapping=2, sequence=sequence or 4, offset=2 if offset is None else offset)
    data = yaml.load(text)
    change(data)
    sink = io.StringIO()
    yaml.dump(data, sink)
    found = parse_workflow(read_yaml(file, sink.getvalue()), file.parent, Path.cwd())
    if found.digest != wanted.digest:
        raise Unusable(f"{display_path(file)} cannot be edited automatically because it uses YAML anchors or merges; edit it by hand")
    return sink.getvalue().replace("\n", "\r\n") if text != written else sink.getvalue()


def _prompt(turns: Sequence[Mapping[str, str]]) -> Any:
    if len(turns) == 1 and turns[0]["role"] == "user":
        return _text(turns[0]["content"])
    return CommentedSeq([CommentedMap({turn["role"]: _text(turn["content"])}) for turn in turns])


def _text(content: str) -> Any:
    return LiteralScalarString(content) if "\n" in content else content
