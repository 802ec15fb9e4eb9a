"""The prompt of a stored step, as its model got it."""

from typing import Any

import pytest

import beam_ray
from beam_ray.errors import Unusable
from tests.conftest import Lab

WORKFLOW = """
workflow: letters
model: m
nodes:
  read:
    llm:
      prompt:
        - system: You read letters.
        - user: "Read: {{ task_query }} {{ attachments[0].text if attachments }}"
      returns: {name: str}
    evaluate: {criteria: [{check: read.name == 'Ada'}]}
    auto_rerun: {max: 2, feedback: true}
  greet:
    after: read
    llm: {prompt: "Greet {{ read.name }}."}
  never:
    after: read
    when: read.name == 'Bob'
    llm: {prompt: "Never {{ read.name }}."}
"""


def ask(lab: Lab, rows: list[dict[str, Any]]) -> tuple[beam_ray.Store, dict[tuple[str, int], list[tuple[str, str]]]]:
    """A run of the letters, and what its model got per node and attempt."""
    got: dict[tuple[str, int], list[tuple[str, str]]] = {}

    def answer(request: beam_ray.Request) -> Any:
        got[request.node, request.attempt] = [(str(turn["role"]), str(turn["content"])) for turn in request.messages]
        if request.node == "read":
            return {"name": "Ada" if request.attempt == 3 else f"nobody {request.attempt}"}
        return "Hello!"

    lab.run(WORKFLOW, rows, answer)
    return beam_ray.open(lab.objects.uri), got


def test_a_prompt_is_shown_as_it_was_sent(lab: Lab):
    """For every attempt, with its feedback turns and with the outputs of earlier steps, and it says that its digest is the stored one."""
    lab.write("letter.txt", "Dear Sir")
    store, got = ask(lab, [{"id": "t", "task_query": "a letter", "attachments": [str(lab.folder / "letter.txt")]}])
    task = store.task("t")
    shown = {(node, number): task.prompt(node, number) for node, number in got}

    assert {key: [(turn.role, turn.text) for turn in prompt.turns] for key, prompt in shown.items()} == got
    assert set(got) == {("read", 1), ("read", 2), ("read", 3), ("greet", 1)}
    assert all(prompt.verified and not prompt.note for prompt in shown.values())


def test_conversations_are_shown_as_they_were_sent(lab: Lab):
    """Those of the task with their images, and those of earlier steps."""
    (lab.folder / "scan.png").write_bytes(b"image")
    shown = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": str(lab.folder / "scan.png")}}]
    text = """
    workflow: chat
    model: m
    nodes:
      reply: {llm: {prompt: [messages: task, user: "{{ task_query }}"]}}
      shorter: {after: reply, llm: {prompt: [messages: reply, user: "{{ attachments[0].name }}"]}}
    """
    lab.run(text, [{"id": "t", "task_query": "and?", "messages": [{"role": "user", "content": shown}]}], lambda request: "yes")
    prompt = beam_ray.open(lab.objects.uri).task("t").prompt("shorter")

    assert [(turn.role, turn.text) for turn in prompt.turns] == [("user", "see\n[image]"), ("user", "and?"), ("assistant", "yes"), ("user", "scan.png")]
    assert (prompt.verified, prompt.images) == (True, ())


def test_it_says_when_a_prompt_cannot_be_shown(lab: Lab):
    """A skipped step was sent nothing, a lost attachment leaves nothing to show, and an unknown node is refused."""
    lab.write("letter.txt", "Dear Sir")
    store, _ = ask(lab, [{"id": "t", "task_query": "a letter", "attachments": [str(lab.folder / "letter.txt")]}])
    task = store.task("t")
    for key, _ in list(lab.objects.keys("attachments/")):
        lab.objects.delete(key)

    assert task.prompt("never").note.startswith("Nothing was sent: the step was skipped")
    assert "is missing" in task.prompt("read").note
    assert (task.prompt("read").turns, task.prompt("read").verified) == ((), False)
    with pytest.raises(Unusable, match="has no node 'nothing'"):
        task.prompt("nothing")


def test_a_prompt_that_may_not_be_what_was_sent_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Where the stored digest is another, as after a change of how templates are rendered."""
    from beam_ray.run import conversation

    store, _ = ask(lab, [{"id": "t", "task_query": "a letter"}])
    monkeypatch.setattr(conversation, "render", lambda template, values: "rendered otherwise")
    prompt = store.task("t").prompt("greet")

    assert (prompt.verified, [turn.text for turn in prompt.turns]) == (False, ["rendered otherwise"])
    assert "not known to be what was sent" in prompt.note
