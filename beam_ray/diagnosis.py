"""
Diagnose a damaged run: what is damaged, and what repairing it takes. Nothing is changed.

What of a run can be restored, and from what, is described in ``repair``.
"""

from dataclasses import dataclass

import pyarrow as pa

from beam_ray.errors import Damaged, Unusable
from beam_ray.llm.scripted import Models
from beam_ray.run.plan import estimate
from beam_ray.store.integrity import Damage, Found, Key, damaged_parts, inspect, pending
from beam_ray.store.run_record import tasks_digest
from beam_ray.store.runs import Run
from beam_ray.tasks.changed_inputs import changed_tasks
from beam_ray.tasks.sources import only, read, shuffled, with_origins


@dataclass(frozen=True)
class NodeRepair:
    """What a repair does at one node, in rows."""

    node: str
    redo: int
    """Rows that cannot be read and are executed again."""
    follow: int
    """Intact rows after them: executed again if their inputs change, else kept."""
    calls: int
    """Model calls for the rows in *redo*, judges included."""
    follow_calls: int
    """Model calls for the rows in *follow*, if all of them change."""


@dataclass(frozen=True)
class Diagnosis:
    """What is damaged in a run, and what repairing it takes."""

    run_id: str
    finished: bool
    damaged: tuple[Damage, ...]
    nodes: tuple[NodeRepair, ...] = ()
    tasks: int = 0
    """Tasks that have a row to execute again."""
    usd: float | None = 0.0
    """US dollars at most; None when a model has no price, or the models are not known."""
    hopeless: str = ""
    """Why it cannot be repaired; empty when it can."""

    @property
    def calls(self) -> int:
        """Model calls for the rows to execute again."""
        return sum(node.calls for node in self.nodes)

    @property
    def most_calls(self) -> int:
        """Model calls if all rows after them change too."""
        return self.calls + sum(node.follow_calls for node in self.nodes)


def diagnose(run: Run, models: Models | None = None) -> Diagnosis:
    """
    Check every file of *run* and estimate its repair; nothing is changed.

    Args:
        models: Known models, for the estimate of costs.

    Raises:
        Unusable: there is no such run.
        Damaged: the run's record is lost, so nothing can be repaired.
    """
    if not run.merged:
        run.tasks()
        return Diagnosis(run.run_id, False, tuple(damage for _, _, damage in damaged_parts(run)))
    found = inspect(run)
    damaged = list(found.damaged)
    if pending(run) is not None:
        damaged.append(Damage("repair/manifest.json", 0, f"{run.prefix}: a repair was interrupted; running it again completes it without model calls"))
    hopeless = ""
    if found.tasks is None and restored_tasks(run, found) is None:
        hopeless = f"{run.prefix}/tasks.parquet cannot be restored: the tasks came from {found.record.source or 'a file'}"
    nodes, affected = to_redo(found)
    usd = None
    if models is not None and found.tasks is not None:
        known = {name: models[name] for name in found.record.plan.models if name in models}
        usd = _cost(found, nodes, affected, known) if len(known) == len(found.record.plan.models) else None
    return Diagnosis(run.run_id, True, tuple(damaged), nodes, len({task for task, _ in affected}), 0.0 if not affected else usd, hopeless)


def to_redo(found: Found) -> tuple[tuple[NodeRepair, ...], list[Key]]:
    """What a repair does at each node, and the tasks and trials with a row to execute again."""
    workflow, lost = found.record.plan, found.lost
    follow = {node: set[Key]().union(*(lost[above] for above in workflow.upstream[node])) - lost[node] for node in workflow.order}
    nodes = []
    for node in workflow.order:
        agent = workflow.nodes[node].agent
        each = (agent.max_turns if agent else bool(workflow.nodes[node].call)) + len(workflow.judges_of(node))
        if lost[node] or follow[node]:
            nodes.append(NodeRepair(node, len(lost[node]), len(follow[node]), each * len(lost[node]), each * len(follow[node])))
    affected = set[Key]().union(*lost.values())
    return tuple(nodes), [key for key in found.keys if key in affected]


def _cost(found: Found, nodes: tuple[NodeRepair, ...], affected: list[Key], models: Models) -> float | None:
    assert found.tasks is not None
    tasks = only(found.tasks, list({task for task, _ in affected}))
    per_node = {plan.node: plan for plan in estimate(found.record.plan, tasks, models, found.record.trials)}
    costs = [(per_node[node.node].usd, (node.redo + node.follow) / max(per_node[node.node].run, 1)) for node in nodes]
    return None if any(usd is None for usd, _ in costs) else sum((usd or 0.0) * share for usd, share in costs)


def restored_tasks(run: Run, found: Found) -> pa.Table | None:
    """All tasks that the run was planned with, from their source; None if the source is gone or has changed."""
    record = found.record
    if not record.source.startswith(("library:", "run:")):
        return None
    try:
        tasks, _ = read(run.objects, record.source)
    except (Unusable, Damaged):
        return None
    if record.cut_from is None:
        tasks = only(tasks, list(dict.fromkeys(task for task, _ in found.keys)))
    if record.mode in ("rerun", "what-if") and record.origin:
        tasks = with_origins(tasks, record.origin)
    if record.changed_inputs:
        tasks = changed_tasks(tasks, record.changed_inputs, record.plan)
    # a backtest that may stop early shuffles its tasks
    return next((each for each in (tasks, shuffled(tasks, record.backtest or ""), shuffled(tasks)) if tasks_digest(each) == record.tasks_digest), None)
