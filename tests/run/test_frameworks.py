"""
Programs of the package index, unchanged: their model calls go through the gateway, are recorded, and replay.

All run in one run and are replayed in another one, each in a process per run.
"""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_ray.errors import ModelUnavailable
from beam_ray.llm import Request
from beam_ray.llm.request import ToolCall
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.conftest import Lab

HERE = Path(__file__).with_name("programs")
MODULES = {
    "plain_openai": "openai",
    "with_langgraph": "langgraph",
    "with_openai_agents": "agents",
    "with_pydantic_ai": "pydantic_ai",
    "with_dspy": "dspy",
}
INSTALLED = [name for name, module in MODULES.items() if importlib.util.find_spec(module)]


def orders(request: Request) -> object:
    """Calls the tool, then says what it found: in a function call, in fields or in words, as it was asked."""
    said = json.dumps(list(request.messages))
    if "[[ ## completed ## ]]" in said:
        return react(str(request.messages[-1]["content"]))
    if "found" not in said and "total" not in said:
        return ToolCall("find", '{"po_number": "PO-7"}')
    final = next((tool["name"] for tool in request.tools if tool["name"] != "find"), None)
    return ToolCall(final, '{"said": "42"}') if final else "42"


def react(asked: str) -> str:
    """The fields of DSPy's ReAct."""
    if "[[ ## answer ## ]]" in asked:
        return "[[ ## reasoning ## ]]\nfound\n\n[[ ## answer ## ]]\n42\n\n[[ ## completed ## ]]"
    name, arguments = ("finish", "{}") if "total 42" in asked else ("find", '{"po_number": "PO-7"}')
    return f"[[ ## next_thought ## ]]\nlook\n\n[[ ## next_tool_name ## ]]\n{name}\n\n[[ ## next_tool_args ## ]]\n{arguments}\n\n[[ ## completed ## ]]"


def nobody(request: Request) -> object:
    """A model that must not be asked."""
    raise ModelUnavailable("it was asked")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Run]]:
    """A run of all programs, and one in which they are executed again."""
    folder = tmp_path_factory.mktemp("frameworks")
    lab = Lab(folder, open_objects(str(folder / "store")))
    for name in INSTALLED:
        shutil.copy(HERE / f"{name}.py", folder)
    nodes = {name: {"tool": f"{name}:answer", "asks": "m", "with": {"text": "{{ task_query }}"}} for name in INSTALLED}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first = lab.run(json.dumps({"workflow": "frameworks", "nodes": nodes}), ["What is the sum of PO-7?"], orders)
        again = {name: {**node, "version": "2"} for name, node in nodes.items()}
        yield first, lab.rerun(first, ["t0"], lab.workflow(json.dumps({"workflow": "frameworks", "nodes": again})), nobody)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.skipif(name not in INSTALLED, reason=f"{MODULES[name]} is not installed")) for name in MODULES]
)
def test_a_program_of_the_package_index_is_recorded_and_replays(name: str, runs: tuple[Run, Run]):
    """It answers with the help of its tool; executed again, it gets every answer from the recording and gives the same output."""
    first, again = (Lab.steps(run, name)["t0"] for run in runs)
    calls = [row for row in runs[0].calls([name]).to_pylist()]

    assert first["error"] is None
    assert json.loads(first["output"])["said"] == "42"
    assert len(calls) >= 2 and {row["source"] for row in calls} == {"live"}
    assert (again["output"], again["calls"], again["calls_recorded"], again["diverged_at"]) == (first["output"], 0, len(calls), None)
