"""What the headers of an endpoint's reply say: how long to wait, and what is left of its limits."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from beam_ray.llm.permits import Left, RateLimits

MAX_RETRY_AFTER_S = 120.0
"""The longest pause that an endpoint is granted before it is called again."""


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the endpoint asks to wait, at most ``MAX_RETRY_AFTER_S``; 0 where it does not say."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                continue
        if 0 < seconds < float("inf"):
            return min(seconds, MAX_RETRY_AFTER_S)
    return 0.0


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """What the headers of a reply say of the endpoint's limits, or None where they say nothing."""
    requests, tokens = _left(headers, "requests"), _left(headers, "tokens")
    return RateLimits(requests, tokens) if requests or tokens else None


def _left(headers: Mapping[str, str], what: str) -> Left | None:
    remaining = _whole(headers.get(f"x-ratelimit-remaining-{what}"))
    if remaining is None:
        return None
    return Left(remaining, _whole(headers.get(f"x-ratelimit-limit-{what}")), seconds_of(headers.get(f"x-ratelimit-reset-{what}", "")))


def seconds_of(text: str) -> float:
    """Seconds of a duration such as ``1m2.5s``, ``250ms`` or ``12``; at most a day, and 0 where it cannot be read."""
    found = _DURATION.fullmatch(text.strip())
    if not found or not text.strip():
        return 0.0
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return min(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000, 86_400.0)


_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_DURATION = re.compile(rf"(?:({_NUMBER})h)?(?:({_NUMBER})m(?!s))?(?:({_NUMBER})(?:s|\Z))?(?:({_NUMBER})ms)?")


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else None
