"""Overrides of a definition: a dotted path such as ``nodes.extract.llm.prompt``, and what stands there instead; and changes to a spec."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from beam_ray.define.check import check
from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.define.load import read_prompt
from beam_ray.define.validation import validation_problems
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import Source
from beam_ray.errors import BadDefinition, Problem, Unusable, did_you_mean
from beam_ray.run.tools import tool_folders


def read_value(path: str, value: Any, baseline: Workflow, folder: Path) -> Any:
    """An override's value; a prompt that names a file is read."""
    if not path.endswith(("llm.prompt", "agent.prompt")) or not isinstance(value, str):
        return value
    places = [folder, Path.cwd() / baseline.tools_from, Path.cwd()]
    return read_prompt(value, next((place for place in places if (place / value).is_file()), folder) if "\n" not in value else folder)


def put_value(document: JsonObject, path: str, value: Any) -> None:
    """Set the dotted *path*; what leads there must exist, but for the last two parts."""
    parts = path.split(".")
    place = document
    for index, part in enumerate(parts[:-1]):
        if not isinstance(place, dict):
            raise ValueError(f"the override {path!r}: {'.'.join(parts[:index])!r} has no parts")
        if part not in place:
            if index < 2:
                known = list(place)
                raise ValueError("\n".join([f"the override {path!r}: there is no {part!r}", f"there is: {', '.join(known)}", *did_you_mean(part, known)]))
            place[part] = {}
        place = place[part]
    if not isinstance(place, dict):
        raise ValueError(f"the override {path!r}: {'.'.join(parts[:-1])!r} has no parts")
    if value is None:
        place.pop(parts[-1], None)
    else:
        place[parts[-1]] = value


def overridden(name: str, written: Mapping[str, Json], baseline: Workflow, folder: Path, source: Source) -> tuple[Workflow, list[Problem]]:
    """
    The definition that *written* makes of the baseline, dotted path to new value, and advice on it.

    Raises:
        BadDefinition: a path or a value does not fit.
    """
    if not written:
        raise BadDefinition(
            problems=[source.problem(("candidates", name), f"the candidate {name!r} changes nothing", "--aa  compares the baseline with itself")]
        )
    document = copy.deepcopy(baseline.document())
    problems = list[Problem]()
    for path_, value in written.items():
        at = ("candidates", name, path_)
        try:
            put_value(document, path_, read_value(path_, value, baseline, folder))
        except BadDefinition as error:
            problems += error.problems
        except (Unusable, ValueError) as error:
            problems.append(source.problem(at, str(error)))
    if problems:
        raise BadDefinition(problems=problems)
    try:
        workflow = Workflow.model_validate(document)
        return workflow, check(workflow, _places(source, name, written), folders=tool_folders(workflow))
    except pydantic.ValidationError as error:
        raise BadDefinition(
            problems=[source.problem(("candidates", name), problem.text, *problem.notes) for problem in validation_problems(error, source, Workflow)]
        ) from None


def _places(source: Source, name: str, written: Mapping[str, Json]) -> Source:
    """Where the parts of a candidate's definition stand: each override in the spec, and all else at the candidate."""
    places: dict[tuple[str | int, ...], tuple[int, int]] = {(): source.places.get(("candidates", name), (1, 1))}
    for path in written:
        places[tuple(path.split("."))] = source.places.get(("candidates", name, path), places[()])
    return Source(source.file, None, places)


def with_changes(document: Mapping[str, Json], changes: Mapping[str, Json]) -> JsonObject:
    """The spec as written, with changes such as ``trials``, ``models.NAME`` or ``candidates.NAME.nodes.extract.llm.prompt``."""
    found = copy.deepcopy(dict(document))
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if rest and head not in ("models", "candidates"):
            raise Unusable(f"--set {key}: only models.NAME and candidates.NAME can be set one at a time")
        if not rest:
            found[head] = value
            continue
        place = found[head] if isinstance(found.get(head), dict) else {}
        found[head] = place
        name, _, path = (rest, "", "") if head == "models" else rest.partition(".")
        if path:
            place[name] = {**(place[name] if isinstance(place.get(name), dict) else {}), path: value}
        else:
            place[name] = value
    return found
