"""Workflow files: what is understood, and what is said about what is not."""

import pytest

from beam_ray.define.load import load
from beam_ray.errors import BadDefinition
from tests.conftest import Lab

SOUND = """
workflow: orders
model: m
nodes:
  extract:
    llm: {prompt: "Read {{ task_query }}", returns: {vendor: str | null, amount: number, kind: {one of: [order, invoice]}}}
    evaluate:
      criteria:
        - The vendor is a company.
        - check: extract.amount > 0
        - equals: {vendor: expected.vendor, amount: expected.amount}
          weight: 2
    auto_rerun: {max: 2, feedback: true}
  reply:
    after: extract
    when: extract.amount > 10
    route: large
    llm: {prompt: "Reply to {{ extract.vendor }}"}
"""


def problems(lab: Lab, text: str) -> list[str]:
    """The problems' first lines, without the file's name."""
    with pytest.raises(BadDefinition) as caught:
        lab.workflow(text)
    return [str(problem).splitlines()[0].replace(f"{lab.folder}/", "").removeprefix("workflow.yaml:") for problem in caught.value.problems]


def test_a_sound_file_is_the_same_value_when_stored_and_read_again(lab):
    """A definition survives being stored as JSON."""
    workflow = lab.workflow(SOUND)

    again = type(workflow).model_validate(workflow.document())

    assert again.digest == workflow.digest
    assert again.order == ("extract", "reply")


def test_a_rule_over_two_fields_becomes_two_criteria_that_share_its_weight(lab):
    """Errors can be counted by field."""
    criteria = lab.workflow(SOUND).nodes["extract"].evaluate.criteria

    assert [(item.id, item.weight) for item in criteria][2:] == [("vendor", 1.0), ("amount", 1.0)]


def test_every_string_that_a_model_writes_is_limited(lab):
    """A small model's string without a limit runs on until it breaks."""
    fields = lab.workflow(SOUND).nodes["extract"].llm.returns["properties"]

    assert fields["vendor"]["anyOf"][0]["maxLength"] == 1000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("max: 2", "max: 0"), "13:18: 'max' must be 1, 2 or 3, not 0"),
        (("max: 2", "max: 4"), "13:18: 'max' must be 1, 2 or 3, not 4"),
        (("after: extract", "after: extrct"), "15:5: 'after' of node 'reply' names 'extrct', which is not a node"),
        (("extract.vendor }}", "extract.vendr }}"), "18:11: node 'reply' asks for 'extract.vendr', which 'extract' does not return"),
        (("task_query }}", "ticket }}"), "6:11: node 'extract' asks for 'ticket', which nothing upstream produces"),
        (("task_query }}", "expected.x }}"), "6:11: node 'extract' uses 'expected', which only criteria may use"),
        (("weight: 2", "weight: -1"), "11:11: the weight must be a number above 0, not -1"),
        (("check: extract.amount > 0", "check: extract.amount >"), "10:11: invalid expression 'extract.amount >': unexpected 'end of template'"),
        (("    route: large\n", "    rout: large\n"), "17:5: unknown key 'rout'"),
        (("amount: number,", "amount: numbr,"), "6:74: field 'amount': 'numbr' is not a type"),
        (("model: m\n", ""), "5:5: node 'extract' has no model, and the workflow has no default model"),
        (("workflow: orders", "workflow: orders\nworkflow: x"), '3:1: duplicate key "workflow"; a key may appear only once'),
        (("    when: extract.amount > 10\n", ""), "16:5: node 'reply' has a 'route' but no 'when'"),
    ],
)
def test_a_fault_is_named_with_its_place(lab, change, said):
    """One line says where and what."""
    assert said in problems(lab, SOUND.replace(*change))


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(lab):
    """A second look is not needed to find the second fault."""
    text = SOUND.replace("weight: 2", "weight: 0").replace("max: 2", "max: 9").replace("route: large", "rotue: large")

    assert [line.split(":")[0] for line in problems(lab, text)] == ["11", "13", "17"]


def test_a_near_word_is_offered(lab):
    """The remedy stands below the fault."""
    with pytest.raises(BadDefinition, match="did you mean 'extract'"):
        lab.workflow(SOUND.replace("after: extract", "after: extrct"))


def test_a_cycle_is_named(lab):
    """The loop is spelled out."""
    text = "workflow: w\nmodel: m\nnodes:\n  a: {after: b, llm: {prompt: x}}\n  b: {after: a, llm: {prompt: x}}\n"

    assert "the graph has a cycle: " in problems(lab, text)[0]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\nb: " + "[" * 60 + "]" * 60,
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 60))]),
        "a: !!python/object/apply:os.system [id]",
        "a: [1, 2",
        "\x00",
        "- - - {",
        "? [a]\n: b",
        "workflow: [",
    ],
)
def test_what_is_no_yaml_or_made_to_be_expensive_is_refused_in_one_line(lab, text):
    """No traceback and no bomb."""
    path = lab.folder / "bad.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(BadDefinition) as caught:
        load(path)

    assert all(str(problem).startswith(str(path)) for problem in caught.value.problems)


def test_a_prompt_may_stand_in_a_file_of_turns(lab):
    """Few-shot examples only help small models as turns."""
    lab.write("prompts/p.yaml", "- system: You read.\n- user: '{{ task_query }}'\n")

    workflow = lab.workflow(SOUND.replace('"Read {{ task_query }}"', "prompts/p.yaml"))

    assert [turn.role for turn in workflow.nodes["extract"].llm.prompt] == ["system", "user"]


def test_a_fault_in_a_prompt_file_is_named_with_that_file_and_line(lab):
    """The place is where the author must go."""
    lab.write("prompts/p.md", "Read\nthis: {{ ticket_body }}\n")

    assert "prompts/p.md:2:10: node 'extract' asks for 'ticket_body', which nothing upstream produces" in problems(
        lab, SOUND.replace('"Read {{ task_query }}"', "prompts/p.md")
    )


def test_a_tool_must_be_there_and_take_what_it_is_given(lab):
    """A tool's name and arguments are checked without running it."""
    lab.write("tools/t.py", "raise RuntimeError('imported')\ndef find(number): ...\n")
    text = 'workflow: w\nnodes:\n  a: {tool: "tools.t:find", with: {numbr: 1}}\n  b: {tool: "tools.t:fnd"}\n'

    found = problems(lab, text)

    assert "3:36: the tool 'tools.t:find' has no parameter 'numbr'" in found
    assert "4:7: the tool 'tools.t:fnd': t.py has no function 'fnd'" in found


def test_auto_rerun_where_it_rarely_helps_is_advised_against(lab):
    """The advice of the reference page: not for tools, final steps, or steps whose criteria ask no model."""
    from beam_ray.run.plan import load_workflow

    lab.write("tools/t.py", "def f(): ...\n")
    path = lab.write("w.yaml", 'workflow: w\nnodes:\n  a:\n    tool: "tools.t:f"\n    evaluate: {criteria: [{check: a.x == 1}]}\n    auto_rerun: {max: 1}\n')

    _, warnings = load_workflow(path)

    assert [word in " ".join(map(str, warnings)) for word in ("is a tool", "final output", "only rules as criteria")] == [True, True, True]
