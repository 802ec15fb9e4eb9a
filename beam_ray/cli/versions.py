"""publish, versions, diff and rollback."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass

import click

import beam_ray
from beam_ray.cli.options import Place, grouped, reads_store
from beam_ray.cli.screen import emit, say, show, table
from beam_ray.errors import TrackingUnavailable

_MLFLOW = click.option(
    "--mlflow",
    "mlflow_uri",
    envvar="MLFLOW_TRACKING_URI",
    metavar="URI",
    help="MLflow server whose prompts get the alias 'production'; 'none' for none. Default: the store's database, once there is one.",
)


@dataclass(frozen=True)
class Evidence:
    """Why a version is published."""

    evidence: str
    candidate: str
    reason: str


@click.command()
@click.argument("file", metavar="FILE|WORKFLOW@DRAFT")
@grouped(
    Evidence,
    "why",
    click.option("--evidence", default="", metavar="BACKTEST", help="Backtest of exactly this definition, with verdict PASS or WARN."),
    click.option("--candidate", default="", metavar="NAME", help="Publish this candidate of the backtest instead of the definition in FILE."),
    click.option("--without-evidence", "reason", default="", metavar="TEXT", help="Reason for publishing without evidence."),
)
@_MLFLOW
@reads_store
def publish(file: str, why: Evidence, mlflow_uri: str | None, place: Place) -> None:
    """Publish a workflow FILE, or a draft, as the current version of its workflow."""
    store = place.opened
    definition: str | beam_ray.Candidate = file
    if why.candidate:
        verdict = store.verdict(why.evidence)
        found = {each.name: each for each in verdict.candidates}
        if why.candidate not in found:
            raise click.UsageError(f"the backtest {why.evidence} has no candidate {why.candidate!r}; it has {', '.join(found)}")
        definition = found[why.candidate]
    version = store.publish(definition, evidence=why.evidence or None, without_evidence=why.reason)
    _mark_production(version, mlflow_uri, place)
    if place.as_json:
        emit(version.document())
        return
    show(f"published {version.workflow} version {version.number} ({version.digest[:8]}) {_why(version)}")


@click.command()
@click.argument("workflow")
@reads_store
def versions(workflow: str, place: Place) -> None:
    """List the versions of WORKFLOW, newest first."""
    found = place.opened.versions(workflow)
    if place.as_json:
        emit([version.document() for version in found])
        return
    rows = [[each.number, each.digest[:8], each.published_at[:16].replace("T", " "), each.published_by, _why(each)] for each in found]
    show(table(["version", "digest", "published", "by", "evidence"], rows, right=[0]))


@click.command()
@click.argument("before")
@click.argument("after")
@reads_store
def diff(before: str, after: str, place: Place) -> None:
    """Show what differs between BEFORE and AFTER, each a file, NAME[@VERSION] or NAME@DRAFT, by node and field."""
    found = place.opened.diff(before, after)
    if place.as_json:
        emit([{"node": change.node, "field": change.field, "before": change.before, "after": change.after} for change in found])
        return
    if not found:
        show("no differences; layout, comments and titles do not count")
    for change in found:
        show(str(change))
        for line in change.text_diff.splitlines():
            show(f"    {line}")


@click.command()
@click.argument("workflow")
@click.argument("version", type=int)
@click.option("--because", default="", metavar="TEXT", help="Reason for the rollback.")
@_MLFLOW
@reads_store
def rollback(workflow: str, version: int, because: str, mlflow_uri: str | None, place: Place) -> None:
    """Publish the definition of VERSION of WORKFLOW as a new version."""
    made = place.opened.rollback(workflow, version, because=because)
    _mark_production(made, mlflow_uri, place)
    if place.as_json:
        emit(made.document())
        return
    show(f"published {made.workflow} version {made.number}, with the definition of version {version}")


def _mark_production(version: beam_ray.Version, mlflow_uri: str | None, place: Place) -> None:
    """Show in MLflow's prompt registry what is published; a failure is a warning and never the version's."""
    try:
        place.opened.mark_production(version, mlflow_uri)
    except TrackingUnavailable as error:
        say(f"warning: {error}")


def _why(version: beam_ray.Version) -> str:
    if version.evidence:
        return f"on the evidence of backtest {version.evidence} ({version.verdict})"
    return f"without evidence: {version.reason}" if version.rollback_of is None else version.reason
