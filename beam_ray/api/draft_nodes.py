"""One node of a draft as its text has it, valid or not: what a form shows, what it changes, and what is wrong at which field."""

import dataclasses
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from beam_ray.api.drafts import Draft, DraftEdit, as_draft, save_draft
from beam_ray.api.location import Location
from beam_ray.define.criterion import expand
from beam_ray.define.fingerprint import Json
from beam_ray.define.yaml_file import Source, read_yaml
from beam_ray.errors import BadDefinition, Problem, Unusable
from beam_ray.improve.draft_text import with_edit

SETTINGS = ("model", "temperature", "max_tokens", "seed")
"""Settings of a model call that a form may change; beside them the node's time limit."""


@dataclass(frozen=True)
class WrittenTurn:
    """A turn of a prompt."""

    role: str
    text: str
    line: int = dataclasses.field(default=1, compare=False)
    """The line of the draft's text where it begins."""


@dataclass(frozen=True)
class WrittenCriterion:
    """An entry of the list of criteria."""

    kind: str
    """text: a sentence for a judge. check: an expression. equals: a field that equals an expression. yaml: any other rule."""
    text: str
    """The sentence, the expression, or the rule as YAML."""
    field: str = ""
    """Of equals, the field of the output."""
    weight: str = ""
    """Empty for 1."""
    stands_for: int = dataclasses.field(default=1, compare=False)
    """Criteria that the entry stands for: a rule over several fields is several."""


@dataclass(frozen=True)
class NodeValues:
    """What a form of a node holds. Numbers are as they were typed."""

    turns: tuple[WrittenTurn, ...] = ()
    threshold: str = ""
    """Empty for the default."""
    criteria: tuple[WrittenCriterion, ...] = ()
    auto_rerun: bool = False
    max: str = ""
    """Number of re-runs."""
    feedback: bool = False
    on_exhausted: str = "best"
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """model, temperature, max_tokens, seed and timeout_s; empty for the default."""


@dataclass(frozen=True)
class FieldProblem:
    """Something wrong, or advice, at a field of the form."""

    field: str
    """prompt[0], criteria[1], threshold, auto_rerun, model …; empty where it is about the whole."""
    text: str
    notes: tuple[str, ...]
    line: int
    """Within the field's text where that has several lines, else 0."""
    column: int
    is_error: bool


@dataclass(frozen=True)
class DraftNode:
    """A node of a draft."""

    name: str
    kind: str
    """llm, agent, tool or command."""
    values: NodeValues
    problems: tuple[FieldProblem, ...]


def draft_node(draft: Draft, name: str) -> DraftNode | None:
    """See ``Store.draft_node``."""
    source = _source(draft)
    nodes = source.data.get("nodes") if source and isinstance(source.data, Mapping) else None
    node = nodes.get(name) if isinstance(nodes, Mapping) else None
    if source is None or not isinstance(node, Mapping):
        return None
    kind = next((each for each in ("llm", "agent", "tool", "command") if each in node), "llm")
    call = _mapping(node.get(kind)) if kind in ("llm", "agent") else {}
    evaluate, again = _mapping(node.get("evaluate")), node.get("auto_rerun")
    written = _mapping(again)
    values = NodeValues(
        tuple(_turns(call.get("prompt"), source, ("nodes", name, kind, "prompt"))),
        _typed(evaluate.get("threshold")),
        tuple(_criterion(each) for each in evaluate.get("criteria") or () if isinstance(evaluate.get("criteria"), list)),
        isinstance(again, Mapping),
        _typed(written.get("max")),
        written.get("feedback") is True,
        _typed(written.get("on_exhausted")) or "best",
        {**{key: _typed(call.get(key)) for key in SETTINGS}, "timeout_s": _typed(node.get("timeout_s"))},
    )
    errors = draft.definition is None
    # advice on other nodes is theirs, an error anywhere is everybody's
    mine = [each for each in draft.problems if errors or each.path == f"nodes.{name}" or each.path.startswith(f"nodes.{name}.")]
    problems = [_at_field(each, name, kind, values, is_error=errors) for each in mine]
    return DraftNode(name, kind, values, tuple(problems))


def check_node(store: Location, draft: Draft, name: str, values: NodeValues) -> DraftNode:
    """See ``Store.check_node``."""
    changed = as_draft(draft, _text_with(draft, name, values))
    found = draft_node(changed, name)
    if found is None:
        raise Unusable(f"{draft.reference} has no node {name!r} any more")
    return found


def edit_node(store: Location, draft: Draft, name: str, values: NodeValues, *, by: str = "", author: bool = False) -> Draft:
    """See ``Store.edit_node``."""
    return save_draft(store, draft, _text_with(draft, name, values), by=by, author=author)


def _text_with(draft: Draft, name: str, values: NodeValues) -> str:
    found = draft_node(draft, name)
    if found is None:
        raise Unusable(f"{draft.reference} has no node {name!r}, or its text is not YAML; change the text instead")
    text = draft.text
    for edit in _edits(found, values, _entries(draft, name)):
        try:
            text = with_edit(text, edit.path, edit.value, draft.reference)
        except BadDefinition as error:
            raise Unusable(str(error).splitlines()[0]) from None
    return text


def _source(draft: Draft) -> Source | None:
    try:
        return read_yaml(Path(draft.reference), draft.text)
    except BadDefinition:
        return None


def _entries(draft: Draft, name: str) -> list[Json]:
    """The criteria as they are written."""
    source = _source(draft)
    assert source
    evaluate = source.data["nodes"][name].get("evaluate") or {}
    return list(evaluate.get("criteria") or ()) if isinstance(evaluate, Mapping) and isinstance(evaluate.get("criteria"), list) else []


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _turns(prompt: Json, source: Source, at: tuple[str | int, ...]) -> Iterator[WrittenTurn]:
    if isinstance(prompt, str):
        yield WrittenTurn("user", prompt, source.place(at)[0] + ("\n" in prompt))
    for index, turn in enumerate(prompt if isinstance(prompt, list) else ()):
        if isinstance(turn, Mapping) and len(turn) == 1:
            [(role, text)] = turn.items()
            yield WrittenTurn(str(role), str(text), source.place((*at, index, role))[0] + ("\n" in str(text)))


def _typed(value: Json) -> str:
    """A value as it would be typed."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) and f"{value:g}" == repr(value).removesuffix(".0") else str(value)


def _criterion(entry: Json) -> WrittenCriterion:
    try:
        count = len(expand(entry))
    except ValueError:
        count = 1
    if isinstance(entry, str):
        return WrittenCriterion("text", entry, stands_for=count)
    if isinstance(entry, Mapping):
        weight, rest = _typed(entry.get("weight")), set(entry) - {"weight", "id"}
        if rest <= {"text", "examples", "reasoning"} and isinstance(entry.get("text"), str):
            return WrittenCriterion("text", entry["text"], "", weight, count)
        if rest <= {"check", "text"} and isinstance(entry.get("check"), str):
            return WrittenCriterion("check", entry["check"], "", weight, count)
        wanted = entry.get("equals")
        if rest <= {"equals", "text", "ignore"} and isinstance(wanted, Mapping) and len(wanted) == 1 and isinstance(next(iter(wanted.values())), str):
            [(name, text)] = wanted.items()
            return WrittenCriterion("equals", text, str(name), weight, count)
    return WrittenCriterion("yaml", _as_yaml(entry), "", "", count)


def _as_yaml(entry: Json) -> str:
    """A rule as somebody would write it, one key a line."""
    if not isinstance(entry, Mapping):
        return str(entry)
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.allow_unicode, yaml.width = True, True, 1_000_000
    lines = []
    for key, value in entry.items():
        sink = io.StringIO()
        yaml.dump(value, sink)
        lines.append(f"{key}: {sink.getvalue().removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines)


def _edits(now: DraftNode, wanted: NodeValues, entries: Sequence[Json]) -> Iterator[DraftEdit]:
    """The changes that turn the node into what is wanted, each at its own place."""
    node, was = f"nodes.{now.name}", now.values
    if wanted.turns != was.turns and wanted.turns:
        yield DraftEdit(f"{node}.{now.kind}.prompt", [{turn.role: turn.text} for turn in wanted.turns])
    yield from _criteria_edits(f"{node}.evaluate", wanted.criteria, was.criteria, entries)
    if wanted.threshold != was.threshold and wanted.criteria:
        yield DraftEdit(f"{node}.evaluate.threshold", _value(wanted.threshold))
    if wanted.auto_rerun and not was.auto_rerun:
        more = {**({"feedback": True} if wanted.feedback else {}), **({"on_exhausted": wanted.on_exhausted} if wanted.on_exhausted != "best" else {})}
        yield DraftEdit(f"{node}.auto_rerun", {"max": _value(wanted.max) or 1, **more})
    elif was.auto_rerun and not wanted.auto_rerun:
        yield DraftEdit(f"{node}.auto_rerun", None)
    elif wanted.auto_rerun:
        for key, new, old in (
            ("max", _value(wanted.max), _value(was.max)),
            ("feedback", wanted.feedback or None, was.feedback or None),
            ("on_exhausted", wanted.on_exhausted if wanted.on_exhausted != "best" else None, was.on_exhausted if was.on_exhausted != "best" else None),
        ):
            if new != old:
                yield DraftEdit(f"{node}.auto_rerun.{key}", new)
    for key, text in wanted.settings.items():
        if text != was.settings.get(key, ""):
            yield DraftEdit(f"{node}.{key}" if key == "timeout_s" else f"{node}.{now.kind}.{key}", text or None if key == "model" else _value(text))


def _criteria_edits(path: str, wanted: Sequence[WrittenCriterion], was: Sequence[WrittenCriterion], entries: Sequence[Json]) -> Iterator[DraftEdit]:
    if tuple(wanted) == tuple(was):
        return
    if not wanted:
        yield DraftEdit(path, None)
        return
    # each entry that is still there keeps its id, its examples and its place
    left = list(zip(was, entries, strict=True))
    written = []
    for position, each in enumerate(wanted):
        same = next((pair for pair in left if pair[0] == each), None)
        if same is None and len(wanted) == len(was) and any(pair[0] is was[position] for pair in left):
            same = next(pair for pair in left if pair[0] is was[position])
        if same is not None:
            left = [pair for pair in left if pair is not same]
        written.append(same[1] if same and same[0] == each else _written(each, same[1] if same else None))
    if not entries:
        yield DraftEdit(f"{path}.criteria", written)
        return
    kept = [entry for entry in entries if entry in written]
    if len(written) < len(entries) and written == kept:
        yield from (DraftEdit(f"{path}.criteria[{index}]", None) for index in reversed(range(len(entries))) if entries[index] not in written)
        return
    for index, entry in enumerate(written):
        if index >= len(entries) or entry != entries[index]:
            yield DraftEdit(f"{path}.criteria[{index}]", entry)
    yield from (DraftEdit(f"{path}.criteria[{index}]", None) for index in reversed(range(len(written), len(entries))))


def _written(criterion: WrittenCriterion, before: Json) -> Json:
    """The entry as a file has it; of an entry that was changed, with what the form does not show."""
    if criterion.kind == "yaml":
        return _parsed(criterion.text)
    old = dict(before) if isinstance(before, Mapping) else {}
    rest = {
        key: value
        for key, value in old.items()
        if key in ("id", "ignore" if criterion.kind == "equals" else "", "examples" if criterion.kind == "text" else "")
    }
    weight = {"weight": _value(criterion.weight)} if criterion.weight not in ("", "1") else {}
    if criterion.kind == "text":
        return {"text": criterion.text, **rest, **weight} if rest or weight else criterion.text
    rule: Json = {"equals": {criterion.field: criterion.text}} if criterion.kind == "equals" else {"check": criterion.text}
    return {**rule, **rest, **weight}


def _parsed(text: str) -> Json:
    try:
        return read_yaml(Path("criterion"), text).data
    except BadDefinition as error:
        first = error.problems[0]
        raise Unusable(
            f"the criterion is not valid YAML, line {first.line}: {first.text}\n  write it as in a workflow file, such as  range: {{amount: [0, 1000]}}"
        ) from None


def _value(text: str) -> Json:
    """A number where it is one; what is none is kept as it was typed, and check says so."""
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _at_field(problem: Problem, node: str, kind: str, values: NodeValues, *, is_error: bool) -> FieldProblem:
    text = problem.text.removeprefix("warning: ")
    path = problem.path.removeprefix(f"nodes.{node}.") if problem.path.startswith(f"nodes.{node}.") else ""
    if not path and problem.path != f"nodes.{node}":
        where = f"{problem.path or f'line {problem.line}'}: " if is_error else ""
        return FieldProblem("", f"{where}{text}", problem.notes, 0, 0, is_error)
    if path == f"{kind}.prompt" or path.startswith(f"{kind}.prompt["):
        index = int(found[1]) if (found := re.match(rf"{kind}\.prompt\[(\d+)\]", path)) else 0
        if index < len(values.turns):
            turn = values.turns[index]
            line = problem.line - turn.line + 1 if "\n" in turn.text else 1
            return FieldProblem(f"prompt[{index}]", text, problem.notes, max(line, 1), _column(turn.text, line, text), is_error)
    entry = re.match(r"evaluate\.criteria\[(\d+)\]", path)
    name = f"criteria[{entry[1]}]" if entry else path.rpartition(".")[2] if not path.startswith(("auto_rerun", "evaluate.criteria")) else path.partition(".")[0]
    return FieldProblem("criteria" if name == "evaluate" else name, text, problem.notes, 0, 0, is_error)


def _column(text: str, line: int, said: str) -> int:
    """Where in the line the name stands that the problem is about; 0 where it names none."""
    named = re.search(r"asks for '([\w.]+)'", said)
    lines = text.splitlines()
    found = re.search(rf"\b{re.escape(named[1])}\b", lines[line - 1]) if named and 0 < line <= len(lines) else None
    return found.start() + 1 if found else 0
