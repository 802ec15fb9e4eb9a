"""
Drafts: a workflow file with one thing changed, and all else as its author wrote it.

Comments, order and layout stay. What is written is read again first, by the same loader
that reads every workflow, so that a draft says exactly what it was meant to say.
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
from beam_ray.define.load import load, parse_workflow
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import display_path, read_yaml
from beam_ray.errors import BadDefinition, Unusable
from beam_ray.improve.prompt_text import turns_of, written
from beam_ray.run.tools import tool_folders


def with_prompt(workflow: Workflow, node: str, turns: Sequence[Mapping[str, str]]) -> Workflow:
    """
    *workflow* with another prompt at *node*, checked as its file would be.

    Raises:
        BadDefinition: the prompt is no template, or asks for what is not there.
    """
    document = workflow.document()
    document["nodes"][node]["llm"]["prompt"] = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    return checked(document)


def with_criteria(workflow: Workflow, node: str, criteria: Sequence[Any]) -> Workflow:
    """
    *workflow* with other criteria at *node*, each as a file would have it.

    Raises:
        BadDefinition: a criterion is not understood, or asks for what is not there.
    """
    document = workflow.document()
    document["nodes"][node].setdefault("evaluate", {})["criteria"] = list(criteria)
    return checked(document)


def checked(document: Mapping[str, Any]) -> Workflow:
    """
    The workflow that *document* describes.

    Raises:
        BadDefinition: it is not sound.
    """
    try:
        workflow = Workflow.model_validate(document)
    except ValueError as error:
        raise BadDefinition("; ".join(line.strip() for line in str(error).splitlines()[1:3])) from None
    check(workflow, folders=tool_folders(workflow))
    return workflow


def prompts_text(file: Path, prompts: Mapping[str, Sequence[Mapping[str, str]]], wanted: Workflow) -> str:
    """The text of *file* with other prompts, by node; it says what *wanted* is."""

    def change(data: CommentedMap) -> None:
        for node, turns in prompts.items():
            call = data["nodes"][node]["llm"]
            call["prompt"] = _prompt(turns)
            for comment in (call.ca.items.get("prompt") or [])[2:3]:
                # it comes to stand below the text, and further right it would become a part of it
                if comment is not None:
                    comment.column = call.lc.col

    return _changed(file, change, wanted)


def criteria_text(file: Path, node: str, criteria: Sequence[Any], notes: Sequence[str], wanted: Workflow, *, keep: bool) -> str:
    """The text of *file* with other criteria at *node*, or where *keep* is set with more; *notes* become comments at its end."""

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
    Where the draft of *file* goes: to *to*, or beside it.

    Raises:
        Unusable: it would not find its prompts and tools there.
    """
    place = Path(to) if to else file.with_name(f"{file.stem}-{ending}{file.suffix}")
    if place.suffix not in (".yaml", ".yml"):
        raise Unusable(f"--to {to}: a draft is a workflow file and ends in .yaml")
    if place.parent.resolve() != file.parent.resolve():
        raise Unusable(f"--to {to}: the draft must lie beside {display_path(file)}\n  its prompts and tools are looked for from there")
    if place.resolve() == file.resolve():
        raise Unusable(f"--to {to}: that is the original; a draft is another file")
    if not os.access(place.parent, os.W_OK):
        raise Unusable(f"{display_path(place)}: the draft cannot be written there")
    return place


def write_draft(place: Path, text: str) -> Path:
    """
    Where the draft lies on disk: *place*, or beside it under the first number that is free or says the same already.

    What is there is never written over, and a draft that was paid for is never refused for its name.
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
    The file that *workflow*, a stored definition, came from: *written*, or the one in its folder that says the same.

    Raises:
        Unusable: there is none, or the one named is of another workflow.
    """
    if written:
        found, _ = load(written)
        if found.name != workflow.name:
            raise Unusable(f"{written} is the workflow {found.name!r}, and not {workflow.name!r}")
        return Path(written)
    folder = Path.cwd() / workflow.tools_from
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            if load(path)[0].digest == workflow.digest:
                return Path(display_path(path))
        except Unusable:
            continue
    raise Unusable(f"no file in {display_path(folder)} says what was run\n  --using FILE  names the workflow file that the draft is made from")


def load_same(file: Path, workflow: Workflow, node: str) -> Workflow:
    """
    The workflow in *file*, whose prompt at *node* must be the one of *workflow*, a stored definition.

    Raises:
        Unusable: it is another, or is gone.
    """
    found, source = load(file)
    check(found, source, folders=tool_folders(found))
    call = found.nodes[node].llm if node in found.nodes else None
    if call is None or written(call.prompt) != written(turns_of(workflow, node)):
        raise Unusable(
            f"{display_path(file)}: its prompt of {node!r} is not the one that failed\n  beam-ray rerun TASK --using {display_path(file)}  tries the present one"
        )
    return found


def _changed(file: Path, change: Callable[[CommentedMap], None], wanted: Workflow) -> str:
    read_yaml(file)  # refuses what is made to be expensive
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
        raise Unusable(f"{display_path(file)} cannot be changed in place (YAML that is shared or merged); change it by hand")
    return sink.getvalue().replace("\n", "\r\n") if text != written else sink.getvalue()


def _prompt(turns: Sequence[Mapping[str, str]]) -> Any:
    if len(turns) == 1 and turns[0]["role"] == "user":
        return _text(turns[0]["content"])
    return CommentedSeq([CommentedMap({turn["role"]: _text(turn["content"])}) for turn in turns])


def _text(content: str) -> Any:
    return LiteralScalarString(content) if "\n" in content else content
