"""
Single row groups of a Parquet file in the store, each verified, without reading the others.

The manifest of a finished run vouches for a file's footer, the footer's seal for the footer itself, and the
footer for each piece. Files of version 0.1, of which the manifest knows no footer, are read and verified as a whole.
"""

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.errors import Damaged
from beam_ray.store.objects import Objects
from beam_ray.store.parquet import footer_of, pieces_of, require_readable
from beam_ray.store.tables import FileEntry

TAIL = 128_000
"""Bytes at the end of a file that are read first: small files are read at once, and most footers of larger ones."""

KEPT_BYTES = 8_000_000
"""Bytes of the row group that was read last, not compressed, up to which it stays in memory."""


class RowGroups:
    """A file's row groups. For one thread at a time; the piece that was read last stays in memory."""

    def __init__(self, objects: Objects, key: str, schema: pa.Schema, entry: FileEntry | None = None):
        """
        Args:
            schema: The columns that the file has, or had before some were added.
            entry: What the run's manifest says of it.

        Raises:
            NotThere: there is no such file.
            Damaged: it is not what was written.
        """
        self._objects, self._key = objects, key
        self._table: tuple[tuple[int, tuple[str, ...]], pa.Table] | None = None
        footer = self._read_footer(entry)
        try:
            self._pieces = pieces_of(footer, key)
            metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + footer))
            self._source = _Source(self._start + len(self._known))
            self._file = pq.ParquetFile(pa.PythonFile(self._source, mode="r"), metadata=metadata, pre_buffer=False)
            # asked once: each look at the schema translates all of it anew
            there = self._file.schema_arrow
            require_readable(there, schema, key)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise _damaged(key, error) from None
        self.rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        """Number of rows of each group."""
        self._names = set(there.names)

    def read(self, group: int, columns: list[str]) -> pa.Table:
        """
        The rows of a group, with those of the *columns* that the file has; of lists of structs, the fields named ``column.list.element.field``.

        Raises:
            Damaged: they are not what was written.
        """
        asked = group, tuple(columns)
        if self._table is None or self._table[0] != asked:
            self._load(group)
            try:
                table = self._file.read_row_group(group, columns=[name for name in columns if name.partition(".")[0] in self._names], use_threads=False)
            except (pa.ArrowException, OSError, ValueError, KeyError) as error:
                raise _damaged(self._key, error) from None
            if table.nbytes > KEPT_BYTES:
                return table
            self._table = asked, table
        return self._table[1]

    def _read_footer(self, entry: FileEntry | None) -> bytes:
        """The footer; the bytes that came with it are kept for the pieces."""
        if entry is not None and "footer" not in entry:
            self._start, self._known = 0, self._objects.read(self._key)
            if hashlib.sha256(self._known).hexdigest() != entry["sha256"]:
                raise Damaged(f"{self._key} is damaged: its sha256 is not the one in the manifest")
            return footer_of(self._known, self._key)
        tail = self._objects.read_range(self._key, -TAIL, TAIL)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if length > len(tail) == TAIL:
            tail = self._objects.read_range(self._key, -length, length)
        footer = footer_of(tail, self._key)
        if entry is not None and hashlib.sha256(footer).hexdigest() != entry["footer"]:
            raise Damaged(f"{self._key} is damaged: its footer is not the one in the manifest")
        pieces = pieces_of(footer, self._key)
        size = (pieces[-1].stop if pieces else 4) + len(footer)
        self._start, self._known = size - len(tail), tail
        return footer

    def _load(self, group: int) -> None:
        """Have the piece in memory that holds the group."""
        column = self._file.metadata.row_group(group).column(0)
        place = min(offset for offset in (column.dictionary_page_offset, column.data_page_offset) if offset is not None)
        piece = next(each for each in self._pieces if each.start <= place < each.stop)
        if self._source.start == piece.start:
            return
        if self._start <= piece.start:
            body = self._known[piece.start - self._start : piece.stop - self._start]
        else:
            body = self._objects.read_range(self._key, piece.start, piece.stop - piece.start)
        if hashlib.sha256(body).hexdigest() != piece.sha256:
            raise Damaged(f"{self._key} is damaged: some of its rows are not what was written")
        self._source.start, self._source.body = piece.start, body


class _Source(io.RawIOBase):
    """A file of which one piece is there."""

    def __init__(self, size: int):
        self._size, self._place = size, 0
        self.start, self.body = -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        first = self._place - self.start
        stop = len(self.body) if size < 0 else first + size
        if self.start < 0 or first < 0 or stop > len(self.body):
            raise OSError(f"bytes {self._place} to {self._place + size} are not in the piece that was read")
        self._place += stop - first
        return self.body[first:stop]


def _damaged(key: str, error: Exception) -> Damaged:
    return Damaged(f"{key} is damaged: {(str(error).splitlines() or [type(error).__name__])[0]}")
