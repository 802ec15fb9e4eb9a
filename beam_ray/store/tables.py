"""
The tables of the store: one explicit, versioned schema each, every column explained.

Nothing is inferred: a first shard of nulls must not decide a type. Every file carries
digests of itself in its footer's metadata, one for each piece that was written and one for
the footer, and they are verified on every read: of flipped bits nearly half would go
unnoticed. Of a file whose footer is whole, the sound pieces can still be read.
"""

import datetime
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.errors import Damaged

ROW_GROUP = 2_000
"""Rows from which a merged file's row group is closed."""

_UTC = pa.timestamp("us", tz="UTC")


def _column(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"meaning": meaning})


CRITERION = pa.struct(
    [
        _column("id", pa.string(), "names the criterion within its node"),
        _column("text", pa.string(), "what must hold"),
        _column("met", pa.bool_(), "whether it holds; null when that could not be decided"),
        _column("reason", pa.string(), "why, in the judge's or the rule's words"),
        _column("judge", pa.string(), "the model that judged; null for a rule"),
        _column("weight", pa.float64(), "its share in the score"),
    ]
)

ATTEMPT = pa.struct(
    [
        _column("number", pa.int32(), "1 is the first"),
        _column("output", pa.string(), "JSON; null when there was none"),
        _column("score", pa.float64(), "0 to 100; null when unscored"),
        _column("error", pa.string(), "what went wrong"),
        _column("seconds", pa.float64(), "from request to answer, waiting for permits left out"),
        _column("input_tokens", pa.int64(), "of the model call"),
        _column("output_tokens", pa.int64(), "of the model call"),
        _column("usd", pa.float64(), "of the model call; null when the model has no price"),
        _column("temperature", pa.float64(), "as sent; null for the model's own"),
        _column("seed", pa.int64(), "as sent"),
        _column("criteria", pa.list_(CRITERION), "how this attempt was judged"),
        _column("cached_tokens", pa.int64(), "input tokens read from the provider's cache; null when not reported"),
        _column("reasoning_tokens", pa.int64(), "output tokens that were reasoning; null when not reported"),
        _column("estimated", pa.bool_(), "the endpoint reported no usage: tokens and usd are estimates"),
        _column("reasoning", pa.string(), "what the model wrote while thinking, kept apart from the output; null when none was returned"),
    ]
)

STEPS = pa.schema(
    [
        _column("run_id", pa.string(), "the run"),
        _column("task_id", pa.string(), "the task, as named in its source"),
        _column("node", pa.string(), "the node of the workflow"),
        _column("trial", pa.int32(), "1 is the first"),
        _column("outcome", pa.string(), "done, failed, skipped or borrowed"),
        _column("score", pa.float64(), "0 to 100, the weighted share of criteria met; null when unscored"),
        _column("passed", pa.bool_(), "the score reaches the threshold; null when unscored or without output"),
        _column("shard", pa.int32(), "the shard of the run that the row belongs to"),
        _column("fingerprint", pa.string(), "identifies everything that may change the output"),
        _column("criteria_fingerprint", pa.string(), "identifies everything that may change the score of that output"),
        _column("borrowed_from", pa.string(), "address of the step whose output this is"),
        _column("inputs", pa.string(), "digest of what the node was given"),
        _column("output", pa.string(), "JSON; null when there is none"),
        _column("route", pa.string(), "label of the route taken"),
        _column("reason", pa.string(), "why the step was skipped, executed or borrowed"),
        _column("unscored", pa.string(), "why there is no score"),
        _column("review", pa.bool_(), "flagged for a person"),
        _column("threshold", pa.float64(), "the score from which it passes; null without criteria"),
        _column("criteria", pa.list_(CRITERION), "how the output was judged"),
        _column("attempts", pa.list_(ATTEMPT), "every try, in order"),
        _column("first_score", pa.float64(), "the score of the first attempt"),
        _column("started_at", _UTC, "when the step began"),
        _column("ended_at", _UTC, "when it ended"),
        _column("seconds", pa.float64(), "spent in model or tool, all attempts, waiting for permits left out"),
        _column("waited", pa.float64(), "seconds spent waiting for permits"),
        _column("calls", pa.int32(), "model calls made for the output, retries included"),
        _column("input_tokens", pa.int64(), "of those calls"),
        _column("output_tokens", pa.int64(), "of those calls"),
        _column("usd", pa.float64(), "of those calls; null when the model has no price"),
        _column("judge_calls", pa.int32(), "model calls made to judge"),
        _column("judge_input_tokens", pa.int64(), "of those calls"),
        _column("judge_output_tokens", pa.int64(), "of those calls"),
        _column("judge_usd", pa.float64(), "of those calls; null when the judge has no price"),
        _column("cached_tokens", pa.int64(), "input tokens read from the provider's cache, judges included; null when not reported"),
        _column("reasoning_tokens", pa.int64(), "output tokens that were reasoning, judges included; null when not reported"),
        _column("estimated_calls", pa.int32(), "calls without reported usage, judges included, whose tokens and usd are estimates"),
        _column("work_seconds", pa.float64(), "what the output takes in model or tool, whoever paid for it"),
        _column("work_calls", pa.int32(), "model calls that the output and its score take, whoever paid"),
        _column("work_tokens", pa.int64(), "tokens of those calls"),
        _column("work_usd", pa.float64(), "US dollars of those calls; null when a model has no price"),
        _column("error_type", pa.string(), "kind of error"),
        _column("error", pa.string(), "what went wrong"),
    ],
    metadata={"beam_ray": "steps/1"},
)

OUTCOME = pa.schema(
    [
        _column("run_id", pa.string(), "the run"),
        _column("task_id", pa.string(), "the task"),
        _column("trial", pa.int32(), "1 is the first"),
        _column("outcome", pa.string(), "done, or failed when any step failed"),
        _column("passed", pa.bool_(), "no step failed and every scored step passed"),
        _column("score", pa.float64(), "mean of the scored steps' scores; null when none is scored"),
        _column("first_score", pa.float64(), "the same over first attempts"),
        _column("inputs", pa.string(), "digest of the task's query, variables and attachments"),
        _column("labels", pa.list_(pa.string()), "the task's labels"),
        _column("routes", pa.list_(pa.string()), "labels of the routes taken, in order"),
        _column("path", pa.list_(pa.string()), "nodes that ran or were borrowed, in order"),
        _column("output", pa.string(), "JSON: the outputs of the last nodes by name, tools that write left out"),
        _column("steps_done", pa.int32(), "steps executed"),
        _column("steps_borrowed", pa.int32(), "steps borrowed"),
        _column("steps_failed", pa.int32(), "steps failed"),
        _column("steps_skipped", pa.int32(), "steps skipped"),
        _column("steps_unscored", pa.int32(), "steps with output and criteria but no score"),
        _column("auto_reruns", pa.int32(), "attempts beyond the first, over all steps"),
        _column("auto_rerun_tokens", pa.int64(), "tokens of those attempts, judges left out"),
        _column("auto_rerun_usd", pa.float64(), "US dollars of those attempts, judges left out; null when a model has no price"),
        _column("review", pa.bool_(), "some step is flagged for a person"),
        _column("seconds", pa.float64(), "spent in models and tools, over all steps"),
        _column("calls", pa.int32(), "model calls made, judges included"),
        _column("input_tokens", pa.int64(), "of those calls"),
        _column("output_tokens", pa.int64(), "of those calls"),
        _column("usd", pa.float64(), "of those calls; null when a model has no price"),
        _column("cached_tokens", pa.int64(), "input tokens read from the provider's cache; null when not reported"),
        _column("reasoning_tokens", pa.int64(), "output tokens that were reasoning; null when not reported"),
        _column("estimated_calls", pa.int32(), "calls without reported usage, whose tokens and usd are estimates"),
        _column("work_seconds", pa.float64(), "what the task takes in model or tool, whoever paid for it"),
        _column("work_calls", pa.int32(), "model calls that the task takes, whoever paid"),
        _column("work_tokens", pa.int64(), "tokens of those calls"),
        _column("work_usd", pa.float64(), "US dollars of those calls; null when a model has no price"),
        _column("started_at", _UTC, "when its first step began"),
        _column("ended_at", _UTC, "when its last step ended"),
        _column("error", pa.string(), "the first failed step's error"),
    ],
    metadata={"beam_ray": "outcome/1"},
)

TASKS = pa.schema(
    [
        _column("task_id", pa.string(), "names the task; pairs it with itself in other runs"),
        _column("task_query", pa.string(), "the trigger input: the text, or JSON"),
        _column("query_is_json", pa.bool_(), "the query is a JSON value and not a text"),
        _column("variables", pa.string(), "JSON object"),
        _column("expected", pa.string(), "JSON: the expected outcome; null when there is none"),
        _column("labels", pa.list_(pa.string()), "free words"),
        _column(
            "attachments",
            pa.list_(pa.struct([("name", pa.string()), ("sha256", pa.string()), ("media_type", pa.string()), ("bytes", pa.int64())])),
            "files, kept by content",
        ),
        _column("inputs", pa.string(), "digest of query, variables and attachments"),
        _column("origin", pa.string(), "address of the task that this one redoes, or was saved from"),
        _column("tests", pa.string(), "the node or route that it is there to test"),
        _column("notes", pa.string(), "free text"),
        _column("recorded", pa.string(), "JSON object: what production answered, of a task that was a trace; null for other tasks"),
    ],
    metadata={"beam_ray": "tasks/1"},
)


class CriterionRow(TypedDict):
    """A CRITERION struct as a dict."""

    id: str
    text: str
    met: bool | None
    reason: str
    judge: str | None
    weight: float


class AttemptRow(TypedDict):
    """An ATTEMPT struct as a dict."""

    number: int
    output: str | None
    score: float | None
    error: str | None
    seconds: float
    input_tokens: int
    output_tokens: int
    usd: float | None
    temperature: float | None
    seed: int | None
    criteria: list[CriterionRow]
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool | None
    reasoning: str | None


class StepRow(TypedDict):
    """A row of STEPS as a dict; the schema explains the columns."""

    run_id: str
    task_id: str
    node: str
    trial: int
    outcome: str
    score: float | None
    passed: bool | None
    shard: int
    fingerprint: str | None
    criteria_fingerprint: str | None
    borrowed_from: str | None
    inputs: str | None
    output: str | None
    route: str | None
    reason: str | None
    unscored: str | None
    review: bool
    threshold: float | None
    criteria: list[CriterionRow]
    attempts: list[AttemptRow]
    first_score: float | None
    started_at: datetime.datetime
    ended_at: datetime.datetime
    seconds: float
    waited: float
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    judge_calls: int
    judge_input_tokens: int
    judge_output_tokens: int
    judge_usd: float | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated_calls: int | None
    work_seconds: float
    work_calls: int
    work_tokens: int
    work_usd: float | None
    error_type: str | None
    error: str | None


class OutcomeRow(TypedDict):
    """A row of OUTCOME as a dict; the schema explains the columns."""

    run_id: str
    task_id: str
    trial: int
    outcome: str
    passed: bool
    score: float | None
    first_score: float | None
    inputs: str
    labels: list[str]
    routes: list[str]
    path: list[str]
    output: str
    steps_done: int
    steps_borrowed: int
    steps_failed: int
    steps_skipped: int
    steps_unscored: int
    auto_reruns: int
    auto_rerun_tokens: int
    auto_rerun_usd: float | None
    review: bool
    seconds: float
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated_calls: int | None
    work_seconds: float
    work_calls: int
    work_tokens: int
    work_usd: float | None
    started_at: datetime.datetime
    ended_at: datetime.datetime
    error: str | None


class AttachmentRow(TypedDict):
    """An attachment of a task; its content is stored under its digest."""

    name: str
    sha256: str
    media_type: str
    bytes: int


class TaskRow(TypedDict):
    """A row of TASKS as a dict; the schema explains the columns."""

    task_id: str
    task_query: str
    query_is_json: bool
    variables: str
    expected: str | None
    labels: list[str]
    attachments: list[AttachmentRow]
    inputs: str
    origin: str | None
    tests: str | None
    notes: str | None
    recorded: str | None


class FileEntry(TypedDict):
    """What a run's manifest says of one of its files."""

    name: str
    rows: int
    bytes: int
    sha256: str


def encode(schema: pa.Schema, rows: Iterable[Mapping[str, Any]] | pa.Table, *, row_group: int = 50_000) -> bytes:
    """The rows as one Parquet file. Equal rows give equal bytes."""
    file = _File(schema)
    file.write(rows if isinstance(rows, pa.Table) else to_table(schema, rows), row_group)
    return file.close()


def encode_batches(schema: pa.Schema, tables: Iterable[pa.Table], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """The tables as Parquet files of about *max_bytes*, each with its number of rows."""
    file: _File | None = None
    for table in _gathered(tables):
        file = file or _File(schema)
        file.write(table)
        if file.written >= max_bytes:
            yield file.close(), file.rows
            file = None
    if file is not None:
        yield file.close(), file.rows


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables: each becomes a row group, and many small ones are mostly footer."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(each.num_rows for each in waiting) >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


class _File:
    """A Parquet file in the making, which gets its seals at the end."""

    def __init__(self, schema: pa.Schema):
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd", compression_level=3, write_page_checksum=True)
        self._pieces: list[tuple[int, str]] = []
        self.rows = self.written = 0

    def write(self, table: pa.Table, row_group: int | None = None) -> None:
        """A piece more."""
        self._writer.write_table(table, row_group_size=row_group)
        self.rows += table.num_rows
        start, self.written = self.written, self._sink.tell()
        self._sink.seek(start)
        self._pieces.append((self.written, hashlib.sha256(self._sink.read()).hexdigest()))

    def close(self) -> bytes:
        """The whole file."""
        self._writer.add_key_value_metadata({_PIECES: json.dumps(self._pieces), _SEAL: _BLANK.decode()})
        self._writer.close()
        body = self._sink.getvalue()
        place = body.rindex(_BLANK) + len(_MARK)
        # the seal is as long as what it takes the place of, so nothing in the footer moves
        seal = hashlib.sha256(memoryview(body)[self.written :]).hexdigest().encode()
        return b"".join([body[:place], seal, body[place + len(seal) :]])


_PIECES, _SEAL = "beam_ray.pieces", "beam_ray.seal"
_MARK = b"sha256 of the footer: "
_BLANK = _MARK + b"0" * 64


def _sound_pieces(body: bytes, where: str) -> list[tuple[int, int, bool]]:
    """
    Start and stop of each piece of the file, and whether it is what was written.

    Raises:
        Damaged: the footer is not, so that nothing can be said of the pieces.
    """
    start = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    footer = body[max(start, 0) :]
    found = [*re.finditer(_MARK + b"([0-9a-f]{64})", footer)][-1:]
    if not found or hashlib.sha256(footer.replace(found[0][0], _BLANK)).hexdigest().encode() != found[0][1]:
        raise Damaged(f"{where} is damaged: its footer is not what was written")
    metadata = pq.read_metadata(pa.BufferReader(body)).metadata
    pieces, first = [], 0
    for stop, sha in json.loads(metadata[_PIECES.encode()]):
        pieces.append((first, stop, hashlib.sha256(memoryview(body)[first:stop]).hexdigest() == sha))
        first = stop
    return pieces


def require_whole(body: bytes, where: str) -> None:
    """
    See that the file is what was written.

    Raises:
        Damaged: it is not.
    """
    try:
        if all(whole for _, _, whole in _sound_pieces(body, where)):
            return
    except (pa.ArrowException, OSError, ValueError, KeyError):
        pass
    raise Damaged(f"{where} is damaged: some of its rows are not what was written")


def salvage(body: bytes, schema: pa.Schema, where: str) -> Iterator[tuple[int, pa.Table | None]]:
    """
    What can still be read of a damaged file: for each row group its number of rows, and the rows if they are sound.

    Raises:
        Damaged: nothing can.
    """
    pieces = _sound_pieces(body, where)
    file = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
    _require_readable(file.schema_arrow, schema, where)
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        column = group.column(0)
        place = min(offset for offset in (column.dictionary_page_offset, column.data_page_offset) if offset is not None)
        sound = next(whole for start, stop, whole in pieces if start <= place < stop)
        yield group.num_rows, completed(file.read_row_group(number, use_threads=False), schema) if sound else None


def to_table(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table; a column that a row lacks is null."""
    rows = list(rows)
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, UnicodeEncodeError):
        # text from models and tools may hold lone surrogates, which UTF-8 cannot
        return pa.Table.from_pylist([_sound(row) for row in rows], schema=schema)


def decode(body: bytes, schema: pa.Schema, where: str, columns: list[str] | None = None) -> pa.Table:
    """
    The table in *body*.

    Raises:
        Damaged: a checksum does not match, or it is no Parquet file of this schema.
    """
    expected = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    try:
        require_whole(body, where)
        # without threads: Arrow's pool now and then aborts a process that ends soon after
        # a read, and an abort would stand in the place of the exit code
        file = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
        _require_readable(file.schema_arrow, schema, where)
        written = [name for name in expected.names if name in file.schema_arrow.names]
        return completed(file.read(columns=written, use_threads=False), expected)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise Damaged(f"{where} is damaged: {(str(error).splitlines() or [type(error).__name__])[0]}") from None


def _require_readable(written: pa.Schema, schema: pa.Schema, where: str) -> None:
    """
    Check that a file has the schema, or had it before columns were added to it.

    Raises:
        Damaged: it lacks a column that is never null, or has one of another type.
    """
    if not _is_older(pa.struct(list(written)), pa.struct(list(schema))):
        raise Damaged(f"{where} has other columns than this version of beam_ray writes")


def _is_older(written: pa.DataType, kind: pa.DataType) -> bool:
    """Whether *written* is *kind*, or was it before nullable fields were added."""
    if pa.types.is_list(written) and pa.types.is_list(kind):
        return _is_older(written.value_type, kind.value_type)
    if not (pa.types.is_struct(written) and pa.types.is_struct(kind)):
        return bool(written.equals(kind))
    before = {field.name: field for field in written}
    if list(before) != [field.name for field in kind if field.name in before]:
        return False
    return all(
        _is_older(before[field.name].type, field.type) and before[field.name].nullable == field.nullable if field.name in before else field.nullable
        for field in kind
    )


def completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the schema's columns in order; those that an older version did not write are null, which means unknown."""
    if table.schema.equals(schema):
        return table
    names = table.schema.names
    columns = [table[field.name].cast(field.type) if field.name in names else pa.nulls(table.num_rows, field.type) for field in schema]
    return pa.table(columns, schema=schema.with_metadata(table.schema.metadata))


def text(value: str | None) -> str | None:
    """*value* without lone surrogates, which no UTF-8 file can hold."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8") if any("\ud800" <= c <= "\udfff" for c in value) else value


def to_json(value: Any) -> str:
    """
    *value* as JSON text, in the order given.

    Raises:
        ValueError: it holds NaN, an infinity, or something that is not JSON.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {key: _sound(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sound(inner) for inner in value]
    return value
