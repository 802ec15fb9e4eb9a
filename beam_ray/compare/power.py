"""
How much a number of tasks can show, and how many show so much: with 80% power.

Everything follows from standard errors, so that an interval, the change it can show, the noise
floor and a plan never contradict each other. A change is shown when its interval leaves out 0; with
80% power it is shown in 80 of 100 backtests in which it is there.
"""

import math
from dataclasses import dataclass

import scipy  # its parts load when they are first used

from beam_ray.compare.statistics import Interval, Numbers

POWER = 0.8
LEAST = 10
"""Tasks; with fewer nothing passes."""


def half_width(ends: Interval) -> float:
    """How far an interval reaches to either side, on average."""
    return (ends.high - ends.low) / 2


def detectable(ends: Interval, reach: float, tasks: int) -> float:
    """
    The smallest change that as many tasks, scattering as much, show with 80% power.

    Args:
        ends: the interval of the change that was found, whose width tells the standard error.
        reach: how many standard errors it reaches.
        tasks: how many it is over.
    """
    return half_width(ends) * (1 + float(scipy.special.stdtrit(max(tasks - 1, 1), POWER)) / reach)


def noise_floor(ends: Interval, reach: float) -> float:
    """1.96 standard errors: a smaller change is shown in fewer than 5 of 100 comparisons without one, whatever this one found."""
    return half_width(ends) * float(scipy.special.ndtri(0.975)) / reach


def tasks_to_detect(deviation: float, effect: float, confidence: float = 95.0) -> int:
    """How many tasks show *effect* with 80% power, when the change of a task has the standard *deviation*."""
    standard_errors = float(scipy.special.ndtri(0.5 + confidence / 200) + scipy.special.ndtri(POWER))
    return max(LEAST, math.ceil((standard_errors * deviation / effect) ** 2))


def change_deviation(flips: float, noise: float | None, effect: float, trials: int = 1) -> float:
    """
    The standard deviation of a task's change of success, in points, when the rate truly changes by *effect* points.

    Args:
        flips: the share of tasks that differ between one trial of both sides.
        noise: the share that differs between two trials of the same side; None where that is not known: then more trials do not help.
        trials: how often each task is repeated on both sides. They average out the noise.
    """
    noise = min(noise or 0.0, flips)
    # a change of 3 points flips 3 of 100 tasks at least
    changed = max(flips - noise + noise / trials, effect / 100)
    return 100 * math.sqrt(changed - (effect / 100) ** 2)


def score_deviation(spread: float, noise: float | None, trials: int = 1) -> float:
    """The same of a task's change of score: *spread* and *noise* are standard deviations between single trials, in points."""
    noise = min(noise or 0.0, spread)
    return math.sqrt(spread**2 - noise**2 + noise**2 / trials)


def detectable_by(deviation: float, tasks: int, confidence: float = 95.0) -> float | None:
    """The smallest change of a mean that so many tasks show with 80% power, when the change of a task has the standard *deviation*."""
    if tasks < 2:
        return None
    quantiles = scipy.special.stdtrit(tasks - 1, [0.5 + confidence / 200, POWER])
    return float(quantiles.sum()) * deviation / math.sqrt(tasks)


@dataclass(frozen=True)
class Planning:
    """What is assumed of more tasks like those that were compared, in the unit of a change."""

    variance: float
    """
    Of a task's change: as found, with half a task more that changes by *usual*.

    Of 50 tasks without any change nobody knows that none will ever have one: up to 6 of 100 may. With half a flip more, the
    planned number of tasks decides in 80 of 100 backtests, over what the truth may be after such a finding.
    """
    usual: float
    """How large a usual change is: the interval adds one each way."""

    def tasks(self, value: float, bound: float, reach: float, padding: int = 1) -> float:
        """How many tasks hold the interval of a change of *value* off *bound* with 80% power, if that reaches *reach* standard errors."""
        sure, pads = float(scipy.special.ndtri(POWER)), 2 * padding

        def open_(tasks: float) -> bool:
            distance = abs(value * tasks / (tasks + pads) - bound)
            return reach * math.sqrt(self.variance * tasks + pads * self.usual**2) / (tasks + pads) + sure * math.sqrt(self.variance / tasks) >= distance

        low, high = 2.0, 2.0
        while open_(high) and high < 1e9:
            low, high = high, 2 * high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if open_(middle) else (low, middle)
        return high if high < 1e9 else math.inf


def planning(changes: Numbers, usual: float) -> Planning:
    """What to plan with after these changes of tasks."""
    return Planning((float(((changes - changes.mean()) ** 2).sum()) + usual**2 / 2) / (len(changes) + 1), usual)


def two_digits(number: float) -> int:
    """*number* rounded up to two digits: nobody knows a needed number of tasks better."""
    step: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step
