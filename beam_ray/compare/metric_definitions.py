"""Which numbers a comparison has: their names in gate files, what people call them, and which way is better."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["up", "down"]


@dataclass(frozen=True)
class Kind:
    """What a metric is; *scale* leads from a mean to its unit."""

    title: str
    unit: str
    better: Better
    scale: float = 1.0


KINDS: Mapping[str, Kind] = {
    "success_rate": Kind("success rate", "%", "up", 100),
    "score": Kind("mean score", "points", "up"),
    "first_score": Kind("first-attempt score", "points", "up"),
    "failing": Kind("failing tasks", "tasks", "down"),
    "score_sd": Kind("standard deviation of scores", "points", "down"),
    "unscored": Kind("tasks without a score", "%", "down", 100),
    "tool_errors": Kind("tasks with a tool error", "%", "down", 100),
    "infrastructure_errors": Kind("tasks with an infrastructure error", "%", "down", 100),
    "answer_errors": Kind("tasks with an answer error", "%", "down", 100),
    "timeouts": Kind("tasks with a timeout", "%", "down", 100),
    "refusals": Kind("tasks with a refusal", "%", "down", 100),
    "bad_answers": Kind("tasks with a bad answer", "%", "down", 100),
    "other_errors": Kind("tasks with another error", "%", "down", 100),
    "turns": Kind("turns of agents per task", "turns", "down"),
    "tool_calls": Kind("tool calls of agents per task", "calls", "down"),
    "failed_tool_calls": Kind("failed tool calls of agents per task", "calls", "down"),
    "auto_reruns": Kind("auto-reruns per task", "attempts", "down"),
    "auto_rerun_tokens": Kind("tokens of auto-reruns per task", "tokens", "down"),
    "auto_rerun_usd": Kind("cost of auto-reruns per task", "USD", "down"),
    "seconds": Kind("execution time per task", "s", "down"),
    "seconds_p50": Kind("execution time, median", "s", "down"),
    "seconds_p95": Kind("execution time, 95th percentile", "s", "down"),
    "calls": Kind("model calls per task", "calls", "down"),
    "tokens": Kind("tokens per task", "tokens", "down"),
    "usd": Kind("cost per task", "USD", "down"),
}

OF_CALLS = ("turns", "tool_calls", "failed_tool_calls")
"""Metrics of workflows with agents or programs alone."""
