"""A command given in this process: what it said, and how it left."""

from typing import NamedTuple

import pytest

from beam_ray.cli import main


class Said(NamedTuple):
    """How a command left, and what it printed."""

    code: int
    out: str
    err: str


def give(capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    """Give a command; whatever it raises beside leaving is a crash, and the test's failure."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(list(words))
    out, err = capsys.readouterr()
    return Said(int(left.value.code or 0), out, err)
