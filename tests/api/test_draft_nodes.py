"""One node of a draft as a form changes it: what the text becomes, and what is wrong at which field."""

from dataclasses import replace
from pathlib import Path

import pytest

import beam_ray
from beam_ray import NodeValues, WrittenCriterion
from beam_ray.errors import Unusable

TEXT = """\
workflow: orders
model: m
nodes:
  extract:   # reads the mail
    llm:
      prompt:
        - system: You read orders.
        - user: |
            Read this.

            {{ task_query }}
      returns: {vendor: str, total: number}
      temperature: 0.2
    evaluate:
      threshold: 80
      criteria:
        - The vendor is a company.   # not a person
        - {equals: {total: expected.total}, weight: 2, id: total}
        - {range: {total: [0, 1000]}}
  reply:
    after: extract
    llm: {prompt: "Reply to {{ extract.vendor }}"}
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> beam_ray.Store:
    """A store with the workflow as version 1."""
    monkeypatch.chdir(tmp_path)
    Path("orders.yaml").write_text(TEXT)
    opened = beam_ray.open(tmp_path / "store", models={"m": beam_ray.ScriptedModel(lambda request: "ok")})
    opened.publish("orders.yaml", without_evidence="the first")
    return opened


def values_of(store: beam_ray.Store, draft: beam_ray.Draft, node: str = "extract") -> NodeValues:
    """What the form shows."""
    found = store.draft_node(draft, node)
    assert found
    return found.values


def test_a_form_shows_what_is_written(store: beam_ray.Store) -> None:
    """
    Turns, threshold, criteria by their kind, auto-rerun off, and settings as they were typed.
    """
    values = values_of(store, store.create_draft("orders", "edit"))

    assert [(turn.role, turn.text) for turn in values.turns] == [("system", "You read orders."), ("user", "Read this.\n\n{{ task_query }}\n")]
    assert values.criteria == (
        WrittenCriterion("text", "The vendor is a company."),
        WrittenCriterion("equals", "expected.total", "total", "2"),
        WrittenCriterion("yaml", "range: {total: [0, 1000]}"),
    )
    assert (values.threshold, values.auto_rerun) == ("80", False)
    assert values.settings == {"model": "", "temperature": "0.2", "max_tokens": "", "seed": "", "timeout_s": ""}


def test_nothing_changed_is_no_revision(store: beam_ray.Store) -> None:
    """
    A form that is sent as it was shown leaves the draft as it is.
    """
    draft = store.create_draft("orders", "edit")

    assert store.edit_node(draft, "extract", values_of(store, draft)) == draft


def test_every_control_changes_its_place_alone(store: beam_ray.Store) -> None:
    """
    Comments and order stay; the definition has exactly the new values.
    """
    draft = store.create_draft("orders", "edit")
    was = values_of(store, draft)
    wanted = replace(
        was,
        turns=(was.turns[0], replace(was.turns[1], text="Read it well.\n\n{{ task_query }}\n")),
        threshold="90",
        criteria=(*was.criteria, WrittenCriterion("check", "extract.total > 0", weight="3")),
        auto_rerun=True,
        max="2",
        feedback=True,
        on_exhausted="review",
        settings={**was.settings, "temperature": "", "max_tokens": "200", "timeout_s": "30"},
    )
    changed = store.edit_node(draft, "extract", wanted)
    node = changed.definition.nodes["extract"] if changed.definition else None

    assert node and node.llm and node.evaluate and node.auto_rerun
    assert ("# reads the mail" in changed.text, "# not a person" in changed.text, changed.number) == (True, True, 2)
    assert (node.llm.prompt[1].content, node.llm.temperature, node.llm.max_tokens) == ("Read it well.\n\n{{ task_query }}\n", None, 200)
    assert (node.evaluate.threshold, node.timeout_s) == (90, 30)
    assert [(each.kind, each.weight) for each in node.evaluate.criteria] == [("plain", 1), ("equals", 2), ("range", 1), ("check", 3)]
    assert node.auto_rerun.model_dump(include={"max", "feedback", "on_exhausted"}) == {"max": 2, "feedback": True, "on_exhausted": "review"}
    assert values_of(store, changed) == wanted


def test_criteria_are_removed_and_reworded_where_they_stand(store: beam_ray.Store) -> None:
    """
    The others keep their comments and ids; without any, the step is not evaluated.
    """
    draft = store.create_draft("orders", "edit")
    was = values_of(store, draft)
    fewer = store.edit_node(draft, "extract", replace(was, criteria=(was.criteria[0], replace(was.criteria[1], weight=""))))
    reworded = store.edit_node(fewer, "extract", replace(was, criteria=(replace(was.criteria[0], text="It is a company."), was.criteria[1])))
    none = store.edit_node(reworded, "extract", replace(was, criteria=()))

    assert fewer.definition and reworded.definition and none.definition
    assert "# not a person" in fewer.text
    [first, second] = reworded.definition.nodes["extract"].evaluate.criteria  # type: ignore[union-attr]
    assert (first.text, second.id, second.weight) == ("It is a company.", "total", 2)
    assert none.definition.nodes["extract"].evaluate is None


def test_the_first_criterion_of_a_node(store: beam_ray.Store) -> None:
    """
    A node without an evaluation gets one.
    """
    draft = store.create_draft("orders", "edit")
    changed = store.edit_node(draft, "reply", replace(values_of(store, draft, "reply"), criteria=(WrittenCriterion("text", "The reply is polite."),)))

    assert changed.definition
    assert [each.text for each in changed.definition.nodes["reply"].evaluate.criteria] == ["The reply is polite."]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "field", "text", "place"),
    [
        ({"max": "7", "auto_rerun": True}, "auto_rerun", "3", (0, 0)),
        ({"threshold": "high"}, "threshold", "number", (0, 0)),
        ({"criteria": (WrittenCriterion("check", "extract.sum > 0"),)}, "criteria[0]", "extract.sum", (0, 0)),
        ({"settings": {"temperature": "9"}}, "temperature", "2", (0, 0)),
    ],
    ids=["re-runs", "threshold", "criterion", "setting"],
)
def test_what_is_wrong_is_said_at_its_field(store: beam_ray.Store, change: dict[str, object], field: str, text: str, place: tuple[int, int]) -> None:
    """
    And what was typed is kept, although it cannot be run.
    """
    draft = store.create_draft("orders", "edit")
    wanted = replace(values_of(store, draft), **change)  # type: ignore[arg-type]
    changed = store.edit_node(draft, "extract", wanted)
    found = store.draft_node(changed, "extract")

    assert changed.definition is None
    assert found
    assert [(problem.field, text in problem.text, (problem.line, problem.column), problem.is_error) for problem in found.problems] == [
        (field, True, place, True)
    ]
    assert {key: getattr(found.values, key) for key in change if key != "settings"} == {key: value for key, value in change.items() if key != "settings"}


def test_a_template_has_its_line_and_column(store: beam_ray.Store) -> None:
    """
    Counted within the prompt's text, as somebody sees it who types it; looking at it keeps nothing.
    """
    draft = store.create_draft("orders", "edit")
    was = values_of(store, draft)
    wanted = replace(was, turns=(was.turns[0], replace(was.turns[1], text="Read this.\n\nFor {{ customer }}\n")))
    [problem] = store.check_node(draft, "extract", wanted).problems

    assert (problem.field, problem.line, problem.column) == ("prompt[1]", 3, 8)
    assert "asks for 'customer'" in problem.text
    assert store.draft("orders", "edit").number == draft.number


def test_a_rule_that_is_not_yaml_is_refused(store: beam_ray.Store) -> None:
    """
    With its line and how it is written.
    """
    draft = store.create_draft("orders", "edit")
    wanted = replace(values_of(store, draft), criteria=(WrittenCriterion("yaml", "range: {total: ["),))

    with pytest.raises(Unusable, match="not valid YAML, line 1"):
        store.edit_node(draft, "extract", wanted)


def test_text_that_is_no_yaml_has_no_form(store: beam_ray.Store) -> None:
    """
    It is kept all the same; the text itself is changed instead.
    """
    draft = store.save_draft(store.create_draft("orders", "edit"), "nodes: [")

    assert store.draft_node(draft, "extract") is None
    with pytest.raises(Unusable, match="change the text instead"):
        store.edit_node(draft, "extract", NodeValues())
