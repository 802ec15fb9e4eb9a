"""
Broken input, and what is said about it, as text files that a stranger adds a case to in a minute.

    === a title that says what is wrong
    the broken input, as it is
    >>>
    the whole refusal, word for word

Leave out what comes after ``>>>``, run the tests with UPDATE_GOLDEN=1 and read what was written
there: where, what, and what to do about it? What cannot be written as text, such as a
byte that is no UTF-8 or ten thousand brackets, is a function in ``made.py`` that the line
``made: NAME`` stands for. Where Pythons differ in their own words, one more ``>>>`` gives the
refusal of the newer.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.corpus import made
from tests.golden import updating

HERE = Path(__file__).parent
PLACE = re.compile(r"^[\w./-]+:\d+:\d+: ")
"""How a refusal begins: file:line:column."""


@dataclass(frozen=True)
class Case:
    """One broken input of a family."""

    family: Path
    title: str
    text: str
    says: str

    @property
    def body(self) -> bytes:
        """What the broken file holds."""
        name = re.fullmatch(r"made: (\w+)\n", self.text)
        body = getattr(made, name[1])() if name else self.text
        return body if isinstance(body, bytes) else body.encode()

    def expect(self, said: str) -> None:
        """Assert that *said* is the refusal; with UPDATE_GOLDEN=1 write it down instead."""
        known = said in self.says.split(">>>\n")
        if updating() and not known:
            before, cases = _split(self.family)
            kept = [Case(case.family, case.title, case.text, said if case.title == self.title else case.says) for case in cases]
            self.family.write_text(before + "".join(f"=== {case.title}\n{case.text}>>>\n{case.says}" for case in kept), encoding="utf-8")
        else:
            assert known, (said, self.says)


def _split(family: Path) -> tuple[str, list[Case]]:
    before, *parts = re.split(r"^=== ", family.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cases = []
    for part in parts:
        title, _, rest = part.partition("\n")
        text, _, says = rest.partition(">>>\n")
        cases.append(Case(family, title, text, says))
    return before, cases


def of(folder: str) -> list[Any]:
    """Every case of a folder, for ``pytest.mark.parametrize``."""
    families = sorted((HERE / folder).glob("*.txt"))
    return [pytest.param(case, id=f"{family.stem}: {case.title}") for family in families for case in _split(family)[1]]
