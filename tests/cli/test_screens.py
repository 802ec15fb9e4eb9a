"""Every screen of the command line, word for word: one golden file each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from beam_ray.cli import COMMANDS
from tests.cli.conftest import Desk
from tests.commands import CommandResult
from tests.golden import check_golden

GOLDEN = Path(__file__).parent / "golden"


def screen(name: str, said: CommandResult) -> None:
    """Compare what a command printed, and its exit code, with the screen's golden file."""
    check_golden(GOLDEN, f"{name}.txt", f"exit code {said.code}\n--- standard output\n{said.out}--- standard error\n{said.err}")


def test_screens_of_the_journey(desk: Desk) -> None:
    """
    From checking a workflow to publishing a version on evidence, each command prints its golden file.
    """
    # scripted answers take no time that could be compared
    desk.lab.write("gate.yaml", "gate: sums\nextends: no-harm\nrules: {seconds: null}\n")
    screen("check", desk("check", "sums.yaml"))
    screen("plan", desk("plan", "sums.yaml", "--tasks", "tasks.jsonl"))
    screen("publish-first", desk("publish", "sums.yaml", "--without-evidence", "the first"))
    screen("run", desk("run", "sums", "--tasks", "tasks.jsonl"))
    run = desk("tasks", "--run", "last", "--json").json[0]["run_id"]
    screen("tasks", desk("tasks", "--run", "last", "--status", "below", "--limit", "3"))
    screen("show", desk("show", f"{run}/n4"))
    screen("show-step", desk("show", f"{run}/n4", "--step", "read"))
    screen("resume-finished", desk("resume", run))
    screen("backtest-plan", desk("backtest", "spec.yaml", "--plan"))
    screen("backtest", desk("backtest", "spec.yaml", "--gate", "gate.yaml"))
    screen("plan-detect", desk("plan", "spec.yaml", "--detect", "3"))
    screen("backtest-again", desk("backtest", "spec.yaml"))
    screen("reproduce", desk("reproduce", desk("backtest", "spec.yaml", "--json").json["backtest_id"]))
    screen("rerun", desk("rerun", "--from-run", run, "--status", "below", "--label", "even", "--from", "read", "--because", "looked again"))
    screen("history", desk("history", "n4"))
    screen("history-ledger", desk("history", "sums", "--report"))
    screen("compare", desk("compare", run, "last", "--gate", "gate.yaml"))
    screen("library-add", desk("library", "add", "sums", "--from-run", run, "--failed", "--with-label", "edge"))
    screen("library-list", desk("library", "list"))
    screen("library-check", desk("library", "check", "sums", "--workflow", "sums"))
    screen("health", desk("health", "sums"))
    screen("flow", desk("flow", "sums"))
    screen("flow-backtest", desk("flow", "sums", "--backtest", "sums"))
    screen("flow-list", desk("flow"))
    screen("versions", desk("versions", "sums"))
    screen("diff", desk("diff", "sums", "sums.yaml"))
    screen("gc", desk("gc"))
    screen("repair-intact", desk("repair", run))


def test_screens_of_an_aa_test(desk: Desk) -> None:
    """
    An A/A test prints its noise floor, and no verdict that blocks.
    """
    desk("publish", "sums.yaml", "--without-evidence", "the first")

    screen("backtest-aa", desk("backtest", "spec.yaml", "--aa"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, desk_of_help: Callable[..., CommandResult]) -> None:
    """
    The help of a command is its golden file.
    """
    screen(f"help/{command}", desk_of_help(command, "--help"))


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_of_a_submitted_command(word: str, desk_of_help: Callable[..., CommandResult]) -> None:
    """
    It is the help of the command itself.
    """
    assert desk_of_help("submit", "backtest", word).out == desk_of_help("backtest", "--help").out


def test_help_of_all(desk_of_help: Callable[..., CommandResult]) -> None:
    """
    The list of commands is its golden file.
    """
    screen("help/beam-ray", desk_of_help("--help"))
    screen("help/library-add", desk_of_help("library", "add", "--help"))


ERRORS = {
    "no-such-command": ("chek", "sums.yaml"),
    "no-such-file": ("check", "sum.yaml"),
    "no-tasks-file": ("run", "sums.yaml", "--tasks", "task.jsonl"),
    "not-published": ("run", "nothing", "--tasks", "tasks.jsonl"),
    "no-models-file": ("run", "sums.yaml", "--tasks", "tasks.jsonl", "--models", "none.yaml"),
    "unknown-limit": ("run", "sums.yaml", "--tasks", "tasks.jsonl", "--budget", "max_dollars=1"),
    "no-library": ("run", "sums.yaml", "--tasks", "library:none"),
    "no-evidence": ("publish", "sums.yaml"),
    "no-backtest": ("publish", "sums.yaml", "--evidence", "none"),
    "no-such-task": ("rerun", "n1"),
    "not-an-assignment": ("backtest", "spec.yaml", "--set", "trials"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, desk: Desk) -> None:
    """
    What cannot be done is refused in the words of its golden file, with exit code 2 and no model call.
    """
    said = desk(*ERRORS[name])

    assert (said.code, desk.model.journal) == (2, [])
    screen(f"errors/{name}", said)
