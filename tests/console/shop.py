"""A store with something of everything that pages show, made by real runs of a small workflow with scripted models."""

import contextlib
import dataclasses
import json
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import beam_ray
from beam_ray.run.connection import Connection

VENDORS = ("Northwind Traders", "Hansen & Søn", "Blue Harbor Supply", "Kestrel Optics", "Meyer Logistik", "Ito Precision")
ITEMS = ("32 pallets of A4 paper", "4 label printers", "120 m of steel cable", "9 microscope lenses", "2 forklift batteries", "600 anodized brackets")
COUNT = 27
IDS = "ids.json"

WORKFLOW = """
workflow: purchase-orders
description: Read an order e-mail, look the order up, then confirm or escalate.
model: scripted/reader
judge: scripted/judge
nodes:
  extract:
    title: Extract the order details
    llm:
      prompt:
        - system: You read order e-mails. Return the vendor, the purchase order number and the amount as JSON.
        - user: "Read this order.\\n\\n{{ task_query }}"
      returns: {vendor: str, po_number: str | null, amount: number}
    evaluate:
      threshold: 90
      criteria:
        - equals: {vendor: expected.vendor}
        - equals: {po_number: expected.po_number}
          weight: 2
        - {check: extract.amount > 0, id: amount_is_positive}
        - The vendor is a company name, not a person.
    auto_rerun: {max: 2, feedback: true}
  lookup:
    title: Look the order up
    tool: tools.orders:find
    with: {po_number: "{{ extract.po_number }}"}
    after: extract
    effects: read
  confirm:
    title: Confirm the order
    after: lookup
    when: lookup.found
    route: PO found, proceed
    llm: {prompt: "Confirm order {{ extract.po_number }} to {{ extract.vendor }} in one friendly sentence."}
    evaluate: {criteria: [{check: "confirm.text | length > 20", id: says_something}]}
  escalate:
    title: Escalate to a person
    after: lookup
    when: not lookup.found
    route: PO not found, handle
    llm: {prompt: "Write a note for a colleague: the order of {{ extract.vendor }} was not found."}
    evaluate: {criteria: [{check: "escalate.text | length > 20", id: says_something}]}
  archive:
    title: File the e-mail
    after: [confirm, escalate]
    tool: tools.orders:archive
    with: {po_number: "{{ extract.po_number }}"}
    effects: write
"""

TOOLS = '''
def find(po_number: str):
    """The order of that number."""
    found = po_number.startswith("PO-") and int(po_number[3:]) % 4 != 0
    return {"found": found, "warehouse": "Hamburg" if found else None}


def archive(po_number):
    """File the e-mail."""
    return {"filed": True, "folder": f"orders/{po_number}"}
'''

SPEC = """
backtest: extract-prompt-v2
workflow: purchase-orders
tasks: orders.jsonl
baseline: published
candidates:
  v2:
    nodes.extract.llm.prompt:
      - system: You read order e-mails. Return the vendor, the purchase order number (it begins with PO-) and the amount as JSON.
      - user: "Read this order carefully.\\n\\n{{ task_query }}"
gate: gate.yaml
"""

GATE = """
gate: shop
extends: no-harm
rules: {seconds: null}
"""


def orders(count: int = COUNT) -> list[dict[str, Any]]:
    """The tasks."""
    found = []
    for n in range(count):
        vendor, number, amount = VENDORS[n % 6], f"PO-{10_001 + n}", 149.5 + 37 * n
        query = (
            f"Dear team,\n\nplease deliver {ITEMS[n % 6]} by Friday. Our order number is {number}, the total is {amount:,.2f} EUR.\n\nKind regards\n{vendor}"
        )
        labels = ["large"] * (amount > 700) + ["scan"] * (n % 5 == 0)
        found.append({"id": f"order-{n + 1:03d}", "task_query": query, "expected": {"vendor": vendor, "po_number": number}, "labels": labels})
    return found


def answers() -> dict[str, Any]:
    """The models file: what the reader and the judge say. The longer prompt reads better, but for two orders that it gets wrong."""
    reader: list[dict[str, Any]] = []
    for n, task in enumerate(orders()):
        right = {**task["expected"], "amount": 149.5 + 37 * n}
        wrong_number, person = {**right, "po_number": None if n % 2 else f"INV-{500 + n}"}, {**right, "vendor": "Jane Miller"}
        word = str(task["expected"]["po_number"])
        if n in (5, 11):
            reader.append({"has": ["carefully", word], "answer": person})
        reader.append({"has": ["carefully", word], "answer": right})
        if n % 9 == 4:
            reader.append({"has": ["Read this order", word], "answer": person})
        elif n % 3 == 0:
            reader.append({"has": ["Read this order", word], "answer": wrong_number})
        else:
            reader.append({"has": ["Read this order", word], "answer": right})
    # feedback turns do not repeat the order, so the second try of any order is the same for all of them
    reader += [
        {"has": ["does not meet", "Jane"], "answer": {"vendor": "Meyer Logistik", "po_number": "PO-10005", "amount": 297.5}},
        {"has": ["Answer the same question again"], "answer": {"vendor": "Northwind Traders", "po_number": "PO-10001", "amount": 149.5}},
        {"has": ["Confirm order"], "answer": "Thank you, your order is on its way and arrives by Friday."},
        {"answer": "The order number of this e-mail is not in our system; please have a look at it."},
    ]
    better = {
        "weaknesses": ["It does not say whose name the vendor is, so the person who signs is taken for it."],
        "changes": [
            {
                "change": "Say that the vendor is a company and never the person who signs",
                "reason": "The answer named Jane Miller, who signed for the company.",
            },
            {"change": "Ask to read carefully", "reason": "Order number and vendor stand in different places of the e-mail."},
        ],
        "texts": {
            "system_1": "You read order e-mails. Return the vendor (a company, never the person who signs), the purchase order number and the amount as JSON.",
            "user_1": "Read this order carefully.",
            "user_3": "",
        },
    }
    proposals = [
        {"criterion": "The vendor is a company that sells something.", "expression": "", "reason": "A person signs, a company sells."},
        {"criterion": "The order number begins with PO-.", "expression": "(extract.po_number or '')[:3] == 'PO-'", "reason": "Our numbers do."},
        {"criterion": "The amount is positive.", "expression": "extract.amount > 0", "reason": "Nothing is for free."},
    ]
    judge = [
        {"has": ["Name the weaknesses of the prompt"], "answer": better},
        {"has": ["Write criteria by which"], "answer": {"criteria": proposals}},
        {"has": ["Jane Miller"], "answer": {"criterion_1": {"reason": "Jane Miller is a person who signed for the company.", "met": False}}},
        {"answer": {"criterion_1": {"reason": "It is the name of a company.", "met": True}}},
    ]
    return {"scripted/reader": {"answers": reader}, "scripted/judge": {"answers": judge}}


@dataclass(frozen=True)
class Shop:
    """The store, and what was done in it."""

    folder: Path
    store: beam_ray.Store
    run: str
    """The first run, of the published version."""
    backtest: str
    rerun: str
    """A rerun of two of its failed tasks, with the original definition."""
    failed: str
    """Id of a task whose vendor is wrong."""
    pin: str
    """A pinned view of the first run's failing tasks."""


def write_files(folder: Path) -> None:
    """Workflow, tools, tasks, models, spec and gate."""
    (folder / "tools").mkdir(parents=True, exist_ok=True)
    for name, text in (("purchase-orders.yaml", WORKFLOW), ("tools/orders.py", TOOLS), ("spec.yaml", SPEC), ("gate.yaml", GATE)):
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    (folder / "orders.jsonl").write_text("".join(json.dumps(task, ensure_ascii=False) + "\n" for task in orders()), encoding="utf-8")
    (folder / "models.yaml").write_text(yaml.safe_dump(answers(), allow_unicode=True), encoding="utf-8")


def make_shop(folder: Path, connection: Connection) -> None:
    """The shop in an empty folder, with a file of its ids."""
    write_files(folder)
    with contextlib.chdir(folder):
        store = _open(connection)
        store.publish("purchase-orders.yaml", without_evidence="the first version")
        run = store.run("purchase-orders", "orders.jsonl")
        verdict = store.backtest("spec.yaml")
        again = store.rerun([f"{run.id}/order-005", f"{run.id}/order-001"], from_node="extract", using="original", because="to see whether it fails again")
        store.add_to_library("regressions", beam_ray.Selection(run.id, status="failing"), saved=beam_ray.SavedTasks(note="failed at first"))
        store.edit_library("regressions", ["order-025"], beam_ray.TaskEdit(add_labels=("signature",)))
        pin = store.pin(f"run={run.id}&status=failing", note="What fails before the change")
        ids = {"run": run.id, "backtest": verdict.id, "rerun": again[0].id, "failed": "order-005", "pin": pin.id}
        Path(IDS).write_text(json.dumps(ids))


@contextmanager
def copy_of(shop: Path, folder: Path, connection: Connection) -> Iterator[Shop]:
    """A shop of one's own in a new folder, which is the working folder as long as it is used."""
    shutil.copytree(shop, folder)
    with contextlib.chdir(folder):
        yield Shop(folder, _open(connection), **json.loads(Path(IDS).read_text()))


def _open(connection: Connection) -> beam_ray.Store:
    return dataclasses.replace(beam_ray.open("store", models="models.yaml"), connection=connection)
