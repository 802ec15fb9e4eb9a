"""The JSON documents of a file: one document, a list of them, or one a line, each with its line."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from beam_ray.errors import BadDefinition, Problem, Unusable
from beam_ray.tasks.traces.trace import Json

MAX_DOCUMENT = 64_000_000
"""Bytes of a line, or of a file that is one document."""

_TOO_LARGE = f"more than {MAX_DOCUMENT // 1_000_000} MB in one document; export fewer traces at a time, or one a line"


def documents(path: Path) -> Iterator[tuple[int, Json]]:
    """
    Line and document, in order; the elements of a list count as documents of its line.

    Raises:
        BadDefinition: the file is not JSON; with the line.
        Unusable: it cannot be opened.
    """
    name = str(path)
    try:
        with _open(path) as file:
            first = _line(file, name, 1)
            while first and not first.strip():
                first = _line(file, name, 1)
            if _is_whole_document(first):
                yield from _whole(first + file.read(MAX_DOCUMENT + 1), name)
                return
            number, raw = 1, first
            while raw:
                if raw.strip():
                    yield number, _loads(raw, name, number)
                number += 1
                raw = _line(file, name, number)
    except (gzip.BadGzipFile, EOFError) as error:
        raise BadDefinition(problems=[Problem(name, 1, 1, f"the gzip file is truncated or damaged ({error})")]) from None
    except OSError as error:
        raise Unusable(f"{name}: cannot be read ({error.strerror or error})") from None


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _line(file: IO[bytes] | gzip.GzipFile, name: str, number: int) -> bytes:
    raw = file.readline(MAX_DOCUMENT + 1)
    if len(raw) > MAX_DOCUMENT:
        raise BadDefinition(problems=[Problem(name, number, 1, _TOO_LARGE)])
    return raw


def _is_whole_document(first: bytes) -> bool:
    """Whether the file is one document over several lines: its first line is no document by itself, or is a list."""
    if first.lstrip()[:1] == b"[":
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return first.strip()[:1] == b"{" and first.rstrip()[-1:] in (b"{", b"[", b",")
    return False


def _whole(body: bytes, name: str) -> Iterator[tuple[int, Json]]:
    if len(body) > MAX_DOCUMENT:
        raise BadDefinition(problems=[Problem(name, 1, 1, _TOO_LARGE)])
    found = _loads(body, name, 1)
    yield from ((1, entry) for entry in found) if isinstance(found, list) else [(1, found)]


def _loads(raw: bytes, name: str, number: int) -> Json:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadDefinition(problems=[Problem(name, number + raw.count(b"\n", 0, error.start), 1, "the file is not UTF-8; save it as UTF-8")]) from None
    except json.JSONDecodeError as error:
        ends = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        what = "the JSON ends in the middle: the export was cut off" if ends else f"not JSON: {error.msg.removesuffix(' at')}"
        raise BadDefinition(problems=[Problem(name, number + error.lineno - 1, error.colno, what)]) from None
    except (RecursionError, ValueError):
        raise BadDefinition(
            problems=[Problem(name, number, 1, "not JSON that can be read: it is nested too deep, or holds a number with too many digits")]
        ) from None
