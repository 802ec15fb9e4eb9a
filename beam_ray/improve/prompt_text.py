"""
The parts of a prompt that an optimiser may change.

A prompt consists of turns; a turn is text with variables and conditions. Variables, conditions
and few-shot examples stay in place; the texts between them may change.
"""

import re
from collections.abc import Mapping, Sequence

from beam_ray.define.llm_call import Turn
from beam_ray.define.workflow import Workflow


def turns_of(workflow: Workflow, node: str) -> tuple[Turn, ...]:
    """The prompt of *node*, as templates."""
    call = workflow.nodes[node].call
    assert call is not None
    return call.prompt


def written(turns: Sequence[Turn]) -> tuple[dict[str, str], ...]:
    """The turns as plain data, each with its role and content."""
    return tuple({"role": turn.role, "content": turn.content} for turn in turns)


def prompt_text(turns: Sequence[Turn]) -> str:
    """A prompt as one text: a single turn as it is, several turns with their roles."""
    return turns[0].content if len(turns) == 1 else "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in turns)


def texts_of(turns: Sequence[Turn]) -> dict[str, str]:
    """
    The changeable texts of a prompt, by name: the texts between its variables and conditions, and ``system``, which may be empty.

    Of several user turns only the last can change; earlier user turns and all assistant turns are examples.
    """
    found = {} if any(turn.role == "system" for turn in turns) else {"system": ""}
    for index, turn in enumerate(turns):
        if index in _changeable(turns):
            found |= {f"{turn.role}_{number}": piece.strip() for number, piece in enumerate(template_pieces(turn.content), 1) if number % 2}
    return found


def with_texts(turns: Sequence[Turn], texts: Mapping[str, str]) -> tuple[dict[str, str], ...]:
    """The prompt with other texts; the whitespace around each text is preserved."""
    changed = []
    for index, turn in enumerate(turns):
        pieces = template_pieces(turn.content)
        if index in _changeable(turns):
            for number, piece in enumerate(pieces, 1):
                name = f"{turn.role}_{number}"
                if number % 2 and name in texts:
                    pieces[number - 1] = _in_place_of(piece, texts[name].strip(), first=number == 1)
        changed.append({"role": turn.role, "content": "".join(pieces)})
    system = texts.get("system", "").strip()
    return ({"role": "system", "content": system}, *changed) if system else tuple(changed)


def _changeable(turns: Sequence[Turn]) -> set[int]:
    users = [index for index, turn in enumerate(turns) if turn.role == "user"]
    return {*users[-1:], *[index for index, turn in enumerate(turns) if turn.role == "system"][:1]}


def template_pieces(template: str) -> list[str]:
    """The template split into texts (odd positions, counted from 1) and Jinja tags (even positions)."""
    return re.split(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", template, flags=re.DOTALL)


def _in_place_of(piece: str, text: str, *, first: bool) -> str:
    if not piece.strip():
        return f"{piece}{text}\n\n" if text and first else f"{piece or chr(10) * 2}{text}" if text else piece
    if not text:
        return ""
    start, end = piece[: len(piece) - len(piece.lstrip())], piece[len(piece.rstrip()) :]
    return f"{start}{text}{end}"
