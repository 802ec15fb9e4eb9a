"""
Files of tasks: which of them a path, a folder, a pattern, an S3 address or ``-`` names, and their bytes.
"""

import difflib
import fnmatch
import functools
import glob
import gzip
import io
import os
import posixpath
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from beam_ray.define.yaml_file import display_path
from beam_ray.errors import BadDefinition, Problem, Unusable
from beam_ray.store.attachments import keep_attachment, keep_bytes
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.s3 import S3
from beam_ray.store.tables import AttachmentRow
from beam_ray.tasks.rows import FREE

TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Endings of text files, which may be followed by .gz."""

SUFFIXES = (*TEXT, ".parquet", ".xlsx")
STANDARD_INPUT = "-"

MAX_GZIP_RATIO = 200
"""Bytes that one byte of a .gz file may stand for, beyond FREE of them."""

MAX_STANDARD_INPUT = 4_000_000_000

Attach = Callable[[str, Objects], AttachmentRow]
"""Keeps the attachment that a task names; raises OSError, ValueError, or Unusable with what is wrong with it."""


@dataclass(frozen=True)
class TaskFile:
    """A file of tasks."""

    name: str
    """As messages show it."""
    suffix: str
    """Says how it is read: one of SUFFIXES."""
    read: Callable[[], BinaryIO]
    """Opens its bytes, in which one can seek."""
    attach: Attach
    packed: bool = False
    """Whether the bytes are gzip."""

    def open(self) -> BinaryIO:
        """Its bytes, unpacked."""
        stream = self.read()
        return cast(BinaryIO, io.BufferedReader(_Unpacked(stream, self.name))) if self.packed else stream


def find_files(source: str, folder: Path) -> list[TaskFile]:
    """
    The files that *source* names: one, or those of a folder or a pattern in order of their names.

    Args:
        folder: Where a relative path is looked for first; the working folder follows.

    Raises:
        Unusable: there is no such file, or it is of no kind that can be read.
    """
    if source == STANDARD_INPUT:
        return [_standard_input()]
    if source.startswith("s3://"):
        return _s3_files(source)
    places = dict.fromkeys([folder / source, Path.cwd() / source])
    for path in places:
        if path.is_file():
            return [_local(path)]
        if path.is_dir():
            found = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".") and _suffix(entry.name))
            if not found:
                raise Unusable(f"{source}: there are no tasks files in this folder; they end in {', '.join(SUFFIXES)}")
            return [_local(entry) for entry in found]
        book, _, sheet = str(path).rpartition("#")
        if book.endswith(".xlsx") and Path(book).is_file():
            return [_local(Path(book), sheet)]
    if glob.has_magic(source):
        found = next(filter(None, (sorted(map(Path, filter(os.path.isfile, glob.glob(str(path), recursive=True)))) for path in places)), [])
        if not found:
            raise Unusable(f"{source}: no file matches this pattern")
        return [_local(path) for path in found]
    _require_suffix(source)
    path = Path(source)
    parent = next((each.parent for each in places if each.parent.is_dir()), None)
    near = difflib.get_close_matches(path.name, [entry.name for entry in parent.glob("*")], 1) if parent else []
    raise Unusable(f"{source}: there is no such file" + (f"\n  did you mean {near[0]!r}?" if near else ""))


def names_many(source: str, folder: Path) -> bool:
    """Whether *source* is a folder or a pattern, so that a reader wants to know how many files it names."""
    if source.startswith("s3://"):
        return source.endswith("/") or glob.has_magic(source)
    return not any(os.path.isfile(path) or "#" in source for path in (folder / source, source))


def attach_from(folder: Path) -> Attach:
    """Keeps attachments that lie in *folder*."""
    folder = folder.resolve()

    def attach(name: str, objects: Objects) -> AttachmentRow:
        path = (folder / name).resolve()
        # a task is data from strangers, and what it attaches is sent to a model
        if not path.is_relative_to(folder):
            raise Unusable("lies outside the folder of the tasks file; copy it there")
        if path.exists() and not path.is_file():
            raise Unusable("is not a file")
        return keep_attachment(path, objects)

    return attach


def _suffix(name: str) -> str:
    """The ending of a tasks file without .gz; empty where it is none."""
    bare = name.removesuffix(".gz")
    suffix = posixpath.splitext(bare)[1]
    return suffix if suffix in (TEXT if bare != name else SUFFIXES) else ""


def _require_suffix(name: str) -> str:
    suffix = _suffix(name)
    if not suffix:
        packed = "; .gz may follow, but not after .parquet or .xlsx" if name.endswith(".gz") else ""
        raise Unusable(f"{name}: a tasks file ends in {', '.join(SUFFIXES)}{packed}")
    return suffix


def _local(path: Path, sheet: str = "") -> TaskFile:
    name = display_path(path)
    suffix = _require_suffix(name)
    return TaskFile(f"{name}#{sheet}" if sheet else name, suffix, lambda: path.open("rb"), attach_from(path.parent), name.endswith(".gz"))


# -- S3 -----------------------------------------------------------------------------------


def _s3_files(source: str) -> list[TaskFile]:
    bucket, _, key = source.removeprefix("s3://").partition("/")
    objects = S3(f"s3://{bucket}")
    if not key.endswith("/") and not glob.has_magic(key):
        _require_suffix(key)
        return [_s3_file(objects, key)]
    if key.endswith("/") or not key:
        found = [name for name, _ in objects.keys(key) if "/" not in name.removeprefix(key) and _suffix(name)]
    else:
        start = key[: min(key.find(sign) for sign in "*?[" if sign in key)]
        # as on a disk: * stays in one folder unless it is doubled
        found = [name for name, _ in objects.keys(start) if fnmatch.fnmatchcase(name, key) and ("**" in key or name.count("/") == key.count("/"))]
    if not found:
        raise Unusable(f"{source}: there are no tasks files")
    return [_s3_file(objects, name) for name in sorted(found)]


def _s3_file(objects: S3, key: str) -> TaskFile:
    name = f"{objects.uri}/{key}"

    def read() -> BinaryIO:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (its reader closes it)
        try:
            objects.download(key, file)
        except NotThere:
            file.close()
            raise Unusable(f"{name}: there is no such object") from None
        file.seek(0)
        return cast(BinaryIO, file)

    def attach(written: str, into: Objects) -> AttachmentRow:
        folder = posixpath.dirname(key)
        beside = posixpath.normpath(posixpath.join(folder, written))
        if written.startswith("/") or not f"{beside}/".startswith(f"{folder}/" if folder else "") or beside.startswith(".."):
            raise Unusable("lies outside the folder of the tasks file; copy it there")
        try:
            return keep_bytes(posixpath.basename(beside), objects.read(beside), into)
        except NotThere:
            raise Unusable("cannot be read (there is no such object)") from None

    return TaskFile(name, _require_suffix(key), read, attach, key.endswith(".gz"))


# -- standard input -----------------------------------------------------------------------


def _standard_input() -> TaskFile:
    kept = _kept(sys.stdin)

    def read() -> BinaryIO:
        kept.seek(0)
        return cast(BinaryIO, os.fdopen(os.dup(kept.fileno()), "rb"))

    with read() as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    file = TaskFile("standard input", ".jsonl", read, attach_from(Path.cwd()), packed)
    with file.open() as stream:
        head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    first = head.partition(b"\n")[0]
    kinds = {b"{": ".jsonl", b"[": ".json", b"": ".jsonl", b"P": ".parquet" if head.startswith(b"PAR1") else ".xlsx" if head.startswith(b"PK") else ".csv"}
    suffix = kinds.get(head[:1], ".tsv" if b"\t" in first and b"," not in first else ".csv")
    return TaskFile(file.name, suffix, read, file.attach, packed)


@functools.lru_cache(maxsize=1)
def _kept(stream: Any) -> Any:
    """What came in, in a file that can be read again: a pipe gives it once, and a command may need it twice."""
    if stream is None or stream.isatty():
        raise Unusable("--tasks -: standard input is a terminal; pipe the tasks into the command, or name a file")
    file = tempfile.TemporaryFile()  # noqa: SIM115 (kept as long as the process)
    source = stream.buffer
    while piece := source.read(1_000_000):
        file.write(piece)
        if file.tell() > MAX_STANDARD_INPUT:
            raise Unusable(f"--tasks -: standard input holds more than {MAX_STANDARD_INPUT:,} bytes; save it as a file")
    file.flush()
    return file


# -- gzip ---------------------------------------------------------------------------------


class _Unpacked(io.RawIOBase):
    """What a gzip stream holds; refuses one that holds far more than its size lets expect."""

    def __init__(self, stream: BinaryIO, name: str):
        self.name, self.stream = name, stream
        self.most = max(FREE, MAX_GZIP_RATIO * stream.seek(0, 2))
        stream.seek(0)
        self.gzip = gzip.GzipFile(fileobj=stream)
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self.gzip.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._refused(f"the gzip file is cut off or damaged ({error})") from None
        self.count += count
        if self.count > self.most:
            raise self._refused(f"it holds more than {MAX_GZIP_RATIO} times as much as its size; unpack it first")
        return int(count)

    def close(self) -> None:
        self.stream.close()
        super().close()

    def _refused(self, text: str) -> BadDefinition:
        return BadDefinition(problems=[Problem(self.name, 0, 0, text)])
