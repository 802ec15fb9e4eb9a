"""
Reviews: what people said of outputs. Files are only ever added.

    reviews/<workflow>/<time>-<id>.parquet      what one reviewer said at one time, created if absent and never changed

Of several reviews by one person of the same output and criterion, the newest counts; the others
stay. A review names its output by address and digest, and holds what the judge had said, so that
it stays true when the run's file is repaired with another answer.
"""

import datetime
import secrets
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import pyarrow as pa

from beam_ray.errors import Damaged
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.parquet import decode, encode
from beam_ray.store.review_table import REVIEWS, ReviewRow


def add_reviews(objects: Objects, workflow: str, rows: Sequence[ReviewRow]) -> str:
    """Keep the reviews of one workflow in a new file; its key."""
    body = encode(REVIEWS, rows)
    while True:
        key = f"reviews/{workflow}/{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}.parquet"
        if objects.create(key, body):
            return key


def read_reviews(objects: Objects, workflow: str | None = None) -> pa.Table:
    """
    Every review of the workflow, or of all, in the order in which they were made; as the table REVIEWS.

    Raises:
        Damaged: a file is not what was written.
    """
    tables = [REVIEWS.empty_table()]
    for name in [workflow] if workflow else objects.folders("reviews"):
        for key, _ in objects.keys(f"reviews/{name}/"):
            try:
                tables.append(_file(objects, key))
            except NotThere:
                continue
            except Damaged as error:
                raise Damaged(f"{error}\n  restore it from a copy of the store; if there is none, delete it: its reviews are lost, all others stay") from None
    return pa.concat_tables(tables)


_read: WeakKeyDictionary[Objects, dict[str, pa.Table]] = WeakKeyDictionary()
"""Files that were read. They never change, and whoever answers one question after the other would read all of them each time."""


def _file(objects: Objects, key: str) -> pa.Table:
    known = _read.setdefault(objects, {})
    if key not in known:
        known[key] = decode(objects.read(key), REVIEWS, key)
    return known[key]


def newest_reviews(objects: Objects, workflow: str) -> list[ReviewRow]:
    """The reviews of the workflow that count: of each reviewer, output and version of a criterion the newest one."""
    found: dict[tuple[str, ...], ReviewRow] = {}
    rows: list[ReviewRow] = read_reviews(objects, workflow).to_pylist()
    for row in sorted(rows, key=lambda row: row["reviewed_at"]):
        found[row["reviewer"], row["address"], row["output_digest"], row["criterion"], row["criterion_version"]] = row
    return list(found.values())
