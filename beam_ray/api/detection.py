"""How many tasks and trials show a change, before anything is spent."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.plans import TimeDocument, time_document
from beam_ray.backtest.discordance import Discordance, discordance
from beam_ray.backtest.sides import Backtest as Engine
from beam_ray.compare.gate_file import default_gate
from beam_ray.compare.power import change_deviation, detectable_by, score_deviation, tasks_to_detect
from beam_ray.errors import Unusable
from beam_ray.run.plan import Plan, make_plan
from beam_ray.run.step_times import StepTimes, TimeRange

ASSUMED = (0.05, 0.1, 0.2)
"""Shares of tasks that change sides, for a workflow of which nothing is known."""
TRIALS = (1, 2, 3, 5)


class DetectionOptionDocument(TypedDict):
    """One way to detect the change, as ``--json`` prints it."""

    trials: int
    flips: float
    tasks: int
    success_rate_tasks: int
    score_tasks: int | None
    calls: int
    max_usd: float | None
    seconds: TimeDocument | None


class DetectionDocument(TypedDict):
    """How many tasks show a change, as ``--json`` prints it."""

    points: float
    power: float
    confidence: float
    runs: list[str]
    compared: int
    flips: float | None
    noise: float | None
    score_sd: float | None
    detectable_rate: float | None
    detectable_score: float | None
    options: list[DetectionOptionDocument]


@dataclass(frozen=True)
class DetectionOption:
    """So many tasks and trials show the change, at that price."""

    trials: int
    flips: float
    """Percent of the tasks that differ between one trial of both sides; assumed where no runs tell."""
    success_rate_tasks: int
    """Tasks that show the change of the success rate."""
    score_tasks: int | None
    """Tasks that show the change of the mean score; None where that is not asked for or its scatter not known."""
    calls: int
    """Model calls of all sides for the larger number of tasks, at most: what can be borrowed is not known yet."""
    max_usd: float | None
    """US dollars for them, at most; None when a model has no price."""
    seconds: TimeRange | None
    """How long they take; None where no earlier run tells."""

    @property
    def tasks(self) -> int:
        """Tasks that show the change in every number that was asked for."""
        return max(self.success_rate_tasks, self.score_tasks or 0)


@dataclass(frozen=True, repr=False)
class Detection(Displayed):
    """How many tasks and trials show a change with 80% power, from how much this workflow's finished runs differ."""

    points: float
    """The change to detect: points of the success rate, and of the mean score unless it was given in percent."""
    confidence: float
    """Of the intervals, in percent."""
    runs: tuple[str, ...]
    """The runs that tell how much results differ; empty where none do, and shares are assumed."""
    compared: int
    """Pairs of results that were compared."""
    flips: float | None
    """Percent of the tasks that pass in one run and fail in the other, without those that make the net change between the two."""
    noise: float | None
    """The same between two runs or trials of one definition; None where there are none. More trials help against this part."""
    score_sd: float | None
    """Standard deviation of the difference of scores, in points."""
    detectable_rate: float | None
    """The smallest change of the success rate that the spec's tasks and trials show, in points."""
    detectable_score: float | None
    options: tuple[DetectionOption, ...]

    def display(self) -> Display:
        facts = (
            ("detect", f"{self.points:g} points at 80% power"),
            ("runs", ", ".join(self.runs) or "none; assumed"),
            ("flips %", self.flips),
            ("noise %", self.noise),
        )
        header = ("trials", "flips %", "tasks: success rate", "tasks: mean score", "model calls", "at most $")
        rows = [(each.trials, each.flips, each.success_rate_tasks, each.score_tasks, each.calls, each.max_usd) for each in self.options]
        return Display("detection", facts, header, rows)

    def document(self) -> DetectionDocument:
        """The numbers as a JSON document."""
        return {
            "points": self.points,
            "power": 80.0,
            "confidence": self.confidence,
            "runs": list(self.runs),
            "compared": self.compared,
            "flips": self.flips,
            "noise": self.noise,
            "score_sd": self.score_sd,
            "detectable_rate": self.detectable_rate,
            "detectable_score": self.detectable_score,
            "options": [
                {
                    "trials": each.trials,
                    "flips": each.flips,
                    "tasks": each.tasks,
                    "success_rate_tasks": each.success_rate_tasks,
                    "score_tasks": each.score_tasks,
                    "calls": each.calls,
                    "max_usd": each.max_usd,
                    "seconds": time_document(each.seconds),
                }
                for each in self.options
            ],
        }


def parse_change(written: float | str) -> tuple[float, bool]:
    """
    The points of a change to detect, and whether it is of the success rate alone.

    Raises:
        Unusable: it is no number of points, and no percentage.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(%?)", str(written).strip())
    if not match or not 0 < float(match[1]) <= 100:
        raise Unusable(f"the change to detect must be a number of points such as 3, or of the success rate such as 3%, above 0 and up to 100, not {written!r}")
    return float(match[1]), bool(match[2])


def detect(engine: Engine, change: float | str, confidence: float, times: StepTimes | None) -> Detection:
    """How many tasks the backtest needs to show *change*."""
    points, rate_only = parse_change(change)
    known = discordance(engine.objects, engine.resolved.baseline.workflow.name)
    # without anything borrowed: of tasks that are not there yet nobody knows what can be
    named = [side for side in (engine.resolved.baseline, *engine.resolved.candidates) if not side.recorded]
    sides = [make_plan(side.workflow, engine.tasks, engine.models) for side in named]
    tasks, trials = engine.tasks.num_rows, engine.resolved.spec.trials
    if known is None:
        options = tuple(
            _option(sides, engine, times, 1, share, tasks_to_detect(change_deviation(share, None, points), points, confidence), None) for share in ASSUMED
        )
        return Detection(points, confidence, (), 0, None, None, None, None, None, options)
    usual, noise = known.usual, known.of_noise
    made = []
    for count in TRIALS if noise else (1,):
        rate = tasks_to_detect(_rate_deviation(known, points, count), points, confidence)
        spread = None if rate_only else _score_deviation(known, count)
        score = None if spread is None else tasks_to_detect(spread, points, confidence)
        made.append(_option(sides, engine, times, count, usual.flips, rate, score))
    spread = _score_deviation(known, trials)
    return Detection(
        points,
        confidence,
        known.runs,
        known.tasks,
        round(100 * usual.flips, 6),
        round(100 * noise.flips, 6) if noise else None,
        None if usual.score_sd is None else round(usual.score_sd, 6),
        detectable_by(_rate_deviation(known, 0.0, trials), tasks, confidence),
        None if spread is None else detectable_by(spread, tasks, confidence),
        tuple(made),
    )


@dataclass(frozen=True)
class Detectable:
    """The smallest changes that so many tasks show with 80% power."""

    tasks: int
    success_rate: float | None
    """Points of the success rate; None where no change can be shown."""
    score: float | None
    """Points of the mean score; None where that is so, or where the scatter of scores is not known."""
    runs: tuple[str, ...]
    """The runs that tell how much results differ; empty where none do, and one of ten tasks is assumed to."""


def detectable(store: Location, workflow: str, tasks: int) -> Detectable:
    """See ``Store.detectable``."""
    known = discordance(store.existing(), workflow)
    confidence = default_gate().confidence
    if known is None:
        return Detectable(tasks, _shown(change_deviation(ASSUMED[1], None, 0.0), tasks, confidence), None, ())
    spread = _score_deviation(known, 1)
    score = None if spread is None else _shown(spread, tasks, confidence)
    return Detectable(tasks, _shown(_rate_deviation(known, 0.0, 1), tasks, confidence), score, known.runs)


def _shown(deviation: float, tasks: int, confidence: float) -> float | None:
    """What so many tasks show; None where that is more than there can be."""
    found = detectable_by(deviation, tasks, confidence)
    return None if found is None or found > 100 else found


def _rate_deviation(known: Discordance, points: float, trials: int) -> float:
    return change_deviation(known.usual.flips, known.of_noise.flips if known.of_noise else None, points, trials)


def _score_deviation(known: Discordance, trials: int) -> float | None:
    spread, noise = known.usual.score_sd, known.of_noise
    return None if spread is None else score_deviation(spread, noise.score_sd if noise else None, trials)


def _option(sides: Sequence[Plan], engine: Engine, times: StepTimes | None, trials: int, flips: float, rate: int, score: int | None) -> DetectionOption:
    """So many tasks and trials, and what all sides of them cost."""
    rows = max(rate, score or 0) * trials
    ratio = rows / max(engine.tasks.num_rows, 1)
    money = [side.usd for side in sides]
    usd = None if None in money else ratio * sum(value for value in money if value is not None)
    ranges = [_scaled_time(side, rows, engine, times) for side in sides]
    known = [each for each in ranges if each is not None]
    seconds = TimeRange(sum(each.low for each in known), sum(each.high for each in known)) if len(known) == len(ranges) else None
    return DetectionOption(trials, round(100 * flips, 6), rate, score, round(ratio * sum(side.calls for side in sides)), usd, seconds)


def _scaled_time(side: Plan, rows: int, engine: Engine, times: StepTimes | None) -> TimeRange | None:
    nodes = tuple(replace(node, run=round(node.run * rows / max(side.record.rows, 1))) for node in side.nodes)
    return times.estimate(replace(side, nodes=nodes), engine.models) if times else None
