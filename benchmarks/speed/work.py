"""
The workload, the same for every tool: the latency of each call, and the ideal time.

A prompt is ``task N step M …``. The latency depends on the prompt only, so the ideal time is the
same for every tool and order.
"""

import hashlib
import heapq
import math
import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STEPS, CONCURRENCY = 4, 64
MEDIAN_S, SIGMA = 0.2, 0.8
SLOWER = 20
"""How many times as long each step of a slow task takes."""


@dataclass(frozen=True)
class Latency:
    """How long calls take: fixed, lognormal or zero; tasks in *slow* take SLOWER times as long."""

    shape: str = "fixed"
    slow: Collection[int] = ()

    def of(self, task: int, step: int) -> float:
        """Seconds."""
        if self.shape == "zero":
            return 0.0
        seconds = MEDIAN_S
        if self.shape == "lognormal":
            seed = hashlib.sha256(f"{task}/{step}".encode()).hexdigest()[:12]
            seconds *= math.exp(random.Random(int(seed, 16)).gauss(0, SIGMA))
        return seconds * (SLOWER if task in self.slow else 1)

    def of_task(self, task: int, steps: int = STEPS) -> float:
        """Seconds for the steps of a task, one after the other."""
        return sum(self.of(task, step) for step in range(1, steps + 1))

    def ideal_s(self, tasks: int, steps: int = STEPS, concurrency: int = CONCURRENCY) -> float:
        """The lower bound: the longest task, or the total latency divided by the concurrency, whichever is larger."""
        each = [self.of_task(task, steps) for task in range(tasks)]
        return max(max(each, default=0.0), sum(each) / concurrency)

    def in_order(self, tasks: int, steps: int = STEPS, concurrency: int = CONCURRENCY) -> list[float]:
        """
        When each task ends if tasks start in order and no permit is ever idle.

        Which tasks are slow is not known in advance, so no scheduler can be expected to do better.
        """
        free, ends = [0.0] * concurrency, []
        for task in range(tasks):
            ends.append(heapq.heappop(free) + self.of_task(task, steps))
            heapq.heappush(free, ends[-1])
        return ends


def numbers(prompt: str) -> tuple[int, int]:
    """Task and step of a prompt; -1 where it has none."""
    match = re.search(r"task (\d+) step (\d+)", prompt)
    return (int(match[1]), int(match[2])) if match else (-1, -1)


AGENT_CALLS = 8
"""Calls of an agent's task: four of its model and four of its tool."""


def agent_calls(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Id and argument of the calls of a tool that an agent's model asks for in its next turn: two, then one, then one, then none."""
    turn = sum(message["role"] == "assistant" for message in messages)
    return [(f"c{turn}{place}", f"k{turn}{place}") for place in range((2, 1, 1, 0)[min(turn, 3)])]


def fitting(schema: Mapping[str, Any]) -> Any:
    """A value that fits a schema; yes to every question."""
    if "properties" in schema:
        return {name: fitting(inner) for name, inner in schema["properties"].items()}
    return {"boolean": True, "string": "ok", "integer": 1, "number": 1.0}.get(schema.get("type", ""))
