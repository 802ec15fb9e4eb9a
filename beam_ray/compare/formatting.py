"""Numbers and foreign text as people read them."""

import re
import unicodedata

from beam_ray.compare.metrics import Metric
from beam_ray.compare.statistics import Interval

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


def amount(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A number with its unit, in as many digits as its size deserves."""
    if value is None:
        return "-"
    sign = "+" if signed and value else ""
    if unit == "USD":
        digits = 2 if abs(value) >= 1 or value == 0 else 4 if abs(value) >= 0.0005 else 7
        return f"{'-' if value < 0 else sign}${abs(value):,.{digits}f}"
    digits = (
        0 if unit in ("tasks", "tokens") and (abs(value) >= 100 or value == int(value)) else 1 if abs(value) >= 10 or unit in ("%", "points", "tasks") else 2
    )
    text = f"{value:{sign},.{digits}f}" if sign else f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return f"{text}{'' if unit in ('tasks', 'tokens', 'calls', 'turns', 'attempts', 'points') else f' {unit}'}"


def change(value: float | None, unit: str) -> str:
    """A signed difference; of two percentages it is in points, not to be taken for a relative change."""
    return amount(value, "points" if unit == "%" else unit, signed=True)


def span(interval: Interval | None, unit: str, *, signed: bool = True) -> str:
    """An interval: ``+27.0 … +43.0``; the unit only where it is a sign of money."""
    if interval is None:
        return "-"
    return " … ".join(amount(end, unit, signed=signed).removesuffix(f" {unit}") for end in interval)


def found_text(metric: Metric, level: bool, relative: bool) -> str:
    """What was found, with its interval."""
    if level:
        value, interval, unit = metric.after, metric.after_interval, metric.unit
    elif relative and metric.relative is not None:
        value, interval, unit = metric.relative, metric.relative_interval, "%"
    else:
        interval = None if metric.low is None or metric.high is None else Interval(metric.low, metric.high)
        value, unit = metric.change, metric.unit
    shown = amount(value, unit, signed=True) if relative and not level else amount(value, unit) if level else change(value, unit)
    return f"{shown} ({span(interval, unit, signed=not level)})" if interval else shown


def line_word(word: str, level: str) -> str:
    """The word of a gate's line as people read it; of a target whether it is met."""
    return word if level != "target" else "target met" if word == "PASS" else "target not met"


def plural(count: int, noun: str) -> str:
    """The count with its noun: ``1 task``, ``2 tasks``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def plain(text: object, length: int = 200) -> str:
    """
    *text* on one line, safe for a terminal.

    Escape sequences, control characters and marks that turn the direction of writing are
    taken out, so that a task's or a model's text cannot draw over what we print.
    """
    shown = re.sub(r"\s", " ", _ESCAPES.sub("", str(text)))
    shown = "".join(letter for letter in shown if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
    shown = re.sub(" +", " ", shown).strip()
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"
