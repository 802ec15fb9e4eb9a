"""A workflow as a flow: its graph, and how each node and each branch did in a run, in all runs of a version, or in a backtest."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, TypedDict, cast

from beam_ray.api.display import Display, Displayed
from beam_ray.api.flow_numbers import (
    FlowCriterion,
    FlowCriterionDocument,
    FlowEdge,
    FlowEdgeDocument,
    FlowNumbers,
    FlowNumbersDocument,
    NodeNumbers,
    NodeNumbersDocument,
    Source,
    criteria_numbers,
    edges,
    named_source,
    node_numbers,
    runs_of_definition,
)
from beam_ray.api.location import Location
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.prompt_variables import names_for
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import Problem, Unusable, did_you_mean
from beam_ray.store.newest_run import newest_definition
from beam_ray.store.step_counts import RunCounts


@dataclass(frozen=True)
class FlowNode:
    """A node of the graph."""

    name: str
    title: str
    kind: str
    """llm, agent, tool or command."""
    asks: str
    """The model that it calls, or the tool or command that it is."""
    tools: tuple[str, ...]
    """The tools that an agent may call."""
    judges: tuple[str, ...]
    final: bool
    """Whether nothing comes after it."""
    threshold: float | None
    criteria: tuple[FlowCriterion, ...]
    variables: tuple[str, ...]
    """Names that its prompt or arguments may use, such as ``extract.vendor``."""
    numbers: NodeNumbers | None
    """None where the runs that are shown have no such node."""
    as_run: bool
    """Whether the node was defined as here in the runs that are shown."""
    definition: Node = field(compare=False)


class FlowNodeDocument(TypedDict):
    """A node as JSON."""

    node: str
    title: str
    kind: str
    asks: str
    tools: list[str]
    judges: list[str]
    final: bool
    threshold: float | None
    auto_rerun: JsonObject | None
    criteria: list[FlowCriterionDocument]
    variables: list[str]
    numbers: NodeNumbersDocument | None
    as_run: bool


class FlowDocument(TypedDict):
    """A flow as ``--json`` prints it."""

    workflow: str
    version: int | None
    digest: str
    numbers: FlowNumbersDocument
    nodes: list[FlowNodeDocument]
    edges: list[FlowEdgeDocument]
    warnings: list[str]


@dataclass(frozen=True, repr=False)
class Flow(Displayed):
    """A workflow's graph with numbers."""

    workflow: Workflow = field(compare=False)
    version: int | None
    """Number of the published version; None for a draft, a file, or the definition of a run."""
    numbers: FlowNumbers
    nodes: tuple[FlowNode, ...]
    edges: tuple[FlowEdge, ...]
    warnings: tuple[Problem, ...] = ()
    """Advice of ``check``."""

    def node(self, name: str) -> FlowNode:
        """
        One node.

        Raises:
            Unusable: there is none of that name.
        """
        found = next((each for each in self.nodes if each.name == name), None)
        if found is None:
            names = [each.name for each in self.nodes]
            raise Unusable("\n  ".join([f"{self.workflow.name} has no node {name[:80]!r}", f"it has: {', '.join(names)}", *did_you_mean(name, names)]))
        return found

    @property
    def weakest(self) -> FlowNode:
        """The node with the lowest score, which is looked at first; without scores the first with a prompt."""
        return _weakest(self.nodes)

    def display(self) -> Display:
        facts = (("version", self.version), ("nodes", len(self.nodes)), ("numbers of", ", ".join(self.numbers.runs[:3])))
        rows = [(each.name, each.asks, each.numbers.score if each.numbers else None, each.numbers.scored if each.numbers else None) for each in self.nodes]
        return Display(self.workflow.name, facts, ("node", "model or tool", "accuracy %", "scored"), rows)

    def document(self) -> FlowDocument:
        """The flow as a JSON document."""
        return {
            "workflow": self.workflow.name,
            "version": self.version,
            "digest": self.workflow.digest,
            "numbers": cast(FlowNumbersDocument, {**asdict(self.numbers), "runs": list(self.numbers.runs)}),
            "nodes": [_node_document(each) for each in self.nodes],
            "edges": [cast(FlowEdgeDocument, {**asdict(each), "percent": each.percent}) for each in self.edges],
            "warnings": [str(warning) for warning in self.warnings],
        }


def _node_document(node: FlowNode) -> FlowNodeDocument:
    again = node.definition.auto_rerun
    return {
        "node": node.name,
        "title": node.title,
        "kind": node.kind,
        "asks": node.asks,
        "tools": list(node.tools),
        "judges": list(node.judges),
        "final": node.final,
        "threshold": node.threshold,
        "auto_rerun": again.model_dump(mode="json") if again else None,
        "criteria": [cast(FlowCriterionDocument, asdict(each)) for each in node.criteria],
        "variables": list(node.variables),
        "numbers": cast(NodeNumbersDocument, asdict(node.numbers)) if node.numbers else None,
        "as_run": node.as_run,
    }


def flow(
    store: Location,
    workflow: WorkflowOption,
    *,
    run: str | None = None,
    all_runs: bool = False,
    backtest: str | None = None,
    candidate: str | None = None,
    criteria_of: Iterable[str] | Literal["weakest"] | None = None,
) -> Flow:
    """See ``Store.flow``."""
    counts = store.run_counts
    version: int | None = None
    warnings: tuple[Problem, ...] = ()
    source = named_source(store, counts, run, backtest, candidate)
    try:
        found = check(workflow, store)
        definition, version, warnings = found.workflow, found.version, found.warnings
    except Unusable:
        # a workflow that was never published is known by its runs
        newest = newest_definition(store.existing(), str(workflow))
        if newest is None:
            raise
        definition = newest
    if source is None:
        source = runs_of_definition(store, counts, definition, all_runs)
    if source.workflow and source.workflow.name != definition.name:
        raise Unusable(f"{', '.join(source.numbers.runs)} is of the workflow {source.workflow.name!r}, not of {definition.name!r}")
    if source.candidate is not None:
        definition, version = source.candidate.workflow, None
    same = source.workflow is None or source.workflow.digest == definition.digest
    source = replace(source, numbers=replace(source.numbers, same_definition=same))
    alike = set(definition.order) if same else _alike(definition, source.workflow)
    nodes, number = [], 1
    for name in definition.order:
        made = _node(counts, definition, name, source, number)
        nodes.append(replace(made, as_run=made.numbers is not None and name in alike))
        number += len(made.criteria)
    wanted = {_weakest(nodes).name} if criteria_of == "weakest" else set(definition.order if criteria_of is None else criteria_of)
    for index, node in enumerate(nodes):
        if node.name in wanted and node.criteria and node.numbers is not None:
            nodes[index] = replace(node, criteria=criteria_numbers(counts, definition, node.name, source, node.criteria[0].number))
    return Flow(definition, version, source.numbers, tuple(nodes), tuple(edges(counts, definition, source)), tuple(warnings))


def _weakest(nodes: Sequence[FlowNode]) -> FlowNode:
    """The node with the lowest score; without any the first with a prompt."""
    scored = [each for each in nodes if each.numbers and each.numbers.score is not None]
    worst = min(scored, key=lambda each: (each.numbers.score if each.numbers else None) or 0.0, default=None)
    return worst or next((each for each in nodes if each.definition.call), nodes[0])


def _node(counts: RunCounts, workflow: Workflow, name: str, source: Source, first: int) -> FlowNode:
    node = workflow.nodes[name]
    ran = source.workflow
    known = ran is not None and name in ran.nodes
    return FlowNode(
        name,
        workflow.title_of(name),
        node.kind,
        workflow.model_of(name) or node.program or "",
        tuple(tool.function_name or str(tool.mcp) for tool in node.agent.tools) if node.agent else (),
        workflow.judges_of(name),
        not workflow.downstream(name),
        node.evaluate.threshold if node.evaluate else None,
        criteria_numbers(counts, workflow, name, None, first),
        names_for(workflow, name),
        node_numbers(counts, name, source) if known else None,
        False,
        node,
    )


def _alike(workflow: Workflow, ran: Workflow | None) -> set[str]:
    """The nodes that both define alike, their models and judges included."""
    if ran is None:
        return set()
    mine, other = workflow.identity()["nodes"], ran.identity()["nodes"]
    found = {name for name in mine if mine[name] == other.get(name)}
    return {name for name in found if workflow.model_of(name) == ran.model_of(name) and workflow.judges_of(name) == ran.judges_of(name)}
