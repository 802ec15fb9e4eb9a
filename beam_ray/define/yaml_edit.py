"""
Change values in a YAML text at their places; every other byte stays as its author wrote it.

The result is read again and must have exactly the wanted data: what cannot be changed in its
place, such as a value behind an alias, is refused.
"""

import contextlib
import copy
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, SequenceNode
from ruamel.yaml.scalarstring import LiteralScalarString

from beam_ray.define.fingerprint import Json
from beam_ray.define.yaml_file import KeyPath, dotted, read_yaml
from beam_ray.errors import BadDefinition, Unusable, did_you_mean

_PART = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")


def parse_path(written: str) -> KeyPath:
    """
    The keys and indexes of a path such as ``nodes.extract.evaluate.criteria[0]``.

    Raises:
        Unusable: it is no path.
    """
    found: list[str | int] = []
    at = 0
    while at < len(written):
        part = _PART.match(written, at)
        if part is None:
            break
        found.append(int(part[1]) if part[1] else part[2])
        at = part.end()
    if at < len(written) or not found or isinstance(found[0], int) or written.startswith("."):
        raise Unusable(f"{written!r} is not a path; write it as nodes.NODE.FIELD, such as nodes.extract.llm.prompt or nodes.extract.evaluate.criteria[0]")
    return tuple(found)


def with_value(text: str, path: KeyPath, value: Json, file: str = "text") -> str:
    """
    The YAML *text* with *value* at *path*; None removes what is there, and mappings that are empty then.

    An index one past the end of a list appends to it. *file* is what messages call the text.

    Raises:
        BadDefinition: the text is not valid YAML.
        Unusable: the path leads nowhere, or the value cannot be changed in its place.
    """
    before = read_yaml(Path(file), text).data
    wanted = copy.deepcopy(before)
    changed_at, there = _put(wanted, path, value)
    if wanted == before:
        return text
    ends = "\r\n" if "\r\n" in text else "\n"
    splice = _Splice(text.replace("\r\n", "\n"))
    if _has_lines(there) and (outer := splice.flow_container(changed_at)):
        # text of several lines is not readable within braces
        changed_at, there = outer, _get(wanted, outer)
    for literal in (True, False):  # a literal block cannot hold every text
        changed = splice.put(changed_at, there, literal=literal)
        with contextlib.suppress(BadDefinition):
            if read_yaml(Path(file), changed).data == wanted:
                return changed.replace("\n", ends)
    raise Unusable(f"{dotted(path)} of {file} cannot be changed in its place because the text uses YAML anchors or merges; change the text instead")


_GONE = object()


def _get(data: Json, path: KeyPath) -> Json:
    for part in path:
        data = data[part]
    return data


def _has_lines(value: Json) -> bool:
    if isinstance(value, str):
        return "\n" in value
    return any(map(_has_lines, value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()))


def _put(data: Json, path: KeyPath, value: Json) -> tuple[KeyPath, Json]:
    """Put *value* into plain data; where it changes, and what is there then: shorter than *path* where mappings are made or become empty."""
    places = [data]
    for index, part in enumerate(path[:-1]):
        here = places[-1]
        if isinstance(here, dict) and part not in here and index >= 2 and isinstance(part, str):
            # what is missing within a node is made
            if value is None:
                return path, _GONE
            made = value
            for further in reversed(path[index + 1 :]):
                if isinstance(further, int):
                    raise _nowhere(path, index + 1, here)
                made = {further: made}
            here[part] = made
            return path[: index + 1], made
        try:
            places.append(here[part])
        except (KeyError, IndexError, TypeError):
            raise _nowhere(path, index, here) from None
    here, last = places[-1], path[-1]
    if isinstance(here, list) and isinstance(last, int):
        if value is None and last < len(here):
            del here[last]
        elif value is not None and last < len(here):
            here[last] = value
        elif value is not None and last == len(here):
            here.append(value)
        elif value is not None:
            raise _nowhere(path, len(path) - 1, here)
    elif here is None and isinstance(last, str) and len(path) > 1 and value is not None:
        places[-2][path[-2]] = {last: value}
        return path[:-1], {last: value}
    elif isinstance(here, dict) and isinstance(last, str):
        if value is None:
            here.pop(last, None)
        else:
            here[last] = value
    else:
        raise _nowhere(path, len(path) - 1, here)
    while value is None and not here and len(path) > 3:
        path = path[:-1]
        places.pop()
        here = places[-1]
        del here[path[-1]]
    return path, _GONE if value is None else value


def _nowhere(path: KeyPath, index: int, here: Json) -> Unusable:
    where = dotted(path[:index]) or "the workflow"
    part = path[index]
    if isinstance(here, dict):
        return Unusable(
            "\n  ".join([f"{dotted(path)}: {where} has no {part!r}", f"it has: {', '.join(map(str, here))}", *did_you_mean(str(part), map(str, here))])
        )
    if isinstance(here, list):
        return Unusable(f"{dotted(path)}: {where} has {len(here)} entries, counted from 0")
    return Unusable(f"{dotted(path)}: {where} is a value and has no parts")


class _Splice:
    """A YAML text as lines and nodes, to replace one value in."""

    def __init__(self, text: str):
        self.text = text if text.endswith("\n") else text + "\n"
        self.root: Node = YAML(pure=True).compose(self.text)
        self.literal = True

    def flow_container(self, path: KeyPath) -> KeyPath:
        """The outermost place on the way to *path* that is written in braces or brackets without comments; empty where there is none."""
        node = self.root
        for index, part in enumerate(path):
            if _is_flow(node):
                return path[:index] if index and "#" not in self.text[node.start_mark.index : node.end_mark.index] else ()
            entry = self._entry(node, part)
            if not entry:
                break
            node = entry[-1]
        return ()

    def put(self, path: KeyPath, value: Json, *, literal: bool) -> str:
        """The text with *value* at *path*, whose parent is there; ``_GONE`` removes it. *literal* writes texts of several lines as blocks."""
        self.literal = literal
        parent = self.root
        flow = False
        column = 0
        for part in path[:-1]:
            flow = flow or _is_flow(parent)
            entry = self._entry(parent, part)
            column = entry[0].start_mark.column if isinstance(parent, MappingNode) else column
            parent = entry[-1]
        flow = flow or _is_flow(parent)
        entry = self._entry(parent, path[-1])
        if value is _GONE:
            return self._without(parent, entry, flow=flow)
        if not entry:
            return self._with_entry(parent, path[-1], value, flow=flow)
        return self._with_value(parent, entry, value, flow=flow)

    def _entry(self, parent: Node, part: str | int) -> tuple[Node, ...]:
        """The nodes of an entry: key and value of a mapping, or the value in a list; empty where there is none."""
        if isinstance(parent, MappingNode):
            return next(((key, value) for key, value in parent.value if _key(key) == part), ())
        if isinstance(parent, SequenceNode) and isinstance(part, int):
            return (parent.value[part],) if part < len(parent.value) else ()
        return ()

    def _with_value(self, parent: Node, entry: tuple[Node, ...], value: Json, *, flow: bool) -> str:
        node = entry[-1]
        start, end = node.start_mark.index, self._end(node, entry[0].start_mark.column)
        if flow:
            return self._replaced(start, end, _flow(value))
        column = parent.value[0][0].start_mark.column if isinstance(parent, MappingNode) else node.start_mark.column - 2
        written = self._written(value, column)
        if isinstance(parent, MappingNode):
            start = entry[0].end_mark.index + self.text[entry[0].end_mark.index :].index(":") + 1
            end = start if _is_empty(node) else end
            written = _after_key(written)
        elif isinstance(value, Mapping) and value:
            written = written.lstrip()
        comment = self._comment(start, node, end)
        if comment:
            first, *rest = written.split("\n")
            written = "\n".join([f"{first}{comment}", *rest])
        rest_of_line = self.text[end : self._line_end(end)]
        return self._replaced(start, self._line_end(end) if comment or not rest_of_line.strip() else end, written)

    def _comment(self, start: int, node: Node, end: int) -> str:
        """The comment behind the value, or behind the key of a value of several lines, with the space before it."""
        line = self.text[end : self._line_end(end)]
        if "\n" in self.text[start:end]:
            head = self.text[start : self._line_end(start)]
            found = re.search(r"\s+#.*$", head)
            return found[0] if found else ""
        return line.rstrip() if re.match(r"\s+#", line) else ""

    def _with_entry(self, parent: Node, part: str | int, value: Json, *, flow: bool) -> str:
        entries = parent.value
        if flow or not entries:
            closing = self._end(parent, 0) - 1
            written = _flow(value) if isinstance(part, int) else f"{_flow(part)}: {_flow(value)}"
            return self._replaced(closing, closing, f"{', ' if entries else ''}{written}")
        last = entries[-1]
        first = entries[0][0] if isinstance(parent, MappingNode) else entries[0]
        nodes = last if isinstance(parent, MappingNode) else (last,)
        column = first.start_mark.column if isinstance(parent, MappingNode) else self._dash(first)
        at = self._line_end(self._end(nodes[-1], nodes[0].start_mark.column if isinstance(parent, MappingNode) else column))
        if isinstance(part, int):
            written = f"{' ' * column}- {self._written(value, column).lstrip()}"
        else:
            written = f"{' ' * column}{_flow(part)}:{_after_key(self._written(value, column))}"
        return self._replaced(at, at, f"\n{written}")

    def _without(self, parent: Node, entry: tuple[Node, ...], *, flow: bool) -> str:
        if not entry:
            return self.text
        in_list = not isinstance(parent, MappingNode)
        column = self._dash(entry[0]) if in_list else entry[0].start_mark.column
        start, end = entry[0].start_mark.index, self._end(entry[-1], column)
        if flow:
            behind = re.match(r"\s*,\s*", self.text[end:])
            before = re.search(r"\s*,\s*$", self.text[:start])
            if behind:
                end += behind.end()
            elif before:
                start = before.start()
            return self._replaced(start, end, "")
        line = self.text.rfind("\n", 0, start) + 1
        if in_list:
            line = self.text.rfind("\n", 0, self.text.rfind("-", 0, start)) + 1
        elif self.text[line:start].strip():
            # the first key of a mapping in a list stands behind the dash
            nothing = self._line_end(end) + 1
            return self._replaced(start, nothing + column, "")
        return self._replaced(line, self._line_end(end) + 1, "")

    def _written(self, value: Json, column: int) -> str:
        return _written(literal_blocks(value) if self.literal else value, column)

    def _dash(self, node: Node) -> int:
        """The column of the dash before an entry of a block list."""
        at = self.text.rfind("-", 0, node.start_mark.index)
        return at - self.text.rfind("\n", 0, at) - 1

    def _end(self, node: Node, column: int) -> int:
        """Where the text of *node* ends, without comments and empty lines behind it; *column* is that of its key or dash."""
        if isinstance(node, MappingNode) and not _is_flow(node) and node.value:
            key, value = node.value[-1]
            return self._end(value, key.start_mark.column)
        if isinstance(node, SequenceNode) and not _is_flow(node) and node.value:
            return self._end(node.value[-1], self._dash(node.value[-1]))
        end: int = node.end_mark.index
        if _is_empty(node):  # its mark may be that of what follows
            return len(re.sub(r"(\n[ \t]*(#[^\n]*)?)+$", "", self.text[:end]))
        if getattr(node, "style", None) in ("|", ">"):
            lines = self.text[node.start_mark.index : end].split("\n")
            while len(lines) > 1 and (not lines[-1].strip() or (lines[-1].lstrip().startswith("#") and len(lines[-1]) - len(lines[-1].lstrip()) <= column)):
                lines.pop()
            return int(node.start_mark.index) + len("\n".join(lines))
        return int(node.start_mark.index) + len(self.text[node.start_mark.index : end].rstrip())

    def _line_end(self, at: int) -> int:
        found = self.text.find("\n", at)
        return len(self.text) if found < 0 else found

    def _replaced(self, start: int, end: int, written: str) -> str:
        return self.text[:start] + written + self.text[end:]


def _is_flow(node: Node) -> bool:
    return isinstance(node, CollectionNode) and bool(node.flow_style)


def _is_empty(node: Node) -> bool:
    return bool(node.start_mark.index == node.end_mark.index)


def _key(node: Node) -> str | int:
    value = str(node.value)
    return int(value) if node.tag and str(node.tag).endswith(":int") and value.isdecimal() else value


def _after_key(written: str) -> str:
    return written if written.startswith("\n") else f" {written}"


def _written(value: Json, column: int) -> str:
    """*value* in block style behind a key or dash at *column*; what has several lines begins with a line break where it is a collection."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 1_000_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    sink = io.StringIO()
    yaml.dump({"x": value}, sink)
    lines = sink.getvalue().removeprefix("x:").removesuffix("\n").split("\n")
    indented = [line if not line or index == 0 else " " * column + line for index, line in enumerate(lines)]
    return "\n".join(indented).removeprefix(" ")


def literal_blocks(value: Json) -> Json:
    """*value* with texts of several lines as literal blocks."""
    if isinstance(value, str):
        return LiteralScalarString(value) if "\n" in value else value
    if isinstance(value, Mapping):
        return {key: literal_blocks(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [literal_blocks(entry) for entry in value]
    return value


def _flow(value: Json) -> str:
    """*value* in flow style, on one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 1_000_000
    yaml.allow_unicode = True
    sink = io.StringIO()
    yaml.dump({"x": value}, sink)  # not in a list, in which a mapping of one entry would have no braces
    return " ".join(sink.getvalue().split("\n")).strip().removeprefix("{x: ").removesuffix("}")
