"""Two texts as one: what both have, what only the first has, and what only the second has."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["same", "removed", "added"]

MAX_WORDS = 1_500
"""Words of a changed part that are compared one by one; longer parts are compared line by line only."""

MAX_LINES = 5_000
"""Lines of what differs that are compared line by line; of longer texts all between what they begin and end with is changed."""

MAX_EQUAL = 1_000_000
"""Pairs of equal lines among them: a text of one line over and over would be compared for hours."""

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True)
class Piece:
    """A part of the text."""

    kind: Kind
    text: str


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """The pieces in order. Lines are compared first, then words inside changed lines, so that long texts stay quick."""
    pieces: list[Piece] = []
    for kind, old, new in _line_differences(_LINES.findall(before), _LINES.findall(after)):
        if kind == "same":
            _add(pieces, Piece("same", "".join(old)))
            continue
        words = _WORDS.findall("".join(old)), _WORDS.findall("".join(new))
        if max(map(len, words)) > MAX_WORDS:
            _add(pieces, Piece("removed", "".join(old)), Piece("added", "".join(new)))
            continue
        for inner, gone, come in _differences(*words):
            if inner == "same":
                _add(pieces, Piece("same", "".join(gone)))
            else:
                _add(pieces, Piece("removed", "".join(gone)), Piece("added", "".join(come)))
    return tuple(pieces)


def _line_differences(before: list[str], after: list[str]) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    shorter = min(len(before), len(after))
    start = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    end = next((at for at in range(shorter - start) if before[-1 - at] != after[-1 - at]), shorter - start)
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    yield "same", before[:start], after[:start]
    if max(len(old), len(new)) > MAX_LINES or _equal_pairs(old, new) > MAX_EQUAL:
        yield "changed", old, new
    else:
        yield from _differences(old, new)
    yield "same", before[len(before) - end :], after[len(after) - end :]


def _equal_pairs(before: Sequence[str], after: Sequence[str]) -> int:
    counts = Counter(after)
    return sum(count * counts[line] for line, count in Counter(before).items())


def _differences(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    # with autojunk, difflib takes common words for noise from 200 words on, and finds everything changed
    for kind, start, stop, begin, end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        yield "same" if kind == "equal" else "changed", before[start:stop], after[begin:end]


def _add(pieces: list[Piece], *more: Piece) -> None:
    for piece in more:
        if not piece.text:
            continue
        if pieces and pieces[-1].kind == piece.kind:
            pieces[-1] = Piece(piece.kind, pieces[-1].text + piece.text)
        else:
            pieces.append(piece)
