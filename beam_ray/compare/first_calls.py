"""Where the agents and programs of two runs first did something else, for the tasks that flipped."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from beam_ray.compare.pair_table import Change
from beam_ray.define.fingerprint import Json, canonical
from beam_ray.evaluate.call_rules import shown_call
from beam_ray.evaluate.tool_uses import ToolUse, Trajectory, trajectory
from beam_ray.run.recordings import recorded_calls
from beam_ray.run.replay import canonical_arguments
from beam_ray.run.step_row import attempt_of
from beam_ray.store.attachments import read_bytes
from beam_ray.store.key_index import Key
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows

MAX_READ = 50
"""Flipped tasks whose calls are read; reports show no more."""


def with_first_calls(changes: Sequence[Change], before: Run, after: Run) -> tuple[Change, ...]:
    """The *changes* with the first call at which the two sides differ, where the node at which they differ makes calls on both."""
    plans = (before.record.plan, after.record.plan)
    nodes = [node for node in plans[1].order if all(node in plan.nodes and plan.nodes[node].records_calls for plan in plans)]
    read = [change for change in changes[:MAX_READ] if change.diverges_at in nodes]
    words: dict[tuple[str, Key], str] = {}
    for node in dict.fromkeys(str(change.diverges_at) for change in read):
        keys = [(change.task_id, change.trial) for change in read if change.diverges_at == node]
        left, right = (_trajectories(run, node, keys) for run in (before, after))
        words |= {(node, key): first_difference(left[key], right[key]) for key in keys if key in left and key in right}
    return tuple(replace(change, first_call=words.get((str(change.diverges_at), (change.task_id, change.trial)))) for change in changes)


def first_difference(before: Trajectory, after: Trajectory) -> str:
    """The first call, turn by turn, at which two trajectories differ, in words."""
    for turn in range(max(len(before.turns), len(after.turns)) + 1):
        left, right = ([use for use in side.tools if use.turn == turn] for side in (before, after))
        if [_asked(use) for use in left] != [_asked(use) for use in right]:
            return f"turn {turn}: {_called(left, len(before.turns) < turn)} before, {_called(right, len(after.turns) < turn)} after"
        for one, other in zip(left, right, strict=True):
            if _got(one) != _got(other):
                return f"call {other.number}, {shown_call(other)}: another result"
    return "the same calls of tools; the answers differ"


def _asked(use: ToolUse) -> tuple[str, str]:
    return use.name, _text(canonical_arguments(use.arguments))


def _got(use: ToolUse) -> tuple[bool, str | None, str]:
    return use.answered, use.error, _text(use.result)


def _text(value: Json) -> str:
    try:
        return canonical(value)
    except ValueError:  # a program's tools may return what is no JSON, such as NaN
        return json.dumps(value, sort_keys=True)


def _called(uses: Iterable[ToolUse], ended: bool) -> str:
    return " and ".join(map(shown_call, uses)) or ("it had ended" if ended else "no tool")


def _trajectories(run: Run, node: str, keys: list[Key]) -> dict[Key, Trajectory]:
    """What the steps of a node called, by task and trial; those that are not recorded are left out."""
    steps = StepRows(run)
    rows = {key: row for key, row in steps.rows(node, keys).items() if row["turns"] is not None}
    agent = run.record.plan.nodes[node].agent is not None
    found = {}
    for key, calls in recorded_calls({run.run_id: steps}, rows).items():
        counts = attempt_of(rows[key])
        mine = [call for call in calls if call["attempt"] == counts]
        found[key] = trajectory(mine, lambda sha256: read_bytes(sha256, run.objects).decode("utf-8", "surrogatepass"), agent=agent)
    return found
