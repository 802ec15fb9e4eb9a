"""
What a candidate's agents and programs were answered from: the recording of the run that it borrows from, or models and tools.

Tasks are compared apart by how much of them was recorded. A changed prompt asks its model anew, but
as long as tools are answered from the recording, both sides saw the same world.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.compare.breakdown import Part
from beam_ray.compare.pairs import Pairs, Side
from beam_ray.compare.statistics import Quantity
from beam_ray.define.fingerprint import strict_json

ALL, MODELS, TOOLS, NOTHING = "all calls recorded", "models live, tools recorded", "tools live or refused", "nothing recorded"
STATES = (ALL, MODELS, TOOLS, NOTHING)
COLUMNS = ["turns", "calls_recorded", "diverged_at", "divergence"]
"""Columns of the steps that say where calls were answered from."""
CALL_COLUMNS = ["task_id", "trial", "node", "kind", "name", "source", "effects"]
"""Columns of the calls that do."""
SHOWN = 3
"""Places and tools that are named."""


@dataclass(frozen=True)
class Place:
    """Where tasks left the recording."""

    node: str
    what: str
    """The call, such as ``the tool find`` or ``model call 1 at messages[0].content``."""
    tasks: int


@dataclass(frozen=True)
class Replay:
    """How much of a candidate was answered from the recording, in tasks and in calls."""

    all_recorded: int
    """Tasks whose calls were all answered from the recording, or whose steps were borrowed."""
    models_live: int
    """Tasks that left the recording only with calls of models: their tools saw the world as it was recorded."""
    tools_live: int
    """Tasks with a tool that was called live, or refused."""
    nothing_recorded: int
    """Tasks for which there was no recording."""
    recorded_calls: int
    live_calls: int
    static_calls: int
    """Answered by the spec."""
    refused_calls: int
    mixed: int
    """Tasks in which tools that read or write were called live, and others answered from the recording."""
    places: tuple[Place, ...] = ()
    """The first call of each task that left the recording, the commonest first."""
    tools: tuple[Place, ...] = ()
    """Tools that the recording did not answer, the commonest first."""

    @property
    def tasks(self) -> int:
        """The tasks with agents or programs."""
        return self.all_recorded + self.models_live + self.tools_live + self.nothing_recorded

    @property
    def share(self) -> float | None:
        """The percent of the tasks whose tools were all answered from the recording; None without any."""
        return 100 * (self.all_recorded + self.models_live) / self.tasks if self.tasks else None

    def notes(self) -> list[str]:
        """What a reader must know, in sentences; none where nothing was answered from a recording."""
        if not self.recorded_calls + self.all_recorded + self.static_calls:
            return []
        tasks = ((self.all_recorded, ALL), (self.models_live, MODELS), (self.tools_live, TOOLS), (self.nothing_recorded, NOTHING))
        calls = ((self.recorded_calls, "recorded"), (self.live_calls, "live"), (self.static_calls, "static"), (self.refused_calls, "refused"))
        found = [
            f"Replay of {_plural(self.tasks)}: {_counted(tasks, 'with ')}. Calls: {_counted((count, word) for count, word in calls) or 'none, all steps were borrowed'}."
        ]
        if self.places:
            found.append(f"The first call that left the recording: {_named(self.places)}.")
        if self.tools:
            found.append(f"Tools that the recording did not answer: {_named(self.tools)}.")
        if self.mixed:
            found.append(
                f"Warning: in {_plural(self.mixed)} the score mixes recorded and live results of tools, which may have changed in between. "
                "Static answers ('tools' in the spec) or 'on_miss: refuse' avoid that."
            )
        if self.refused_calls:
            found.append("What an agent does after a refused call is not what it would do in production.")
        return found


def states(pairs: Pairs, candidate: Side) -> list[str]:
    """For each pair one of STATES, of the candidate, or nothing where it makes no calls; none at all where no task does."""
    by_task = _states(candidate)
    if not by_task:
        return []
    keys = zip(pairs.after["task_id"].to_pylist(), pairs.after["trial"].to_pylist(), strict=True)
    return [by_task.get(key, "") for key in keys]


def by_recording(score: Quantity, found: Sequence[str]) -> list[Part]:
    """The score of the tasks of each state; none where all are of one."""
    kinds = [kind for kind in STATES if kind in found]
    if len(kinds) < 2:
        return []
    parts = []
    for kind in kinds:
        mine = np.array([state == kind for state in found])
        quantity = Quantity(*(np.where(mine, side, np.nan) for side in (score.before, score.after)))
        count = int(mine.sum())
        parts.append(Part("recording", kind, quantity, counts=(count, count)))
    return parts


def replay(candidate: Side) -> Replay | None:
    """What the calls of the candidate were answered from; None where it makes none."""
    by_task = _states(candidate)
    if not by_task or candidate.calls is None:
        return None
    worst: dict[str, str] = {}
    for (task, _), state in by_task.items():
        worst[task] = _worse(worst.get(task, ""), state)
    counted, sources = Counter(worst.values()), Counter(candidate.calls["source"].to_pylist())
    first: dict[str, tuple[str, str]] = {}
    for row in candidate.steps.select(["task_id", "node", "divergence"]).filter(pc.is_valid(candidate.steps["divergence"])).to_pylist():
        first.setdefault(row["task_id"], (row["node"], _what(strict_json(row["divergence"]))))
    tools = candidate.calls.filter(pc.equal(candidate.calls["kind"], "tool"))
    unanswered = tools.filter(pc.is_in(tools["source"], pa.array(["live", "refused"])))
    missing = {(row["task_id"], row["node"], row["name"]) for row in unanswered.to_pylist() if worst.get(row["task_id"]) == TOOLS}
    recorded = tools.filter(pc.is_in(tools["source"], pa.array(["recorded", "static"])))
    stateful = tools.filter(pc.and_(pc.equal(tools["source"], "live"), pc.not_equal(pc.fill_null(tools["effects"], "write"), "none")))
    return Replay(
        counted[ALL],
        counted[MODELS],
        counted[TOOLS],
        counted[NOTHING],
        sources["recorded"],
        sources["live"],
        sources["static"],
        sources["refused"],
        len(set(recorded["task_id"].to_pylist()) & set(stateful["task_id"].to_pylist())),
        _places(first.values()),
        _places((node, name) for _, node, name in missing),
    )


def _states(candidate: Side) -> dict[tuple[str, int], str]:
    """Task and trial to one of STATES; only those with a step that makes calls."""
    if candidate.calls is None:
        return {}
    tools = candidate.calls.filter(pc.equal(candidate.calls["kind"], "tool"))
    live = {(row["task_id"], row["trial"], row["node"]) for row in tools.to_pylist() if row["source"] in ("live", "refused")}
    steps = candidate.steps.filter(pc.is_valid(candidate.steps["turns"]))
    found: dict[tuple[str, int], str] = {}
    for row in steps.select(["task_id", "trial", "node", "outcome", "calls_recorded", "diverged_at"]).to_pylist():
        key = row["task_id"], row["trial"]
        if row["outcome"] == "borrowed":
            state = ALL
        elif row["diverged_at"] is None:
            state = ALL if row["calls_recorded"] else NOTHING
        else:
            state = TOOLS if (*key, row["node"]) in live else MODELS
        found[key] = _worse(found.get(key, ""), state)
    return found


def _worse(one: str, other: str) -> str:
    """Of two states of one task the one that says more against it."""
    return max(one, other, key=["", ALL, MODELS, NOTHING, TOOLS].index)


def _what(divergence: Mapping[str, Any]) -> str:
    made = divergence["made"]
    if made["kind"] == "tool":
        return f"the tool {made['name']}"
    place = f" at {divergence['where']}" if divergence["where"] else ""
    return f"{made['kind']} call {made['number']}{place}"


def _places(found: Iterable[tuple[str, str]]) -> tuple[Place, ...]:
    ordered = sorted(Counter(found).items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(Place(node, what, count) for (node, what), count in ordered)


def _named(places: Sequence[Place]) -> str:
    named = "; ".join(f"{place.node}: {place.what} ({_plural(place.tasks)})" for place in places[:SHOWN])
    return f"{named}; {len(places) - SHOWN:,} more" if len(places) > SHOWN else named


def _counted(counts: Iterable[tuple[int, str]], before: str = "") -> str:
    return "; ".join(f"{count:,} {before}{word}" for count, word in counts if count)


def _plural(count: int) -> str:
    return f"{count:,} task{'s' * (count != 1)}"
