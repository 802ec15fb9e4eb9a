"""
The table of calls: one row per request that an agent or a program made to a model or a tool.

While a run goes on, a step's row carries its calls in the column ``call_rows``, so that a step
and its calls are committed together; when the run is merged they become files of their own:

    runs/<run_id>/calls/<node>-<n>.parquet
"""

import datetime
from collections.abc import Iterable
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.store.columns import UTC, column

CALL = pa.struct(
    [
        column("attempt", pa.int32(), "the attempt that made it; 1 is the first"),
        column("number", pa.int32(), "its place in the attempt, by the order in which calls began; 1 is the first"),
        column("kind", pa.string(), "model, embedding or tool"),
        column("name", pa.string(), "the model's name in the models file, or the tool's"),
        column("api", pa.string(), "chat, responses or embeddings; null for a tool"),
        column("request", pa.string(), "JSON: the body as sent, or the tool's arguments; null where it is kept as an attachment"),
        column("request_sha256", pa.string(), "the attachment that is the request, where it is over 1 MB"),
        column("reply", pa.string(), "JSON: what came back, as it came; null where nothing did, or where it is kept as an attachment"),
        column("reply_sha256", pa.string(), "the attachment that is the reply, where it is over 1 MB"),
        column("fingerprint", pa.string(), "identifies what was asked, so that a later call can be answered from this one"),
        column("occurrence", pa.int32(), "its number among the attempt's calls with this fingerprint; 1 is the first"),
        column("source", pa.string(), "where the answer came from: live, recorded, static (given in the spec) or refused (not available in a test)"),
        column("recorded_from", pa.string(), "address of the attempt whose recorded answer this is"),
        column("effects", pa.string(), "of the tool: none, read or write; null for a model"),
        column("error", pa.string(), "what went wrong"),
        column("started_at", UTC, "when it began"),
        column("ended_at", UTC, "when it ended"),
        column("seconds", pa.float64(), "that the answer took when it was made, waiting for permits left out"),
        column("waited", pa.float64(), "seconds spent waiting for permits"),
        column("calls", pa.int32(), "HTTP calls made in this run, retries included; 0 for a tool, or where the source is not live"),
        column("input_tokens", pa.int64(), "of the answer, whoever paid for it; paid in this run where the source is live"),
        column("output_tokens", pa.int64(), "as input_tokens"),
        column("cached_tokens", pa.int64(), "input tokens read from the provider's cache; null when not reported"),
        column("reasoning_tokens", pa.int64(), "output tokens that were reasoning; null when not reported"),
        column("usd", pa.float64(), "of the answer, as input_tokens; null when the model has no price"),
        column("estimated", pa.bool_(), "the endpoint reported no usage: tokens and usd are estimates"),
    ]
)

_PLACE = [
    column("run_id", pa.string(), "the run"),
    column("task_id", pa.string(), "the task, as named in its source"),
    column("node", pa.string(), "the node of the workflow"),
    column("trial", pa.int32(), "1 is the first"),
]

_OWNER = tuple(field.name for field in _PLACE)

CARRIED = [*_OWNER, "call_rows"]
"""Columns of a part that the table CALLS is made from."""

CALLS = pa.schema([*_PLACE, *CALL], metadata={"beam_ray": "calls/1"})


class CallRow(TypedDict):
    """A CALL struct as a dict; the schema explains the columns."""

    attempt: int
    number: int
    kind: str
    name: str
    api: str | None
    request: str | None
    request_sha256: str | None
    reply: str | None
    reply_sha256: str | None
    fingerprint: str
    occurrence: int
    source: str
    recorded_from: str | None
    effects: str | None
    error: str | None
    started_at: datetime.datetime
    ended_at: datetime.datetime
    seconds: float
    waited: float
    calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int | None
    reasoning_tokens: int | None
    usd: float | None
    estimated: bool


class _Place(TypedDict):
    run_id: str
    task_id: str
    node: str
    trial: int


class PlacedCallRow(_Place, CallRow):
    """A row of CALLS as a dict: a call, and the step that made it."""


def attachments_in(calls: pa.Table) -> set[str]:
    """The sha256 of the attachments that are requests and replies of the *calls*."""
    return {sha256 for name in ("request_sha256", "reply_sha256") for sha256 in calls[name].drop_null().unique().to_pylist()}


def carried(calls: Iterable[PlacedCallRow]) -> dict[tuple[str, int], list[CallRow]]:
    """Task and trial to its calls, as the column ``call_rows`` has them."""
    found: dict[tuple[str, int], list[CallRow]] = {}
    for row in calls:
        found.setdefault((row["task_id"], row["trial"]), []).append(unplaced(row))
    return found


def unplaced(row: PlacedCallRow) -> CallRow:
    """The call without the step that made it."""
    call: CallRow = {name: value for name, value in row.items() if name not in _OWNER}  # type: ignore[assignment]
    return call


def calls_of(steps: pa.Table) -> pa.Table:
    """The table CALLS of *steps* that carry their calls in the column ``call_rows``, in the order of the steps."""
    carried = steps["call_rows"].combine_chunks()
    owners = pc.list_parent_indices(carried)
    columns = [steps[field.name].take(owners) for field in _PLACE]
    return pa.Table.from_arrays([*columns, *carried.flatten().flatten()], schema=CALLS)
