"""Conversations: the turns before a task's query, and those of earlier steps, in prompts, expressions, fingerprints and judges' questions."""

import base64
import json

from beam_ray.errors import Unusable
from beam_ray.run.conversation import unread_messages
from tests.conftest import Lab
from tests.run.test_attachments import PIXEL

IMAGE = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"

CHAT = """
workflow: chat
model: m
nodes:
  reply:
    llm:
      prompt:
        - system: You answer for the shop.
        - messages: task
        - user: "{{ task_query }}"
"""

BEFORE = [
    {"role": "system", "content": "You were another one."},
    {"role": "user", "content": "Where is PO-7?"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"number": "PO-7"}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "on a truck"},
    {"role": "assistant", "content": "On its way."},
]


def said(request):
    """What the model is sent, as its answer."""
    return json.dumps([[message["role"], message["content"]] for message in request.messages])


def sent(lab: Lab, run, node: str) -> list[list]:
    return json.loads(json.loads(lab.steps(run, node)["t0"]["output"])["text"])


def task(**more) -> list[dict]:
    return [{"id": "t0", "task_query": "And when will it come?", **more}]


def test_a_prompt_takes_in_the_turns_of_the_task(lab: Lab):
    """Tool calls and results of another system become text, and the prompt's own system turn stands in for the recorded one."""
    run = lab.run(CHAT, task(messages=BEFORE), said)

    assert sent(lab, run, "reply") == [
        ["system", "You answer for the shop."],
        ["user", "Where is PO-7?"],
        ["assistant", '[calls find with {"number": "PO-7"}]'],
        ["user", "[result of find]\non a truck"],
        ["assistant", "On its way."],
        ["user", "And when will it come?"],
    ]


def test_a_recorded_system_turn_stays_where_the_prompt_has_none(lab: Lab):
    """The conversation is taken in as it is."""
    run = lab.run(CHAT.replace("        - system: You answer for the shop.\n", ""), task(messages=BEFORE[:2]), said)

    assert sent(lab, run, "reply")[0] == ["system", "You were another one."]


def test_a_task_without_messages_is_asked_without_them(lab: Lab):
    """The turns of the task are none."""
    run = lab.run(CHAT, task(), said)

    assert [role for role, _ in sent(lab, run, "reply")] == ["system", "user"]


TWO = """
workflow: two
model: m
nodes:
  draft:
    llm:
      prompt:
        - system: Draft.
        - messages: task
        - user: "{{ task_query }}"
      returns: {line: str}
  check:
    after: draft
    when: draft.line != "skip"
    llm: {prompt: "Is it right? {{ draft.line }}"}
  improve:
    after: [draft, check]
    llm:
      prompt:
        - messages: draft
        - messages: check
        - user: Now shorter.
"""


def test_a_prompt_goes_on_with_the_conversation_of_an_earlier_step(lab: Lab):
    """What the step was asked and what it answered, with the conversation that it took in itself; of a step that did not run, nothing."""
    lines = iter([{"line": "a"}, "yes", {"line": "skip"}])

    def answer(request):
        return said(request) if request.node == "improve" else next(lines)

    both = lab.run(TWO, task(messages=BEFORE[-1:]), answer)
    one = lab.run(TWO, task(), answer)

    assert sent(lab, both, "improve") == [
        ["system", "Draft."],
        ["assistant", "On its way."],
        ["user", "And when will it come?"],
        ["assistant", '{"line": "a"}'],
        ["user", "Is it right? a"],
        ["assistant", "yes"],
        ["user", "Now shorter."],
    ]
    assert [role for role, _ in sent(lab, one, "improve")] == ["system", "user", "assistant", "user"]


HISTORY = CHAT.replace("messages: task", 'messages: "{{ variables.history }}"')


def test_an_expression_gives_the_turns(lab: Lab):
    """A list of turns in a variable is taken in like those of the task; what is no list of turns fails its row, with the turn."""
    good = lab.run(HISTORY, task(variables={"history": [{"role": "human", "content": "hi"}]}), said)
    bad = lab.run(HISTORY, task(variables={"history": [{"role": "user", "content": "hi"}, {"role": "judge", "content": "no"}]}), said)

    assert sent(lab, good, "reply")[1] == ["user", "hi"]
    assert lab.steps(bad, "reply")["t0"]["error"] == (
        "'messages: {{ variables.history }}': turn 2 has the role 'judge'; roles are system, user, assistant and tool"
    )


def test_templates_and_criteria_read_the_messages(lab: Lab):
    """Each has a role and a text."""
    text = """
    workflow: w
    model: m
    nodes:
      a:
        llm: {prompt: "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}; {% endfor %}"}
        evaluate: {criteria: [check: messages | length == 2]}
    """
    step = lab.steps(lab.run(text, task(messages=BEFORE[1:3]), lambda request: request.messages[0]["content"]), "a")["t0"]

    assert json.loads(step["output"])["text"] == 'user: Where is PO-7?; assistant: [calls find with {"number": "PO-7"}]; '
    assert step["score"] == 100


def test_images_stay_in_their_turns(lab: Lab):
    """An image in a message, from a file or in the message itself, is sent in its turn, and not again with the prompt's own attachments."""
    (lab.folder / "scan.png").write_bytes(PIXEL + b"other")
    turns = [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]} for url in (IMAGE, "scan.png")]
    run = lab.run(CHAT.replace("{{ task_query }}", "{{ task_query }}{{ attachments | length }}"), task(messages=turns), said)
    messages = sent(lab, run, "reply")

    assert messages[1] == ["user", [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": IMAGE}}]]
    assert messages[2][1][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert messages[3] == ["user", "And when will it come?2"]


def test_the_messages_are_part_of_what_identifies_a_step(lab: Lab):
    """Another turn before the query is another input of the task and of the steps that take it in; of the others it is not."""
    text = CHAT + '  title: {llm: {prompt: "title of {{ task_query }}"}}\n'
    runs = [lab.run(text, task(messages=turns), said) for turns in (BEFORE, BEFORE[:-1])]
    one, other = ({node: lab.steps(run, node)["t0"]["fingerprint"] for node in ("reply", "title")} for run in runs)
    inputs = [run.outcome().to_pylist()[0]["inputs"] for run in runs]

    assert one["reply"] != other["reply"] and one["title"] == other["title"]
    assert inputs[0] != inputs[1]


def test_messages_that_nothing_reads_are_said(lab: Lab):
    """A plan warns of a conversation that would be left out, and of none that is read."""
    rows = lab.tasks(task(messages=BEFORE))
    silent = lab.workflow(CHAT.replace("        - messages: task\n", ""))

    assert [problem.text for problem in unread_messages(silent, rows)] == ["warning: 1 task has messages before the query, and no prompt takes them in"]
    assert unread_messages(lab.workflow(CHAT), rows) == unread_messages(silent, lab.tasks(task())) == []


def test_what_if_the_conversation_had_been_another(lab: Lab):
    """Only the steps that take it in are executed again; the task says what changed, and what is no conversation is refused."""
    text = CHAT + '  title: {llm: {prompt: "title of {{ task_query }}"}}\n'
    first = lab.run(text, task(messages=BEFORE), said)
    again = lab.rerun(first, ["t0"], first.record.plan, said, changed_inputs={"messages": [{"role": "user", "content": "Hello?"}]})
    outcomes = {node: lab.steps(again, node)["t0"]["outcome"] for node in ("reply", "title")}
    refused = ""
    try:
        lab.rerun(first, ["t0"], first.record.plan, said, changed_inputs={"messages": "Hello?"})
    except Unusable as error:
        refused = str(error)

    assert outcomes == {"reply": "done", "title": "borrowed"}
    assert sent(lab, again, "reply")[1] == ["user", "Hello?"]
    assert json.loads(again.tasks()["changed_inputs"][0].as_py())["messages"]["after"] == [{"role": "user", "content": "Hello?"}]
    assert refused == "'messages' must be a list of turns, not 'Hello?'"


def test_the_judge_reads_the_conversation(lab: Lab):
    """Each message with its role."""
    asked = []

    def answer(request):
        if request.judges:
            asked.append(request.messages[-1]["content"])
            return {"criterion_1": {"reason": "r", "met": True}}
        return "soon"

    lab.run(CHAT + "    evaluate: {criteria: [It is polite.]}\n", task(messages=BEFORE[-1:]), answer)

    assert "system: You answer for the shop.\n\nassistant: On its way.\n\nuser: And when will it come?" in asked[0]


AGENT = """
workflow: w
model: m
nodes:
  resolve:
    agent:
      prompt: "Check {{ task_query }}"
      tools: [tools.desk:find]
      returns: {decision: {one of: [pay, hold]}, total: number}
  explain:
    after: resolve
    llm:
      prompt:
        - messages: resolve
        - user: Why?
"""


def test_a_prompt_goes_on_with_what_an_agent_called(lab: Lab):
    """Its prompt, its calls with their results, and its answer; also where the agent is borrowed, and shown as it was sent."""
    import beam_ray
    from tests.run.test_agents import DESK, PAY, call, scripted

    lab.write("tools/desk.py", DESK)
    turns = scripted(call("find", number="PO-1"), PAY)

    def answer(request):
        return said(request) if request.node == "explain" else turns(request)

    first = lab.run(AGENT, task(), answer)
    again = lab.run(AGENT.replace("Why?", "Why so?"), first.tasks(), said, origin=first.run_id, borrow=True)
    prompt = beam_ray.open(lab.objects.uri).task(f"{again.run_id}/t0").prompt("explain")

    assert sent(lab, first, "explain") == [
        ["user", "Check And when will it come?"],
        ["assistant", '[calls find with {"number": "PO-1"}]'],
        ["user", '[result of find]\n{"number": "PO-1", "total": 40}'],
        ["assistant", '{"decision": "pay", "total": 40}'],
        ["user", "Why?"],
    ]
    assert lab.steps(again, "resolve")["t0"]["outcome"] == "borrowed"
    assert sent(lab, again, "explain") == [*sent(lab, first, "explain")[:-1], ["user", "Why so?"]]
    assert prompt.verified
