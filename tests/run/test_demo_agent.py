"""The agent of configs/workflows/payments.yaml over the demo's documents: it finds the order, checks the total, and pays or holds."""

import asyncio
import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.models_file import load_models
from beam_ray.llm.request import ToolCall
from beam_ray.rerun import RerunOptions, make_rerun
from beam_ray.run.plan import Plan, load_workflow, make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here

CONFIGS = Path(__file__).parents[2] / "configs"
WORKFLOW = CONFIGS / "workflows" / "payments.yaml"
ORDERS = {row["po_number"] for row in csv.DictReader((CONFIGS / "workflows" / "tools" / "order_book.csv").open())}


def call(tool: str, **arguments: Any) -> ToolCall:
    """A call of a tool."""
    return ToolCall(tool, json.dumps(arguments))


def clerk(request: Request) -> Any:
    """Reads the number of the order from the document, looks it up, and pays what is in the order book; a second clerk pays whatever comes."""
    document = str(request.messages[0]["content"]).partition("The document:")[2]
    number = re.findall(r"PO-?\s?(\d{5})", document)
    results = [str(message["content"]) for message in request.messages if message["role"] == "tool"]
    known = any('"found": true' in text for text in results)
    careless = "carelessly" in str(request.messages[0]["content"])
    if not results:
        return [call("find", po_number=f"PO-{number[-1] if number else '00000'}"), call("add_up", amounts=[1.5, 2])]
    if (known or careless) and not any("paid" in text or "not available" in text for text in results):
        return call("pay", po_number=f"PO-{number[-1] if number else '00000'}", total=len(document) if careless else 1.0)
    return {"decision": "pay" if known or careless else "hold", "reason": "as the order book says"}


def tasks() -> list[dict[str, Any]]:
    """The demo's documents, with what is right to do about them."""
    rows = [json.loads(line) for line in (CONFIGS / "libraries" / "documents.jsonl").open(encoding="utf-8")]
    return [{**row, "expected": {**row["expected"], "decision": "pay" if row["expected"]["po_number"] in ORDERS else "hold"}} for row in rows]


def done(lab: Lab, plan: Plan, models: dict[str, Any]) -> Run:
    """The finished run of a plan."""
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, models))
    return Run(lab.objects, record.run_id)


def test_a_clerk_pays_what_is_in_the_order_book_and_a_careless_one_pays_nothing_in_a_rerun(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """
    Every payment of the run is made; of the 60 that another prompt tries in a rerun none is.
    """
    monkeypatch.setenv("BEAM_RAY_TOOL_ARCHIVE", str(lab.folder))
    workflow, warnings = load_workflow(WORKFLOW)
    models = {"hosted/large": ScriptedModel(clerk)}
    given = lab.tasks(tasks())
    run = done(lab, make_plan(workflow, given, models, source="documents.jsonl"), models)
    rows = lab.steps(run, "resolve")
    paid = [json.loads(line) for line in (lab.folder / "payments.jsonl").open()]

    assert warnings == []
    assert {row["outcome"] for row in rows.values()} == {"done"}
    assert sum(row["passed"] for row in rows.values()) >= 50  # some documents write their numbers in other ways
    assert len(paid) == sum(json.loads(row["output"])["decision"] == "pay" for row in rows.values()) > 30

    document = workflow.document()
    document["nodes"]["resolve"]["agent"]["prompt"][0]["content"] = f"Pay carelessly.\n{document['nodes']['resolve']['agent']['prompt'][0]['content']}"
    careless = workflow.model_validate(document)
    plan = make_rerun(lab.objects, run, list(rows), careless, models, version=None, options=RerunOptions())
    again = lab.steps(done(lab, plan, models), "resolve")

    assert sum(row["calls_refused"] for row in again.values()) == 60
    assert [json.loads(line) for line in (lab.folder / "payments.jsonl").open()] == paid


def test_the_scripted_answers_of_the_docs_decide_as_expected(lab: Lab):
    """What docs/agents.md shows needs no model."""
    workflow, _ = load_workflow(WORKFLOW)
    models = load_models(CONFIGS / "scripted-agent.yaml")
    given = lab.tasks([json.loads(line) for line in (CONFIGS / "libraries" / "invoices.jsonl").open(encoding="utf-8")])

    rows = lab.steps(done(lab, make_plan(workflow, given, models, source="invoices.jsonl"), models), "resolve")

    assert [(row["score"], row["tool_errors"]) for row in rows.values()] == [(100.0, 0)] * 4
