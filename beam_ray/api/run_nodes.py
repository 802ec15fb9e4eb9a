"""What happened at each node of a run, counted over the steps that are stored."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from beam_ray.api.runs import Run


@dataclass(frozen=True)
class RunNode:
    """One node of a run, over tasks and trials; of an unfinished run what is done so far."""

    name: str
    title: str
    asks: str
    """The model, tool or program; empty where it has none."""
    route: str | None
    done: int
    """Executed steps."""
    borrowed: int
    skipped: int
    failed: int
    scored: int
    passed: int
    """Scored steps that reached the threshold."""
    score: float | None
    """Mean score, 0 to 100: the accuracy; None when nothing is scored."""
    auto_reruns: int
    """Steps with at least one auto-rerun."""
    usd: float | None
    """US dollars, judges left out; None when the model has no price."""
    mean_seconds: float | None
    """Of executed steps; None where there are none."""


def run_nodes(run: "Run") -> tuple[RunNode, ...]:
    """See ``Run.nodes``."""
    steps = run.steps(columns=["node", "outcome", "score", "passed", "attempts", "usd", "seconds"])
    return tuple(_node(run, name, steps.filter(pc.equal(steps["node"], name))) for name in run.workflow.order)


def _node(run: "Run", name: str, steps: pa.Table) -> RunNode:
    node = run.workflow.nodes[name]
    outcomes = {entry["values"]: entry["counts"] for entry in pc.value_counts(steps["outcome"]).to_pylist()}
    again = pc.greater(pc.fill_null(pc.list_value_length(steps["attempts"]), 0), 1)
    usd = pc.sum(steps["usd"]).as_py()
    return RunNode(
        name,
        run.workflow.title_of(name),
        run.workflow.model_of(name) or node.program or "",
        node.route,
        outcomes.get("done", 0),
        outcomes.get("borrowed", 0),
        outcomes.get("skipped", 0),
        outcomes.get("failed", 0),
        len(steps) - steps["score"].null_count,
        pc.sum(pc.cast(steps["passed"], "int64")).as_py() or 0,
        pc.mean(steps["score"]).as_py(),
        pc.sum(pc.cast(again, "int64")).as_py() or 0,
        usd,
        pc.mean(steps.filter(pc.equal(steps["outcome"], "done"))["seconds"]).as_py(),
    )
