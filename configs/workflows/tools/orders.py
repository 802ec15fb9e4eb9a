"""
The tools of the workflow `orders`.

The order book is a small CSV file next to this one; a real workflow would query an ERP system.
"""

import csv
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

ORDER_BOOK = Path(__file__).with_name("order_book.csv")


def find(po_number: str) -> dict[str, Any]:
    """
    Whether the order book has *po_number*, and its row.
    """
    order = _order_book().get(po_number.strip())
    return {"found": order is not None, "po_number": po_number, "order": order}


def confirm(order: dict[str, Any], vendor: str, total: float) -> dict[str, Any]:
    """
    The reply to a vendor whose order is known.
    """
    reply = f"Thank you, {vendor}. Your invoice over {total:.2f} is booked on order {order['po_number']} of {order['ordered']}."
    return {"reply": reply, "due_days": order["due_days"]}


def escalate(po_number: str, vendor: str, total: float) -> dict[str, Any]:
    """
    The note to the person who clears up an unknown order.
    """
    return {"queue": "purchasing", "note": f"No order {po_number!r} in the order book. {vendor} asks for {total:.2f}."}


def archive(po_number: str, vendor: str, total: float, answer: dict[str, Any]) -> dict[str, Any]:
    """
    The record, also appended to `records.jsonl` in the folder BEAM_RAY_TOOL_ARCHIVE, if that is set.

    Without the variable nothing is written, so that the example leaves no traces.
    """
    record = {"po_number": po_number, "vendor": vendor, "total": total, "answer": answer}
    folder = os.environ.get("BEAM_RAY_TOOL_ARCHIVE")
    if folder:
        with (Path(folder) / "records.jsonl").open("a", encoding="utf-8") as records:
            records.write(json.dumps(record, ensure_ascii=False) + "\n")
    return {"record": record, "kept": bool(folder)}


@cache
def _order_book() -> dict[str, dict[str, Any]]:
    with ORDER_BOOK.open(encoding="utf-8", newline="") as rows:
        return {row["po_number"]: {**row, "due_days": int(row["due_days"])} for row in csv.DictReader(rows)}
