"""Patterns, schemas and JSON from strangers (threats 9, 23 to 25): linear, bounded, and nothing is fetched."""

import json

import pytest

from beam_ray.define.criterion import expand
from beam_ray.define.returns import limited
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import BadAnswer, BadDefinition
from beam_ray.evaluate.rules import judge_by_rule
from beam_ray.llm.answer import first_fault, parse_answer
from tests.endpoint import endpoint

SLOW = [
    r"^(a+)+$", r"^(a*)*$", r"^(a|aa)+$", r"^(a|a?)+$", r"^(.*a){20}$", r"^(a+){10}y$", r"(x+x+)+y", r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}$",
    r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(.*)*=", r"^(\w+\s?)*$", r"^((ab)*)+$", r"(a|b|ab)*c", r"^(a?){30}a{30}$", r"\s+$", r"^\d*[05]\d*$x", r"(?:a+)+b",
    r"^(?:(?:a+)+)+$", r"(.+)+\1?"[:5], r"^(aa|aab?)*$", r"([a-z]+)*\.html$",
]  # fmt: skip


@pytest.mark.timeout(30)
@pytest.mark.parametrize("source", SLOW)
def test_no_pattern_takes_for_ever(source):
    """As a rule, in an answer's schema and in a criterion's schema: time grows with the text and not with its square."""
    text = "a" * 60_000 + "!"
    [matches] = expand({"matches": {"x": source}})
    [schema] = expand({"schema": {"type": "object", "properties": {"x": {"type": "string", "pattern": source, "maxLength": 100_000}}}})

    found = [judge_by_rule(rule, {"x": text}, {"output": {"x": text}}, lambda name: print).met for rule in (matches, schema)]

    assert found[0] == found[1]


def test_a_schema_that_asks_for_another_is_answered_without_asking():
    """Even where the checks of the file were passed by: an empty registry, and no address is called."""
    with endpoint(lambda body: "yes") as server:
        said = first_fault({"a": 1}, {"$ref": f"{server.url}/schema.json"})
        again = first_fault({"a": 1}, {"properties": {"a": {"$ref": "#/nowhere"}}})

        assert "references are not followed" in said and "references are not followed" in again
        assert server.journal == []


def test_a_schema_that_refers_to_itself_ends():
    """A recursion is a fault of the answer, and no crash."""
    assert first_fault({}, {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}) == "nested too deeply to be checked"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://example.com/x"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "array", "items": {"allOf": [{"not": {"$ref": "#"}}]}},
        {"type": "array", "contains": {"$dynamicRef": "#"}},
        {"type": "object", "additionalProperties": {"if": {"$ref": "#"}}},
        {"type": "object", "$defs": {"a": {}}},
        {"type": "array", "uniqueItems": True},
        {"type": "array", "items": {"type": "array", "uniqueItems": True}},
        {"type": "object", "patternProperties": {"(a+)+": {}}},
        {"type": "object", "propertyNames": {"pattern": "(a+)+$"}},
        {"anyOf": [{"type": "string"}] * 21},
        {"prefixItems": [{"$ref": "#"}]},
    ],
)
def test_what_is_expensive_to_check_is_refused_when_it_is_written(schema):
    """Wherever in the schema it hides."""
    with pytest.raises(ValueError):
        limited(schema)


DEEP = [
    "[" * 100_000,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 50_000,
    '{"a": ' + "9" * 5_000 + "}",
    '{"a": 1e999}',
    '{"a": ' + "[" * 900 + "]" * 900 + "}",
    "a" * 4_000_001,
]


@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
def test_deep_and_huge_answers_are_failed_rows(text):
    """The parser's own limits are met by ours."""
    with pytest.raises(BadAnswer):
        parse_answer(text, {"type": "object", "properties": {"a": {}}, "required": ["a"]})


@pytest.mark.parametrize("keys", ["a: 1\na: 2\n", "b:\n  a: 1\n  a: 2\n", "[{a: 1, a: 2}]\n", '{"a": 1, "a": 2}\n'])
def test_no_key_is_silently_the_last_one(keys, tmp_path):
    """In YAML."""
    with pytest.raises(BadDefinition, match="only once"):
        read_yaml(tmp_path / "w.yaml", keys)


@pytest.mark.parametrize(
    "written",
    [
        "!!python/object/apply:os.system [id]",
        "!!python/name:os.system",
        "!<tag:yaml.org,2002:python/module:os> x",
        "!x y",
        "!!set {a}",
        "!!omap [a: 1]",
        "!!timestamp 2026-01-01",
    ],
)
def test_no_tag_makes_anything(written, tmp_path):
    """A value is text, number, list or mapping."""
    with pytest.raises(BadDefinition, match="is not allowed"):
        read_yaml(tmp_path / "w.yaml", f"a: {written}\n")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("NO", "NO"),
        ("yes", "yes"),
        ("1.10", 1.1),
        ("'1.10'", "1.10"),
        ("012", 12),
        ("1_000", 1000),
        ("2026-11-23", "2026-11-23"),
        ("12:30", "12:30"),
        ("~", None),
    ],
)
def test_words_stay_words(written, read, tmp_path):
    """YAML 1.2: no country becomes false, and no time a number."""
    assert read_yaml(tmp_path / "w.yaml", f"a: {written}\n").data == {"a": read}


def test_a_verdict_is_nothing_but_its_schema():
    """What a judge says beside it has no effect."""
    with pytest.raises(BadAnswer):
        parse_answer(
            json.dumps({"criterion_1": {"reason": "x", "met": True}, "note": "all pass"}),
            {"type": "object", "properties": {"criterion_1": {}}, "additionalProperties": False},
        )
