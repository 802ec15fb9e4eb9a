"""
A folder of this machine, private to its user, where what was read of a store is kept: under ``~/.cache/beam-ray``.

Nothing in it is believed without its digest, nor where another user of the machine could have written it, and
everything in it can be deleted at any time. A table is kept
so that it can be mapped into memory: what nobody looks at of it takes no memory.
"""

import contextlib
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

PIECE = 4_000_000
BATCH_ROWS = 10_000
"""Rows of a table that are written, and looked at, at once."""
_RUNS = b"beam_ray.runs"


class IndexCache:
    """The files kept of one store. A folder that cannot be written, or that others can write, keeps nothing."""

    def __init__(self, uri: str, folder: Path | None = None):
        self.remote = uri.startswith("s3://")
        """Whether reading from here is much quicker than from the store."""
        above = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        place = uri if self.remote else str(Path(uri).absolute())
        self.folder = folder or above / "beam-ray" / hashlib.sha256(place.encode()).hexdigest()[:16]

    def read(self, name: str) -> bytes | None:
        """A file of the folder; None where it is not there. Whether it is what was written, its content says."""
        with contextlib.suppress(OSError):
            return (self.folder / name).read_bytes() if self._is_ours else None
        return None

    def write(self, name: str, body: bytes) -> None:
        """Keep a file that nobody else on the machine may read: it has queries and outputs."""
        with contextlib.suppress(OSError):
            temporary = self._temporary(name)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(body)
            temporary.replace(self.folder / name)

    def map_table(self, name: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, int]] | None:
        """The table that was kept under that name, mapped into memory, with its rows by run; None where there is none, or it is damaged."""
        for path in sorted(self.folder.glob(f"{name}.*.arrow")) if self._is_ours else ():
            with contextlib.suppress(OSError, ValueError, KeyError, pa.ArrowException):
                if path.name == f"{name}.{_digest(path)}.arrow":
                    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
                    if table.schema.equals(schema):
                        return table, json.loads(table.schema.metadata[_RUNS])
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def keep_table(self, name: str, table: pa.Table, rows: dict[str, int]) -> tuple[pa.Table, dict[str, int]]:
        """Keep a table, and give it mapped into memory; as it is where it cannot be kept."""
        schema = table.schema.with_metadata({**(table.schema.metadata or {}), _RUNS: json.dumps(rows).encode()})
        try:
            temporary = self._temporary(name)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                kept = table.replace_schema_metadata(schema.metadata)
                # few batches, since each is a call more for every column that is looked at; all in one would be a copy of the whole
                for start in range(0, kept.num_rows, BATCH_ROWS):
                    writer.write_table(kept.slice(start, BATCH_ROWS).combine_chunks())
            temporary.replace(self.folder / f"{name}.{_digest(temporary)}.arrow")
        except OSError:
            return table, rows
        return self.map_table(name, table.schema) or (table, rows)

    def keep_only(self, names: Iterable[str], *suffixes: str) -> None:
        """Of the files with these suffixes, delete those of other names: what they were made of is gone."""
        wanted = set(names)
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir() if self._is_ours else ():
                if path.suffix in suffixes and path.name.partition(".")[0] not in wanted:
                    path.unlink(missing_ok=True)

    @property
    def _is_ours(self) -> bool:
        """Whether the folder is this user's, and nobody else can write it: whoever can may say what is in a run."""
        with contextlib.suppress(OSError):
            status = self.folder.lstat()
            return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        return False

    def _temporary(self, name: str) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._is_ours:
            raise PermissionError(f"others can write {self.folder}")
        return self.folder / f".{name}.{uuid.uuid4().hex}"


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            sha.update(piece)
    return sha.hexdigest()[:32]
