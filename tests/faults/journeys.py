"""Journeys: commands that are given one after the other on one store, each killed a few times on its way."""

import random
import signal
from dataclasses import dataclass, field
from typing import Any

from tests.faults.conftest import WORKFLOW, Bench

RUNS = ("run", "rerun", "backtest")
"""Commands that run something, and take so long that they can be killed often."""


@dataclass(frozen=True)
class Journey:
    """Commands, and the files that they read beside those of every bench."""

    commands: tuple[tuple[str, ...], ...]
    """The word FIRST stands for the id of the store's plain run."""
    files: dict[str, str] = field(default_factory=dict)
    tasks: int = 16
    points: int = 120
    """Its longest commands are killed within so many points after their beginning, or after the last death."""


PUBLISH = ("publish", "work.yaml", "--without-evidence", "the first")
SAVE = ("library", "add", "numbers", "--tasks", "tasks.jsonl")

# both steps differ: repeats of two sides are samples of their own, so what is the same in both is asked twice
EARLY_WORKFLOW = """
workflow: work
model: m
nodes:
  read: {llm: {prompt: "read #{{ task_query }}#", returns: {n: int}}}
  end: {after: read, llm: {prompt: "end #{{ read.n }}#"}, evaluate: {criteria: [{check: end.text != 'worse'}]}}
"""
EARLY_SPEC = """
backtest: early
workflow: work
tasks: library:numbers
baseline: published
candidates: {worse: {nodes.read.llm.prompt: "read #{{ task_query }}# again", nodes.end.llm.prompt: "end #{{ read.n }}# worse"}}
trials: 2
confirm: 2
stop: early
gate: improve
"""

JOURNEYS = {
    "backtest": Journey((PUBLISH, SAVE, ("backtest", "spec.yaml", "--mlflow", "none"))),
    "early": Journey(
        (PUBLISH, SAVE, ("backtest", "early.yaml", "--mlflow", "none", "--exit-zero")),
        {"work.yaml": EARLY_WORKFLOW, "early.yaml": EARLY_SPEC},
        tasks=40,
        points=300,
    ),
    "reruns": Journey(
        (
            PUBLISH,
            ("run", "work.yaml", "--tasks", "tasks.jsonl"),
            ("rerun", "t3", "--because", "once more"),
            ("rerun", "--from-run", "FIRST", "--from", "end", "--using", "ends.yaml"),
            ("rerun", "--from-run", "FIRST", "--status", "below", "--from", "odd", "--using", "original"),
        ),
        {"ends.yaml": WORKFLOW.replace('text }}#"}}', 'text }}# so"}}')},
    ),
}
"""A backtest; one with trials and repeats that stops early; and reruns of a task, from a step, and from the step that scored low."""


def travel(bench: Bench, journey: Journey, dice: random.Random | None = None, deaths: int = 10) -> int:
    """Give all commands; with *dice*, each is killed on its way, long ones up to *deaths* times. How many questions they asked, each of them once."""
    for name, text in journey.files.items():
        (bench.folder / name).write_text(text)
    asked = 0
    for command in journey.commands:
        words = [next(run.run_id for run in bench.runs if run.finished and run.record.mode == "run") if word == "FIRST" else word for word in command]
        words += [*(("--models", "models.yaml", "--json") if command[0] in RUNS else ()), "--store", bench.uri]
        for _ in range((deaths if command[0] in RUNS else 3) if dice else 0):
            if bench.run(*words, **death(dice, journey.points if command[0] in RUNS else 25)).code != -9 or (command[0] in ("run", "rerun") and bench.over):
                break
        else:
            bench.run(*words)
        asked += bench.settle()
    return asked


def death(dice: random.Random, most: int) -> dict[str, Any]:
    """How a command is killed: where it comes to one of its first *most* points, or after a while."""
    return {"fail": f"*.*:{dice.randint(1, most)}:kill"} if dice.random() < 0.5 else {"signals": [(dice.uniform(0.05, 0.6), signal.SIGKILL)]}
