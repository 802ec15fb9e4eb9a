"""The differences between two workflow definitions, by node and field."""

import difflib
import json
from dataclasses import dataclass

from beam_ray.define.fingerprint import Json, flatten
from beam_ray.define.workflow import Workflow


@dataclass(frozen=True)
class Change:
    """One field that differs; *node* is empty for fields of the workflow itself."""

    node: str
    field: str
    """Dotted path within the node; empty where the whole node was added or removed."""
    before: Json
    after: Json

    def __str__(self) -> str:
        if not self.field:
            return f"{self.node} was {'added' if self.before is None else 'removed'}"
        return f"{self.node + '.' if self.node else ''}{self.field}"

    @property
    def text_diff(self) -> str:
        """The change as a unified diff for text of several lines, otherwise as ``before -> after``."""
        before, after = _lines(self.before), _lines(self.after)
        if len(before) + len(after) <= 2:
            return f"{_short(self.before)} -> {_short(self.after)}"
        return "\n".join(list(difflib.unified_diff(before, after, lineterm="", n=2))[2:])

    @property
    def texts(self) -> tuple[str, str]:
        """Both values as text for people, whole: prompts with their roles, criteria one a line."""
        return "\n".join(_lines(self.before, whole=True)), "\n".join(_lines(self.after, whole=True))


def changes(before: Workflow, after: Workflow) -> list[Change]:
    """Every difference that can change results, in the order of *after*."""
    old, new = before.identity(), after.identity()
    old_nodes, new_nodes = old.pop("nodes"), new.pop("nodes")
    found = _fields("", old, new)
    for name in [*new_nodes, *(name for name in old_nodes if name not in new_nodes)]:
        if name not in old_nodes:
            found.append(Change(name, "", None, new_nodes[name]))
        elif name not in new_nodes:
            found.append(Change(name, "", old_nodes[name], None))
        else:
            found += _fields(name, old_nodes[name], new_nodes[name])
    return found


def _fields(node: str, old: dict[str, Json], new: dict[str, Json]) -> list[Change]:
    before, after = _leaves(old), _leaves(new)
    return [Change(node, path, before.get(path), after.get(path)) for path in dict.fromkeys([*after, *before]) if before.get(path) != after.get(path)]


def _leaves(value: dict[str, Json]) -> dict[str, Json]:
    leaves = flatten(value)
    # a missing part equals one that has only empty fields
    return {path: leaf for path, leaf in leaves.items() if leaf not in (None, [], {}, "")}


def _lines(value: Json, *, whole: bool = False) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict) and "content" in value[0]:
        return [line for turn in value for line in [f"{turn['role']}:", *str(turn["content"]).splitlines()]]
    if isinstance(value, list) and value and isinstance(value[0], dict) and "text" in value[0]:
        return [f"{entry['id']}: {entry['text']} (weight {entry['weight']:g})" for entry in value]
    if isinstance(value, str):
        return value.splitlines()
    if whole:
        return [] if value is None else json.dumps(value, ensure_ascii=False, indent=2).splitlines()
    return [_short(value)]


def _short(value: Json) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 100 else f"{text[:97]}…"
