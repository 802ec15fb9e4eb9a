"""Programs: what they are given, what becomes of their output and their faults, and that their calls are ours."""

import json
import sys

import pytest

from beam_ray.errors import ModelUnavailable
from beam_ray.llm import Request
from tests.conftest import Lab

ASKING = """
import json, os, sys, urllib.request

def ask(text, **more):
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    key = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(), key)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["choices"][0]["message"]
"""


@pytest.fixture
def project(lab: Lab, monkeypatch) -> Lab:
    """A lab whose folder is the working folder."""
    monkeypatch.chdir(lab.folder)
    lab.write("asking.py", ASKING)
    return lab


def workflow(program: str, **more: object) -> str:
    """A workflow with one command, which runs a Python program of the project."""
    node = {"command": [sys.executable, program], "with": {"text": "{{ task_query }}"}, **more}
    return json.dumps({"workflow": "programs", "nodes": {"answer": node}})


def outputs(lab: Lab, run) -> dict[str, object]:
    """What each task's program gave: its output, or its error."""
    return {task: json.loads(row["output"]) if row["output"] else row["error"] for task, row in lab.steps(run, "answer").items()}


TWICE = """
    import json, sys
    from asking import ask

    given = json.load(sys.stdin)
    first = ask(given["text"])["content"]
    print("a line for the log", file=sys.stderr)
    print(json.dumps({"first": first, "second": ask(first)["content"]}))
"""


def echo(request: Request) -> str:
    """Says what it was told."""
    return f"<{request.messages[-1]['content']}>"


def test_a_commands_calls_are_its_steps(project: Lab):
    """Counted, priced and recorded with the node, task and attempt that made them, in the order in which they began."""
    project.write("app.py", TWICE)
    run = project.run(workflow("app.py", asks=["m"]), ["a", "b"], echo)
    step = project.steps(run, "answer")["t1"]
    calls = [(row["task_id"], row["node"], row["attempt"], row["number"], row["name"], row["source"]) for row in run.calls().to_pylist()]

    assert outputs(project, run) == {"t0": {"first": "<a>", "second": "<<a>>"}, "t1": {"first": "<b>", "second": "<<b>>"}}
    assert calls == [(task, "answer", 1, number, "m", "live") for task in ("t0", "t1") for number in (1, 2)]
    assert (step["turns"], step["calls"], step["tool_calls"]) == (2, 2, 0)
    assert step["input_tokens"] > 0


def test_an_unchanged_program_replays_without_a_call(project: Lab):
    """Executed again, it gets every answer from the recording, and gives the same output."""
    project.write("app.py", TWICE)
    origin = project.run(workflow("app.py", asks=["m"]), ["a", "b"], echo)
    project.write("app.py", TWICE + "    # another version\n")
    again = project.rerun(origin, ["t0", "t1"], project.workflow(workflow("app.py", asks=["m"])), refuse)
    step = project.steps(again, "answer")["t0"]

    assert outputs(project, again) == outputs(project, origin)
    assert (step["outcome"], step["calls"], step["calls_recorded"], step["diverged_at"]) == ("done", 0, 2, None)


def refuse(request: Request) -> str:
    """A model that must not be asked."""
    raise ModelUnavailable("it was asked")
