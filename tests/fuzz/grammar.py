"""Texts that are nearly right: a grammar of what people write, with slips in it."""

import json
from typing import Any
from urllib.parse import urlencode

from hypothesis import strategies as st

from tests.fuzz.targets import seeds

_WORDS = st.sampled_from(
    [
        "workflow",
        "model",
        "judge",
        "nodes",
        "llm",
        "prompt",
        "returns",
        "tool",
        "with",
        "after",
        "when",
        "route",
        "evaluate",
        "criteria",
        "threshold",
        "auto_rerun",
        "max",
        "effects",
        "inputs",
        "description",
        "title",
        "resources",
        "timeout_s",
        "weight",
        "ignore",
        "check",
        "equals",
        "one_of",
        "matches",
        "range",
        "schema",
        "python",
        "type",
        "properties",
        "items",
        "anyOf",
        "enum",
        "pattern",
        "required",
        "maxLength",
        "additionalProperties",
        "a",
        "b",
        "extract",
        "task_query",
        "variables",
        "expected",
        "text",
        "total",
        "str",
        "int",
        "number",
        "bool",
        "date",
        "null",
        "string",
        "object",
        "array",
        "backtest",
        "tasks",
        "baseline",
        "candidates",
        "trials",
        "gate",
        "rules",
        "score",
        "success_rate",
        "up_by",
        "at_least",
        "base_url",
        "api_key",
        "usd_per_million",
        "concurrency",
        "id",
        "labels",
        "attachments",
        "system",
        "user",
        "assistant",
    ]
)
_SCALARS = st.one_of(
    _WORDS,
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.sampled_from(
        [
            "{{ a.text }}",
            "{{ task_query }}",
            "a.total > 0",
            "expected.total",
            "str | null",
            "tools.t:find",
            "^PO-[0-9]+$",
            "published",
            "run:x",
            "25 %",
            "http://x/v1",
            "${env:X}",
        ]
    ),
)
_VALUES: Any = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS | st.text(max_size=8), inner, max_size=5), max_leaves=25
)


@st.composite
def _workflow(draw: Any) -> str:
    """A workflow whose parts are drawn from what may and may not stand there."""
    turn = st.one_of(
        st.text(max_size=30),
        st.sampled_from(["Read {{ task_query }}", "{{ a.text }}", "prompts/x.md"]),
        st.lists(st.dictionaries(st.sampled_from(["user", "system", "x"]), st.text(max_size=9), max_size=2), max_size=3),
        _VALUES,
    )
    criterion = st.one_of(
        st.text(max_size=20),
        st.dictionaries(
            st.sampled_from(["check", "equals", "one_of", "matches", "range", "schema", "python", "weight", "id", "ignore", "kind"]), _VALUES, max_size=3
        ),
    )
    llm = st.fixed_dictionaries(
        {"prompt": turn},
        optional={
            "returns": _VALUES | st.dictionaries(_WORDS, st.sampled_from(["str", "int | null", ["str"], {"one of": ["x"]}]), min_size=1, max_size=3),
            "temperature": _SCALARS,
            "max_tokens": _SCALARS,
        },
    )
    node = st.fixed_dictionaries(
        {},
        optional={
            "llm": llm, "tool": _SCALARS, "with": _VALUES, "after": _SCALARS | st.lists(st.sampled_from(["a", "b", "c"]), max_size=2), "when": _SCALARS, "route": _SCALARS,
            "evaluate": st.fixed_dictionaries({"criteria": st.lists(criterion, max_size=3)}, optional={"threshold": _SCALARS, "judge": _SCALARS}),
            "auto_rerun": _VALUES, "effects": _SCALARS, "timeout_s": _SCALARS, "resources": _VALUES,
        },
    )  # fmt: skip
    document = {
        "workflow": draw(st.sampled_from(["w", "W", "", 5])),
        "model": draw(st.sampled_from(["m", None, 3])),
        "nodes": draw(st.dictionaries(st.sampled_from(["a", "b", "c", "1", "a-b", "expected"]), node, max_size=3)),
    }
    document |= draw(st.dictionaries(_WORDS, _VALUES, max_size=2))
    return json.dumps(document, default=str)


@st.composite
def _spoiled(draw: Any, target: str) -> str:
    """A text of the corpus with a few pieces cut, doubled or replaced."""
    text = draw(st.sampled_from(seeds(target)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(
            st.one_of(
                st.just(""),
                st.just(text[start:end] * 2),
                st.text(max_size=6),
                _WORDS,
                st.sampled_from([*"{}[]:,'\"%#&*!|>-?\n\t \x00\ufeff\u2028", "{{", "}}", "{%", "%}", ": ", "\n  ", "1e999", "NaN", "\\ud800"]),
            )
        )
        text = text[:start] + piece + text[end:]
    return text


@st.composite
def _changed(draw: Any, target: str) -> str:
    """A JSON document of the seeds in which a few values are others, or gone."""
    document = json.loads(draw(st.sampled_from([text for text in seeds(target) if _is_json(text)])))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = [document]
        key: Any = 0
        while isinstance(inner := place[key], dict | list) and inner and draw(st.integers(0, 4)):
            place, key = inner, draw(st.sampled_from(sorted(inner))) if isinstance(inner, dict) else draw(st.integers(0, len(inner) - 1))
        if isinstance(place, dict) and draw(st.booleans()) and draw(st.booleans()):
            del place[key]
        else:
            place[key] = draw(_VALUES)
    return json.dumps(document, default=str)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


_ATOMS = st.sampled_from(
    [
        "a",
        "a.text",
        "a.total",
        "task_query",
        "variables.n",
        "variables.list",
        "variables.text",
        "1",
        "0",
        "-1",
        "2.5",
        "'x'",
        "[1, 2]",
        "{'a': 1}",
        "none",
        "true",
        "missing",
        "a.deep.b.c",
        "range(9)",
        "1e308",
        "10**9",
    ]
)
_FILTERS = st.sampled_from(
    [
        "abs",
        "attr",
        "batch",
        "capitalize",
        "center",
        "default",
        "dictsort",
        "escape",
        "first",
        "float",
        "format",
        "groupby",
        "indent",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "random",
        "reject",
        "replace",
        "reverse",
        "round",
        "safe",
        "select",
        "slice",
        "sort",
        "string",
        "striptags",
        "sum",
        "title",
        "tojson",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
        "wordcount",
        "wordwrap",
        "xmlattr",
    ]
)
_EXPRESSIONS: Any = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and", "or", "is"]), inner),
        st.builds("{} | {}".format, inner, _FILTERS),
        st.builds("{} | {}({})".format, inner, _FILTERS, inner),
        st.builds("{}[{}]".format, inner, inner),
        st.builds("{}.{}".format, inner, st.sampled_from(["text", "format", "join", "replace", "center", "__class__", "items", "keys", "append", "upper"])),
        st.builds("{}({})".format, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=8,
)


@st.composite
def _template(draw: Any) -> str:
    """Text, values, loops and conditions."""
    pieces = []
    for _ in range(draw(st.integers(1, 4))):
        inner = draw(_EXPRESSIONS)
        pieces.append(
            draw(
                st.sampled_from(
                    [
                        "{{{{ {} }}}}",
                        "{{% if {} %}}x{{% endif %}}",
                        "{{% for i in {} %}}{{{{ i }}}}{{% endfor %}}",
                        "{{% set x = {} %}}{{{{ x }}}}",
                        "{{% filter upper %}}{{{{ {} }}}}{{% endfilter %}}",
                        "{}",
                    ]
                )
            ).format(inner)
        )
    return "".join(pieces)


_ANSWERS = st.one_of(
    _VALUES.map(lambda value: json.dumps(value, default=str)),
    st.fixed_dictionaries(
        {
            "total": _SCALARS,
            "vendor": _SCALARS,
            "day": st.dates().map(str) | _SCALARS,
            "kind": st.sampled_from(["order", "x"]),
            "lines": st.lists(_SCALARS, max_size=3),
            "any": st.lists(_VALUES, max_size=3),
        }
    ).map(lambda value: json.dumps(value, default=str)),
    st.text(),
)
_ROWS = st.lists(
    st.dictionaries(st.sampled_from(["id", "task_query", "variables", "expected", "labels", "attachments", "query_is_json", "notes"]), _VALUES, max_size=5),
    max_size=4,
).map(lambda rows: "".join(json.dumps(row, default=str) + "\n" for row in rows))

TEXTS: dict[str, st.SearchStrategy[str]] = {
    "loader": st.one_of(_workflow(), _spoiled("loader"), st.text()),
    "settings": st.one_of(_VALUES.map(lambda value: json.dumps(value, default=str)), _spoiled("settings")),
    "template": st.one_of(_template(), _spoiled("template"), st.text()),
    "expression": st.one_of(_EXPRESSIONS, _spoiled("expression"), st.text()),
    "answer": st.one_of(_ANSWERS, _spoiled("answer")),
    "tasks": st.one_of(_ROWS, _spoiled("tasks"), st.text()),
    "draft": st.one_of(_workflow(), _spoiled("draft")),
    "reply": st.one_of(_changed("reply"), _spoiled("reply")),
    "traces": st.one_of(_changed("traces"), _spoiled("traces")),
    "bundle": st.one_of(_changed("bundle"), _spoiled("bundle")),
    "form": st.one_of(
        st.dictionaries(_WORDS | st.text(max_size=8), st.text(max_size=20), max_size=5).map(lambda fields: urlencode({"form_token": "t", **fields})),
        _spoiled("form"),
    ),
}
"""For each target the texts that it is tried with."""
