"""
The tools of the agent in `payments.yaml`.

``EFFECTS`` says what each function may change; nothing of beam_ray is imported for it.
"""

import json
import os
from pathlib import Path
from typing import Any

EFFECTS = {"add_up": "none", "pay": "write"}


def add_up(amounts: list[float]) -> float:
    """
    Add amounts exactly.

    Args:
        amounts: Every amount of the document, discounts as negative numbers.
    """
    return round(sum(amounts), 2)


def pay(po_number: str, total: float) -> dict[str, Any]:
    """
    Pay an invoice. This cannot be undone.

    Args:
        po_number: The purchase order that the invoice belongs to, such as PO-12345.
        total: The amount to pay.
    """
    payment = {"po_number": po_number, "total": total}
    # appended to payments.jsonl in the folder BEAM_RAY_TOOL_ARCHIVE; without the variable the example leaves no traces
    folder = os.environ.get("BEAM_RAY_TOOL_ARCHIVE")
    if folder:
        with (Path(folder) / "payments.jsonl").open("a", encoding="utf-8") as payments:
            payments.write(json.dumps(payment) + "\n")
    return {"paid": True, **payment}
