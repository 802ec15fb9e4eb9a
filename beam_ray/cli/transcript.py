"""The calls of a step as text: what ``show --step`` prints of an agent or a program."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import beam_ray
from beam_ray.cli.screen import duration, money, plural

LONGEST = 500
"""Characters of one text."""


def transcript_lines(calls: Sequence[beam_ray.Call], step: beam_ray.Step) -> Iterator[str]:
    """The lines of the transcript, attempt by attempt."""
    for attempt, made in groupby(calls, key=lambda call: call.attempt):
        group = list(made)
        sources = Counter(call.source for call in group)
        models = sum(call.kind != "tool" for call in group)
        counts = f"{plural(models, 'model call')}, {plural(len(group) - models, 'tool call')}"
        where = ", ".join(f"{sources[source]:,} {source}" for source in ("live", "recorded", "static", "refused") if sources[source])
        yield f"  calls of attempt {attempt}: {counts} ({where})"
        left = step.divergence
        for call in group:
            yield from _call(call)
            if left and (left["attempt"], left["made"]["number"]) == (attempt, call.number):
                yield from _divergence(left)


def _call(call: beam_ray.Call) -> Iterator[str]:
    cost = [duration(call.seconds), *([money(call.usd)] if call.kind != "tool" else [])] if call.source in ("live", "recorded") else []
    facts = ", ".join([call.source, *cost])
    if call.kind == "tool":
        yield f"    {call.number:>3}  {call.name} {_short(call.request)}  ({facts})"
        yield f"         error: {_short(call.error)}" if call.error is not None else f"         {_short(call.reply)}"
        return
    yield f"    {call.number:>3}  {call.name}  ({facts})"
    if call.error is not None:
        yield f"         error: {_short(call.error)}"
    elif call.kind == "embedding":
        yield "         embeddings"
    if call.text:
        yield f"         {_short(call.text)}"
    for asked in call.tool_requests:
        yield f"         calls {asked.name} {_short(asked.arguments)}"


def _divergence(left: Any) -> Iterator[str]:
    recorded = left["recorded"]
    if recorded is None:
        yield "         left the recording here: it has ended"
    elif not left["where"]:
        yield f"         left the recording here: it has a call of {recorded['name']!r} in this place"
    else:
        yield f"         left the recording here, at {left['where']}"
        yield f"           recorded: {_short(left['before'])}"
        yield f"           now:      {_short(left['after'])}"


def _short(value: Any) -> str:
    written = value if isinstance(value, str) else "(nothing)" if value is None else json.dumps(value, ensure_ascii=False)
    text = " ".join(written.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
