"""
The command line: each command reads options, makes one call of the public API, and prints.

Each command's module is imported when it is asked for, so that ``--help`` is quick.
"""

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from importlib import import_module
from types import FrameType
from typing import Any

import click

from beam_ray.command_process import ENDS_WITH_COMMAND
from beam_ray.errors import BeamRayError, Stopped

COMMANDS = {
    "init": ("beam_ray.cli.projects", "Write a new project that runs at once."),
    "check": ("beam_ray.cli.workflows", "Check a workflow and report every problem with its place."),
    "plan": ("beam_ray.cli.workflows", "Show what would be run and what it would cost. No model is called."),
    "run": ("beam_ray.cli.runs", "Run a workflow over tasks."),
    "resume": ("beam_ray.cli.runs", "Resume a run that was stopped or killed."),
    "stop": ("beam_ray.cli.runs", "Stop a run that goes on; it can be resumed."),
    "batches": ("beam_ray.cli.batches", "List the batches that unfinished runs wait for, and what they cost."),
    "tasks": ("beam_ray.cli.tasks", "List tasks of one run or of all runs."),
    "pin": ("beam_ray.cli.pins", "Pin a view of tasks, so that its numbers stay what they were."),
    "show": ("beam_ray.cli.tasks", "Show a task's timeline, or one step of it."),
    "history": ("beam_ray.cli.history", "Show a task and all its reruns, or the ledger of a workflow's reruns."),
    "rerun": ("beam_ray.cli.reruns", "Rerun tasks: whole, or from one node on."),
    "backtest": ("beam_ray.cli.backtests", "Compare candidates with a baseline over the same tasks."),
    "compare": ("beam_ray.cli.backtests", "Compare two finished runs pair by pair."),
    "report": ("beam_ray.cli.backtests", "Print a report of a finished backtest."),
    "flips": ("beam_ray.cli.flips", "List the tasks of a backtest that flipped, grouped by where and why."),
    "prove": ("beam_ray.cli.flips", "Show by experiment which node made tasks of a backtest flip."),
    "reproduce": ("beam_ray.cli.reproductions", "Compute a verdict again from the stored rows, here or from a bundle."),
    "submit": ("beam_ray.cli.submit", "Run a command as a Ray job and wait for the verdict."),
    "mlflow-sync": ("beam_ray.cli.backtests", "Log a finished backtest or search to MLflow (safe to repeat)."),
    "draft": ("beam_ray.cli.drafts", "Make and change drafts: definitions in the store that have no version yet."),
    "publish": ("beam_ray.cli.versions", "Publish a workflow file or a draft as the current version."),
    "versions": ("beam_ray.cli.versions", "List a workflow's versions."),
    "diff": ("beam_ray.cli.versions", "Show what differs between two definitions, by node and field."),
    "rollback": ("beam_ray.cli.versions", "Publish the definition of an old version as a new version."),
    "flow": ("beam_ray.cli.flow", "Show a workflow's nodes and branches with how each did."),
    "health": ("beam_ray.cli.health", "Show warnings from a workflow's runs, and what to do about them."),
    "trend": ("beam_ray.cli.trend", "Show a workflow over time, and whether a model changed under its name."),
    "optimise": ("beam_ray.cli.optimise", "Propose a better prompt for a failed step, or search for one over a library."),
    "criteria": ("beam_ray.cli.criteria", "Propose criteria for a node, or check how reliable its criteria are."),
    "review": ("beam_ray.cli.reviews", "Review outputs by hand, and find out how often a judge errs."),
    "models": ("beam_ray.cli.models", "List models with prices and limits, and find out what their endpoints accept."),
    "library": ("beam_ray.cli.libraries", "Manage libraries: named, versioned sets of tasks."),
    "repair": ("beam_ray.cli.maintenance", "Check a run's files, and execute again only what is damaged."),
    "gc": ("beam_ray.cli.maintenance", "List files that can be deleted; --delete deletes them."),
    "up": ("beam_ray.cli.local_ray", "Start a local Ray that following commands use."),
    "down": ("beam_ray.cli.local_ray", "End the local Ray that stays up between commands."),
    "console": ("beam_ray.cli.console", "Open the console: tasks, runs and backtests as pages in a browser."),
    "ui": ("beam_ray.cli.servers", "Open the MLflow UI on this machine."),
    "serve": ("beam_ray.cli.servers", "Serve the embedded model on this machine."),
    "demo": ("beam_ray.cli.demo", "Backtest two prompt versions of the demo workflow, from start to finish."),
}

ALIASES = {"optimize": "optimise"}
"""Other spellings of commands."""


class _Commands(click.Group):
    """Commands by name, each imported when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        name = ALIASES.get(name, name)
        if name not in COMMANDS:
            return None
        module = import_module(COMMANDS[name][0])
        word = name.replace("-", "_")
        command: click.Command = vars(module).get(f"{word}_") or vars(module)[word]
        return command

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in (*COMMANDS, *ALIASES):
            from beam_ray.errors import did_you_mean

            notes = did_you_mean(args[0], COMMANDS)
            raise click.UsageError("\n  ".join([f"there is no command {args[0]!r}", *notes]))
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="beam-ray", message="beam-ray %(version)s")
def beam_ray() -> None:
    """Rerun and backtest LLM workflows on a Ray cluster."""


_caught: list[int] = []
"""Signals received; the first one ended the command."""


def main(arguments: list[str] | None = None) -> Any:
    """Run a command and exit with its code: that of an error is in ``beam_ray.errors``, that of a verdict in ``compare.verdict``."""
    # what a command loads lives until its end: looking for cycles in it so often would take a seventh of a short command's time
    gc.set_threshold(50_000, 20, 20)
    if arguments is None:  # the command is all that this process is for
        ENDS_WITH_COMMAND.set()
    if threading.current_thread() is threading.main_thread():
        _caught.clear()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
    try:
        code = beam_ray.main(args=arguments, prog_name="beam-ray", standalone_mode=False)
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _stopped()
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "beam-ray"
        _complain(f"{error.format_message()}\n  {command} --help  shows the usage")
        code = 2
    except Stopped as error:
        code = _failed(error)
        if error.resume:
            _complain(f"resume with:  {error.resume}")
    except BrokenPipeError:
        # the reader closed our output, which is not an error
        sys.stderr.close()
        code = 0
    except Exception as error:
        # a signal during an import, or in somebody's callback, may surface as another error
        if _caught:
            code = _stopped()
        elif isinstance(error, BeamRayError):
            code = _failed(error)
        else:
            raise
    found = code if isinstance(code, int) else 0
    if arguments is None:
        _end(found)
    sys.exit(found)


def _end(code: int) -> None:
    """End the process when all is done, without taking down every module as Python does, for as long as a short command takes."""
    with contextlib.suppress(KeyboardInterrupt):  # a second signal ends it at once
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does
        atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):  # Python says what could not be printed
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    """Handle Ctrl-C and SIGTERM outside of runs, which have their own handling."""
    _caught.append(number)
    # not a BeamRayError: code that handles errors of rows or files must not handle this one
    raise KeyboardInterrupt


def _stopped() -> int:
    _complain("stopped; run the same command again to resume")
    return 128 + (_caught or [signal.SIGINT])[0]


def _failed(error: BeamRayError) -> int:
    _complain(str(error))
    for note in getattr(error, "__notes__", ()):
        _complain(f"  {note}")
    return error.exit_code


def _complain(text: str) -> None:
    from beam_ray.cli.screen import clean

    click.echo(clean(text), err=True)
