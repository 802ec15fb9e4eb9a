"""The tables of a plan."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import beam_ray
from beam_ray.cli.screen import at_most, duration, money, plural, table


def plan_table(made: beam_ray.Plan) -> str:
    """What is run, borrowed and scored again at each node, and why."""
    rows = []
    for node in made.nodes:
        most = "≤ " if node.conditional and node.run else ""
        definition = made.workflow.nodes[node.node]
        asks = ", ".join(definition.asks)
        calls = node.calls + node.judge_calls
        rows.append(
            [
                node.node,
                node.model or (f"{definition.kind} asks {asks}" if asks else definition.kind),
                f"{most}{node.run}",
                node.borrow,
                node.rescore,
                f"{'≤ ' if asks and calls else most}{calls}" if node.model or calls else "",
                at_most(node.max_usd) if node.model else "unknown" if asks and node.max_usd is None else "",
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


def detection_table(found: beam_ray.Detection) -> str:
    """How many tasks and trials show a change, and what they cost."""
    rows = [
        [
            each.trials,
            f"{each.flips:.1f} %",
            f"{each.success_rate_tasks:,}",
            "-" if each.score_tasks is None else f"{each.score_tasks:,}",
            f"{each.calls:,}",
            at_most(each.max_usd),
            time_range(each.seconds),
        ]
        for each in found.options
    ]
    return table(["trials", "tasks that flip", "tasks: success rate", "tasks: mean score", "model calls", "cost", "time"], rows, right=list(range(6)))


def detection_notes(found: beam_ray.Detection) -> list[str]:
    """What the table rests on."""
    notes = [f"to show a change of {found.points:g} points with 80% power (in 80 of 100 backtests):"]
    if not found.runs:
        return [*notes, "  no two finished runs of this workflow share 10 tasks, so how many tasks flip is assumed; --aa measures it"]
    notes.append(
        f"  from {found.compared:,} compared results of {plural(len(found.runs), 'finished run')}: {found.flips:.1f} % of the tasks flip beyond the net change"
    )
    notes.append(
        "  nothing tells how many flip without a change; --aa measures it" if found.noise is None else f"  without any change {found.noise:.1f} % flip"
    )
    return notes


def repeats_note(found: beam_ray.RepeatsPlan) -> str:
    """What repeats of newly failing tasks may cost."""
    expected = (
        "how often tasks fail by chance is not known from earlier runs"
        if found.flakes is None or found.expected_runs is None
        else f"about {plural(found.expected_runs, 'run')} of a task if nothing breaks, because {found.flakes:.1f} % of a task's runs fail by chance in earlier runs"
    )
    most = f"{plural(found.most_runs, 'run')}, {plural(found.most_calls, 'model call')}, {at_most(found.most_usd)}"
    return f"confirm: newly failing tasks are repeated {found.times} times on both sides, suspected ones again: {expected}; at most {most}"


def able(found: beam_ray.Detection, tasks: int) -> str:
    """What the spec's own tasks and trials show."""
    shown = [(found.detectable_rate, "success rate"), (found.detectable_score, "mean score")]
    named = ", ".join(f"{value:.1f} points of the {what}" for value, what in shown if value is not None)
    return f"the spec's {plural(tasks, 'task')} show {named}" if named else ""


def time_range(seconds: tuple[float, float] | None) -> str:
    """A range of time, as learned from earlier runs."""
    if seconds is None:
        return "unknown"
    low, high = (duration(each) for each in seconds)
    return low if low == high else f"{low} to {high}"


def totals(made: beam_ray.Plan) -> str:
    """The plan in one line."""
    nodes = made.workflow.nodes.values()
    bound = "at most " if made.conditional or any(node.agent or node.asks for node in nodes) else ""
    cost = at_most(made.max_usd)
    if made.max_usd is None and "unpriced" not in made.prices.values() and any(node.asks for node in nodes):
        cost = "cost unknown, as programs write their own requests"
    again = f" and at most {plural(made.max_auto_reruns, 'auto-rerun')}" if made.max_auto_reruns else ""
    without = " without auto-reruns" if again else ""
    return f"{bound}{plural(made.calls, 'model call')}{again}, {cost}{without}, {time_range(made.seconds) if made.seconds else 'time unknown'} (planned; no model was called yet){recorded(made)}"


def recorded(made: beam_ray.Plan) -> str:
    """What the recording is sure to answer, on a line of its own; empty where it is nothing."""
    if not made.recorded_calls:
        return ""
    calls = "1 more model call is" if made.recorded_calls == 1 else f"{made.recorded_calls:,} more model calls are"
    cost = "" if made.recorded_usd is None else f"; they cost {money(made.recorded_usd)} when they were made"
    return f"\n{calls} sure to be answered from the recording{cost}"
