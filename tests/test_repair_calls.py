"""Repairs, gc and bundles of runs with recorded calls."""

import asyncio
import json
import os
import secrets
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from beam_ray.diagnosis import diagnose
from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.request import ToolCall
from beam_ray.repair import repair
from beam_ray.run import calls
from beam_ray.store import parquet
from beam_ray.store.gc import collect
from beam_ray.store.lookup import find_runs
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.test_repair import merged_and_died, spoil, tear

AGENT = """
workflow: w
model: m
nodes:
  resolve: {agent: {prompt: "check #{{ task_query }}#", tools: [MODULE:find], returns: {total: int}}}
  after: {after: resolve, llm: {prompt: "after {{ resolve.total }}"}}
"""
TASKS = 60


def agent(lab: Lab, find: str) -> str:
    """The workflow, with a tool whose body is *find*: in a module of its own, since a process imports a module once."""
    module = f"desk_{secrets.token_hex(4)}"
    lab.write(f"{module}.py", f"EFFECTS = 'read'\n\n\nasync def find(number: int):\n{textwrap.indent(find, '    ')}\n")
    return AGENT.replace("MODULE", module)


class Asked:
    """A model that looks an order up and answers, and remembers what it was asked."""

    def __init__(self) -> None:
        self.said: list[Request] = []

    def __call__(self, request: Request) -> Any:
        self.said.append(request)
        text = str(request.messages[0]["content"])
        if text.startswith("after"):
            return text
        number = int(text.split("#")[1])
        return {"total": number} if len(request.messages) > 1 else ToolCall("find", json.dumps({"number": number}), "c")


@pytest.fixture
def run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run of agents, whose files have pieces of one shard each."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 10)
    journal = lab.folder / "journal.txt"
    text = agent(lab, f"open({str(journal)!r}, 'a').write('x')\nreturn 'order ' * 9")
    return lab.run(text, [str(number) for number in range(TASKS)], Asked())


def mend(lab: Lab, run: Run, asked: Asked) -> Any:
    """Repair with this model in this process."""
    models = {"m": ScriptedModel(asked)}
    return repair(lab.objects, run.run_id, models, lambda record: asyncio.run(drive_here(lab.objects, record, models)))


def called(lab: Lab) -> int:
    """How often the tool was called."""
    return len((lab.folder / "journal.txt").read_text())


def essence(run: Run) -> list[Any]:
    """Calls and outputs, without times and ids."""
    made = [[row[name] for name in ("task_id", "number", "name", "request", "reply", "source")] for row in run.calls().to_pylist()]
    return [made, run.outcome()["output"].to_pylist(), run.outcome()["usd"].to_pylist(), run.outcome()["calls"].to_pylist()]


def test_lost_steps_are_made_again_from_their_calls(lab: Lab, run: Run):
    """Nothing is asked and no tool is called again: the calls of a damaged file of steps answer, and the repair cost nothing."""
    before = essence(run)
    spoil(lab, run, "steps/resolve-000.parquet")
    lost = sum(node.redo for node in diagnose(Run(lab.objects, run.run_id)).nodes)
    asked = Asked()
    done = mend(lab, run, asked)
    mended = Run(lab.objects, run.run_id)

    assert 0 < lost
    assert (asked.said, called(lab), done.calls, done.usd) == ([], TASKS, 0, 0.0)
    assert essence(mended) == before
    assert not diagnose(mended).damaged


def test_calls_that_cannot_be_read_are_dropped(lab: Lab, run: Run):
    """Outputs stay as they are, the other calls are kept, and nothing is asked."""
    before = essence(run)
    spoil(lab, run, "calls/resolve-000.parquet")
    [damage] = diagnose(Run(lab.objects, run.run_id)).damaged
    asked = Asked()
    done = mend(lab, run, asked)
    mended = Run(lab.objects, run.run_id)
    after = essence(mended)

    assert (damage.name, asked.said, done.files) == ("calls/resolve-000.parquet", [], ("calls/resolve-000.parquet",))
    assert len(after[0]) == len(before[0]) - damage.rows
    assert damage.rows
    assert after[1:] == before[1:]
    assert not diagnose(mended).damaged


def test_a_lost_manifest_names_the_calls_again(lab: Lab, run: Run):
    """It is computed from the files that there are."""
    before, names = essence(run), [entry["name"] for entry in run.manifest["files"]]
    (lab.folder / "store" / run.prefix / "manifest.json").unlink()
    mend(lab, Run(lab.objects, run.run_id), Asked())
    mended = Run(lab.objects, run.run_id)

    assert sorted(entry["name"] for entry in mended.manifest["files"]) == sorted(names)
    assert essence(mended) == before


def test_a_step_whose_calls_were_not_merged_yet_has_those_of_the_spool(lab: Lab):
    """A driver died between a node's steps and its calls, and then a part was torn: its steps stay finished, with all calls."""
    run = merged_and_died(lab, agent(lab, "return 'order ' * 9"), [str(number) for number in range(TASKS)], Asked(), "resolve")
    made, part = run.calls().to_pylist(), run.part("resolve", 1)
    assert part
    run.spool("0001-first", 0, part.to_pylist())
    lab.objects.delete(f"{run.prefix}/calls/resolve-000.parquet")
    tear(lab, run, "parts/resolve/000001.parquet")
    mend(lab, run, Asked())
    asked = Asked()
    asyncio.run(drive_here(lab.objects, run.record, {"m": ScriptedModel(asked)}))

    assert (Run(lab.objects, run.run_id).calls().to_pylist(), asked.said) == (made, [])


def test_gc_keeps_what_calls_have_as_attachments(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Requests and replies that are too large for a row are in use, in a finished run and in an unfinished one."""
    monkeypatch.setattr(calls, "MAX_TEXT", 100)
    text = agent(lab, "return 'order ' * 99")
    run = lab.run(text, ["1", "2"], Asked())
    kept = sorted((lab.folder / "store" / "attachments").iterdir())
    for path in [*kept, lab.write("store/attachments/" + "0" * 64, "unused")]:
        os.utime(path, (time.time() - 1e6,) * 2)
    rows = run.calls().to_pylist()

    assert kept
    assert {path.name for path in kept} == {row[name] for row in rows for name in ("request_sha256", "reply_sha256")} - {None}
    assert [garbage.keys for garbage in collect(lab.objects) if garbage.kind == "attachments"] == [("attachments/" + "0" * 64,)]


def test_an_agent_is_replayed_from_attachments(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """A rerun reads large replies where they are kept."""
    monkeypatch.setattr(calls, "MAX_TEXT", 100)
    text = agent(lab, "return 'order ' * 99")
    run = lab.run(text, ["1", "2"], Asked())
    asked = Asked()
    again = lab.rerun(run, ["t0", "t1"], lab.workflow(text), asked)

    assert [str(request.messages[0]["content"])[:5] for request in asked.said] == ["after", "after"]
    assert again.outcome()["output"].to_pylist() == run.outcome()["output"].to_pylist()
    assert len(find_runs(lab.objects)) == 2
    assert Path(lab.folder / "store" / "attachments").is_dir()
