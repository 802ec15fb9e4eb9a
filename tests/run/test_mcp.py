"""Agents with the tools of real MCP servers, started as programs or called over HTTP."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beam_ray.define.mcp_server import McpServer, McpTool, RecordedServer, load_mcp_servers
from beam_ray.errors import BadDefinition, ToolFailed, Unusable
from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.known_models import KnownModels
from beam_ray.rerun import RerunOptions, make_rerun
from beam_ray.run.agent_tools import offered_tools
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.run.mcp_servers import McpServers
from beam_ray.run.plan import make_plan
from beam_ray.run.tools import Tools
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.run.test_agents import PAY, call, scripted, told

SERVER = str(Path(__file__).parents[1] / "mcp_server.py")
AGENT = """
workflow: w
model: m
nodes:
  resolve:
    agent:
      prompt: "Check {{ task_query }}"
      tools: [{mcp: crm, only: [search_accounts, fail], effects: read}, {mcp: crm, only: [notes.add]}]
      returns: {decision: str, total: number}
      max_turns: 6
"""


def program(lab: Lab, **settings: Any) -> McpServer:
    """The server as a program that is started."""
    return McpServer(command=[sys.executable, SERVER, str(lab.folder / "journal")], **settings)


@contextlib.contextmanager
def served(lab: Lab) -> Iterator[McpServer]:
    """The server at an address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVER, str(lab.folder / "journal"), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield McpServer(url=f"http://127.0.0.1:{port}/mcp")
    finally:
        process.kill()
        process.wait()


def journal(lab: Lab, word: str) -> list[str]:
    """Lines of the server's journal that begin with the word."""
    path = lab.folder / "journal"
    return [line for line in path.read_text().splitlines() if line.startswith(word)] if path.is_file() else []


def run(lab: Lab, server: McpServer, answer: Any, text: str = AGENT) -> Run:
    """A finished run of the agent."""
    models = KnownModels({"m": ScriptedModel(answer)}, lambda: {"crm": server})
    plan = make_plan(lab.workflow(text), lab.tasks(["PO-1"]), models, source="tasks.jsonl")
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, models))
    return Run(lab.objects, record.run_id)


def gone(lab: Lab) -> bool:
    """Whether every server that was started has ended."""
    pids = [int(line.split()[1]) for line in journal(lab, "started")]
    return not any(Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text() for pid in pids)


@pytest.mark.parametrize("kind", ["program", "address"])
def test_an_agent_calls_the_tools_of_a_server(lab: Lab, kind: str):
    """Results and errors are told to the model; names that endpoints refuse are written otherwise; a program ends with the run."""
    seen: list[Request] = []
    turns = [call("search_accounts", name="Ada"), [call("fail", reason="closed"), call("notes_add", account="a", text="hi")], PAY]
    with served(lab) if kind == "address" else contextlib.nullcontext(program(lab)) as server:
        row = lab.steps(run(lab, server, scripted(*turns, seen=seen)), "resolve")["t0"]

    assert row["outcome"] == "done", row["error"]
    assert [tool["name"] for tool in seen[0].tools] == ["search_accounts", "fail", "notes_add"]
    assert json.loads(told(seen[1])[0]) == {"accounts": [{"name": "Ada", "owner": "Ada"}], "limit": 5}
    assert "closed" in told(seen[2])[0] and told(seen[2])[0].startswith("Error: ") and told(seen[2])[1] == "added"
    assert kind == "address" or gone(lab)


def test_what_a_hint_says_of_a_write_tool_is_not_believed(lab: Lab):
    """A rerun refuses the tool whose annotation says that it only reads, and answers the other from the recording without starting the server."""
    turns = [[call("search_accounts", name="Ada"), call("notes_add", account="a", text="1")], PAY]
    server = program(lab)
    first = run(lab, server, scripted(*turns))
    before = len(journal(lab, "started"))
    seen: list[Request] = []
    again = [[call("search_accounts", name="Ada"), call("notes_add", account="a", text="2")], PAY]
    models = KnownModels({"m": ScriptedModel(scripted(*again, seen=seen), identity="another")}, lambda: {"crm": server})

    plan = make_rerun(lab.objects, first, ["t0"], lab.workflow(AGENT), models, version=None, options=RerunOptions())
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, models))

    assert (journal(lab, "search"), journal(lab, "note")) == (["search Ada"], ["note a: 1"])
    assert told(seen[1])[1].startswith("Error: the tool 'notes_add' is not available in a test")
    assert len(journal(lab, "started")) == before


def test_servers_are_started_once_per_runner_and_end_with_the_run(ray_lab: Lab):
    """On Ray, for many rows at once, beside the one start in which they list their tools."""
    models = KnownModels({"m": ScriptedModel(scripted(call("search_accounts", name="Ada"), PAY))}, lambda: {"crm": program(ray_lab)})
    plan = make_plan(ray_lab.workflow(AGENT), ray_lab.tasks([f"PO-{number}" for number in range(40)]), models, source="tasks.jsonl")
    record = begin(ray_lab.objects, plan.record, plan.tasks)

    execute(ray_lab.objects, record, models, connection=Connection(cluster=ray_lab.cluster))

    rows = ray_lab.steps(Run(ray_lab.objects, record.run_id), "resolve")
    assert {row["outcome"] for row in rows.values()} == {"done"}
    assert (len(journal(ray_lab, "search")), len(journal(ray_lab, "started"))) == (40, 2)
    assert gone(ray_lab)


def test_all_tools_of_a_server_are_offered_without_only(lab: Lab):
    """With a prefix where their names may be taken, and in characters that endpoints accept."""
    workflow = lab.workflow(
        AGENT.replace("{mcp: crm, only: [search_accounts, fail], effects: read}, {mcp: crm, only: [notes.add]}", "{mcp: crm, prefix: crm_}")
    )
    listed = RecordedServer(server=program(lab), tools=(McpTool(name="find"), McpTool(name="notes.add"), McpTool(name="ännder")))

    offered = offered_tools(workflow.nodes["resolve"].agent, Tools(workflow), {"crm": listed})

    assert [tool.name for tool in offered] == ["crm_find", "crm_notes_add", "crm__nnder"]
    assert {tool.effects for tool in offered} == {"write"}


@pytest.mark.parametrize(
    ("server", "text", "said"),
    [
        (None, AGENT, "the workflow 'w' uses the MCP server 'crm', which is not in the MCP file\n  servers in the file: desk"),
        ({"command": ["no-such-program"]}, AGENT, "the MCP server 'crm' (no-such-program): there is no program 'no-such-program'"),
        ({"command": [sys.executable, "-c", "import sys; sys.exit('no licence')"]}, AGENT, "its last words: no licence"),
        ({"command": [sys.executable, "-c", "import time; time.sleep(60)"], "start_s": 1.0}, AGENT, "it did not answer within 1 s"),
        ({"url": "http://127.0.0.1:9/mcp", "start_s": 5.0}, AGENT, "the MCP server 'crm' (http://127.0.0.1:9/mcp): "),
        (
            {},
            AGENT.replace("fail]", "faill]"),
            "the MCP server 'crm' has no tool 'faill'\n  its tools: search_accounts, notes.add, fail, sleep, token, end\n  did you mean 'fail'?",
        ),
        ({"env": ["NO_SUCH_VARIABLE"]}, AGENT, "the environment variable NO_SUCH_VARIABLE is not set"),
    ],
    ids=["unknown server", "no program", "ends", "hangs", "no address", "unknown tool", "no variable"],
)
def test_a_server_that_cannot_be_used_stops_the_command_before_anything_is_paid(lab: Lab, server: dict[str, Any] | None, text: str, said: str):
    """Nothing is written, no model is asked, and the message says what to do."""
    settings = McpServer(**{"command": [sys.executable, SERVER, str(lab.folder / "journal")], **server}) if server is not None and "url" not in server else None
    known = {"desk": program(lab)} if server is None else {"crm": settings or McpServer(**server)}
    asked: list[Request] = []

    with pytest.raises(Unusable) as refused:
        make_plan(lab.workflow(text), lab.tasks(["x"]), KnownModels({"m": ScriptedModel(scripted(PAY, seen=asked))}, lambda: known), source="t")

    assert said in str(refused.value)
    assert asked == []


def test_a_program_that_is_no_server_is_told_in_one_line(lab: Lab):
    """What it printed is not followed by a traceback of the library that reads it."""
    lab.write("models.yaml", "m: {answers: [{answer: x}]}")
    lab.write("mcp.yaml", f"crm: {{command: [{sys.executable}, -c, 'print(1)'], start_s: 5.0}}")
    command = [sys.executable, "-m", "beam_ray", "run", str(lab.write("w.yaml", AGENT)), "--tasks", str(lab.write("t.jsonl", '{"task_query": "x"}'))]
    environment = {name: value for name, value in os.environ.items() if name != "BEAM_RAY_MCP"} | {"BEAM_RAY_MODELS": str(lab.folder / "models.yaml")}

    done = subprocess.run(command, cwd=lab.folder, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert done.stderr.startswith("the MCP server 'crm' (") and "Traceback" not in done.stderr


def test_a_call_has_its_time_and_a_server_that_ended_is_started_anew(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """A call that was in flight is not made again: nobody knows what it did."""
    monkeypatch.setenv("CRM_TOKEN", "s3cret")

    async def work() -> list[str]:
        servers = McpServers({"crm": program(lab, env=["CRM_TOKEN"], call_s=1.0)})
        said = []
        try:
            for tool, arguments in [("sleep", {"seconds": 30}), ("token", {}), ("end", {}), ("token", {})]:
                try:
                    said.append(str(await servers.call("crm", tool, arguments, 10)))
                except ToolFailed as error:
                    said.append(str(error))
        finally:
            await servers.close()
        return said

    slow, token, ended, again = asyncio.run(work())

    assert slow == "sleep of the MCP server 'crm' took longer than 1 s"
    assert ended.startswith("the MCP server 'crm' ended") or ended.startswith("the MCP server 'crm': ")
    assert token == again == "${env:CRM_TOKEN} None"
    assert len(journal(lab, "started")) == 2 and gone(lab)


BROKEN = {
    "a command for a shell": ("crm: {command: python -m crm}", "'command' must be a list such as ['python', '-m', 'crm']: no shell reads it"),
    "both": ("crm: {command: [x], url: 'http://x'}", "an MCP server must have either 'command' or 'url'"),
    "neither": ("crm: {call_s: 1.0}", "an MCP server must have either 'command' or 'url'"),
    "a secret": ("crm: {url: 'http://x', headers: {Authorization: Bearer 1}}", "the header 'Authorization' must not be written in the file"),
    "values of the environment": ("crm: {command: [x], env: ['A=1']}", "'env' is a list of names of environment variables, and 'A=1' is none"),
    "an address of another kind": ("crm: {url: 'ftp://x'}", "'url' must begin with http:// or https://, not 'ftp://x'"),
    "an unknown key": ("crm: {command: [x], shell: true}", "unknown key 'shell'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_mcp_file_is_refused_with_its_place(lab: Lab, name: str):
    """Before any server is started."""
    written, said = BROKEN[name]

    with pytest.raises(BadDefinition) as refused:
        load_mcp_servers(lab.write("mcp.yaml", written))

    assert said in str(refused.value) and "mcp.yaml:1:" in str(refused.value)


def test_the_file_beside_the_models_file_is_used(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """BEAM_RAY_MCP names another; a mapping needs none."""
    import beam_ray

    monkeypatch.delenv("BEAM_RAY_MCP", raising=False)
    lab.write("m/models.yaml", "m: {answers: [{answer: x}]}")
    lab.write("m/mcp.yaml", "crm: {command: [a]}")
    other = lab.write("other.yaml", "desk: {command: [b]}")
    models = lab.folder / "m" / "models.yaml"

    def names(**options: Any) -> list[str]:
        return list(beam_ray.open(str(lab.folder / "s"), models=models, **options).known_models.mcp)  # type: ignore[attr-defined]

    assert names() == ["crm"]
    assert names(mcp={"x": McpServer(command=["c"])}) == ["x"]
    monkeypatch.setenv("BEAM_RAY_MCP", str(other))
    assert names() == ["desk"]
    assert os.environ["BEAM_RAY_MCP"]
