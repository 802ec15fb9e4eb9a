"""Workflows built in Python: the same value as from a file, and problems that name the path of a value."""

from pathlib import Path

import pytest

from beam_ray.define.check import check
from beam_ray.define.llm_call import LlmCall
from beam_ray.define.load import load
from beam_ray.define.workflow import AutoRerun, Evaluation, Node, Workflow
from beam_ray.errors import BadDefinition
from tests.conftest import Lab

FILE = """
workflow: orders
model: m
nodes:
  extract:
    llm: {prompt: "Read {{ task_query }}", returns: {vendor: str | null, amount: number}}
    evaluate:
      criteria:
        - The vendor is a company.
        - check: extract.amount > 0
    auto_rerun: {max: 2}
  archive:
    after: extract
    tool: tools.archive:store
    with: {vendor: "{{ extract.vendor }}"}
    effects: write
"""


def built(**changes: object) -> Workflow:
    """The workflow of FILE, built in Python."""
    extract = Node(
        llm=LlmCall(prompt="Read {{ task_query }}", returns={"vendor": "str | null", "amount": "number"}),
        evaluate=Evaluation(criteria=["The vendor is a company.", {"check": "extract.amount > 0"}]),
        auto_rerun=AutoRerun(max=2),
    )
    archive = Node(after=("extract",), tool="tools.archive:store", arguments={"vendor": "{{ extract.vendor }}"}, effects="write")
    return Workflow(**{"name": "orders", "model": "m", "nodes": {"extract": extract, "archive": archive}} | changes)


def refused(workflow: Workflow) -> str:
    """What ``check`` reports."""
    with pytest.raises(BadDefinition) as caught:
        check(workflow)
    return str(caught.value)


def test_a_workflow_built_in_python_equals_the_one_from_a_file(lab: Lab):
    """Value, digest and stored document are the same; only the folder of tools is known from a file."""
    path = lab.write("orders.yaml", FILE)
    loaded, _ = load(path, project=lab.folder)

    workflow = built(tools_from=".")

    assert workflow == loaded
    assert (workflow.digest, workflow.document()) == (loaded.digest, loaded.document())


def test_it_passes_check(lab: Lab):
    """The same rules apply, and the same advice is given."""
    lab.write("tools/archive.py", "def store(vendor): ...\n")

    warnings = check(built(), folders=[lab.folder])

    assert warnings == []


def test_a_problem_of_shape_names_the_path_of_the_value():
    """Construction fails with our error and all problems, as loading a file does."""
    with pytest.raises(BadDefinition) as caught:
        Workflow(name="Orders", nodes={"extract": {"llm": {"prompt": "x", "max_token": 5}}})  # type: ignore[dict-item]

    assert str(caught.value) == (
        "Workflow: name: the name 'Orders' must be 1 to 64 lower-case letters, digits, _ or -\n"
        "Workflow: nodes.extract.llm.max_token: unknown key 'max_token'\n"
        "  allowed keys: prompt, returns, model, temperature, top_p, max_tokens, seed\n"
        "  did you mean 'max_tokens'?"
    )


def test_a_part_fails_where_it_is_built():
    """The traceback of a part's error leads to the line that made the part."""
    with pytest.raises(BadDefinition, match=r"^LlmCall: temperature: 'temperature' must be at most 2, not 3$"):
        LlmCall(prompt="x", temperature=3)


def test_a_problem_of_meaning_names_the_path_of_the_value():
    """There is no line to name, so the path says where."""
    nodes = {"a": Node(llm=LlmCall(prompt="{{ ticket }}")), "b": Node(after=("a",), when="a.txt == ''", llm=LlmCall(prompt="x"))}

    assert refused(Workflow(name="w", model="m", nodes=nodes)) == (
        "w: nodes.a.llm.prompt[0]: node 'a' asks for 'ticket', which nothing upstream produces\n"
        "  available here: task_query, variables, attachments, messages\n"
        "w: nodes.b.when: node 'b' asks for 'a.txt', which 'a' does not return\n"
        "  it returns: text\n"
        "  did you mean 'text'?"
    )


def test_the_example_of_the_documentation_runs():
    """docs/workflow.md builds a workflow in Python and checks it."""
    text = (Path(__file__).parents[2] / "docs" / "workflow.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}

    exec(text.partition("```python\n")[2].partition("```")[0], names)

    assert isinstance(names["workflow"], Workflow)
