"""
submit, and the same commands as Ray jobs.

How submit learns the exit code: see ``beam_ray.run.job_record``. Ray's own state is a hint, shown
where it disagrees with the store.
"""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click
from click.core import ParameterSource

import beam_ray
from beam_ray.cli.screen import clean, emit, say, show
from beam_ray.errors import BeamRayError


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--address",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    default="http://127.0.0.1:8265",
    show_default=True,
    metavar="URL",
    help="Dashboard of the cluster.",
)
@click.option(
    "--working-dir",
    "folder",
    default=".",
    show_default=True,
    type=click.Path(exists=True, file_okay=False),
    help="Folder to upload, without what .gitignore and .rayignore name.",
)
@click.option("--i-know", is_flag=True, help="Submit although the cluster requires no token.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@click.argument("kind", type=click.Choice(beam_ray.JOB_KINDS))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def submit(context: click.Context, address: str, folder: str, i_know: bool, as_json: bool, kind: str, arguments: tuple[str, ...]) -> None:
    """
    Run a command (run, resume, backtest, prove, rerun or optimise) as a Ray job, and wait for its verdict.

    ARGUMENTS are the command's own, with paths relative to the working folder; the spec of a backtest may be standard input (-). The exit code is that of the
    command, read from the store. API keys are not sent with the job: the cluster's nodes have them in their environment.
    """
    inner = parse(kind, arguments)
    if inner.get_parameter_source("address") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"the cluster's address goes before {kind}: beam-ray submit --address URL {kind} …")
    _require_no_secret(inner)
    if "-" in inner.params.get("sources", ()):
        raise click.UsageError("standard input does not reach a job; name a file that the job can read, such as s3://bucket/tasks.jsonl")
    store = beam_ray.open(inner.params["store"])
    given = sys.stdin.read() if inner.params.get("spec") == "-" else ""
    metadata = _metadata(kind, inner, Path(folder), given)
    job = store.submit([kind, *arguments, *_from_environment(inner)], address=address, folder=folder, allow_open=i_know, metadata=metadata, given=given)
    say(f"job {job.id} on {address}")
    result = wait_for(job, resume=again(context, kind, arguments), as_json=as_json)
    if kind == "optimise" and result.exit_code == 0:
        say(f"the draft was written where the job ran; this writes it here, without a model call:  {shlex.join(['beam-ray', kind, *arguments])}")
    context.exit(result.exit_code)


def wait_for(job: beam_ray.Job, *, resume: str, as_json: bool = False, **timing: float) -> beam_ray.JobResult:
    """Follow the job to its end and show how it ended, with what Ray says where that differs."""
    result = job.wait(lambda text: click.echo(clean(text), nl=False, err=True), resume=resume, **timing)
    if result.disagrees:
        say(f"note: Ray says {result.ray_state or 'nothing'} about the job; the store says exit code {result.exit_code}, which counts")
    if as_json:
        emit(result.document())
    else:
        lines = [f"job {result.id}: exit code {result.exit_code}", *([f"backtest {result.backtest}"] if result.backtest else [])]
        show("\n  ".join([*lines, *(f"run {run_id}" for run_id in result.runs)]))
    if result.exit_code in (3, 130, 143):
        say(f"resume with:  {resume}")
    return result


def parse(kind: str, arguments: tuple[str, ...]) -> click.Context:
    """The arguments of a command as it will read them; raises what the command would raise."""
    from beam_ray.cli import beam_ray as commands

    whole = click.Context(commands, info_name="beam-ray", **commands.context_settings)
    command = commands.get_command(whole, kind)
    assert command
    return command.make_context(kind, list(arguments), parent=whole)


def as_job(kind: str, arguments: tuple[str, ...]) -> NoReturn:
    """Run ``beam-ray KIND ARGUMENTS`` and exit with its code; inside a Ray job, record the code in the store too."""
    from beam_ray.cli import main

    job = beam_ray.current_job()
    store, code = "", 1
    if job:
        try:
            store = parse(kind, arguments).params["store"]
            job.require_shared_store(store)
        except (click.ClickException, click.exceptions.Exit):
            store = ""  # the command itself says what is wrong
        except BeamRayError as error:
            say(str(error))
            sys.exit(error.exit_code)
    try:
        main([kind, *arguments])
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0
        raise
    finally:
        sys.stdout.flush()
        if job and store:
            try:
                job.record_exit(store, kind, code)
            except BeamRayError as error:
                say(f"the job's exit code could not be stored: {error}")
    raise AssertionError("unreachable: a command always exits")


def again(context: click.Context, kind: str, arguments: tuple[str, ...]) -> str:
    """The command that was typed."""
    options = []
    for name, word in (("address", "--address"), ("folder", "--working-dir"), ("i_know", "--i-know"), ("as_json", "--json")):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            options += [word] if value is True else [word, value]
    return shlex.join(["beam-ray", "submit", *options, kind, *arguments])


def _require_no_secret(inner: click.Context) -> None:
    """Refuse the URL of a webhook: everyone on the cluster can read a job's command."""
    if inner.get_parameter_source("notify") is ParameterSource.COMMANDLINE and any("${env:" not in url for url in inner.params["notify"]):
        raise click.UsageError("a job's command can be read on the cluster; write --notify '${env:NAME}', with NAME in the environment of the cluster's nodes")


def _from_environment(inner: click.Context) -> list[str]:
    """What the command took from our environment, which the job does not have."""
    words = []
    for name in ("store", "models"):
        if inner.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
            words += [f"--{name}", inner.params[name]]
    return words


def _metadata(kind: str, inner: click.Context, folder: Path, given: str) -> dict[str, str]:
    """What Ray's dashboard shows of the job."""
    found = {"job_name": kind, "beam_ray": version("beam-ray"), "commit": _commit(folder)}
    if kind == "backtest":
        name = beam_ray.spec_name("standard input", given) if inner.params["spec"] == "-" else beam_ray.spec_name(folder / inner.params["spec"])
        found |= {"job_name": f"backtest {name}", "backtest": name}
    return {name: text for name, text in found.items() if text}


def _commit(folder: Path) -> str:
    """The folder's git commit, and whether there are changes on top of it; empty without git."""

    def git(*words: str) -> str:
        try:
            return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""

    head = git("rev-parse", "HEAD")
    return f"{head} with changes" if head and git("status", "--porcelain") else head


if __name__ == "__main__":
    as_job(sys.argv[1], tuple(sys.argv[2:]))
