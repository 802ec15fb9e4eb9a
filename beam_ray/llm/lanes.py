"""Lanes: whether models are asked call by call, or through their batch endpoints."""

from collections.abc import Iterable

from beam_ray.errors import Unusable
from beam_ray.llm.known_models import with_servers_of
from beam_ray.llm.scripted import Models, ScriptedModel
from beam_ray.llm.settings import LANES, Lane, ModelSettings


def lane_of(model: ModelSettings | ScriptedModel, chosen: str = "") -> Lane:
    """The lane in which a model is asked where *chosen* was asked for; a model object has no batch endpoint."""
    return model.lane_in(chosen) if isinstance(model, ModelSettings) else "interactive"


def in_lane(models: Models, chosen: str) -> Models:
    """*models* with the lane of each settled; as they are where none was *chosen*."""
    if not chosen:
        return models
    settled = {name: model.model_copy(update={"lane": lane_of(model, chosen)}) if isinstance(model, ModelSettings) else model for name, model in models.items()}
    return with_servers_of(models, settled)


def require_lane(chosen: str, models: Models, asked: Iterable[str]) -> None:
    """
    Check that a lane can be had.

    Raises:
        Unusable: there is no such lane, or none of the models *asked* has a batch endpoint.
    """
    if chosen and chosen not in LANES:
        raise Unusable(f"unknown lane {chosen!r}\n  the lanes are interactive and batch")
    names = [name for name in asked if name in models]
    if chosen != "batch" or not names or any(lane_of(models[name], chosen) == "batch" for name in names):
        return
    why = [
        "is scripted and has no batch endpoint" if isinstance(models[name], ScriptedModel) else "has  lane: interactive  in the models file" for name in names
    ]
    raise Unusable("\n  ".join(["no model can be asked in batches", *(f"{name!r} {reason}" for name, reason in zip(names, why, strict=True))]))
