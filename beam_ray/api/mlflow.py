"""Showing results in MLflow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

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
        from beam_ray.backtest.mlflow_pages import keep_page
        from beam_ray.backtest.results import read_verdict

        verdict = read_verdict(objects, name)
        logged = log_verdict(objects, verdict, target)
        keep_page(objects, verdict["backtest_id"], logged.url)
    return MlflowLog(logged.url, logged.experiment_id, dict(logged.run_ids))


def mlflow_page(store: Location, backtest: str) -> str:
    """See ``Store.mlflow_page``."""
    from beam_ray.backtest.mlflow_pages import kept_pages

    for parts in map(urlsplit, kept_pages(store.existing(), backtest)):
        if parts.scheme in ("http", "https") and parts.netloc:
            return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return ""


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
