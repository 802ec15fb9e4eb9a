"""Workflows as users name them: a value, a YAML file, or a published version."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.define.check import check as check_definition
from beam_ray.define.check_agent import DeclaredTool, declared_tools
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Problem, Unusable
from beam_ray.llm.advice import agent_advice, ignored_settings, missing_models, program_advice
from beam_ray.publish import load_definition
from beam_ray.run.agent_tools import describe_functions
from beam_ray.run.tool_imports import MissingCommand, MissingModule, functions, missing_commands, missing_modules, remedy
from beam_ray.run.tools import project_folder, tool_folders

WorkflowOption = Workflow | str | Path
"""A workflow, the path of a YAML file, a published ``NAME`` or ``NAME@VERSION``, or a draft ``NAME@DRAFT`` or ``NAME@DRAFT:N``."""


class DeclaredToolDocument(TypedDict):
    """A tool of an agent."""

    agent: str
    name: str
    reference: str
    effects: str
    on_miss: str


class CheckDocument(TypedDict):
    """What ``beam-ray check --json`` prints."""

    workflow: str
    digest: str
    nodes: list[str]
    agent_tools: list[DeclaredToolDocument]
    warnings: list[str]


@dataclass(frozen=True, repr=False)
class CheckResult(Displayed):
    """A workflow without errors, and the advice that its check gave."""

    workflow: Workflow
    version: int | None = None
    """Number of the published version; None for a draft."""
    warnings: tuple[Problem, ...] = ()
    """Advice, in file order; the workflow runs without it."""

    @property
    def agent_tools(self) -> tuple[DeclaredTool, ...]:
        """The tools of its agents, with what they may change and what their calls do in tests."""
        return tuple(declared_tools(self.workflow, tool_folders(self.workflow)))

    def display(self) -> Display:
        nodes = self.workflow.nodes
        criteria = sum(len(node.evaluate.criteria) for node in nodes.values() if node.evaluate)
        facts = (("nodes", len(nodes)), ("criteria", criteria), ("models", ", ".join(self.workflow.models)), ("warnings", len(self.warnings) or None))
        rows = [
            (name, self.workflow.model_of(name) or nodes[name].program, ", ".join(nodes[name].after), nodes[name].route or "") for name in self.workflow.order
        ]
        return Display(self.workflow.name, facts, ("node", "model or tool", "after", "route"), rows)

    def document(self) -> CheckDocument:
        """The result as a JSON document."""
        found = self.workflow
        tools: list[DeclaredToolDocument] = [
            {"agent": tool.agent, "name": tool.name, "reference": tool.reference, "effects": tool.effects, "on_miss": tool.on_miss} for tool in self.agent_tools
        ]
        warnings = [str(warning) for warning in self.warnings]
        return {"workflow": found.name, "digest": found.digest, "nodes": list(found.order), "agent_tools": tools, "warnings": warnings}


def load(path: str | Path) -> Workflow:
    """
    Read and check a workflow file.

    Raises:
        BadDefinition: with every problem and its place (file:line:column).
        Unusable: there is no such file.
    """
    return check(path).workflow


def check(workflow: WorkflowOption, store: Location | None = None) -> CheckResult:
    """
    Check a workflow: shape, names, templates, criteria and tools. No model is called.

    Args:
        workflow: A ``Workflow``, the path of a YAML file, or the name of a published one or of a draft, which needs *store*.

    Raises:
        BadDefinition: with every problem and its place.
        Unusable: there is no such file or version.
    """
    if isinstance(workflow, Workflow):
        return CheckResult(workflow, None, tuple(check_definition(workflow, folders=tool_folders(workflow))))
    written = str(workflow)
    # a file needs no store, and none is created for it
    found = load_definition(store.objects if store and not written.endswith((".yaml", ".yml")) else None, written)
    return CheckResult(found.workflow, found.version, found.warnings)


def check_with_models(workflow: WorkflowOption, store: Location) -> CheckResult:
    """See ``Store.check``."""
    found = check(workflow, store)
    found = replace(found, warnings=(*found.warnings, *_missing_modules(found.workflow)))
    try:
        models = store.known_models if found.workflow.models else {}
    except Unusable:  # plan and run, which need the models, report it
        return found
    advice = [each for rule in (missing_models, ignored_settings, agent_advice, program_advice) for each in rule(found.workflow, models)]
    return replace(found, warnings=(*found.warnings, *advice))


def _missing_modules(workflow: Workflow) -> list[Problem]:
    """Advice on modules that the workflow's functions need: the run may have them where it is executed."""
    missing = missing_modules(functions(workflow, workflow.order), tool_folders(workflow))
    absent: list[MissingModule | MissingCommand] = [*missing, *missing_commands(workflow, workflow.order, project_folder())]
    if not absent:
        wanted = {str(entry.tool): name for name, node in workflow.nodes.items() if node.agent for entry in node.agent.functions}
        try:
            describe_functions(wanted, tool_folders(workflow))
        except Unusable as error:
            return [Problem("", 0, 0, f"warning: {error}")]
    return [Problem("", 0, 0, f"warning: {remedy(workflow, each, local=True)}") for each in absent]
