"""Drafts: nothing typed is lost, nobody's change is overwritten, and a visitor brings no code."""

from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray import DraftEdit
from beam_ray.errors import BadDefinition, Damaged, Unusable

WORKFLOW = """\
# reads sums
workflow: sums
model: m

nodes:
  read:
    llm:
      prompt: prompts/read.md   # the prompt's file
      returns: {value: int}
    evaluate:
      criteria:
        - {equals: {value: expected.value}}   # exact
  file:
    after: read
    tool: tools.files:keep
    with: {value: "{{ read.value }}"}
    effects: write
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> beam_ray.Store:
    """A store with the published workflow 'sums', whose file is here with its prompt and its tool."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "tools").mkdir()
    (tmp_path / "prompts" / "read.md").write_text("Add up:\n{{ task_query }}\n")
    (tmp_path / "tools" / "files.py").write_text("def keep(value):\n    return {}\n\ndef burn(value):\n    return {}\n")
    (tmp_path / "sums.yaml").write_text(WORKFLOW)
    opened = beam_ray.open(tmp_path / "store", models={})
    opened.publish("sums.yaml", without_evidence="the first")
    return opened


def edited(draft: beam_ray.Draft, store: beam_ray.Store, path: str, value: Any, **who: Any) -> beam_ray.Draft:
    """The next revision with one change."""
    return store.edit_draft(draft, [DraftEdit(path, value)], **who)


def test_a_draft_is_the_published_definition_with_its_prompts_in_it(store: beam_ray.Store) -> None:
    """
    What prompt files say today does not count, and comments and order are the author's.
    """
    Path("prompts/read.md").write_text("something else {{ task_query }}")
    draft = store.create_draft("sums", "shorter")

    assert draft.definition is not None
    assert draft.definition.digest == store.versions("sums")[0].digest
    assert store.draft_changes(draft) == ()
    assert "# reads sums" in draft.text and "# exact" in draft.text and "        Add up:\n" in draft.text
    assert (draft.reference, draft.base) == ("sums@shorter:1", 1)


def test_an_edit_is_a_new_revision(store: beam_ray.Store) -> None:
    """
    Every revision stays, and only what was changed differs.
    """
    first = store.create_draft("sums", "shorter")
    second = edited(first, store, "nodes.read.llm.prompt", [{"role": "system", "content": "You add."}, {"user": "{{ task_query }}"}], by="ann")

    assert [str(change) for change in store.draft_changes(second)] == ["read.llm.prompt"]
    assert store.draft("sums", "shorter", 1).text == first.text
    assert (store.drafts()[0].number, store.drafts()[0].saved_by) == (2, "ann")


def test_of_two_who_change_a_revision_the_second_is_told(store: beam_ray.Store) -> None:
    """
    The first change stays, and the second is refused with who made the first.
    """
    draft = store.create_draft("sums", "shorter")
    edited(draft, store, "nodes.read.evaluate.threshold", 80, by="ann")

    with pytest.raises(Unusable, match=r"changed in the meantime by ann: its newest revision is 2, not 1"):
        edited(draft, store, "nodes.read.evaluate.threshold", 70, by="bob")
    assert "threshold: 80" in store.draft("sums", "shorter").text


@pytest.mark.parametrize(
    ("path", "value", "at", "line"),
    [
        ("nodes.read.auto_rerun.max", 9, "nodes.read.auto_rerun.max", 16),
        ("nodes.read.llm.prompt", "Add {{ task_qury }}", "nodes.read.llm.prompt[0].user", 8),
        ("nodes.file.when", "read.vlue > 1", "nodes.file.when", 20),
    ],
)
def test_an_edit_with_errors_is_kept(store: beam_ray.Store, path: str, value: Any, at: str, line: int) -> None:
    """
    The text is a revision with problems at their place and field, which can be neither run nor published.
    """
    draft = edited(store.create_draft("sums", "shorter"), store, path, value)

    assert draft.definition is None
    assert [(problem.path, problem.line) for problem in draft.problems] == [(at, line)]
    for refused in (lambda: store.publish("sums@shorter", without_evidence="x"), lambda: store.check("sums@shorter:2"), lambda: store.draft_changes(draft)):
        with pytest.raises(BadDefinition):
            refused()


def test_text_that_is_no_yaml_is_kept_too(store: beam_ray.Store) -> None:
    """
    Its problem has line and column, and the next save may repair it.
    """
    draft = store.create_draft("sums", "shorter")
    broken = store.save_draft(draft, draft.text.replace("model: m", "model: [m"))

    assert broken.definition is None and broken.problems[0].line > 0
    with pytest.raises(Unusable, match="once the text is YAML again"):
        edited(broken, store, "model", "x")
    assert store.save_draft(broken, draft.text).definition is not None


VISITORS = {
    "tool": ("nodes.file.tool", "tools.files:burn"),
    "effects": ("nodes.file.effects", "read"),
    "arguments": ("nodes.file.with", {"value": "../../secret"}),
    "the same tool elsewhere": ("nodes.again", {"after": "read", "tool": "tools.files:keep", "with": {"value": "1"}, "effects": "write"}),
    "program": ("nodes.file", {"after": "read", "command": ["rm", "-rf"]}),
    "model": ("model", "dear"),
    "judge": ("nodes.read.evaluate.judge", "dear"),
    "python": ("nodes.read.evaluate.criteria[1]", {"python": "tools.files:keep"}),
    "agent": ("nodes.read", {"agent": {"prompt": "{{ task_query }}", "tools": [{"mcp": "crm"}]}}),
    "requirement": ("requirements", ["evil==1"]),
}


@pytest.mark.parametrize("what", VISITORS)
def test_a_visitor_brings_nothing_that_runs(store: beam_ray.Store, what: str) -> None:
    """
    A tool, program, model, server or package that the published definition has not is for authors.
    """
    draft = store.create_draft("sums", "shorter")

    with pytest.raises(Unusable, match="only an author may bring"):
        edited(draft, store, *VISITORS[what])
    assert store.draft("sums", "shorter").number == 1
    assert edited(draft, store, *VISITORS[what], author=True).number == 2


def test_a_visitor_brings_no_workflow_that_takes_minutes_to_check(store: beam_ray.Store) -> None:
    """
    A draft of a thousand nodes would keep every page of it busy; an author may write one.
    """
    draft = store.create_draft("sums", "shorter")
    text = draft.text + "".join(f"  n{number}: {{after: read, llm: {{prompt: x}}}}\n" for number in range(200))

    with pytest.raises(Unusable, match="202 nodes; without --author at most 200"):
        store.save_draft(draft, text)
    assert store.save_draft(draft, text, author=True).number == 2


@pytest.mark.parametrize(("written", "words"), [("0x" + "f" * 20_000, "too many digits"), ('"a\\ud800b"', "half of a character")], ids=["number", "text"])
def test_a_draft_that_could_not_be_shown_is_a_problem_at_its_place(written: str, words: str, store: beam_ray.Store) -> None:
    """
    A number that Python reads and does not write, or half of a character, is kept as text and told; nothing fails over it.
    """
    draft = store.create_draft("sums", "shorter")
    kept = store.save_draft(draft, draft.text.replace("model: m", f"model: m\ndescription: {written}"))

    assert kept.number == 2
    assert [words in each.text for each in kept.problems] == [True]
    assert kept.problems[0].line > 1


def test_a_visitor_may_go_on_with_what_an_author_brought(store: beam_ray.Store) -> None:
    """
    What the draft has already is not the visitor's.
    """
    draft = edited(store.create_draft("sums", "shorter"), store, "nodes.file.tool", "tools.files:burn", author=True)

    assert edited(draft, store, "nodes.read.evaluate.threshold", 70).number == 3


def test_a_draft_reads_no_files(store: beam_ray.Store) -> None:
    """
    A visitor's prompt that names a file is a problem at its place; an author's becomes part of the draft.
    """
    Path("prompts/secret.md").write_text("the secret {{ task_query }}")
    draft = store.create_draft("sums", "shorter")
    asked = edited(draft, store, "nodes.read.llm.prompt", "prompts/secret.md")

    assert asked.definition is None and "reads no files" in asked.problems[0].text
    assert "the secret" in store.save_draft(asked, WORKFLOW.replace("read.md", "secret.md"), author=True).text


def test_a_dropped_draft_is_gone_and_its_revisions_stay(store: beam_ray.Store) -> None:
    """
    A draft of the same name begins anew and goes on counting.
    """
    draft = store.create_draft("sums", "shorter")
    store.drop_draft("sums", "shorter", by="ann")

    assert store.drafts("sums") == []
    with pytest.raises(Unusable, match="was dropped by ann"):
        store.draft("sums", "shorter")
    with pytest.raises(Unusable, match="was dropped in the meantime by ann"):
        edited(draft, store, "nodes.read.evaluate.threshold", 70)
    assert store.draft("sums", "shorter", 1).text == draft.text
    assert store.create_draft("sums", "shorter").number == 3


def test_a_draft_is_published_with_its_text(store: beam_ray.Store) -> None:
    """
    The version has the draft's definition, and a draft made of it its comments.
    """
    edited(store.create_draft("sums", "shorter"), store, "nodes.read.evaluate.threshold", 80)
    version = store.publish("sums@shorter", without_evidence="asked for")

    assert version.number == 2
    assert "# exact" in store.create_draft("sums", "next").text
    assert [str(change) for change in store.diff("sums@1", "sums")] == ["read.evaluate.threshold"]


def test_a_flipped_byte_is_noticed(store: beam_ray.Store) -> None:
    """
    A draft whose file is not what was saved is damaged, not believed.
    """
    store.create_draft("sums", "shorter")
    [file] = Path("store/drafts").rglob("*.yaml")
    file.write_text(file.read_text().replace("Add up", "Add UP"))

    with pytest.raises(Damaged, match="does not match its checksum"):
        store.draft("sums", "shorter")


def test_gc_leaves_drafts_alone(store: beam_ray.Store) -> None:
    """
    Nothing of a draft is ever listed as garbage, dropped ones included.
    """
    store.create_draft("sums", "shorter")
    store.drop_draft("sums", "shorter")

    assert [place for place in store.gc(abandoned=True, older_than_days=0).garbage if "draft" in place.place] == []


def test_a_name_that_cannot_be_a_draft_is_refused(store: beam_ray.Store) -> None:
    """
    A draft's name is not a version's number, a path, or taken.
    """
    store.create_draft("sums", "shorter")
    for name, why in (("7", "must begin with a letter"), ("../x", "must begin with a letter"), ("shorter", "already"), ("a" * 65, "at most 64")):
        with pytest.raises(Unusable, match=why):
            store.create_draft("sums", name)
    with pytest.raises(Unusable, match="neither published nor run"):
        store.create_draft("sum", "x")


def test_a_definition_without_a_file_becomes_yaml_that_people_can_read(store: beam_ray.Store) -> None:
    """
    A version published from Python has no text: its draft writes criteria as people do, and defines exactly the same.
    """
    criteria = [
        "The tone is polite.",
        {"check": "say.text | length > 3", "weight": 2},
        {"equals": {"text": "expected.text"}},
        {"range": {"text": [0, 9]}, "id": "short"},
    ]
    prompt = [{"system": "You greet.\nIn one line."}, {"user": "{{ task_query }}"}]
    node = beam_ray.Node(llm=beam_ray.LlmCall(prompt=prompt), evaluate=beam_ray.Evaluation(criteria=criteria))
    after = beam_ray.Node(llm=beam_ray.LlmCall(prompt="{{ say.text }}", returns={"n": "int"}), after="say", when="say.text == 'x'", route="one")
    made = store.publish(beam_ray.Workflow(name="greet", model="m", nodes={"say": node, "again": after}), without_evidence="the first")
    draft = store.create_draft("greet", "short")

    assert draft.definition is not None and draft.definition.digest == made.digest
    for line in ("- The tone is polite.", "check: say.text | length > 3", "You greet.", "after: say", "id: short"):
        assert line in draft.text
    assert "kind:" not in draft.text


def test_a_change_is_checked_without_being_kept(store: beam_ray.Store) -> None:
    """
    What it makes of the definition, within a visitor's limits.
    """
    found = store.check_change("sums", {"nodes.read.evaluate.threshold": 70})

    assert [str(change) for change in store.diff("sums", found.workflow)] == ["read.evaluate.threshold"]
    for changes, message in (({"model": "dear"}, "only an author"), ({"nodes.read.llm.prompt": "prompts/read.md"}, "name of a prompt file")):
        with pytest.raises(Unusable, match=message):
            store.check_change("sums", changes)
        assert store.check_change("sums", changes, author=True).workflow.name == "sums"
    assert store.drafts() == []
