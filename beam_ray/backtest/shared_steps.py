"""Steps that candidates of one backtest have in common: paid for by the first of them, and borrowed by the others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from beam_ray.backtest.spec import Side
from beam_ray.define.workflow import Workflow
from beam_ray.run.lenders import lenders, shared_pasts
from beam_ray.run.plan import NodePlan, Plan
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run


def lending_runs(objects: Objects, workflow: Workflow, origin: str | None, runs: Sequence[str]) -> tuple[str, ...]:
    """Those of the *runs* that may have steps of *workflow* which the *origin* has not."""
    plans: Mapping[str, Workflow] = {run_id: Run(objects, run_id).record.plan for run_id in dict.fromkeys(runs) if run_id != origin}
    return tuple(lenders(workflow, Run(objects, origin).record.plan if origin else None, plans))


def with_shared_steps(plan: Plan, baseline: Side, earlier: Sequence[Side]) -> Plan:
    """*plan* of a candidate, in which what an *earlier* candidate of the backtest will have run before is borrowed from it, and its calls are not counted."""
    # what production answered is no step's output
    shared = shared_pasts(plan.workflow, None if baseline.recorded else baseline.workflow, {side.name: side.workflow for side in earlier})
    return replace(plan, nodes=tuple(_borrowed(node, shared[node.node]) if node.node in shared else node for node in plan.nodes))


def _borrowed(node: NodePlan, lender: str) -> NodePlan:
    if not node.run:
        return node
    nothing = {lane: (0.0, 0.0) for lane in node.usd_by_lane}
    return replace(
        node,
        run=0,
        borrow=node.borrow + node.run,
        judge_calls=0,
        conditional=False,
        why=(f"as in {lender}",),
        input_tokens=0,
        output_tokens=0,
        usd=0.0,
        judge_usd=0.0,
        usd_by_lane=nothing,
    )
