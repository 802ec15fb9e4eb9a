"""
submit, and the same commands as Ray jobs.

How submit learns the exit code: see ``beam_ray.run.job_record``. Ray's own state is a hint, shown
where it disagrees with the store.
"""

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click
from click.core import ParameterSource

from beam_ray.cli.screen import clean, emit, say, show
from beam_ray.errors import BeamRayError, Interrupted, Stopped
from beam_ray.run.job_client import JobClient, RayJobClient, follow_job
from beam_ray.run.job_record import job_result, record_exit, require_shared_store, submission_id
from beam_ray.store.objects import Objects, open_objects
from beam_ray.store.runs import new_run_id

KINDS = ("run", "backtest", "rerun", "optimise")


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--address",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    default="http://127.0.0.1:8265",
    show_default=True,
    metavar="URL",
    help="The cluster's dashboard.",
)
@click.option(
    "--working-dir",
    "folder",
    default=".",
    show_default=True,
    type=click.Path(exists=True, file_okay=False),
    help="Uploaded, but for what .gitignore and .rayignore name.",
)
@click.option("--i-know", is_flag=True, help="Submit although the cluster asks for no token.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def submit(context: click.Context, address: str, folder: str, i_know: bool, as_json: bool, kind: str, arguments: tuple[str, ...]) -> None:
    """
    Do run, backtest, rerun or optimise as a Ray job, and wait for it.

    ARGUMENTS are the command's own; its paths are seen from the working folder. The exit code is that of the
    command, read from the store. API keys are not sent along: the cluster's nodes have them in their environment.
    """
    inner = parse(kind, arguments)
    if inner.get_parameter_source("address") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"the cluster's address stands before {kind}: beam-ray submit --address URL {kind} …")
    store = inner.params["store"]
    require_shared_store(store)
    metadata = _metadata(kind, inner, Path(folder))
    objects = open_objects(store)
    cluster = RayJobClient(address, allow_open=i_know)
    submitted = f"{kind}-{new_run_id()}"
    command = ["python", "-m", "beam_ray.cli.submit", kind, *arguments, *_spelled_out(inner)]
    cluster.submit(submitted, shlex.join(command), folder=folder, metadata=metadata, environment={"BEAM_RAY_OPEN_CLUSTER": "1"} if i_know else {})
    say(f"job {submitted} on {address}")
    code = await_job(cluster, objects, submitted, kind, resume=again(context, kind, arguments), as_json=as_json)
    if kind == "optimise" and code == 0:
        say(f"a draft lies where the job ran; this writes it here, without a call:  {shlex.join(['beam-ray', kind, *arguments])}")
    context.exit(code)


def await_job(cluster: JobClient, objects: Objects, submitted: str, kind: str, *, resume: str, as_json: bool = False, **patience: float) -> int:
    """
    Follow the job to its end; its exit code by the store, shown with what Ray says where that differs.

    Raises:
        Stopped: it left no result.
    """
    try:
        state = follow_job(cluster, objects, submitted, lambda text: click.echo(clean(text), nl=False, err=True), **patience)
    except KeyboardInterrupt:
        raise Interrupted(f"the job goes on without us; ray job stop {submitted}  ends it, ray job logs --follow {submitted}  shows it") from None
    found = job_result(objects, submitted, kind)
    if found is None:
        missing = Stopped(f"the job {submitted} left no result in {objects.uri}; Ray says {state or 'nothing'}")
        missing.resume = resume  # type: ignore[attr-defined]
        raise missing
    code = found.exit_code
    if (code == 0) != (state == "SUCCEEDED"):
        say(f"note: Ray says {state or 'nothing'} of the job; the store says exit {code}, and that counts")
    if as_json:
        backtest, ray_state = found.backtest or None, state or None
        emit({"submission": submitted, "command": kind, "exit_code": code, "runs": found.runs, "backtest_id": backtest, "ray_state": ray_state})
    else:
        show(
            "\n  ".join(
                [f"job {submitted}: exit {code}", *([f"backtest {found.backtest}"] if found.backtest else []), *(f"run {run_id}" for run_id in found.runs)]
            )
        )
    if code in (3, 130, 143):
        say(f"go on with:  {resume}")
    return code


def parse(kind: str, arguments: tuple[str, ...]) -> click.Context:
    """The arguments of a command as it will read them; raises what the command would raise."""
    from beam_ray.cli import beam_ray

    command = beam_ray.get_command(click.Context(beam_ray), kind)
    assert command
    return command.make_context(f"beam-ray {kind}", list(arguments))


def as_job(kind: str, arguments: tuple[str, ...]) -> NoReturn:
    """Do what ``beam-ray KIND ARGUMENTS`` does and leave with its exit code; inside a Ray job, tell the store too."""
    from beam_ray.cli import main

    submitted = submission_id()
    store, code = "", 1
    if submitted:
        try:
            store = parse(kind, arguments).params["store"]
            require_shared_store(store)
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
        if submitted and store:
            try:
                record_exit(open_objects(store, proven=True), submitted, kind, code)
            except BeamRayError as error:
                say(f"the job's end could not be kept: {error}")
    raise AssertionError("unreachable: a command always leaves")


def again(context: click.Context, kind: str, arguments: tuple[str, ...]) -> str:
    """The command that was typed."""
    options = []
    for name, word in (("address", "--address"), ("folder", "--working-dir"), ("i_know", "--i-know"), ("as_json", "--json")):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            options += [word] if value is True else [word, value]
    return shlex.join(["beam-ray", "submit", *options, kind, *arguments])


def _spelled_out(inner: click.Context) -> list[str]:
    """What the command took from our environment, which the job does not have."""
    words = []
    for name in ("store", "models"):
        if inner.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
            words += [f"--{name}", inner.params[name]]
    return words


def _metadata(kind: str, inner: click.Context, folder: Path) -> dict[str, str]:
    """What Ray's dashboard shows of the job."""
    found = {"job_name": kind, "beam_ray": version("beam-ray"), "commit": _commit(folder)}
    if kind == "backtest":
        from beam_ray.backtest.spec import load_spec

        spec, _ = load_spec(folder / inner.params["spec"])
        found |= {"job_name": f"backtest {spec.name}", "backtest": spec.name}
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
