"""
Marks: what people say of pairs of a backtest. Files are only ever added.

    backtests/<backtest>/marks/<time>-<id>.json     one mark of one person, created if absent and never changed

Of several marks by one person of the same pair the newest counts; the others stay. Nothing that
decides reads them: verdict and reports are what they were.
"""

import datetime
import secrets
from typing import TypedDict
from weakref import WeakKeyDictionary

from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import NotThere, Objects


class MarkDocument(TypedDict):
    """The content of a file of marks/."""

    candidate: str
    task: str
    trial: int
    mark: str
    note: str
    marked_by: str
    marked_at: str
    """ISO 8601, UTC."""


def add_mark(objects: Objects, backtest_id: str, mark: MarkDocument) -> None:
    """Keep the mark in a new file."""
    moment = datetime.datetime.fromisoformat(mark["marked_at"])
    while not objects.create(f"backtests/{backtest_id}/marks/{moment:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}.json", seal(mark)):
        pass


_read: WeakKeyDictionary[Objects, dict[str, MarkDocument]] = WeakKeyDictionary()
"""Files that were read; they never change."""


def read_marks(objects: Objects, backtest_id: str) -> list[MarkDocument]:
    """
    Every mark of the backtest, in the order in which they were made.

    Raises:
        Damaged: a file is not what was written.
    """
    known, found = _read.setdefault(objects, {}), []
    for key, _ in sorted(objects.keys(f"backtests/{backtest_id}/marks/")):
        try:
            if key not in known:
                known[key] = read_document(objects, key, MarkDocument)
        except NotThere:
            continue
        found.append(known[key])
    return found
