"""Tools of a program's own: recorded in runs, replayed in reruns, not called where they would write, and themselves elsewhere."""

import asyncio
import json
from pathlib import Path

import pytest

from beam_ray import recorded_tool
from beam_ray.backtest.tool_answers import require_tools
from beam_ray.define.yaml_file import NoFile
from beam_ray.errors import BadDefinition, ToolFailed
from beam_ray.llm import Request
from beam_ray.store.runs import Run
from tests.conftest import Lab

PROGRAM = """
    import asyncio
    import json
    import pathlib
    import sys

    from asking import ask
    from beam_ray import recorded_tool
    from beam_ray.errors import ToolFailed

    journal = pathlib.Path("journal.txt")


    def note(line):
        with journal.open("a") as file:
            file.write(line + "\\n")


    @recorded_tool(effects="read")
    def find(po_number, *, deep=False):
        note(f"find {po_number}")
        if po_number == "PO-9":
            raise ValueError("no such order")
        return {"total": 42, "lines": ("a", "b")}


    @recorded_tool
    async def send(to, text="paid"):
        note(f"send {to}")
        return "sent"


    given = json.load(sys.stdin)
    found = []
    for call in (lambda: find(given["text"]), lambda: find("PO-9"), lambda: asyncio.run(send("a@b")), *([lambda: asyncio.run(send("new@b"))] if MORE else [])):
        try:
            found.append(call())
        except (ToolFailed, ValueError) as error:
            found.append(f"{type(error).__name__}: {error}")
    print(json.dumps([ask(json.dumps(found))["content"], found]))
"""
HERE = Path(__file__).with_name("programs")
WORKFLOW = json.dumps({"workflow": "w", "nodes": {"answer": {"command": ["python", "app.py"], "asks": "m", "with": {"text": "{{ task_query }}"}}}})


def counts(request: Request) -> str:
    """Says how much it was told."""
    return f"{len(str(request.messages[-1]['content']))} characters"


@pytest.fixture
def project(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with a program that calls a tool that reads and one that writes."""
    monkeypatch.chdir(lab.folder)
    lab.write("asking.py", (HERE / "asking.py").read_text(encoding="utf-8"))
    lab.write("app.py", PROGRAM.replace("MORE", "False"))
    return lab


def told(run: Run) -> list[object]:
    """What the program's tools gave."""
    return json.loads(Lab.steps(run, "answer")["t0"]["output"])[1]


def journal(lab: Lab) -> list[str]:
    """Which tools were really called since the last look."""
    path = lab.folder / "journal.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_tools_of_a_program_are_recorded_and_replayed_with_its_model_calls(project: Lab):
    """A plain run calls them all, those that write too; executed again, none is called, errors included, and only what is new left the recording."""
    first = project.run(WORKFLOW, ["PO-7"], counts)
    called = journal(project)
    project.write("app.py", PROGRAM.replace("MORE", "True"))
    again = project.rerun(first, ["t0"], project.workflow(WORKFLOW), counts)
    rows = [(row["kind"], row["name"], row["effects"], row["source"]) for row in again.calls().to_pylist()]

    assert (called, journal(project)) == (["find PO-7", "find PO-9", "send a@b"], [])
    assert told(first) == [{"total": 42, "lines": ["a", "b"]}, "ValueError: no such order", "sent"]
    assert told(again)[:3] == [{"total": 42, "lines": ["a", "b"]}, "ToolFailed: find: ValueError: no such order", "sent"]
    assert told(again)[3] == "ToolFailed: the tool 'send' is not available in a test: its result for these arguments was not recorded"
    assert rows == [
        ("tool", "find", "read", "recorded"), ("tool", "find", "read", "recorded"), ("tool", "send", "write", "recorded"),
        ("tool", "send", "write", "refused"), ("model", "m", None, "live"),
    ]  # fmt: skip


def test_a_write_tool_of_a_program_is_called_in_a_rerun_only_where_writes_are_allowed(project: Lab):
    """Then it is called live where nothing is recorded."""
    first = project.run(WORKFLOW, ["PO-7"], counts)
    journal(project)
    project.write("app.py", PROGRAM.replace("MORE", "True"))
    again = project.rerun(first, ["t0"], project.workflow(WORKFLOW), counts, allow_writes=True)

    assert (told(again)[3], journal(project)) == ("sent", ["send new@b"])


def test_elsewhere_a_recorded_tool_is_the_function_itself(monkeypatch: pytest.MonkeyPatch):
    """Outside a run nothing is asked, sent or converted."""
    monkeypatch.delenv("BEAM_RAY_GATEWAY", raising=False)

    @recorded_tool(effects="read")
    def find(number: int) -> tuple[int, int]:
        """Find it."""
        return number, number

    @recorded_tool
    async def send(to: str) -> str:
        return to

    assert (find(2), asyncio.run(send("a")), find.__doc__) == ((2, 2), "a", "Find it.")


def test_a_run_that_is_gone_fails_the_tool(monkeypatch: pytest.MonkeyPatch):
    """A process that was left behind calls nothing."""
    monkeypatch.setenv("BEAM_RAY_GATEWAY", "http://127.0.0.1:9")

    @recorded_tool(effects="read")
    def find(number: int) -> int:
        raise AssertionError("it was called")

    with pytest.raises(ToolFailed, match="the run does not answer"):
        find(1)
    with pytest.raises(TypeError, match="an argument of the recorded tool 'find' is not JSON"):
        find({1, 2})  # type: ignore[arg-type]


def test_a_program_that_ends_before_its_tool_reports_has_an_error_recorded(project: Lab):
    """Nobody knows what the tool did, and the row says so."""
    project.write("app.py", PROGRAM.replace('note(f"send {to}")', "print(json.dumps([1, []]), flush=True); import os; os._exit(0)").replace("MORE", "False"))
    run = project.run(WORKFLOW, ["PO-7"], counts)
    [send] = [row for row in run.calls().to_pylist() if row["name"] == "send"]

    assert (send["error"], send["reply"]) == ("the program ended before it reported a result", None)


def test_a_spec_may_answer_tools_of_programs_whatever_their_names(project: Lab):
    """A program says what its tools are only when it calls them."""
    require_tools({"fnd": []}, [project.workflow(WORKFLOW)], NoFile("spec"))
    other = project.workflow(WORKFLOW.replace(', "asks": "m"', ""), "other.yaml")

    with pytest.raises(BadDefinition, match="no agent of any side has the tool 'fnd'"):
        require_tools({"fnd": []}, [other], NoFile("spec"))
