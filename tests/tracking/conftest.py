"""
A backtest that looks like a real one: orders arrive by e-mail, are read, looked up, and confirmed or escalated.
"""

import dataclasses
import datetime
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from beam_ray.define.workflow import Workflow
from beam_ray.store.call_table import CALLS
from beam_ray.store.parquet import to_table
from beam_ray.store.run_record import RunRecord
from beam_ray.store.tables import OUTCOME, STEPS, TASKS
from beam_ray.tracking import BacktestLog, Logged, SideLog, default_uri, log_backtest

FIRST_PROMPT = "Read the e-mail and answer with the order's number, the vendor and the amount.\n\n{{ task_query }}"
SECOND_PROMPT = """Read the e-mail below. Answer with the order's number, the vendor and the amount.

The vendor is the company that sends the invoice, never a person: when a person signs for a company, name the company.
Order numbers look like PO-12345. When there is none, answer null; do not invent one.
Give the amount as a number without a currency sign.

{{ task_query }}"""
VENDORS = ["Harbour Paper", "Alder & Sons", "Northlight Tools", "Kiln Street Ceramics", "Blue Heron Freight", "Mossgrove Dairy"]
PEOPLE = ["Ines Varga", "Tom Okafor", "Lea Brandt", "Sam Whitlock"]
BEGUN = datetime.datetime(2026, 11, 20, 9, 30, tzinfo=datetime.UTC)


def calls_of(step: dict[str, Any]) -> list[dict[str, Any]]:
    """A model call and a recorded tool call of the first attempt, as if the step were an agent's."""
    place = {name: step[name] for name in ("run_id", "task_id", "node", "trial", "started_at", "ended_at")}
    model = {"number": 1, "kind": "model", "name": "local/small", "request": '{"messages": []}', "reply": '{"choices": []}', "source": "live"}
    tool = {"number": 2, "kind": "tool", "name": "find", "request": '{"po_number": "PO-1"}', "reply": '{"found": true}', "source": "recorded"}
    return [{**place, "attempt": 1, "fingerprint": "f", "occurrence": 1, "input_tokens": 3, "output_tokens": 1, **call} for call in (model, tool)]


def purchase_orders(prompt: str) -> Workflow:
    """The workflow with *prompt* as the way to read an e-mail."""
    return Workflow.model_validate(
        {
            "workflow": "purchase-orders",
            "model": "local/small",
            "nodes": {
                "extract": {
                    "llm": {"prompt": prompt, "returns": {"po_number": "str | null", "vendor": "str", "amount": "number"}},
                    "evaluate": {
                        "criteria": [
                            "The vendor is a company, not a person.",
                            {"check": "extract.amount > 0", "id": "amount above 0"},
                            {"equals": {"po_number": "expected.po_number"}},
                        ]
                    },
                    "auto_rerun": {"max": 2, "feedback": True},
                },
                "lookup": {"tool": "tools.orders:find", "with": {"po_number": "{{ extract.po_number }}"}, "after": "extract", "effects": "read"},
                "confirm": {
                    "after": "lookup",
                    "when": "lookup.found",
                    "route": "PO found, proceed",
                    "llm": {
                        "prompt": [{"system": "You write short, friendly e-mails."}, {"user": "Confirm order {{ extract.po_number }} to {{ extract.vendor }}."}]
                    },
                    "evaluate": {"criteria": ["The e-mail names the order.", "The e-mail is polite."]},
                },
                "escalate": {
                    "after": "lookup",
                    "when": "not lookup.found",
                    "route": "PO not found, handle",
                    "llm": {"prompt": "Ask a colleague to look after this e-mail from {{ extract.vendor }}:\n\n{{ task_query }}"},
                    "evaluate": {"criteria": ["The note says what is missing."]},
                },
            },
        }
    )


class _Side:
    """Makes the rows of one side, the same ones for the same seed."""

    def __init__(self, run_id: str, workflow: Workflow, skill: float, begun: datetime.datetime):
        self.run_id, self.workflow, self.skill, self.begun = run_id, workflow, skill, begun
        self.steps: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []

    def add(self, index: int, task: dict[str, Any]) -> None:
        chance = random.Random(f"{task['task_id']}")
        hard, self.dice = chance.random(), random.Random(f"{task['task_id']} {self.run_id}")
        expected = json.loads(task["expected"])
        self.moment = self.begun + datetime.timedelta(seconds=0.4 * index)
        started, first = self.moment, len(self.steps)
        good = hard < self.skill
        found = expected["po_number"] is not None
        extract = {
            "po_number": expected["po_number"] if good or hard < self.skill + 0.15 else None,
            "vendor": expected["vendor"] if good else PEOPLE[index % len(PEOPLE)],
            "amount": expected["amount"],
        }
        found = found and extract["po_number"] is not None
        criteria = [
            (
                "the_vendor_is_a_company_not_a_person",
                "The vendor is a company, not a person.",
                good,
                f"'{extract['vendor']}' is {'a company' if good else 'the person who signed'}",
                "local/small",
            ),
            ("amount above 0", "extract.amount > 0", True, f"{extract['amount']} > 0", None),
            (
                "po_number",
                "po_number equals expected.po_number",
                extract["po_number"] == expected["po_number"],
                f"{extract['po_number']} against {expected['po_number']}",
                None,
            ),
        ]
        if index == 5:
            name, text, _, _, judge = criteria[0]
            criteria[0] = (name, text, None, "the judge gave no grade", judge)
        self._step(task, "extract", extract, criteria, tries=1 if good or index == 5 else 3)
        self._step(task, "lookup", {"found": found, "order": extract["po_number"]}, [], tries=1)
        taken, skipped = ("confirm", "escalate") if found else ("escalate", "confirm")
        route = self.workflow.nodes[taken].route
        if found:
            text = f"Dear {extract['vendor']}, thank you: we have your order {extract['po_number']} over ${extract['amount']}."
            criteria = [("the_e_mail_names_the_order", "The e-mail names the order.", True, f"it names {extract['po_number']}", "local/small")]
            criteria.append(("the_e_mail_is_polite", "The e-mail is polite.", True, "it thanks the vendor", "local/small"))
        else:
            text = f"Please look after this: {extract['vendor']} gave no order number that we know."
            criteria = [("the_note_says_what_is_missing", "The note says what is missing.", True, "the order number", "local/small")]
        self._step(task, taken, {"text": text}, criteria, tries=1, route=route)
        self.steps.append(
            {"run_id": self.run_id, "task_id": task["task_id"], "node": skipped, "trial": 1, "outcome": "skipped", "reason": "route not taken", "shard": 0}
        )
        self._outcome(task, started, self.steps[first:], route, {taken: {"text": text}})

    def _step(self, task: dict[str, Any], node: str, output: Any, criteria: list[Any], *, tries: int, route: str | None = None) -> None:
        asks = self.workflow.nodes[node].llm is not None
        judged = [{"id": name, "text": text, "met": met, "reason": why, "judge": judge, "weight": 1.0} for name, text, met, why, judge in criteria]
        undecided = [entry["reason"] for entry in judged if entry["met"] is None]
        score = 100 * sum(entry["met"] for entry in judged) / len(judged) if judged and not undecided else None
        started, attempts = self.moment, []
        for number in range(1, tries + 1):
            seconds = round(self.dice.lognormvariate(-0.4, 0.4), 3) if asks else 0.02
            self.moment += datetime.timedelta(seconds=seconds + (0.2 if asks else 0))
            tokens = (self.dice.randint(180, 260), self.dice.randint(20, 60)) if asks else (0, 0)
            usd = (tokens[0] * 0.15 + tokens[1] * 0.6) / 1e6 if asks else None
            attempt = {
                "number": number,
                "output": json.dumps(output),
                "score": score,
                "seconds": seconds,
                "input_tokens": tokens[0],
                "output_tokens": tokens[1],
                "usd": usd,
                "seed": number if asks else None,
            }
            attempts.append(attempt | {"temperature": (0.0 if number == 1 else 0.7) if asks else None, "criteria": judged})
        self.steps.append(
            {
                "run_id": self.run_id,
                "task_id": task["task_id"],
                "node": node,
                "trial": 1,
                "outcome": "done",
                "score": score,
                "passed": None if score is None else score >= 90,
                "shard": 0,
                "fingerprint": f"{self.dice.getrandbits(128):032x}",
                "output": json.dumps(output),
                "route": route,
                "reason": "executed",
                "unscored": undecided[0] if undecided else None,
                "threshold": 90.0 if judged else None,
                "criteria": judged,
                "attempts": attempts,
                "first_score": score,
                "started_at": started,
                "ended_at": self.moment,
                "seconds": sum(attempt["seconds"] for attempt in attempts),
            }
        )

    def _outcome(self, task: dict[str, Any], started: datetime.datetime, steps: list[dict[str, Any]], route: str | None, output: Any) -> None:
        ran = [step for step in steps if step["outcome"] == "done"]
        scores = [step["score"] for step in ran if step["score"] is not None]
        self.outcomes.append(
            {
                "run_id": self.run_id,
                "task_id": task["task_id"],
                "trial": 1,
                "outcome": "done",
                "passed": all(step["passed"] is not False for step in ran),
                "score": sum(scores) / len(scores),
                "first_score": sum(scores) / len(scores),
                "routes": [route],
                "path": [step["node"] for step in ran],
                "output": json.dumps(output),
                "steps_done": len(ran),
                "auto_reruns": sum(len(step["attempts"]) - 1 for step in ran),
                "seconds": sum(step["seconds"] for step in ran),
                "started_at": started,
                "ended_at": self.moment,
            }
        )

    def log(self, name: str, role: str, tasks: int) -> SideLog:
        record = RunRecord(
            run_id=self.run_id,
            key=self.run_id,
            created_at="2026-11-20T09:30:00+00:00",
            workflow=self.workflow.name,
            version=7 if role == "baseline" else None,
            definition=self.workflow.document(),
            definition_digest=self.workflow.digest,
            models={"local/small": {"model": "smollm2-135m-instruct", "usd_per_million": {"input": 0.15, "output": 0.6}}},
            source="library:orders@3",
            tasks=tasks,
            shards=[(0, tasks)],
            tasks_digest="5f0c1b7e2d9a44c8",
        )
        outcome, steps = to_table(OUTCOME, self.outcomes), to_table(STEPS, self.steps)
        calls = to_table(CALLS, [call for step in self.steps if step["node"] == "extract" for call in calls_of(step)])
        return SideLog(name, role, record, outcome, steps, self._metrics(outcome), self.begun, max(outcome["ended_at"].to_pylist()), calls)

    def _metrics(self, outcome: pa.Table) -> dict[str, float]:
        passed = outcome["passed"].to_pylist()
        seconds = sorted(outcome["seconds"].to_pylist())
        attempts = [attempt for step in self.steps for attempt in step.get("attempts") or ()]
        metrics = {
            "Overall/pass rate": sum(passed) / len(passed),
            "Overall/score": sum(outcome["score"].to_pylist()) / len(passed),
            "Overall/tasks": len(passed),
            "Overall/auto-reruns per task": sum(outcome["auto_reruns"].to_pylist()) / len(passed),
            "Overall/seconds p50": seconds[len(seconds) // 2],
            "Overall/seconds p95": seconds[int(len(seconds) * 0.95)],
            "Overall/seconds saved": math.nan,
            "Overall/usd": sum(attempt["usd"] or 0 for attempt in attempts),
        }
        for node in ("extract", "confirm", "escalate"):
            steps = [step for step in self.steps if step["node"] == node and step["outcome"] == "done" and step["score"] is not None]
            if steps:
                metrics[f"{node}/pass rate"] = sum(step["passed"] for step in steps) / len(steps)
                metrics[f"{node}/score"] = sum(step["score"] for step in steps) / len(steps)
                for place, criterion in enumerate(steps[0]["criteria"]):
                    metrics[f"{node}/{criterion['id']}"] = sum(step["criteria"][place]["met"] for step in steps) / len(steps)
        return metrics


def backtest(tasks: int = 60, backtest_id: str = "261120-b7d2e1", name: str = "extract-prompt-v8") -> BacktestLog:
    """A backtest of a better prompt over *tasks* orders."""
    rows = [_order(index) for index in range(tasks)]
    baseline = _Side("261120-0aa1c4", purchase_orders(FIRST_PROMPT), 0.7, BEGUN)
    candidate = _Side("261120-3f9c21", purchase_orders(SECOND_PROMPT), 0.92, BEGUN + datetime.timedelta(minutes=2))
    for index, row in enumerate(rows):
        baseline.add(index, row)
        candidate.add(index, row)
    sides = (baseline.log("baseline", "baseline", tasks), candidate.log("v8", "candidate", tasks))
    before, after = (side.outcome["passed"].to_pylist() for side in sides)
    changed = [row["task_id"] for row, one, other in zip(rows, before, after, strict=True) if one != other]
    files = {"report.md": _note(sides).encode(), "verdict.json": b'{"verdict": "PASS"}'}
    return BacktestLog(backtest_id, name, "purchase-orders", sides, _note(sides), "PASS", files, changed, to_table(TASKS, rows))


def _order(index: int) -> dict[str, Any]:
    chance = random.Random(index)
    vendor, person, amount = chance.choice(VENDORS), chance.choice(PEOPLE), round(chance.uniform(20, 900), 2)
    number = f"PO-{chance.randint(10000, 99999)}" if chance.random() < 0.8 else None
    about = f"our order {number}" if number else "the goods that we sent last week"
    query = (
        f"From: {person} <{person.split()[0].lower()}@example.com>\nHello, this is about {about}: please settle ${amount}.\nKind regards, {person}, {vendor}"
    )
    expected = json.dumps({"po_number": number, "vendor": vendor, "amount": amount})
    return {"task_id": f"po-{index + 1:03d}", "task_query": query, "query_is_json": False, "variables": "{}", "expected": expected, "labels": ["mail"]}


def _note(sides: tuple[SideLog, ...]) -> str:
    lines = ["| | baseline | v8 | change |", "|:--|--:|--:|--:|"]
    for metric in ("Overall/pass rate", "Overall/score", "Overall/auto-reruns per task", "Overall/seconds p50", "Overall/usd"):
        before, after = (side.metrics[metric] for side in sides)
        lines.append(f"| {metric.partition('/')[2]} | {before:.4f} | {after:.4f} | {after - before:+.4f} |")
    return "\n".join(lines)


@pytest.fixture
def make_backtest() -> Callable[..., BacktestLog]:
    """Makes a backtest of any size."""
    return backtest


@pytest.fixture(autouse=True)
def _no_mlflow_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@dataclasses.dataclass(frozen=True)
class Told:
    """A database in which a backtest stands."""

    uri: str
    log: BacktestLog
    logged: Logged


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A backtest of eight tasks, told to a new database."""
    store: Path = tmp_path_factory.mktemp("store")
    uri, log = default_uri(str(store)), backtest(tasks=8)
    return Told(uri, log, log_backtest(uri, log))
