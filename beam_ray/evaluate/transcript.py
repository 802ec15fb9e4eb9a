"""
The transcript of a trajectory as text, for a judge and for people.

It is bounded: long results are cut in their middle, and where there are too many calls those in the
middle are left out. It says so in its place, and to whoever reads what was made of it.
"""

import json
from dataclasses import dataclass

from beam_ray.define.fingerprint import Json
from beam_ray.evaluate.tool_uses import ToolUse, Trajectory, Turn

MAX_TRANSCRIPT = 20_000
"""Characters of a transcript that a judge is shown."""

MAX_ENTRY = 2_000
"""Characters of one text in it: of arguments, of a result, of what the model said."""


@dataclass(frozen=True)
class Transcript:
    """A transcript, and what of it is not in the text."""

    text: str
    cut: str = ""
    """What a reader did not see, such as ``calls 9 to 31 of 40``; empty where everything is there."""


def transcript(calls: Trajectory, *, limit: int = MAX_TRANSCRIPT, entry: int = MAX_ENTRY) -> Transcript:
    """The transcript of *calls*, in at most about *limit* characters."""
    entries: list[tuple[int, str]] = []
    """The number of the tool call that a piece of text is about, 0 where it is about none; and the text."""
    shortened = 0
    for turn in (Turn(0, "", ""), *calls.turns):
        said, cut = _turn(turn, entry)
        shortened += cut
        entries += [(0, said)] if said else []
        for use in calls.tools:
            if use.turn == turn.number:
                said, cut = _use(use, entry)
                shortened += cut
                entries.append((use.number, said))
    if not entries:
        return Transcript("(no calls)")
    kept, left_out = _within(entries, limit)
    notes = [left_out] if left_out else []
    if shortened:
        notes.append(f"the middle of {shortened} long text{'s' * (shortened > 1)}")
    return Transcript("\n".join(kept), " and ".join(notes))


def cut_middle(text: str, length: int) -> str:
    """*text*, or its beginning and its end with the number of characters between them."""
    if len(text) <= length:
        return text
    tail = length // 3
    return f"{text[: length - tail]}\n[{len(text) - length:,} characters left out]\n{text[-tail:]}"


def _turn(turn: Turn, length: int) -> tuple[str, int]:
    if turn.error is not None:
        return f"turn {turn.number}: the model gave no answer: {cut_middle(turn.error, length)}", 0
    if not turn.text.strip():
        return "", 0
    return f"turn {turn.number}: the model said: {cut_middle(turn.text.strip(), length)}", int(len(turn.text.strip()) > length)


def _use(use: ToolUse, length: int) -> tuple[str, int]:
    arguments = _written(use.arguments)
    if use.error is not None:
        result, name = use.error, "refused" if use.source == "refused" else "error"
    elif not use.answered:
        result, name = "(not seen)", "result"
    else:
        result, name = _written(use.result), "result"
    cut = (len(arguments) > length) + (len(result) > length)
    return f"turn {use.turn}, call {use.number}: {use.name} {cut_middle(arguments, length)}\n  {name}: {cut_middle(result, length)}", cut


def _written(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _within(entries: list[tuple[int, str]], limit: int) -> tuple[list[str], str]:
    """The texts that fit, from the beginning and from the end; and the calls that are left out between them."""
    total = sum(len(text) + 1 for _, text in entries)
    if total <= limit:
        return [text for _, text in entries], ""
    start, stop, room = 0, len(entries), limit
    while start < stop:
        # the end says what came of it, and gets as much room as the beginning
        place = start if start <= len(entries) - stop else stop - 1
        room -= len(entries[place][1]) + 1
        if room < 0:
            break
        start, stop = (start + 1, stop) if place == start else (start, stop - 1)
    numbers = [number for number, _ in entries[start:stop] if number]
    calls = max((number for number, _ in entries), default=0)
    what = (
        f"calls {numbers[0]} to {numbers[-1]} of {calls}" if len(numbers) > 1 else f"call {numbers[0]} of {calls}" if numbers else "some of what the model said"
    )
    note = f"[{what} left out: the transcript has {total:,} characters, of which {limit:,} are shown]"
    return [*(text for _, text in entries[:start]), note, *(text for _, text in entries[stop:])], what
