"""Warnings about a workflow and the models that it calls, before any of them is called."""

from collections.abc import Iterator

from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import NoFile
from beam_ray.errors import Problem, did_you_mean
from beam_ray.llm.known_models import mcp_servers
from beam_ray.llm.local import MODEL as EMBEDDED_MODEL
from beam_ray.llm.scripted import Models
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.structured import ANSWER_FUNCTION


def missing_models(workflow: Workflow, models: Models) -> Iterator[Problem]:
    """Models that *workflow* calls and that *models* does not have; a run refuses them."""
    place = NoFile(workflow.name)
    for name in workflow.models:
        if name not in models:
            yield place.problem((), f"warning: the models file has no model {name!r}", f"it has: {', '.join(models) or 'none'}", *did_you_mean(name, models))


def agent_advice(workflow: Workflow, models: Models) -> Iterator[Problem]:
    """MCP servers that agents use and that the MCP file does not have, and answers that are asked for in another way because tools are offered."""
    place = NoFile(workflow.name)
    for node, written in workflow.nodes.items():
        if written.agent is None:
            continue
        for server in written.agent.servers:
            known = mcp_servers(models)
            if server not in known:
                hints = (f"it has: {', '.join(known) or 'none'}", *did_you_mean(server, known))
                yield place.problem(("nodes", node, "agent", "tools"), f"warning: the MCP file has no server {server!r}, which agent {node!r} uses", *hints)
        settings = models.get(workflow.model_of(node) or "")
        if isinstance(settings, ModelSettings) and settings.model == EMBEDDED_MODEL:
            yield place.problem(
                ("nodes", node, "agent"),
                f"warning: the embedded model is never shown tools, because its template has none, so agent {node!r} answers without calling any",
                "name a model that calls tools",
            )
            continue
        if written.agent.returns is None or not isinstance(settings, ModelSettings) or settings.call.structured_with_tools == "same":
            continue
        how = f"by calling the function {ANSWER_FUNCTION!r}" if settings.call.structured_with_tools == "function" else "in words"
        where = settings.call.sources["structured_with_tools"]
        yield place.problem(
            ("nodes", node, "agent", "returns"),
            f"note: the model {workflow.model_of(node)!r} is asked to give the answer of agent {node!r} {how}, because few endpoints take a schema of the answer together with tools ({where})",
            "structured_with_tools: same  in the models file sends the schema instead",
        )


def program_advice(workflow: Workflow, models: Models) -> Iterator[Problem]:
    """Models that are asked through batches, except by programs, which cannot wait for one."""
    place = NoFile(workflow.name)
    for node, written in workflow.nodes.items():
        for name in written.asks:
            settings = models.get(name)
            if isinstance(settings, ModelSettings) and settings.lane_in("") == "batch":
                yield place.problem(
                    ("nodes", node, "asks"), f"note: node {node!r} asks {name!r} interactively, at the full price, because a program cannot wait for a batch"
                )


def ignored_settings(workflow: Workflow, models: Models) -> Iterator[Problem]:
    """Settings of nodes that are not sent, because the node's model does not accept them."""
    place = NoFile(workflow.name)
    for node, written in workflow.nodes.items():
        settings = models.get(workflow.model_of(node) or "")
        if written.call is None or not isinstance(settings, ModelSettings) or settings.call.send_temperature:
            continue
        for setting in ("temperature", "top_p"):
            if getattr(written.call, setting) is not None:
                why = settings.call.sources["temperature"]
                yield place.problem(
                    ("nodes", node, written.kind, setting),
                    f"warning: node {node!r} sets {setting!r}, which the model {workflow.model_of(node)!r} does not accept ({why}); it is left out",
                )
