"""The tables of a plan."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import beam_ray
from beam_ray.cli.screen import at_most, plural, table


def plan_table(made: beam_ray.Plan) -> str:
    """What is run, borrowed and scored again at each node, and why."""
    rows = []
    for node in made.nodes:
        most = "≤ " if node.conditional and node.run else ""
        rows.append(
            [
                node.node,
                node.model or "tool",
                f"{most}{node.run}",
                node.borrow,
                node.rescore,
                f"{most}{node.calls + node.judge_calls}" if node.model or node.judge_calls else "",
                at_most(node.max_usd) if node.model else "",
                ", ".join(node.why),
            ]
        )
    return table(["node", "model or tool", "run", "borrow", "rescore", "model calls", "cost", "because of"], rows, right=[2, 3, 4, 5, 6])


def lanes(made: beam_ray.Plan) -> str:
    """What each lane costs at most; empty where both cost the same."""
    interactive, batch = made.max_usd_by_lane.get("interactive"), made.max_usd_by_lane.get("batch")
    if interactive == batch:
        return ""
    return f"lanes: interactive {at_most(interactive)}, batch {at_most(batch)} (--lane batch: answers within a day per wave)"


def totals(made: beam_ray.Plan) -> str:
    """The plan in one line."""
    bound = "at most " if made.conditional else ""
    again = f" and at most {plural(made.max_auto_reruns, 'auto-rerun')}" if made.max_auto_reruns else ""
    without = " without auto-reruns" if again else ""
    return f"{bound}{plural(made.calls, 'model call')}{again}, {at_most(made.max_usd)}{without} (planned; no model was called yet)"
