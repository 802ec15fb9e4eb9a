"""Golden files: what is printed is kept in a file, so that a change of words is seen in review."""

import os
import re
from pathlib import Path

VOLATILE = (
    (re.compile(r"(?m)^.*  \d+/\d+ tasks  \d+/\d+ steps  .*\n"), ""),  # progress is printed only where a run takes long
    (re.compile(r"\b\d{6}-[0-9a-f]{6}\b"), "RUN"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?( UTC)?"), "TIME"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DAY"),
    (re.compile(r"(?<![\d.$…+-])\d+(\.\d+)? s\b"), "N s"),
    (re.compile(r"\bN s to N s\b"), "N s"),
    (re.compile(r"\(([0-9a-f]{8})\)"), "(DIGEST)"),
    (re.compile(r"(?m)^ *execution time.*$"), "  execution time …"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://127.0.0.1:PORT"),
    (re.compile(r"(?<=-)[0-9a-f]{8}\b"), "ID"),
)
"""What differs from one execution to the next, and what stands in its place."""


def steady(text: str) -> str:
    """*text* with run ids, times and digests replaced, and the spaces of aligned columns made one."""
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return "\n".join(re.sub(r"(?<=\S) {2,}", "  ", line).rstrip() for line in text.splitlines()) + "\n"


def updating() -> bool:
    """Whether golden files are written instead of compared: UPDATE_GOLDEN is set."""
    return bool(os.environ.get("UPDATE_GOLDEN"))


def check_golden(folder: Path, name: str, text: str, *, exact: bool = False) -> None:
    """Assert that *text*, made steady unless *exact*, is the golden file *name*; with UPDATE_GOLDEN=1 write the file instead."""
    path = folder / name
    found = text if exact else steady(text)
    if updating():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), f"{path} differs; UPDATE_GOLDEN=1 writes it anew"
