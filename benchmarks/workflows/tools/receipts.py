"""What code can do for a receipt: make its date a date and its total a number."""

import re
from datetime import date as Date
from typing import Any

_MONTHS = {name: number for number, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)}


def tidy(text: str, date: str, total: float) -> dict[str, Any]:
    """
    The date as ISO, null where it is none, and whether the total stands on the receipt.
    """
    printed = {amount(found) for found in re.findall(r"\d[\d,]*\.?\d*", text)}
    return {"date": iso_date(date), "total_printed": abs(total) in printed}


def iso_date(text: str) -> str | None:
    """
    The first date in *text*, or None.

    The day stands before the month, as in Malaysia, unless that gives no date. A year of two
    digits is in this century. Months may be words.
    """
    digits = re.search(r"\b\d{8}\b", text)
    if digits:
        whole = digits[0]
        return _date(whole[:4], whole[4:6], whole[6:]) or _date(whole[4:], whole[2:4], whole[:2])
    words = re.findall(r"\d+|[a-z]+", text.casefold())
    if len(words) < 3:
        return None
    first, second, third = (str(_MONTHS.get(word[:3], word)) for word in words[:3])
    if len(first) == 4:
        return _date(first, second, third)
    if words[0].isalpha():
        first, second = second, first
    return _date(third, second, first) or _date(third, first, second)


def amount(text: str) -> float | None:
    """
    The number in *text* without currency and thousands separators, or None.
    """
    found = re.search(r"-?\d+(\.\d+)?", text.replace(",", ""))
    return float(found[0]) if found else None


def _date(year: str, month: str, day: str) -> str | None:
    try:
        return Date(int(year) + (2000 if len(year) == 2 else 0), int(month), int(day)).isoformat()
    except ValueError:
        return None
