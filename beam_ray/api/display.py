"""How values look in a terminal and in a notebook: a title, facts and an optional table."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

MAX_ROWS = 20
"""Rows of a table shown in a notebook; the value itself has them all."""


@dataclass(frozen=True)
class Display:
    """What a value shows of itself."""

    title: str
    facts: Sequence[tuple[str, Any]] = ()
    """Name and value, in the order shown; None and empty texts are left out."""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()


class Displayed(ABC):
    """A value that shows what it is: ``repr`` on one line, a small table in a notebook."""

    @abstractmethod
    def display(self) -> Display:
        """The title, facts and table that represent the value."""

    def __repr__(self) -> str:
        shown = self.display()
        facts = ", ".join(f"{name} {_plain(value)}" for name, value in shown.facts if value not in (None, ""))
        return f"<{type(self).__name__} {shown.title}{': ' if facts else ''}{facts}>"

    def _repr_html_(self) -> str:
        shown = self.display()
        parts = [Markup("<p><strong>{} {}</strong></p>").format(type(self).__name__, shown.title)]
        facts = Markup("").join(Markup("<tr><th>{}</th><td>{}</td></tr>").format(name, _plain(value)) for name, value in shown.facts if value not in (None, ""))
        if facts:
            parts.append(Markup("<table>{}</table>").format(facts))
        if shown.rows:
            head = Markup("").join(Markup("<th>{}</th>").format(name) for name in shown.header)
            body = Markup("").join(
                Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(_plain(cell)) for cell in row)) for row in shown.rows[:MAX_ROWS]
            )
            parts.append(Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body))
            if len(shown.rows) > MAX_ROWS:
                parts.append(Markup("<p>… and {:,} more</p>").format(len(shown.rows) - MAX_ROWS))
        return str(Markup("\n").join(parts))


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.1f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(str(entry) for entry in value)
    return str(value)
