"""Forms and query strings: read strictly, so that a misspelled filter never shows everything."""

import hmac
import math
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from beam_ray.console.security import MAX_BODY
from beam_ray.errors import Unusable

Fields = dict[str, list[str]]
"""Name to its values, in order."""
MAX_FIELDS = 500
"""Fields of an address: each link of a list has all of them, so that a page grows with their square."""
MAX_DIGITS = 4_000
"""Digits of a number; Python reads no more than some 4,300."""

_DRAFT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}(:[0-9]{1,9})?")


def query_of(request: Request, known: Iterable[str]) -> Fields:
    """
    The query string's fields.

    Raises:
        Unusable: it has a field that the page does not know.
    """
    fields: Fields = {}
    names = list(known)
    if request.url.query.count("&") >= MAX_FIELDS:
        raise Unusable(f"an address has at most {MAX_FIELDS} fields")
    for name, value in parse_qsl(request.url.query, keep_blank_values=True):
        if name not in names:
            raise Unusable(f"this page knows no {name[:60]!r}\n  it knows: {', '.join(names) or 'nothing'}")
        if value.strip():
            fields.setdefault(name, []).append(_readable(name, value))
    return fields


async def form_of(request: Request) -> Fields:
    """
    The fields of a form that one of our pages has sent.

    Raises:
        Unusable: it is too long, or does not have the token that our pages put into it.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise Unusable(f"a form has at most {MAX_BODY:,} bytes")
    fields: Fields = {}
    for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True):
        fields.setdefault(name, []).append(_readable(name, value))
    given = one(fields, "form_token")
    if not hmac.compare_digest(given.encode(), str(request.scope["form_token"]).encode()):
        raise Unusable("this form is from a console that has ended; reload the page and send it again")
    return fields


def _readable(name: str, value: str) -> str:
    """The value, unless it is what no text and no number of ours can be."""
    if "\0" in value:
        raise Unusable(f"{name[:60]}: a text has no NUL character")
    if len(value) > MAX_DIGITS and value.strip().isdecimal():
        raise Unusable(f"{name[:60]}: a number has at most {MAX_DIGITS:,} digits")
    return value


def one(fields: Fields, name: str, default: str = "") -> str:
    """The field's last value."""
    return fields[name][-1].strip() if fields.get(name) else default


def names_draft(written: str, workflow: str) -> bool:
    """Whether it has the form of a draft of the workflow, ``NAME@DRAFT`` or ``NAME@DRAFT:N``, and names neither a version nor a file of this machine."""
    name, at, draft = written.partition("@")
    return bool(at) and name == workflow and _DRAFT.fullmatch(draft) is not None


def number(fields: Fields, name: str) -> float | None:
    """
    The field as a number; None where it is empty.

    Raises:
        Unusable: it is none.
    """
    written = one(fields, name)
    if not written:
        return None
    try:
        return float(written)
    except ValueError:
        raise Unusable(f"{name}: {written[:60]!r} is not a number") from None


def raised(what: str, used_up: Iterable[tuple[str, float]], budget: Mapping[str, float], fields: Fields) -> dict[str, float]:
    """
    The budget, with more of the limits that stopped it: a field of each one's name.

    Raises:
        Unusable: the form gives no more of one of them.
    """
    found = dict(budget)
    for name, limit in used_up:
        more = number(fields, name)
        # minutes are counted for each driver, so that it goes on with the same limit
        if more is None and name == "max_minutes":
            continue
        if more is None or not limit < more < math.inf:
            raise Unusable(f"the budget of {what} is used up\n  give more than {limit:g} as {name} to resume it")
        found[name] = more
    return found
