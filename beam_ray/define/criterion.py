"""
A criterion: one thing that must hold of a node's output.

A sentence is decided by a judge model. A mapping is a rule and needs no model:

    - The vendor is a company name, not a person.
    - text: The reply is polite.
      examples:                      # the judge is shown them, see ``criterion_example``
        - {output: As I said before., met: false, reason: it blames the customer}
    - text: The reasoning names the clause that applies.
      reasoning: true                # the judge reads what the model wrote while thinking
    - check: extract.amount > 0
    - equals: {vendor: expected.vendor, total: expected.total}
      weight: 2
      ignore: [case, space]
    - one_of: {kind: [order, invoice]}
    - matches: {po_number: "^PO-[0-9]{5}$"}
    - range: {amount: [0, 100000]}
    - schema: {type: object}
    - python: tools.rules:plausible
    - called: {tool: find, with: {po_number: extract.po_number}}     # and others over calls, see ``call_criterion``

A rule over several fields becomes one criterion per field. They share the rule's weight, and
errors can be counted by field.
"""

import math
import re
from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from beam_ray.define.call_criterion import CallKind, call_rules
from beam_ray.define.criterion_example import CriterionExample, examples_as_written
from beam_ray.define.fingerprint import Json
from beam_ray.define.returns import limited, pattern_fault

Kind = Literal["plain", "check", "equals", "one_of", "matches", "range", "schema", "python", CallKind]
CALL_KINDS = get_args(CallKind)
"""Rules over the calls of an agent or a program."""
RULES = tuple(kind for kind in get_args(Kind) if kind != "plain")
BY_FIELD = ("equals", "one_of", "matches", "range")
_EXAMPLES = {"equals": "{total: expected.total}", "one_of": "{kind: [order, invoice]}", "matches": "{number: '^PO-'}", "range": "{amount: [0, 100]}"}
IGNORABLE = ("case", "space", "punctuation")


class Criterion(BaseModel):
    """One thing that must hold of a node's output."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """Its name within the node, used in tables and reports."""
    kind: Kind
    text: str
    """What people and the judge read."""
    weight: float = 1.0
    field: str = ""
    """The field of the output that the rule checks; empty for the whole output."""
    want: Json = None
    """The rule's argument. check: an expression; equals: an expression, or a literal in a list of one;
    one_of: a list; matches: a pattern; range: [low, high]; schema: a JSON schema; python: module:function;
    rules over calls: as written."""
    ignore: tuple[str, ...] = ()
    reasoning: bool = False
    """Whether the judge also reads what the model wrote while thinking; plain-language criteria only."""
    examples: tuple[CriterionExample, ...] = ()
    """Outputs that a person has decided about, shown to the judge; plain-language criteria only."""


def expand(written: Json) -> list[Criterion]:
    """
    The criteria that one entry of a ``criteria`` list stands for.

    Raises:
        ValueError: the entry is not a criterion.
    """
    if isinstance(written, str):
        if not written.strip():
            raise ValueError("the criterion is empty; say what must hold, or remove it")
        return [Criterion(id=slug(written), kind="plain", text=written.strip())]
    if not isinstance(written, Mapping):
        raise ValueError("a criterion must be a sentence or a rule such as 'check: extract.amount > 0'")
    if "kind" in written:
        return [_stored(written)]
    rest = dict(written)
    weight, name, ignore, text = rest.pop("weight", 1.0), rest.pop("id", ""), rest.pop("ignore", []), rest.pop("text", "")
    reasoning = rest.pop("reasoning", False)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < 1e6:
        raise ValueError(f"the weight must be a number above 0, not {weight!r}")
    ignore = [ignore] if isinstance(ignore, str) else ignore
    if not isinstance(ignore, list) or not set(map(str, ignore)) <= set(IGNORABLE):
        raise ValueError(f"'ignore' must be a list of {', '.join(IGNORABLE[:-1])} or {IGNORABLE[-1]}, not {ignore!r}")
    if name and not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,79}", name)):
        raise ValueError(f"the id {name!r} must be 1 to 80 letters, digits, spaces or . _ -")
    if not isinstance(reasoning, bool):
        raise ValueError(f"'reasoning' must be true or false, not {reasoning!r}")
    examples = examples_as_written(rest.pop("examples")) if "examples" in rest else ()
    if not rest and text:
        return [Criterion(id=str(name or slug(text)), kind="plain", text=str(text).strip(), weight=weight, reasoning=reasoning, examples=examples)]
    if len(rest) != 1 or next(iter(rest)) not in RULES:
        raise ValueError(f"a rule must have exactly one of {', '.join(RULES)}; found: {', '.join(map(repr, rest)) or 'none'}")
    [(kind, spec)] = rest.items()
    if examples:
        raise ValueError(f"'examples' apply to plain-language criteria only, not to {kind!r}; a judge learns from them")
    if reasoning:
        raise ValueError(f"'reasoning' applies to plain-language criteria only, not to {kind!r}; an expression uses the name 'reasoning'")
    if ignore and kind not in ("equals", "one_of"):
        raise ValueError(f"'ignore' applies to equals and one_of only, not to {kind!r}")
    if kind in CALL_KINDS:
        rules = call_rules(kind, spec)
        names = [f"{name} {number}" if name and len(rules) > 1 else str(name) for number in range(1, len(rules) + 1)]
        return [
            Criterion(id=each or slug(words), kind=kind, text=str(text) or words, weight=weight / len(rules), want=want)
            for each, (want, words) in zip(names, rules, strict=True)
        ]
    if kind not in BY_FIELD:
        return [_whole(kind, spec, weight, str(name), str(text))]
    if not isinstance(spec, Mapping) or not spec:
        raise ValueError(f"{kind!r} must map each field to its condition, such as {_EXAMPLES[kind]}")
    return [
        Criterion(
            id=(f"{name} {field}" if len(spec) > 1 else str(name)) if name else str(field),
            kind=kind,
            text=str(text) or _phrase(kind, str(field), want),
            weight=weight / len(spec),
            field=str(field),
            want=_checked(kind, want),
            ignore=tuple(map(str, ignore)),
        )
        for field, want in spec.items()
    ]


def numbered(criteria: list[Criterion]) -> list[Criterion]:
    """The same criteria with ids made unique."""
    seen: dict[str, int] = {}
    result = []
    for criterion in criteria:
        count = seen[criterion.id] = seen.get(criterion.id, 0) + 1
        result.append(criterion if count == 1 else criterion.model_copy(update={"id": f"{criterion.id}_{count}"}))
    return result


def slug(text: str, length: int = 48) -> str:
    """A short identifier made of the words of *text*."""
    words = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return words[:length].rstrip("_") or "criterion"


def _whole(kind: Kind, spec: Json, weight: float, name: str, text: str) -> Criterion:
    if kind == "schema":
        if not isinstance(spec, Mapping):
            raise ValueError("'schema' must be a JSON schema")
        return Criterion(id=name or "schema", kind=kind, text=text or "The output fits the schema.", weight=weight, want=limited(spec))
    if not isinstance(spec, str) or not spec.strip():
        raise ValueError(f"{kind!r} must be {'an expression such as extract.amount > 0' if kind == 'check' else 'a function as module:function'}")
    if kind == "python" and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", spec.strip()):
        raise ValueError(f"{spec!r} must have the form module:function")
    return Criterion(id=name or slug(spec), kind=kind, text=text or spec.strip(), weight=weight, want=spec.strip())


def _stored(written: Mapping[str, Json]) -> Criterion:
    """A criterion in its stored form, which a file may contain as well."""
    try:
        found = Criterion.model_validate(dict(written))
    except ValidationError as error:
        raise ValueError(
            f"a criterion must be a sentence or a rule such as 'check: extract.amount > 0'; {error.errors()[0]['loc'][-1]!r} is invalid here"
        ) from None
    if found.examples:
        examples_as_written([each.model_dump() for each in found.examples])
    if found.kind in BY_FIELD:
        _checked(found.kind, found.want)
    elif found.kind in CALL_KINDS:
        call_rules(found.kind, found.want)
    elif found.kind != "plain":
        _whole(found.kind, found.want, found.weight, found.id, found.text)
    return found


def _checked(kind: Kind, want: Json) -> Json:
    if kind == "one_of" and not (isinstance(want, list) and want):
        raise ValueError(f"'one_of' must give a list of values for each field, such as {_EXAMPLES[kind]}")
    if kind == "matches":
        if not isinstance(want, str):
            raise ValueError(f"'matches' must give a pattern for each field, such as {_EXAMPLES[kind]}")
        fault = pattern_fault(want)
        if fault:
            raise ValueError(fault)
    if kind == "range":
        numbers = isinstance(want, list) and len(want) == 2 and all((isinstance(end, (int, float)) and not math.isnan(end)) or end is None for end in want)
        if not numbers or (None not in want and want[0] > want[1]):
            raise ValueError("'range' must give [low, high] for each field; null means no limit")
    if kind == "equals" and not isinstance(want, str):
        return want if isinstance(want, list) and len(want) == 1 else [want]
    return want


def _phrase(kind: Kind, field: str, want: Json) -> str:
    if kind == "equals":
        return f"{field} equals {want}"
    if kind == "one_of":
        return f"{field} is one of {', '.join(map(str, want)) if isinstance(want, list) else want}"
    if kind == "matches":
        return f"{field} matches {want}"
    low, high = want if isinstance(want, list) and len(want) == 2 else (None, None)
    return f"{field} lies between {'-∞' if low is None else low} and {'∞' if high is None else high}"
