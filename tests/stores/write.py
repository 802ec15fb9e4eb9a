"""
Write a small store of today's format: python -m tests.stores.write tests/stores/0.1

Once for each release, before it is released; after that the folder is never written again,
and the code of all later releases reads it.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from beam_ray.backtest.conclude import conclude
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import resolve_spec
from beam_ray.llm import ScriptedModel
from beam_ray.publish import publish
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import load_workflow, make_plan
from beam_ray.run.runner import Runner
from beam_ray.store.beginning import begin
from beam_ray.store.libraries import write_library
from beam_ray.store.opening import open_objects
from beam_ray.tasks.sources import read
from tests.conftest import Lab

WORKFLOW = """\
workflow: sums
model: m
nodes:
  read:
    llm: {prompt: "read {{ task_query }}", returns: {n: int}}
    evaluate: {criteria: [{equals: {n: expected.n}}]}
    auto_rerun: {max: 1}
  say:
    after: read
    llm: {prompt: "say {{ read.n }}"}
"""

SPEC = """\
backtest: sums-v2
workflow: sums
tasks: library:sums@1
candidates:
  v2: {nodes.read.llm.prompt: "better {{ task_query }}"}
"""

TASKS = 36


def answer(request: Any) -> Any:
    """Reads every third number rightly, and with a better prompt all of them."""
    word, number = request.messages[-1]["content"].split()
    if word == "say":
        return f"it is {number}"
    return {"n": int(number) if word == "better" or int(number) % 3 == 0 else -1}


def models() -> dict[str, Any]:
    """The models of the store's runs."""
    return {"m": ScriptedModel(answer)}


def write(folder: Path, **options: Any) -> None:
    """Versions, a library, a finished run, a rerun, an unfinished run with parts and spool, a backtest with its verdict; *options* are those of the backtest."""
    lab = Lab(folder.parent, open_objects(str(folder)))
    objects = lab.objects
    inputs = folder.parent / f"{folder.name}.inputs"
    inputs.mkdir(exist_ok=True)
    (inputs / "sums.yaml").write_text(WORKFLOW, encoding="utf-8")
    (inputs / "spec.yaml").write_text(SPEC, encoding="utf-8")
    (inputs / "note.txt").write_text("the number is written above\n", encoding="utf-8")
    rows = [{"id": f"n{index}", "task_query": str(index), "expected": {"n": index}, "labels": ["even"] if index % 2 == 0 else []} for index in range(TASKS)]
    rows[3]["attachments"] = ["note.txt"]
    (inputs / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    tasks, _ = read(objects, str(inputs / "tasks.jsonl"))
    write_library(objects, "sums", tasks, 0, change="the first three dozen")
    workflow = load_workflow(inputs / "sums.yaml")[0].model_copy(update={"tools_from": ""})
    publish(objects, workflow, source=WORKFLOW, reason="the first")

    backtest = Backtest(objects, resolve_spec(objects, inputs / "spec.yaml"), *read(objects, "library:sums@1"), models(), **options)
    verdict = conclude(backtest)
    better = backtest.resolved.candidates[0].workflow
    publish(objects, better, evidence=verdict["backtest_id"])
    lab.rerun(backtest.baseline(), ["n1", "n3"], better, answer, version=2, start_node="read", because="a better prompt")

    plan = make_plan(workflow, read(objects, "library:sums@1")[0], models(), source="library:sums@1", version_number=1, trials=2)
    record = begin(objects, plan.record, plan.tasks)
    asyncio.run(_begin(str(folder), record.run_id))


async def _begin(store: str, run_id: str) -> None:
    """One shard is done, of the next one node is; the rows of both are spooled."""
    runner = Runner(Assignment(store, run_id, models(), "0001-0001-abcd", 32))
    await asyncio.gather(*(runner.step(0, node) for node in ("read", "say")))
    await runner.step(1, "read")
    await runner.stop()


def _anonymous(folder: Path) -> None:
    """The store names no machine."""
    for path in folder.glob("runs/*/lease/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))


if __name__ == "__main__":
    os.environ["LOGNAME"] = "someone"
    write(Path(sys.argv[1]))
    _anonymous(Path(sys.argv[1]))
