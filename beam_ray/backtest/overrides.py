"""Overrides of a definition: a dotted path such as ``nodes.extract.llm.prompt``, and what stands there instead."""

from pathlib import Path
from typing import Any

from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.load import read_prompt
from beam_ray.define.workflow import Workflow
from beam_ray.errors import did_you_mean


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
    if value is None:
        place.pop(parts[-1], None)
    else:
        place[parts[-1]] = value
