"""The text of a draft: a workflow file with its prompts and requirements in it, so that the store holds all of it."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML

from beam_ray.define.criterion import expand
from beam_ray.define.diff import changes
from beam_ray.define.fingerprint import Json
from beam_ray.define.load import names_file, parse_workflow, read_prompt
from beam_ray.define.requirements import read_requirements
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_edit import literal_blocks, parse_path, with_value
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import BeamRayError, Unusable
from beam_ray.improve.drafts import file_of
from beam_ray.improve.prompt_text import turns_of, written


def text_of(workflow: Workflow, source: str) -> str:
    """
    The text of a draft that is *workflow*: its YAML file *source* with the prompts in it.

    What files say today does not count: the text defines exactly *workflow*. Where *source* is
    empty, a file of the workflow's folder with this definition, or else the definition as YAML.
    """
    try:
        return _filled(workflow, source or file_of(workflow, None).read_text(encoding="utf-8-sig"))
    except (Unusable, OSError, KeyError, TypeError, AttributeError):
        short, exact = as_yaml(workflow), as_yaml(workflow, short=False)
        try:
            return short if _defined(short).digest == workflow.digest else exact
        except Unusable:
            return exact


def text_of_draft(workflow: Workflow, published: Workflow, source: str) -> str:
    """The text of a draft that is *workflow*: that of the published version, *source*, with what differs, so that its comments and order stay."""
    text, wanted = text_of(published, source), workflow.document()["nodes"]
    try:
        for change in changes(published, workflow):
            kind, _, rest = change.field.partition(".")
            keys = [kind, *rest.split("[")[0].split(".")[:1]] if isinstance(wanted[change.node].get(kind), Mapping) else [kind]
            value = wanted[change.node]
            for key in keys:
                value = value.get(key) if value else None
            text = with_edit(text, ".".join(["nodes", change.node, *keys]), value, workflow.name)
        if _defined(text).digest == workflow.digest:
            return text
    except (BeamRayError, KeyError, TypeError, AttributeError):
        pass
    return text_of(workflow, "")


def _filled(workflow: Workflow, source: str) -> str:
    data, text = read_yaml(Path(workflow.name), source).data, source
    for name, node in workflow.nodes.items():
        prompt = data["nodes"][name][node.kind].get("prompt") if node.call else None
        if isinstance(prompt, str) and names_file(prompt):
            text = with_value(text, ("nodes", name, node.kind, "prompt"), written_prompt(written(turns_of(workflow, name))), workflow.name)
    if isinstance(data.get("requirements"), str):
        text = with_value(text, ("requirements",), list(workflow.requirements), workflow.name)
    if _defined(text).digest != workflow.digest:
        raise Unusable("the file defines something else")
    return text


def _defined(text: str) -> Workflow:
    return parse_workflow(read_yaml(Path("draft"), text), Path.cwd(), Path.cwd(), files=False)


def with_files(text: str, folder: Path, file: str = "text") -> str:
    """
    *text* with the content of the prompt files and the requirements file that it names, which are relative to *folder*.

    Raises:
        BadDefinition: the text is not YAML, or a file is not a prompt.
        Unusable: a file cannot be read.
    """
    data = read_yaml(Path(file), text).data
    if not isinstance(data, Mapping):
        return text
    nodes = data.get("nodes")
    for name, node in nodes.items() if isinstance(nodes, Mapping) else ():
        for kind in ("llm", "agent"):
            call = node.get(kind) if isinstance(node, Mapping) else None
            prompt = call.get("prompt") if isinstance(call, Mapping) else None
            if isinstance(prompt, str) and names_file(prompt):
                found = read_prompt(prompt, folder)
                text = with_value(text, ("nodes", name, kind, "prompt"), found if isinstance(found, str) else written_prompt(found), file)
    if isinstance(data.get("requirements"), str):
        text = with_value(text, ("requirements",), read_requirements(data["requirements"], folder), file)
    return text


def with_edit(text: str, path: str, value: Json, file: str) -> str:
    """
    *text* with *value* at *path*, or without what is there where *value* is None; a prompt may be given as text or as turns.

    Raises:
        BadDefinition: the text is not YAML.
        Unusable: the path leads nowhere.
    """
    keys = parse_path(path)
    if keys[-1] == "prompt" and isinstance(value, Sequence) and not isinstance(value, str):
        value = written_prompt([{"role": turn["role"], "content": turn["content"]} if isinstance(turn, Mapping) and "role" in turn else turn for turn in value])
    return with_value(text, keys, value, file)


def written_prompt(turns: Sequence[Mapping[str, str]]) -> Json:
    """A prompt as a file has it: its text where it is one user turn, otherwise a list of turns."""
    written = [{turn["role"]: turn["content"]} if "role" in turn else dict(turn) for turn in turns]
    return written[0]["user"] if len(written) == 1 and set(written[0]) == {"user"} else written


def as_yaml(workflow: Workflow, *, short: bool = True) -> str:
    """The definition as a YAML file; *short* writes criteria as people do."""
    document = workflow.document()
    document.pop("tools_from", None)
    for name, node in document["nodes"].items():
        if call := node.get(workflow.nodes[name].kind) if workflow.nodes[name].call else None:
            call["prompt"] = written_prompt([{"role": turn["role"], "content": turn["content"]} for turn in call["prompt"]])
        if short and "after" in node and len(node["after"]) == 1:
            node["after"] = node["after"][0]
        if short and "criteria" in node.get("evaluate", {}):
            node["evaluate"]["criteria"] = [_short(criterion) for criterion in node["evaluate"]["criteria"]]
    sink = io.StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 1_000_000
    yaml.allow_unicode = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(literal_blocks(document), sink)
    return sink.getvalue()


def _short(criterion: Json) -> Json:
    """A stored criterion as people write it, if that means the same."""
    kind, text, named = criterion["kind"], criterion["text"], {"id": criterion["id"]}
    weight = {"weight": criterion["weight"]} if "weight" in criterion else {}
    for form in [text, {"text": text, **weight}, {"text": text, **named, **weight}] if kind == "plain" else _rule_forms(criterion, named, weight):
        try:
            [found] = expand(form)
        except ValueError:
            continue
        if found.model_dump(mode="json", exclude_defaults=True) == criterion:
            return form
    return criterion


def _rule_forms(criterion: Json, named: dict[str, Json], weight: dict[str, Json]) -> list[Json]:
    kind, want, field = criterion["kind"], criterion.get("want"), criterion.get("field")
    rule = {kind: {field: want} if field else want}
    text, ignore = {"text": criterion["text"]}, {"ignore": criterion["ignore"]} if "ignore" in criterion else {}
    return [{**rule, **more, **ignore, **weight} for more in ({}, named, {**named, **text})]
