"""Values as pages write them."""

import datetime
import io
import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from beam_ray.console.word_diff import Piece

_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def visible(text: str) -> str:
    """*text* with the marks that turn its direction or cannot be seen as their code points: what a model wrote looks like what it is."""
    return _INVISIBLE.sub(lambda found: f"\u27e8{unicodedata.name(found[0], f'U+{ord(found[0]):04X}')}\u27e9", text)


def percent(score: float | None) -> str:
    """A score with two decimals, as 92.59%."""
    return "" if score is None else f"{score:.2f}%"


def money(usd: float | None) -> str:
    """US dollars, or the word for a model without a price."""
    if usd is None:
        return "unpriced"
    return f"${usd:,.2f}" if usd == 0 or usd >= 1 else f"${usd:.4f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


MINUS = "\u2212"


def quantity(value: float | None, unit: str, signed: bool = False) -> str:
    """A metric's value with its unit, in as many digits as its size deserves."""
    if value is None:
        return "\u2013"
    size = abs(value)
    if unit == "USD":
        text = f"${size:,.{2 if size >= 1 or not size else 4 if size >= 0.0005 else 7}f}"
    else:
        digits = 0 if unit in ("tasks", "tokens") and (size >= 100 or size == int(size)) else 1 if size >= 10 or unit in ("%", "points", "tasks") else 2
        text = f"{size:,.{digits}f}{'%' if unit == '%' else ' s' if unit == 's' else ''}"
    if not any(digit in text for digit in "123456789"):
        return text
    return f"{MINUS if value < 0 else '+' if signed else ''}{text}"


def change(value: float | None, unit: str) -> str:
    """A signed difference; of two percentages it is in points."""
    return quantity(value, "points" if unit == "%" else unit, signed=True)


def count(number: float | None) -> str:
    """A count with separators."""
    return "" if number is None else f"{number:,}"


def shortened(text: object, length: int = 160) -> str:
    """One line of a text, at most so long."""
    line = " ".join(str(text if text is not None else "").split())
    return visible(line if len(line) <= length else f"{line[: length - 1]}…")


def as_json(value: Any) -> str:
    """A value as JSON for people: indented, in the order given."""
    return visible(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def as_text(value: Any) -> str:
    """An output as text: text as it is, anything else as JSON."""
    if isinstance(value, dict) and list(value) == ["text"] and isinstance(value["text"], str):
        value = value["text"]
    return visible(value) if isinstance(value, str) else as_json(value)


def as_yaml(value: Any) -> str:
    """A value as YAML for people: as it would stand in a file, texts of several lines as blocks."""
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import LiteralScalarString

    def block(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: block(each) for name, each in part.items()}
        if isinstance(part, list):
            return [block(each) for each in part]
        return LiteralScalarString(part) if isinstance(part, str) and "\n" in part else part

    text, yaml = io.StringIO(), YAML()
    yaml.width = 100
    yaml.dump(block(value), text)
    return visible(text.getvalue())


def moment(at: datetime.datetime | str | None) -> Markup:
    """A time in UTC; the page's script shows it in the reader's zone, with UTC on hover."""
    if at is None or at == "":
        return Markup("")
    when = datetime.datetime.fromisoformat(at) if isinstance(at, str) else at
    when = when.astimezone(datetime.UTC) if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    text = f"{when:%Y-%m-%d %H:%M} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(when.isoformat(timespec="seconds"), text, f"{when:%Y-%m-%d %H:%M}")


def ago(at: datetime.datetime | str | None) -> str:
    """How long ago, roughly."""
    if at is None or at == "":
        return ""
    when = datetime.datetime.fromisoformat(at) if isinstance(at, str) else at
    seconds = (datetime.datetime.now(datetime.UTC) - (when if when.tzinfo else when.replace(tzinfo=datetime.UTC))).total_seconds()
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {word}{'' if number == 1 else 's'} ago"
    return "just now"


def in_markdown(value: object) -> str:
    """A value inside a line or a cell of Markdown: what would be read as markup is not, and nobody is notified by it."""
    return re.sub(r"(?<!\w)@(?=\w)", "@&#8203;", re.sub(r"([\\`*_{}\[\]<>#|~]|&(?=#?\w+;))", r"\\\1", shortened(value, 400)))


def in_code(value: object) -> str:
    """A value as code inside a line of Markdown, between marks that are longer than any in it."""
    line = " ".join(visible(str(value)).split())
    marks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{marks} {line} {marks}" if "`" in line else f"`{line}`"


def fenced(text: str, kind: str = "") -> str:
    """A block of Markdown with a text as it is, between fences that are longer than any in it."""
    fence = "~" * max(4, 1 + max(map(len, re.findall("~+", text)), default=0))
    return f"{fence}{kind}\n{visible(text)}\n{fence}"


def marked(pieces: Iterable[Piece]) -> str:
    """A difference as text, with what was removed and added in brackets."""
    return "".join({"removed": f"[-{each.text}-]", "added": f"{{+{each.text}+}}"}.get(each.kind, each.text) for each in pieces)


def moment_of(seconds: float) -> Markup:
    """A time in seconds since 1970, as ``moment`` writes it."""
    return moment(datetime.datetime.fromtimestamp(seconds, datetime.UTC))


FILTERS = {
    "moment_of": moment_of,
    "visible": visible,
    "percent": percent,
    "money": money,
    "duration": duration,
    "count": count,
    "quantity": quantity,
    "change": change,
    "shortened": shortened,
    "as_json": as_json,
    "as_yaml": as_yaml,
    "as_text": as_text,
    "moment": moment,
    "ago": ago,
    "md": in_markdown,
    "code": in_code,
    "fenced": fenced,
    "marked": marked,
}
"""The filters of templates."""
