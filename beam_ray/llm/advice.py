"""Warnings about a workflow and the models that it calls, before any of them is called."""

from collections.abc import Iterator

from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import NoFile
from beam_ray.errors import Problem, did_you_mean
from beam_ray.llm.scripted import Models
from beam_ray.llm.settings import ModelSettings


def missing_models(workflow: Workflow, models: Models) -> Iterator[Problem]:
    """Models that *workflow* calls and that *models* does not have; a run refuses them."""
    place = NoFile(workflow.name)
    for name in workflow.models:
        if name not in models:
            yield place.problem((), f"warning: the models file has no model {name!r}", f"it has: {', '.join(models) or 'none'}", *did_you_mean(name, models))


def ignored_settings(workflow: Workflow, models: Models) -> Iterator[Problem]:
    """Settings of nodes that are not sent, because the node's model does not accept them."""
    place = NoFile(workflow.name)
    for node, written in workflow.nodes.items():
        settings = models.get(workflow.model_of(node) or "")
        if written.llm is None or not isinstance(settings, ModelSettings) or settings.call.send_temperature:
            continue
        for setting in ("temperature", "top_p"):
            if getattr(written.llm, setting) is not None:
                why = settings.call.sources["temperature"]
                yield place.problem(
                    ("nodes", node, "llm", setting),
                    f"warning: node {node!r} sets {setting!r}, which the model {workflow.model_of(node)!r} does not accept ({why}); it is left out",
                )
