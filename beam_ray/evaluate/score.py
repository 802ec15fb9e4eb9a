"""The score of an output, 0 to 100, or the reason why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

from beam_ray.store.tables import CriterionRow, JudgementRow


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one criterion on one output."""

    id: str
    text: str
    met: bool | None
    """None where it could not be decided or does not apply."""
    reason: str
    judge: str | None
    """The judge model, or the names of a panel; None for a rule."""
    weight: float
    applies: bool = True
    """Whether it counts: a comparison with an expected value applies only to tasks that have one."""

    judges: tuple[JudgementRow, ...] = ()
    """What each judge of a panel said; empty where one model or a rule decided."""

    def row(self) -> CriterionRow:
        """The finding as a row of the steps table."""
        return {
            "id": self.id,
            "text": self.text,
            "met": self.met,
            "reason": self.reason,
            "judge": self.judge,
            "weight": self.weight,
            "judges": list(self.judges) or None,
        }


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one output, or the reason why there is none."""

    value: float | None
    unscored: str | None = None

    def passes(self, threshold: float) -> bool | None:
        """Whether the score reaches *threshold*; None where there is no score."""
        # a share such as 9 of 10 must reach a threshold of 90 in spite of rounding
        return None if self.value is None else self.value >= threshold - 1e-9


def score(findings: Sequence[Finding]) -> Score:
    """The weighted share of criteria met, 0 to 100."""
    applying = [finding for finding in findings if finding.applies]
    undecided = [finding for finding in applying if finding.met is None]
    if undecided:
        return Score(None, f"{undecided[0].id}: {undecided[0].reason}")
    if not applying:
        return Score(None, findings[0].reason if findings else "no criteria")
    total = sum(finding.weight for finding in applying)
    return Score(round(100 * sum(finding.weight for finding in applying if finding.met) / total, 6))
