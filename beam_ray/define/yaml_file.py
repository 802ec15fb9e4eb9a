"""
Read a YAML file with the line and column of every key and entry.

Only plain data is read: no tags, no duplicate keys, and limits on size, depth and aliases, so
that a file cannot be expensive to read.
"""

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from ruamel.yaml.reader import ReaderError

from beam_ray.define.fingerprint import Json
from beam_ray.errors import BadDefinition, Problem, Unusable

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_ALIASES = 100
MAX_VALUES = 20_000
MAX_BITS = 1_000
"""Of a whole number. A file may write one that Python reads and does not write again."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
TAGS = ("str", "int", "float", "bool", "null", "seq", "map")
"""Tags of plain values; any other tag asks the reader to construct something."""

KeyPath = tuple[str | int, ...]
"""The keys and list indexes that lead to a value."""


@dataclass
class Source:
    """A YAML file: its plain data, and the place of each part of it."""

    file: str
    data: Json = None
    places: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    """Path to line and column, both counted from 1."""

    def problem(self, path: Iterable[str | int], text: str, *notes: str) -> Problem:
        """A problem at the nearest known place to *path*."""
        at = tuple(path)
        line, column = self.place(at)
        return _problem(self.file, line, column, text, notes, dotted(at))

    def place(self, path: Iterable[str | int]) -> tuple[int, int]:
        """Line and column of the nearest known place to *path*."""
        at = tuple(path)
        while at and at not in self.places:
            at = at[:-1]
        return self.places.get(at, (1, 1))


class NoFile(Source):
    """Stands in for the file of a definition built in Python: problems name the path of the value."""

    def problem(self, path: Iterable[str | int], text: str, *notes: str) -> Problem:
        """A problem at *path*, such as ``nodes.extract.llm.prompt[0]``."""
        where = dotted(path)
        return _problem(": ".join(filter(None, (self.file, where))), 0, 0, text, notes, where)


def dotted(path: Iterable[str | int]) -> str:
    """*path* as messages have it: ``nodes.extract.llm.prompt[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _problem(file: str, line: int, column: int, text: str, notes: tuple[str, ...], path: str) -> Problem:
    first, *rest = text.split("\n")
    return Problem(file, line, column, first, (*(note.strip() for note in rest), *notes), path=path)


def read_yaml(path: Path, text: str | None = None) -> Source:
    """
    The file's data with the place of every key and entry; *text* is used instead of the file's content where given.

    Raises:
        BadDefinition: it is not YAML, repeats a key, or exceeds a limit.
        Unusable: it cannot be read.
    """
    name = display_path(path)
    if text is None:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise Unusable(f"{name}: cannot be read ({error.strerror})") from None
        if len(raw) > MAX_BYTES:
            raise BadDefinition(problems=[Problem(name, 1, 1, f"the file has {len(raw):,} bytes; at most {MAX_BYTES:,} are allowed")])
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadDefinition(problems=[not_utf8(name, raw, error)]) from None
    try:
        _refuse_bombs(name, text)
        tree = YAML(typ="rt", pure=True).load(text)
    except DuplicateKeyError as error:
        mark = error.problem_mark
        first = str(error.problem).splitlines()[0].split(" with value")[0].removeprefix("found ")
        raise BadDefinition(problems=[Problem(name, mark.line + 1, mark.column + 1, f"{first}; a key may appear only once")]) from None
    except ConstructorError as error:
        raise BadDefinition(problems=[_marked(name, error, "unsupported YAML; use plain text, numbers, lists and mappings")]) from None
    except MarkedYAMLError as error:
        raise BadDefinition(problems=[_marked(name, error, f"invalid YAML: {error.problem or error.context}")]) from None
    except ReaderError as error:
        before = text[: error.position]
        what = f"the control character U+{error.character:04X} is not allowed; remove it"
        raise BadDefinition(problems=[Problem(name, before.count("\n") + 1, len(before) - before.rfind("\n"), what)]) from None
    except (YAMLError, ValueError, RecursionError, OverflowError, AttributeError, TypeError, AssertionError, KeyError, IndexError) as error:
        # ruamel raises a few errors of its own implementation on text that is not YAML
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadDefinition(problems=[Problem(name, 1, 1, f"invalid YAML: {first}")]) from None
    source = Source(name)
    try:
        source.data = _plain(tree, (), source, [0])
    except _TooLarge:
        raise BadDefinition(problems=[Problem(name, 1, 1, f"the file has more than {MAX_VALUES:,} values, counting those repeated by aliases")]) from None
    return source


def not_utf8(file: str, raw: bytes, error: UnicodeDecodeError) -> Problem:
    """The problem that a file has another encoding, at the first byte that shows it."""
    start = raw.rfind(b"\n", 0, error.start) + 1
    return Problem(file, raw.count(b"\n", 0, error.start) + 1, error.start - start + 1, "the file is not UTF-8; save it as UTF-8")


def relative_path(path: Path, base: Path) -> str:
    """*path* relative to *base* where it lies below, otherwise absolute."""
    try:
        return path.resolve().relative_to(base.resolve()).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def display_path(path: Path) -> str:
    """*path* as messages show it: relative to the working directory where it lies below."""
    return relative_path(path, Path.cwd())


class _TooLarge(Exception):
    pass


def _refuse_scalar(node: Json, path: KeyPath, source: Source) -> None:
    what = ""
    if isinstance(node, int) and node.bit_length() > MAX_BITS:
        what = "the number has too many digits; put it in quotes if it is a text"
    elif isinstance(node, str) and _SURROGATE.search(node):
        what = "the text has half of a character, \\uD800 to \\uDFFF; write the character itself"
    if what:
        line, column = source.place(path)
        raise BadDefinition(problems=[Problem(source.file, line, column, what)])


def _plain(node: Json, path: KeyPath, source: Source, count: list[int]) -> Json:
    count[0] += 1
    if count[0] > MAX_VALUES:
        raise _TooLarge
    _refuse_scalar(node, path, source)
    if isinstance(node, CommentedMap):
        result = {}
        for key, value in node.items():
            if not isinstance(key, (str, int, float, type(None), datetime.date)):
                spot = node.lc.data.get(key) if node.lc.data else None
                line, column = (spot[0] + 1, spot[1] + 1) if spot else (1, 1)
                raise BadDefinition(problems=[Problem(source.file, line, column, "a key must be a string", ("quote text that begins with {{",))])
            name = key if isinstance(key, (str, int)) and not isinstance(key, bool) else str(key)
            _refuse_scalar(name, path, source)
            at = (*path, name)
            spot = node.lc.data.get(key) if node.lc.data else None
            if spot:
                source.places[at] = (spot[0] + 1, spot[1] + 1)
            result[name] = _plain(value, at, source, count)
        return result
    if isinstance(node, CommentedSeq):
        entries = []
        for index, value in enumerate(node):
            at = (*path, index)
            spot = node.lc.data.get(index) if node.lc.data else None
            if spot:
                source.places[at] = (spot[0] + 1, spot[1] + 1)
            entries.append(_plain(value, at, source, count))
        return entries
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, int):
        return int(node)
    if isinstance(node, float):
        return float(node)
    if isinstance(node, (datetime.date, datetime.datetime)):
        return node.isoformat()
    return str(node)


def _refuse_bombs(name: str, text: str) -> None:
    open_: list[str | None] = []
    aliases = values = 0
    for event in YAML(typ="rt", pure=True).parse(text):
        what = ""
        if isinstance(event, CollectionStartEvent):
            open_.append(event.anchor)
            if len(open_) > MAX_DEPTH:
                what = f"nested more than {MAX_DEPTH} levels deep"
        elif isinstance(event, CollectionEndEvent):
            open_.pop()
        elif isinstance(event, AliasEvent):
            aliases += 1
            if aliases > MAX_ALIASES:
                what = f"more than {MAX_ALIASES} aliases; write the values out"
            elif event.anchor in open_:
                what = f"the alias *{event.anchor} refers to a value that contains it; remove it"
        if isinstance(event, (CollectionStartEvent, ScalarEvent)):
            values += 1
            if values > MAX_VALUES:
                what = f"the file has more than {MAX_VALUES:,} keys and values"
            elif event.tag is not None and _tag(event.tag) not in TAGS:
                what = f"the tag {str(event.tag).replace('tag:yaml.org,2002:', '!!')!r} is not allowed; use plain text, numbers, lists and mappings"
        if what:
            mark = event.start_mark
            raise BadDefinition(problems=[Problem(name, mark.line + 1, mark.column + 1, what)])


def _tag(tag: object) -> str:
    word = str(tag)
    return "str" if word == "!" else word.removeprefix("tag:yaml.org,2002:").removeprefix("!!")


_HINTS = {
    "mapping values are not allowed here": "quote text that contains ': '",
    "'\\t' that cannot start": "indent with spaces, not tabs",
    "that cannot start any token": "quote the text",
    "another document": "a file holds one document; remove the '---'",
    "undefined alias": "quote text that begins with *",
    "expected <block end>": "indent keys of the same level equally",
    "unknown escape": "write \\\\ for a backslash, or use single quotes",
    "could not find expected ':'": "write a key as KEY: VALUE",
}


def _marked(name: str, error: MarkedYAMLError, text: str) -> Problem:
    mark, began = error.problem_mark or error.context_mark, error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    notes = [hint for words, hint in _HINTS.items() if words in text][:1]
    if began and error.context and (began.line, began.column) != (mark.line, mark.column):
        notes.append(f"{error.context} that begins on line {began.line + 1}, column {began.column + 1}")
    return Problem(name, line, column, text.splitlines()[0].replace("but found another", "found another"), tuple(notes))
