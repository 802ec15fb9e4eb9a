"""publish, versions, diff and rollback."""

from pathlib import Path

import click

from beam_ray.cli.screen import Command, emit, existing, say, show, store_options, table
from beam_ray.define.diff import changes
from beam_ray.define.workflow import Workflow
from beam_ray.publish import Version, find_workflow, read_version
from beam_ray.publish import publish as publish_version
from beam_ray.publish import rollback as roll_back
from beam_ray.publish import versions as version_numbers
from beam_ray.store.objects import Objects, open_objects


def mlflow_option(command: Command) -> Command:
    """--mlflow."""
    words = "Where its prompts get the alias 'production'; 'none' for nowhere. Default: the database in the store, once there is one."
    return click.option("--mlflow", "mlflow_uri", envvar="MLFLOW_TRACKING_URI", metavar="URI", help=words)(command)


@click.command()
@click.argument("file")
@click.option("--evidence", default="", metavar="BACKTEST", help="A finished backtest of exactly this definition that passed.")
@click.option("--candidate", default="", metavar="NAME", help="Publish this candidate of the backtest instead of a file's definition.")
@click.option("--without-evidence", "reason", default="", metavar="TEXT", help="Why it is published without one.")
@mlflow_option
@store_options
def publish(file: str, evidence: str, candidate: str, reason: str, mlflow_uri: str | None, store: str, as_json: bool) -> None:
    """Make FILE the current version of its workflow."""
    from beam_ray.run.plan import load_workflow

    path, _ = find_workflow(open_objects(store), file)
    if path is None:
        raise click.UsageError(f"{file!r} is no file; a version is published from a file")
    objects = open_objects(store)
    workflow, _ = load_workflow(path)
    if candidate:
        workflow = _of_backtest(objects, evidence, candidate)
    version = publish_version(objects, workflow, source=path.read_text(encoding="utf-8"), evidence=evidence, reason=reason)
    _alias(version, mlflow_uri, store)
    if as_json:
        emit(version.model_dump(mode="json", exclude={"definition", "source"}))
        return
    show(f"{version.workflow} version {version.version} is published ({version.digest[:8]}) {_why(version)}")


def _of_backtest(objects: Objects, backtest: str, candidate: str) -> Workflow:
    from beam_ray.backtest.conclude import read_verdict

    document = read_verdict(objects, backtest)
    for entry in document["candidates"]:
        if entry["name"] == candidate:
            return Workflow.model_validate(entry["definition"])
    raise click.UsageError(f"the backtest {backtest} has no candidate {candidate!r}; it has {', '.join(entry['name'] for entry in document['candidates'])}")


@click.command()
@click.argument("workflow")
@store_options
def versions(workflow: str, store: str, as_json: bool) -> None:
    """List the versions of WORKFLOW, newest first."""
    objects = existing(store)
    read_version(objects, workflow)
    found = [read_version(objects, workflow, number) for number in reversed(version_numbers(objects, workflow))]
    if as_json:
        emit([version.model_dump(mode="json", exclude={"definition", "source"}) for version in found])
        return
    show(
        table(
            ["version", "digest", "published", "by", "why"],
            [[version.version, version.digest[:8], version.published_at[:16].replace("T", " "), version.published_by, _why(version)] for version in found],
            right=[0],
        )
    )


@click.command()
@click.argument("before")
@click.argument("after")
@store_options
def diff(before: str, after: str, store: str, as_json: bool) -> None:
    """Show what differs between BEFORE and AFTER, each a file or NAME[@VERSION], by node and field."""
    objects = open_objects(store)
    found = changes(_definition(objects, before), _definition(objects, after))
    if as_json:
        emit([{"node": change.node, "field": change.field, "before": change.before, "after": change.after} for change in found])
        return
    if not found:
        show("no difference that matters")
    for change in found:
        show(str(change))
        for line in change.text_diff.splitlines():
            show(f"    {line}")


@click.command()
@click.argument("workflow")
@click.argument("version", type=int)
@click.option("--because", default="", metavar="TEXT", help="Why.")
@mlflow_option
@store_options
def rollback(workflow: str, version: int, because: str, mlflow_uri: str | None, store: str, as_json: bool) -> None:
    """Publish the definition of VERSION of WORKFLOW as a new version."""
    made = roll_back(existing(store), workflow, version, reason=because)
    _alias(made, mlflow_uri, store)
    if as_json:
        emit(made.model_dump(mode="json", exclude={"definition", "source"}))
        return
    show(f"{made.workflow} version {made.version} is published: the definition of version {version}")


def _alias(version: Version, mlflow_uri: str | None, store: str) -> None:
    """Let MLflow's prompt registry show what is published; its trouble is a warning and never the version's."""
    from beam_ray.tracking import TrackingUnavailable, default_uri, exists, production_alias

    uri = mlflow_uri or default_uri(store)
    if uri == "none" or not uri or (not mlflow_uri and not exists(uri)):
        return
    try:
        production_alias(uri, version.plan)
    except TrackingUnavailable as error:
        say(f"warning: {error}")


def _definition(objects: Objects, written: str) -> Workflow:
    from beam_ray.run.plan import load_workflow

    file, version = find_workflow(objects, written)
    if version:
        return version.plan
    assert file is not None
    return load_workflow(Path(file))[0]


def _why(version: Version) -> str:
    if version.evidence:
        return f"on the evidence of backtest {version.evidence} ({version.verdict})"
    return f"without evidence: {version.reason}" if version.rollback_of is None else version.reason
