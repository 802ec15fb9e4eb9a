"""Showing results in MLflow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from beam_ray.api.location import Location
from beam_ray.tracking import default_uri, exists, production_alias

if TYPE_CHECKING:
    from beam_ray.api.versions import Version


class MlflowLogDocument(TypedDict):
    """Where MLflow shows a result, as ``--json`` prints it."""

    experiment_id: str
    run_ids: dict[str, str]
    url: str


@dataclass(frozen=True)
class MlflowLog:
    """What MLflow shows of a backtest or search."""

    url: str
    """Where a browser opens it."""
    experiment_id: str
    run_ids: dict[str, str]
    """Side to the id of its MLflow run."""

    def document(self) -> MlflowLogDocument:
        """The log as a JSON document."""
        return {"experiment_id": self.experiment_id, "run_ids": self.run_ids, "url": self.url}


def log_to_mlflow(store: Location, name: str, uri: str | None = None) -> MlflowLog:
    """See ``Store.log_to_mlflow``."""
    objects = store.existing()
    target = uri or default_uri(store.uri)
    if name in objects.folders("searches"):
        from beam_ray.improve.search_result import read_search
        from beam_ray.improve.search_tracking import log_search

        logged = log_search(objects, read_search(objects, name), target)
    else:
        from beam_ray.backtest.conclude import log_verdict
        from beam_ray.backtest.results import read_verdict

        logged = log_verdict(objects, read_verdict(objects, name), target)
    return MlflowLog(logged.url, logged.experiment_id, dict(logged.run_ids))


def mark_production(store: Location, version: "Version", uri: str | None = None) -> bool:
    """
    Move the alias ``production`` of the version's prompts in MLflow's registry; whether there was a registry.

    Raises:
        TrackingUnavailable: MLflow does not answer; the version is published all the same.
    """
    target = uri or default_uri(store.uri)
    if target == "none" or not target or (not uri and not exists(target)):
        return False
    production_alias(target, version.definition)
    return True
