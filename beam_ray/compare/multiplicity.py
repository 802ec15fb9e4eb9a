"""
PASS for one of several candidates, corrected for their number.

Of ten candidates that change nothing, one passes ``score: {up_by: 0}`` in more than ten of 100
backtests. So what a candidate passes by must hold with Holm's method (1979): with ten candidates
at ten times less error (99.5% confidence instead of 95%), with nine once one has passed so, and so
on. A candidate passes if all its decisive lines do, so it has one test, whatever the number of its
lines; the intervals are computed anew at that confidence, and no p-value is approximated.

Only what a gate asks to be shown is corrected: levels, targets and non-inferiority. A guard passes
without evidence, counts are exact, and BLOCK is said of each candidate for itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from beam_ray.compare.comparison import Comparison
from beam_ray.compare.gate import Gate
from beam_ray.compare.report import Result
from beam_ray.compare.verdict import WORST_FIRST, Line, Verdict, judge

HOLM = "holm"
RULE = "candidates"
"""The line of a verdict that says whether it holds with all candidates in mind."""

Recompare = Callable[[int, float], Comparison]
"""A candidate's comparison, by its place, with intervals of another confidence in percent."""


@dataclass(frozen=True)
class Correction:
    """Which candidates hold at which confidence."""

    held: dict[int, float]
    """Place of each candidate that holds to the confidence, in percent, at which it was tested."""
    last: float
    """At which all others were tested."""


def corrected_confidence(confidence: float, candidates: int, passed: int = 0) -> float:
    """At which confidence, in percent, a candidate must hold of so many, when *passed* others do."""
    return 100 - (100 - confidence) / max(candidates - passed, 1)


def correct(results: Sequence[Result], gate: Gate, at: Recompare) -> list[Result]:
    """The results, each that would pass alone with a line that says whether it does among all of them; one result is left as it is."""
    if len(results) < 2 or not gate.limits:
        return list(results)
    claims = [index for index, result in enumerate(results) if _claims(result.verdict, gate)]
    found = holm(claims, len(results), gate.confidence, lambda index, confidence: _holds(results[index].verdict, gate, at(index, confidence), confidence))
    return [
        Result(comparison, _with_line(verdict, gate, found, index, len(results)) if index in claims else replace(verdict, own_word=verdict.word))
        for index, (comparison, verdict) in enumerate(results)
    ]


def holm(claims: Sequence[int], candidates: int, confidence: float, holds: Callable[[int, float], bool]) -> Correction:
    """Which of the *claims* hold by Holm's method, where *holds* tests one at a confidence in percent."""
    held: dict[int, float] = {}
    while True:
        level = corrected_confidence(confidence, candidates, len(held))
        more = [index for index in claims if index not in held and holds(index, level)]
        held |= dict.fromkeys(more, level)
        if not more or len(held) == len(claims):
            return Correction(held, level)


def _claims(verdict: Verdict, gate: Gate) -> bool:
    """Whether the candidate would be let through as shown: a warning of a gate that is not strict claims nothing."""
    return verdict.word == "PASS" or (verdict.word == "WARN" and gate.strict)


def _decisive(line: Line) -> bool:
    return line.level == "block" and line.word == "PASS"


def _holds(verdict: Verdict, gate: Gate, comparison: Comparison, confidence: float) -> bool:
    return not _open(verdict, gate, comparison, confidence)


def _open(verdict: Verdict, gate: Gate, comparison: Comparison, confidence: float) -> list[str]:
    """The rules that the verdict passes by, and that do not pass at the *confidence*."""
    lines = judge(comparison, gate.model_copy(update={"confidence": confidence})).lines
    return [line.rule for line, other in zip(verdict.lines, lines, strict=True) if _decisive(line) and other.word != "PASS"]


def _with_line(verdict: Verdict, gate: Gate, found: Correction, index: int, candidates: int) -> Verdict:
    level = found.held.get(index, found.last)
    allowed = f"Holm, {candidates} candidates"
    if index in found.held:
        reason = f"It also passes at {_percent(level)} confidence, which allows for choosing among {candidates} candidates."
        line = Line(RULE, allowed, f"{verdict.word} at {_percent(level)}", "PASS", reason)
    else:
        reason = f"{verdict.word} by itself, but not at {_percent(level)} confidence: with {candidates} candidates that can be chance."
        line = Line(RULE, allowed, f"{verdict.word} alone", "INCONCLUSIVE" if gate.strict else "WARN", reason)
    words = {verdict.word, line.word}
    return replace(verdict, word=next(word for word in WORST_FIRST if word in words), lines=(*verdict.lines, line), own_word=verdict.word)


def _percent(confidence: float) -> str:
    return f"{confidence:.2f}".rstrip("0").rstrip(".") + "%"
