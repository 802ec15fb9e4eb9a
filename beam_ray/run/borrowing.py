"""
Whether a step is executed, or takes its output from the origin: decided from fingerprints alone.
"""

from dataclasses import dataclass

from beam_ray.run.context import RAN, PreparedNode, StepContext, TaskTrial
from beam_ray.store.tables import AttemptRow, StepRow

CRITERIA_CHANGED = "only the criteria changed"
"""Reason of a borrowed step whose output is scored again."""

PINNED = "pinned: the output that another run has here"
"""Reason of a step whose output is another run's, whatever its inputs are."""


@dataclass(frozen=True)
class Execute:
    """Execute the step."""

    attempts: tuple[AttemptRow, ...] = ()
    """Attempts of the origin that still hold: their outputs are not paid for again."""


@dataclass(frozen=True)
class Borrow:
    """Take the origin's output."""

    origin: StepRow
    reason: str
    rescore: bool


@dataclass(frozen=True)
class Copy:
    """Take the origin's row, which has no output, as it is."""

    origin: StepRow


@dataclass(frozen=True)
class Skip:
    """Do not run the step."""

    reason: str


def decide(context: StepContext, node: PreparedNode, task: TaskTrial, fingerprint: str, criteria_fingerprint: str) -> Execute | Borrow | Copy | Skip:
    """What to do with a step whose route is taken and whose inputs are known."""
    if node.name == context.pinned:
        return _pinned(context, node, task, criteria_fingerprint)
    withheld = node.node.effects == "write" and not context.allow_writes
    fixed = context.execute is not None and node.name not in context.execute
    origin = context.origin_row(node.name, task) if (withheld or fixed or context.borrow) else None
    has_output = origin is not None and origin["outcome"] in RAN
    if context.pinned and fixed and origin is not None and not has_output:
        # a step that failed beside the pinned node is no part of the experiment
        return Copy(origin)
    if context.rescore_only and origin is not None:
        if not has_output:
            return Copy(origin)
        changed = origin["criteria_fingerprint"] != criteria_fingerprint
        reason = CRITERIA_CHANGED if changed else "scored again" if context.sample else "nothing that it depends on has changed"
        return Borrow(origin, reason, rescore=changed or context.sample > 0)
    if withheld and not fixed:
        if origin is None or not has_output:
            return Skip("not called in reruns and backtests, and the original run has no recorded output to replay")
        return Borrow(origin, "write not repeated: the recorded output of the original run is replayed", rescore=True)
    if fixed and origin is not None and has_output:
        return Borrow(origin, "does not depend on the node that the rerun starts from", rescore=False)
    if not fixed and context.borrow and context.execute is None:
        origin = _lender(context, node, task, origin, fingerprint, criteria_fingerprint)
        has_output = origin is not None
    if origin is None or not has_output:
        return Execute()
    if context.borrow and context.execute is None and origin["fingerprint"] == fingerprint:
        if origin["criteria_fingerprint"] == criteria_fingerprint:
            return Borrow(origin, "nothing that it depends on has changed", rescore=False)
        attempts = origin["attempts"] or ()
        if not node.node.auto_rerun and len(attempts) <= 1:
            return Borrow(origin, CRITERIA_CHANGED, rescore=True)
        # the answer of the first attempt does not depend on the criteria; later ones may
        return Execute(tuple({**attempt, "criteria": []} for attempt in attempts[:1]))
    return Execute()


def _pinned(context: StepContext, node: PreparedNode, task: TaskTrial, criteria_fingerprint: str) -> Borrow | Skip:
    """The other run's output, scored by this run's criteria."""
    row = context.pinned_row(node.name, task)
    if row is None or row["outcome"] not in RAN:
        return Skip("the run whose output is pinned here has none")
    return Borrow(row, PINNED, rescore=row["criteria_fingerprint"] != criteria_fingerprint)


def _lender(context: StepContext, node: PreparedNode, task: TaskTrial, origin: StepRow | None, fingerprint: str, criteria_fingerprint: str) -> StepRow | None:
    """The row that the step is borrowed from: the origin's before those of other runs, and one that need not be scored again before one that must."""
    rows = [row for row in (origin, *context.lent_rows(node.name, task)) if row is not None and row["outcome"] in RAN and row["fingerprint"] == fingerprint]
    return next((row for row in rows if row["criteria_fingerprint"] == criteria_fingerprint), rows[0] if rows else None)
