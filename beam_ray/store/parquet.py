"""
Parquet files that detect damage.

Every file carries checksums of itself in its footer's metadata, one for each piece that was
written and one for the footer, and they are verified on every read: Parquet's own page
checksums miss nearly half of all flipped bits. Of a damaged file whose footer is intact,
the intact pieces can still be read.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import Damaged

ROW_GROUP = 2_000
"""Rows from which a merged file's row group is closed."""

GROUP_BYTES = 64_000_000
"""Bytes, not yet compressed, from which it is closed earlier."""

SMALL_BYTES = 100_000
"""Bytes up to which a table is not compressed: of so many small columns none gets smaller, and it takes as long as everything else."""


def encode(schema: pa.Schema, rows: Iterable[Mapping[str, object]] | pa.Table, *, row_group: int = 50_000) -> bytes:
    """The rows as one Parquet file. Equal rows give equal bytes."""
    table = rows if isinstance(rows, pa.Table) else to_table(schema, rows)
    file = _File(schema, compressed=table.nbytes > SMALL_BYTES)
    # each row group is a piece, so that it can be read and verified without the others
    for start in range(0, max(table.num_rows, 1), row_group):
        file.write(table.slice(start, row_group), row_group)
    return file.close()


def encode_batches(schema: pa.Schema, tables: Iterable[pa.Table], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """The tables as Parquet files of about *max_bytes*, each with its number of rows."""
    file: _File | None = None
    for table in _gathered(tables):
        # a file that is begun with a small table ends with it: larger ones follow in pieces of a row group
        file = file or _File(schema, compressed=table.nbytes > SMALL_BYTES)
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
        if sum(each.num_rows for each in waiting) >= ROW_GROUP or sum(each.nbytes for each in waiting) >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


_PIECES, _SEAL = "beam_ray.pieces", "beam_ray.seal"

_MARK = b"sha256 of the footer: "

_BLANK = _MARK + b"0" * 64


class _File:
    """A Parquet file in the making, which gets its seals at the end."""

    def __init__(self, schema: pa.Schema, *, compressed: bool = True):
        self._sink = io.BytesIO()
        kind: JsonObject = {"compression": "zstd", "compression_level": 3} if compressed else {"compression": "none"}
        self._writer = pq.ParquetWriter(self._sink, schema, write_page_checksum=True, **kind)
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
        self._sink.seek(self.written)
        footer = self._sink.read()
        place = self.written + footer.rindex(_BLANK) + len(_MARK)
        # the seal is as long as what it takes the place of, so nothing in the footer moves; written in place, the file is in memory once
        self._sink.seek(place)
        self._sink.write(hashlib.sha256(footer).hexdigest().encode())
        return self._sink.getvalue()


class Piece(NamedTuple):
    """A part of a file that was written at once, as the footer says."""

    start: int
    stop: int
    sha256: str


def footer_of(tail: bytes, where: str) -> bytes:
    """
    The footer of the file that ends with *tail*, with its length and the last mark.

    Raises:
        Damaged: there is none.
    """
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] != b"PAR1" or length > len(tail):
        raise Damaged(f"{where} is damaged: it does not end as a Parquet file does")
    return tail[-length:]


def pieces_of(footer: bytes, where: str) -> list[Piece]:
    """
    The pieces of the file that has this footer.

    Raises:
        Damaged: the footer is not what was written, so that nothing can be said of the pieces.
    """
    _require_sealed(footer, where)
    return _pieces(pq.read_metadata(pa.BufferReader(b"PAR1" + footer)))


def _require_sealed(footer: bytes, where: str) -> None:
    found = [*re.finditer(_MARK + b"([0-9a-f]{64})", footer)][-1:]
    if not found or hashlib.sha256(footer.replace(found[0][0], _BLANK)).hexdigest().encode() != found[0][1]:
        raise Damaged(f"{where} is damaged: its footer is not what was written")


def _pieces(metadata: pq.FileMetaData) -> list[Piece]:
    pieces, first = [], 0
    for stop, sha in json.loads(metadata.metadata[_PIECES.encode()]):
        pieces.append(Piece(first, stop, sha))
        first = stop
    return pieces


def _sealed_file(body: bytes, where: str) -> tuple[pq.ParquetFile, list[tuple[int, int, bool]]]:
    """
    The file in *body*, and start and stop of each of its pieces, and whether it is what was written.

    Raises:
        Damaged: the footer is not, so that nothing can be said of the pieces.
    """
    start = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    _require_sealed(body[max(start, 0) :], where)
    # opened once: to translate its schema takes as long as to read a small file
    file = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
    digests = ((piece, hashlib.sha256(memoryview(body)[piece.start : piece.stop]).hexdigest()) for piece in _pieces(file.metadata))
    return file, [(piece.start, piece.stop, digest == piece.sha256) for piece, digest in digests]


def require_whole(body: bytes, where: str) -> None:
    """
    See that the file is what was written.

    Raises:
        Damaged: it is not.
    """
    _whole_file(body, where)


def _whole_file(body: bytes, where: str) -> pq.ParquetFile:
    try:
        file, pieces = _sealed_file(body, where)
        if all(whole for _, _, whole in pieces):
            return file
    except (pa.ArrowException, OSError, ValueError, KeyError):
        pass
    raise Damaged(f"{where} is damaged: some of its rows are not what was written")


def salvage(body: bytes, schema: pa.Schema, where: str) -> Iterator[tuple[int, pa.Table | None]]:
    """
    What can still be read of a damaged file: for each row group its number of rows, and the rows if they are sound.

    Raises:
        Damaged: nothing can.
    """
    file, pieces = _sealed_file(body, where)
    require_readable(file.schema_arrow, schema, where)
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        column = group.column(0)
        place = min(offset for offset in (column.dictionary_page_offset, column.data_page_offset) if offset is not None)
        sound = next(whole for start, stop, whole in pieces if start <= place < stop)
        yield group.num_rows, completed(file.read_row_group(number, use_threads=False), schema) if sound else None


def to_table(schema: pa.Schema, rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """The rows as a table; a column that a row lacks is null."""
    rows = list(rows)
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, UnicodeEncodeError):
        # text from models and tools may hold lone surrogates, which UTF-8 cannot
        return pa.Table.from_pylist([_sound(row) for row in rows], schema=schema)


def decode(body: bytes, schema: pa.Schema, where: str, columns: list[str] | None = None) -> pa.Table:
    """
    The table in *body*, or those *columns* of it: see ``only``.

    Raises:
        Damaged: a checksum does not match, or it is no Parquet file of this schema.
    """
    expected = schema if columns is None else only(schema, columns)
    try:
        file = _whole_file(body, where)
        # asked once: each look at the schema translates all of it anew
        there = file.schema_arrow
        require_readable(there, schema, where)
        names = set(there.names)
        # without threads: Arrow's pool now and then aborts a process that ends soon after
        # a read, and an abort would stand in the place of the exit code
        found = file.read(columns=[name for name in columns or schema.names if name.partition(".")[0] in names], use_threads=False)
        return completed(found, expected)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise Damaged(f"{where} is damaged: {(str(error).splitlines() or [type(error).__name__])[0]}") from None


def columns_of(body: bytes) -> list[str]:
    """The names of a file's columns; none where it cannot be read."""
    try:
        return list(pq.read_schema(pa.BufferReader(body)).names)
    except (pa.ArrowException, OSError):
        return []


def require_readable(written: pa.Schema, schema: pa.Schema, where: str) -> None:
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
        before[field.name].equals(field) or (_is_older(before[field.name].type, field.type) and before[field.name].nullable == field.nullable)
        if field.name in before
        else field.nullable
        for field in kind
    )


def only(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """The *columns* of the schema; of a list of structs also single fields, named ``column.list.element.field``."""
    found = []
    for name in dict.fromkeys(name.partition(".")[0] for name in columns):
        field = schema.field(name)
        if name not in columns:
            field = field.with_type(pa.list_(pa.struct([each for each in field.type.value_type if f"{name}.list.element.{each.name}" in columns])))
        found.append(field)
    return pa.schema(found)


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
