"""
From a YAML file to a workflow, with file:line:column for everything that is wrong.

All problems are reported at once, in the order of the file.
"""

import datetime
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from ruamel.yaml.reader import ReaderError

from beam_ray.define.returns import Faults
from beam_ray.define.workflow import Workflow, turn_fault
from beam_ray.errors import BadDefinition, Problem, Unusable

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_ALIASES = 100
MAX_VALUES = 20_000
TAGS = ("str", "int", "float", "bool", "null", "seq", "map")
"""The tags of plain values; any other asks for something to be made of them."""

PROMPT_SUFFIXES = (".md", ".txt", ".j2", ".jinja", ".yaml", ".yml")

Path_ = tuple[str | int, ...]


@dataclass
class Source:
    """A YAML file: its plain data, and where each part of it stands."""

    file: str
    data: Any = None
    places: dict[Path_, tuple[int, int]] = field(default_factory=dict)

    def problem(self, path: Iterable[str | int], text: str, *notes: str) -> Problem:
        """A problem at the nearest known place to *path*."""
        at = tuple(path)
        while at and at not in self.places:
            at = at[:-1]
        line, column = self.places.get(at, (1, 1))
        first, *rest = text.split("\n")
        return Problem(self.file, line, column, first, (*(note.strip() for note in rest), *notes))


def read_yaml(path: Path, text: str | None = None) -> Source:
    """
    The file's data with the place of every key and entry.

    Raises:
        BadDefinition: it is not YAML, repeats a key, or is made to be expensive.
        Unusable: it cannot be read.
    """
    name = in_short(path)
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
        first = str(error.problem).splitlines()[0].split(" with value")[0]
        raise BadDefinition(problems=[Problem(name, mark.line + 1, mark.column + 1, f"{first}; a key may stand only once")]) from None
    except ConstructorError as error:
        raise BadDefinition(problems=[_marked(name, error, "this cannot be read; write plain text, numbers, lists and mappings")]) from None
    except MarkedYAMLError as error:
        raise BadDefinition(problems=[_marked(name, error, f"not valid YAML: {error.problem or error.context}")]) from None
    except ReaderError as error:
        before = text[: error.position]
        what = f"the character U+{error.character:04X} may not stand in a text; take it out"
        raise BadDefinition(problems=[Problem(name, before.count("\n") + 1, len(before) - before.rfind("\n"), what)]) from None
    except (YAMLError, ValueError, RecursionError, OverflowError, AttributeError, TypeError, AssertionError, KeyError, IndexError) as error:
        # the parser lets a few of its own slips through on text that is no YAML
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadDefinition(problems=[Problem(name, 1, 1, f"not valid YAML: {first}")]) from None
    source = Source(name)
    try:
        source.data = _plain(tree, (), source, [0])
    except _TooLarge:
        raise BadDefinition(problems=[Problem(name, 1, 1, f"the file has more than {MAX_VALUES:,} values, those repeated by aliases included")]) from None
    return source


def load(path: str | Path, *, project: Path | None = None) -> tuple[Workflow, Source]:
    """
    The workflow in the file, and its source for further rules.

    Its shape is checked here; what the names in it mean is checked by ``check``.

    Raises:
        BadDefinition: with every problem of shape found.
    """
    source = read_yaml(Path(path))
    return shape(source, Path(path).parent, project or Path.cwd()), source


def shape(source: Source, folder: Path, project: Path) -> Workflow:
    """The workflow that *source* describes; prompt files are relative to *folder*."""
    if not isinstance(source.data, Mapping):
        raise BadDefinition(problems=[source.problem((), "a workflow file begins with 'workflow: NAME'")])
    data, problems = with_prompts(source.data, source, folder)
    if "tools_from" in data:
        known = _known(("tools_from",), Workflow)
        problems.append(source.problem(("tools_from",), "unknown key 'tools_from'", f"known here: {', '.join(known)}"))
    data["tools_from"] = _relative(folder, project)
    try:
        workflow = Workflow.model_validate(data)
    except pydantic.ValidationError as error:
        problems += translated(error, source)
        raise BadDefinition(problems=problems) from None
    if problems:
        raise BadDefinition(problems=problems)
    return workflow


def with_prompts(data: Mapping[str, Any], source: Source, folder: Path) -> tuple[dict[str, Any], list[Problem]]:
    """A copy of *data* in which prompts named by file are read in."""
    result = dict(data)
    problems: list[Problem] = []
    nodes = data.get("nodes")
    if isinstance(nodes, Mapping):
        result["nodes"] = dict(nodes)
        for name, node in nodes.items():
            call = node.get("llm") if isinstance(node, Mapping) else None
            if isinstance(call, Mapping) and isinstance(call.get("prompt"), str):
                try:
                    prompt = read_prompt(call["prompt"], folder)
                except BadDefinition as error:
                    problems += error.problems
                    continue
                except Unusable as error:
                    problems.append(source.problem(("nodes", name, "llm", "prompt"), str(error)))
                    continue
                result["nodes"][name] = {**node, "llm": {**call, "prompt": prompt}}
    return result, problems


def read_prompt(written: str, folder: Path) -> Any:
    """
    A prompt as written: the name of a file to read in, or the text itself.

    Raises:
        Unusable: it looks like a file's name and there is no such file.
    """
    if "\n" in written or not written.strip().endswith(PROMPT_SUFFIXES) or " " in written.strip():
        return written
    path = folder / written.strip()
    if path.is_dir():
        raise Unusable(f"the prompt file {written!r} is a folder")
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], 1) if path.parent.is_dir() else []
        hint = f"\n  did you mean {near[0]!r}?" if near else ""
        raise Unusable(f"the prompt file {written!r} is not there (looked in {in_short(path.parent)}){hint}")
    if path.suffix in (".yaml", ".yml"):
        turns = read_yaml(path)
        if not isinstance(turns.data, list) or not all(isinstance(turn, Mapping) and len(turn) == 1 for turn in turns.data):
            raise BadDefinition(problems=[turns.problem((), "a prompt in YAML is a list of turns such as '- user: …'")])
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
        raise BadDefinition(problems=[not_utf8(in_short(path), raw, error)]) from None
    if not text.strip():
        raise BadDefinition(problems=[Problem(in_short(path), 1, 1, "the prompt is empty")])
    return [{"role": "user", "content": text.rstrip("\n"), "file": in_short(path)}]


def translated(error: pydantic.ValidationError, source: Source, model: type[pydantic.BaseModel] = Workflow, at: Path_ = ()) -> list[Problem]:
    """pydantic's findings about a *model* in our words, each at its place; the model stands at *at* in the file."""
    problems = []
    errors = error.errors(include_url=False)
    inner = {found["loc"][:-1] for found in errors}
    told = set[Path_]()
    for found in errors:
        if model is not Workflow and len(found["loc"]) > 1 and (found["loc"][-1] in ("str", "int") or str(found["loc"][-1]).startswith("dict[")):
            # what may be one of several kinds is none of them, and pydantic says so for each
            place = found["loc"][:-1]
            if place not in told:
                told.add(place)
                problems.append(source.problem((*at, *place), f"{str(place[-1])!r} must be {_wanted(model, place)}, not {as_written(found.get('input'))}"))
            continue
        if found["type"] == "too_short" and any(place[: len(found["loc"])] == found["loc"] for place in inner):
            continue  # it is only short because of what is wrong inside it
        cause = (found.get("ctx") or {}).get("error")
        if isinstance(cause, Faults):
            problems += [source.problem((*at, *found["loc"], index), message) for index, message in cause.faults]
        else:
            problems.append(_translated({**found, "loc": (*at, *found["loc"])}, source, _known(found["loc"], model)))
    return problems


def _wanted(model: type[pydantic.BaseModel], place: Path_) -> str:
    field = next((field for name, field in model.model_fields.items() if place[0] in (name, field.alias)), None)
    return str(field.description).splitlines()[0].rstrip(".") if field and field.description else "a text"


def did_you_mean(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """A note with the nearest known word, if any is near."""
    near = difflib.get_close_matches(str(word), [str(other) for other in known], n=1, cutoff=0.6)
    return (f"did you mean {near[0]!r}?",) if near else ()


def _translated(found: Any, source: Source, known: list[str]) -> Problem:
    place, kind, given = found["loc"], found["type"], found.get("input")
    here = str(place[-1]) if place else ""
    shown = as_written(given)
    if here == "[key]":
        return source.problem(place[:-1], f"the name {shown} must be a text; put it in quotes")
    named = f"entry {int(here) + 1} of {place[-2]!r}" if place and isinstance(place[-1], int) and len(place) > 1 else repr(here)
    limits = found.get("ctx") or {}
    if kind == "extra_forbidden":
        return source.problem(place, f"unknown key {here!r}", f"known here: {', '.join(known)}", *did_you_mean(here, known))
    if kind == "missing":
        return source.problem(place[:-1], f"{'the file' if len(place) < 2 else repr(str(place[-2]))} needs {here!r}")
    if kind == "value_error":
        return source.problem(place, str(limits.get("error", found["msg"])))
    if kind == "string_pattern_mismatch" and here == "tool":
        return source.problem(place, f"the tool {shown} is not of the form module:function")
    if kind == "string_pattern_mismatch" and here == "base_url":
        return source.problem(place, f"{here!r} must begin with http:// or https://, not {shown}")
    if kind == "string_pattern_mismatch":
        return source.problem(place, f"the name {shown} must be 1 to 64 lower-case letters, digits, _ or -")
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        words = {"ge": "at least", "le": "at most", "gt": "above", "lt": "below"}
        bound = " and ".join(f"{words[key]} {value:,}".removesuffix(".0") for key, value in limits.items() if key in words)
        if isinstance(given, float) and math.isnan(given):
            bound = "a number"
        if place[-2:] == ("auto_rerun", "max"):
            bound = "1, 2 or 3"
        return source.problem(place, f"{here!r} must be {bound}, not {shown}")
    if kind == "literal_error":
        return source.problem(place, f"{here!r} must be {limits.get('expected')}, not {shown}", *_near_literal(given, limits.get("expected")))
    if kind == "too_short":
        return source.problem(place, f"{here!r} is empty")
    wanted = {
        "mapping": "a mapping",
        "dict": "a mapping",
        "model": "a mapping",
        "tuple": "a list",
        "list": "a list",
        "string": "a text",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
    }
    for start, word in wanted.items():
        if kind.startswith(start):
            return source.problem(place, f"{named} must be {word}, not {shown}")
    return source.problem(place, f"{named}: {found['msg']}")


def as_written(value: Any) -> str:
    """*value* as it would stand in a file, at most 60 characters of it."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"


def not_utf8(file: str, raw: bytes, error: UnicodeDecodeError) -> Problem:
    """That a file is in another encoding, with the first place that shows it."""
    start = raw.rfind(b"\n", 0, error.start) + 1
    return Problem(file, raw.count(b"\n", 0, error.start) + 1, error.start - start + 1, "the file is not UTF-8; save it as UTF-8")


def _near_literal(given: Any, expected: Any) -> tuple[str, ...]:
    return did_you_mean(str(given), [word.strip(" '") for word in str(expected).replace(" or ", ",").split(",")])


def _known(place: tuple[str | int, ...], model: type[pydantic.BaseModel]) -> list[str]:
    """The keys that may stand where *place* does, below a *model*."""
    for part in place[:-1]:
        field = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
        model = (_model_in(field.annotation) if field else None) or model
    hidden = {"tools_from", "file"}
    return [field.alias or name for name, field in model.model_fields.items() if name not in hidden]


def _model_in(annotation: Any) -> type[pydantic.BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


class _TooLarge(Exception):
    pass


def _plain(node: Any, path: Path_, source: Source, count: list[int]) -> Any:
    count[0] += 1
    if count[0] > MAX_VALUES:
        raise _TooLarge
    if isinstance(node, CommentedMap):
        result = {}
        for key, value in node.items():
            if not isinstance(key, (str, int, float, type(None), datetime.date)):
                spot = node.lc.data.get(key) if node.lc.data else None
                line, column = (spot[0] + 1, spot[1] + 1) if spot else (1, 1)
                raise BadDefinition(problems=[Problem(source.file, line, column, "a key must be a text", ("a text that begins with {{ needs quotes",))])
            name = key if isinstance(key, (str, int)) and not isinstance(key, bool) else str(key)
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
                what = f"nested deeper than {MAX_DEPTH}; a file for people is flatter"
        elif isinstance(event, CollectionEndEvent):
            open_.pop()
        elif isinstance(event, AliasEvent):
            aliases += 1
            if aliases > MAX_ALIASES:
                what = f"more than {MAX_ALIASES} aliases; write the values out"
            elif event.anchor in open_:
                what = f"the alias *{event.anchor} stands inside what it repeats; take it out"
        if isinstance(event, (CollectionStartEvent, ScalarEvent)):
            values += 1
            if values > MAX_VALUES:
                what = f"more than {MAX_VALUES:,} keys and values; a file for people is shorter"
            elif event.tag is not None and _tag(event.tag) not in TAGS:
                what = f"the tag {str(event.tag).replace('tag:yaml.org,2002:', '!!')!r} is not allowed; write plain text, numbers, lists and mappings"
        if what:
            mark = event.start_mark
            raise BadDefinition(problems=[Problem(name, mark.line + 1, mark.column + 1, what)])


def _tag(tag: Any) -> str:
    word = str(tag)
    return "str" if word == "!" else word.removeprefix("tag:yaml.org,2002:").removeprefix("!!")


_HINTS = {
    "mapping values are not allowed here": "put a text that has ': ' in it in quotes",
    "'\\t' that cannot start": "indent with spaces",
    "that cannot start any token": "put the text in quotes",
    "another document": "a file holds one document; take the '---' away",
    "undefined alias": "put a text that begins with * in quotes",
    "expected <block end>": "lines of one level begin in the same column",
    "unknown escape": "write \\\\ for a backslash, or use single quotes",
    "could not find expected ':'": "write a key as KEY: VALUE",
}


def _marked(name: str, error: MarkedYAMLError, text: str) -> Problem:
    mark, began = error.problem_mark or error.context_mark, error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    notes = [hint for words, hint in _HINTS.items() if words in text][:1]
    if began and error.context and (began.line, began.column) != (mark.line, mark.column):
        notes.append(f"{error.context} that begins in line {began.line + 1}, column {began.column + 1}")
    return Problem(name, line, column, text.splitlines()[0].replace("but found another", "there is another"), tuple(notes))


def _relative(path: Path, base: Path) -> str:
    try:
        return path.resolve().relative_to(base.resolve()).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def in_short(path: Path) -> str:
    """*path* as people say it: from where the command runs, if it lies below."""
    return _relative(path, Path.cwd())
