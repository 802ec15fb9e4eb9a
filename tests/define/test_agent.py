"""Agents as definitions: the same value from a file and in Python, identified without harm to other workflows, and advice about effects."""

import pytest

from beam_ray.define.agent import Agent, AgentTool
from beam_ray.define.check import check
from beam_ray.define.load import load
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import BadDefinition
from beam_ray.run.plan import load_workflow
from tests.conftest import Lab

FILE = """
workflow: orders
model: m
nodes:
  resolve:
    agent:
      prompt: "Check {{ task_query }}"
      tools:
        - tools.orders:find
        - {tool: "tools.mail:send", effects: write, on_miss: fail}
        - {mcp: crm, only: [search_accounts], effects: read}
      returns: {decision: {one of: [pay, hold]}, reason: str}
      max_turns: 8
  tell: {after: resolve, llm: {prompt: "Write that we {{ resolve.decision }}"}}
"""
TOOLS = {"tools/orders.py": 'EFFECTS = "read"\ndef find(number: str): ...\n', "tools/mail.py": "def send(to: str): ...\n"}


@pytest.fixture
def desk(lab: Lab) -> Lab:
    """A lab with the tools of FILE."""
    for name, text in TOOLS.items():
        lab.write(name, text)
    return lab


def test_an_agent_built_in_python_equals_the_one_from_a_file(desk: Lab):
    """Value and digest are the same."""
    loaded, _ = load(desk.write("orders.yaml", FILE), project=desk.folder)

    agent = Agent(
        prompt="Check {{ task_query }}",
        tools=[
            "tools.orders:find",
            AgentTool(tool="tools.mail:send", effects="write", on_miss="fail"),
            {"mcp": "crm", "only": ["search_accounts"], "effects": "read"},
        ],
        returns={"decision": {"one of": ["pay", "hold"]}, "reason": "str"},
        max_turns=8,
    )

    assert loaded.nodes["resolve"] == Node(agent=agent)
    assert Workflow.model_validate(loaded.document()) == loaded


def test_an_agents_model_and_fields_are_known_to_the_workflow(desk: Lab):
    """Later nodes are checked against what it returns."""
    workflow = desk.workflow(FILE)

    assert (workflow.model_of("resolve"), workflow.nodes["resolve"].fields) == ("m", ("decision", "reason"))


def test_a_workflow_without_agents_keeps_its_digest():
    """Published versions of 0.1 stay what they are."""
    workflow = Workflow(name="w", model="m", nodes={"a": {"llm": {"prompt": "x"}}})

    assert workflow.digest == "089c0346ec4b1eb691d675af6960b4c8"


def test_a_tool_without_declared_effects_counts_as_write(desk: Lab):
    """check says so, and what to write."""
    desk.write("tools/mail.py", "def send(to: str): ...\n")
    _, warnings = load_workflow(desk.write("w.yaml", FILE.replace('{tool: "tools.mail:send", effects: write, on_miss: fail}', "tools.mail:send")))

    [warning] = map(str, warnings)
    assert "nothing says what effects the tool 'tools.mail:send' of agent 'resolve' has, so it counts as write" in warning
    assert "EFFECTS = {'send': 'read'} in its module" in warning


def test_effects_that_are_less_than_the_module_says_are_warned_of(desk: Lab):
    """The workflow decides, but not unnoticed."""
    desk.write("tools/orders.py", 'EFFECTS = {"find": "write"}\ndef find(number: str): ...\n')
    _, warnings = load_workflow(desk.write("w.yaml", FILE.replace("- tools.orders:find", '- {tool: "tools.orders:find", effects: none}')))

    assert "says that the tool 'tools.orders:find' has the effects 'none', its module says 'write'" in str(warnings[0])


def test_a_node_that_says_less_than_its_tools_module_is_warned_of(lab: Lab):
    """Otherwise a tool that is known to write would be called in every backtest."""
    lab.write("mail.py", "EFFECTS = 'write'\ndef send(): ...\n")
    _, warnings = load_workflow(lab.write("w.yaml", "workflow: w\nnodes:\n  tell: {tool: 'mail:send'}\n"))

    [warning] = map(str, warnings)
    assert "node 'tell' has the effects 'none', the module of its tool 'mail:send' says 'write'\n  write effects: write at the node" in warning


def test_a_word_that_is_no_effect_is_refused(desk: Lab):
    """Nothing is guessed."""
    desk.write("tools/orders.py", 'EFFECTS = {"find": "reads"}\ndef find(number: str): ...\n')

    with pytest.raises(BadDefinition, match=r"EFFECTS in orders\.py:1 must say none, read or write for it, not 'reads'"):
        load_workflow(desk.write("w.yaml", FILE))


def test_check_starts_no_server(desk: Lab):
    """What an MCP server offers is found out when a run starts."""
    assert check(desk.workflow(FILE), folders=[desk.folder]) == []
