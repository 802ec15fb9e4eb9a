"""Plans of reruns of agents: how many model calls at most, and how many the recording is sure to answer."""

import json
from typing import Any

import pytest

from beam_ray.llm import ScriptedModel
from beam_ray.llm.prices import Price
from beam_ray.rerun import RerunOptions, count_borrowed, make_rerun
from beam_ray.run.plan import NodePlan
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.run.test_agents import DESK, PAY, call, scripted

AGENT = """
workflow: w
model: m
nodes:
  read: {llm: {prompt: "read {{ task_query }}"}}
  resolve:
    after: read
    agent:
      prompt: "Check {{ task_query }}"
      tools: [tools.desk:find, {tool: "tools.desk:add", effects: none}]
      returns: {decision: {one of: [pay, hold]}, total: number}
      max_turns: 3
"""


@pytest.fixture
def desk(lab: Lab) -> Lab:
    """A lab with a module of tools."""
    lab.write("tools/desk.py", DESK)
    return lab


def planned(lab: Lab, origin: Run, text: str) -> dict[str, NodePlan]:
    """What each node of a rerun of all tasks by another definition would do."""
    models = {"m": ScriptedModel(lambda request: 1 / 0, price=Price(1.0, 2.0))}
    tasks = origin.tasks()["task_id"].to_pylist()
    plan = make_rerun(lab.objects, origin, tasks, lab.workflow(text), models, options=RerunOptions(start_node="resolve"))
    return {node.node: node for node in count_borrowed(lab.objects, plan, models).nodes}


def answers(request: Any) -> Any:
    """Reads; then finds the order, adds, and pays."""
    return "read" if request.node == "read" else scripted(call("find", number="PO-1"), call("add", a=1), PAY)(request)


def counts(node: NodePlan) -> tuple[int, int, int]:
    return node.run, node.calls, node.recorded_calls


def test_a_changed_prompt_is_asked_anew_in_every_turn(desk: Lab):
    """Its first call is another one already, so nothing is certain."""
    origin = desk.run(AGENT, ["a", "b"], answers)
    found = planned(desk, origin, AGENT.replace("Check", "Please check"))

    assert (counts(found["resolve"]), found["resolve"].recorded_usd) == ((2, 6, 0), 0.0)


def test_a_change_that_reaches_no_call_is_answered_to_the_end(desk: Lab):
    """More turns are allowed, and none is needed: what the calls cost is what is spared."""
    origin = desk.run(AGENT, ["a", "b"], answers)
    found = planned(desk, origin, AGENT.replace("max_turns: 3", "max_turns: 9"))["resolve"]

    assert counts(found) == (2, 0, 6)
    assert (found.usd, found.input_tokens) == (0.0, 0)


def test_an_agent_is_answered_up_to_the_first_call_that_is_not_recorded(desk: Lab):
    """It ran out of turns, and gets more now."""
    origin = desk.run(AGENT.replace("max_turns: 3", "max_turns: 2"), ["a", "b"], answers)
    found = planned(desk, origin, AGENT.replace("max_turns: 3", "max_turns: 5"))["resolve"]

    assert counts(found) == (2, 6, 4)


def test_a_tool_call_that_is_not_recorded_ends_what_is_certain(desk: Lab):
    """By its new key it is another call than the recorded one, and what it would return is not known."""
    desk.write("tools/desk.py", DESK + "\n\ndef key(arguments):\n    return ['new', arguments]\n")
    origin = desk.run(AGENT, ["a"], answers)
    found = planned(desk, origin, AGENT.replace("tools.desk:find,", '{tool: "tools.desk:find", key: "tools.desk:key"},'))["resolve"]

    assert counts(found) == (1, 2, 1)


def test_a_first_run_has_no_recording(desk: Lab):
    """Its calls are turns times tasks."""
    from beam_ray.run.plan import make_plan

    plan = make_plan(desk.workflow(AGENT), desk.tasks(["a", "b"]), {"m": ScriptedModel(json.dumps)})

    assert {node.node: counts(node) for node in plan.nodes} == {"read": (2, 2, 0), "resolve": (2, 6, 0)}
