"""The baseline as a candidate's criteria see it."""

from beam_ray.backtest.spec import Side
from beam_ray.define.workflow import Workflow


def rescored_name(side: Side) -> str:
    """The name of the baseline as the candidate's criteria see it."""
    return rescored_name_of(side.name)


def rescored_name_of(candidate: str) -> str:
    """The same for a candidate's name."""
    return f"baseline-by-{candidate}"


def with_criteria_of(workflow: Workflow, other: Workflow) -> Workflow:
    """*workflow* judged by the criteria of *other*, where both have the node."""
    document = workflow.document()
    judging = other.document()
    for name, node in document["nodes"].items():
        if name in judging["nodes"]:
            node.pop("evaluate", None)
            if "evaluate" in judging["nodes"][name]:
                node["evaluate"] = judging["nodes"][name]["evaluate"]
            else:
                node.pop("auto_rerun", None)
    # where no model judges, or both come to the same one, the definition stays as it was written
    if not any(other.judges_of(name) for name in document["nodes"] if name in other.nodes):
        return Workflow.model_validate(document)
    judge = other.judge or other.model
    document["judge"] = workflow.judge if judge == (workflow.judge or workflow.model) else judge
    return Workflow.model_validate({key: value for key, value in document.items() if value is not None})
