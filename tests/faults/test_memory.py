"""Memory that runs out: the tool that takes it fails, and nothing else."""

from tests.conftest import Lab

# it stops by itself, and touches none of it, so that a limit that is lost does not take the machine along
TOOLS = """
import os
import signal


def eat(n):
    held = []
    while n == 1 and len(held) < 60:
        held.append(bytes(10_000_000))
    return {"n": n, "held": len(held)}


def die(n):
    if n == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"n": n}
"""

WORKFLOW = """
workflow: greedy
inputs: {n: int}
nodes:
  bounded: {tool: "tools.greedy:eat", with: {n: "{{ n }}"}, resources: {memory: 300000000}}
  free: {tool: "tools.greedy:eat", with: {n: "{{ n }}"}}
  killed: {tool: "tools.greedy:die", with: {n: "{{ n }}"}}
"""


def test_a_tool_without_end_fails_at_the_memory_that_its_node_declares(lab: Lab):
    """The reason is said; rows before and after it, and nodes that declare nothing, are not bounded; a tool that the system kills fails its row alone."""
    lab.write("tools/greedy.py", TOOLS)
    run = lab.run(WORKFLOW, [{"id": f"t{number}", "task_query": {"n": number}} for number in range(4)], None)
    rows = {(row["node"], row["task_id"]): row for row in run.steps().to_pylist()}

    assert {place: row["error"] for place, row in rows.items() if row["outcome"] != "done"} == {
        ("bounded", "t1"): "tools.greedy:eat: MemoryError: it needed more than 300,000,000 bytes, the node's resources.memory",
        ("killed", "t1"): "tools.greedy:die: its process died (SIGKILL)",
    }
    assert '"held": 60' in rows["free", "t1"]["output"]
