"""Tasks of a run by what happened at one of its nodes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.errors import Unusable, did_you_mean
from beam_ray.store.runs import Run


def unmet_steps(run: Run, node: str, criterion: str | None = None) -> pa.Array:
    """
    Tasks and trials, as ``step_keys`` writes them, whose step at the node failed or did not pass; with a criterion, those whose step does not meet it.

    Raises:
        Unusable: the run has no such node, or the node no such criterion.
    """
    nodes = run.record.plan.nodes
    _require("run", run.run_id, "node", node, list(nodes))
    evaluate = nodes[node].evaluate
    if criterion is not None:
        _require("node", node, "criterion", criterion, [each.id for each in evaluate.criteria] if evaluate else [])
    steps = run.steps([node], ["task_id", "trial", "outcome", "passed", *(["criteria"] if criterion is not None else [])])
    if criterion is None:
        unmet = pc.or_(pc.equal(steps["outcome"], "failed"), pc.fill_null(pc.equal(steps["passed"], False), False))
        return step_keys(steps.filter(unmet))
    judged = steps["criteria"].combine_chunks()
    flat = pc.list_flatten(judged)
    missed = pc.and_(pc.equal(pc.struct_field(flat, "id"), criterion), pc.equal(pc.struct_field(flat, "met"), False))
    rows = pc.list_parent_indices(judged).filter(pc.fill_null(missed, False))
    return step_keys(steps.take(pa.array(np.unique(np.asarray(rows)))))


def step_keys(rows: pa.Table) -> pa.Array:
    """Task and trial of each row as one text."""
    return pc.binary_join_element_wise(pc.cast(rows["trial"], pa.string()), rows["task_id"], "/").combine_chunks()


def _require(kind: str, owner: str, what: str, name: str, known: list[str]) -> None:
    if name not in known:
        lines = [f"the {kind} {owner} has no {what} {name[:80]!r}", f"it has: {', '.join(known) or 'none'}", *did_you_mean(name, known)]
        raise Unusable("\n  ".join(lines))
