"""
Kappa: agreement of judgements beyond chance.

1 is perfect agreement, 0 is agreement by chance. Kappa is undefined when every judgement is
the same, because chance would then produce the same agreement.
"""

from collections.abc import Sequence


def cohen(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa (1960) of two judges over the same outputs; None where undefined."""
    if not pairs:
        return None
    first, second = (sum(pair[index] for pair in pairs) / len(pairs) for index in (0, 1))
    return _beyond(sum(one == other for one, other in pairs) / len(pairs), first * second + (1 - first) * (1 - second))


def fleiss(rows: Sequence[Sequence[bool]]) -> float | None:
    """Fleiss' kappa (1971): each row holds the judgements of one output, equally many per row; None where undefined."""
    if not rows or len(rows[0]) < 2:
        return None
    times = len(rows[0])
    met = [sum(row) for row in rows]
    agreed = sum(count * (count - 1) + (times - count) * (times - count - 1) for count in met) / (len(rows) * times * (times - 1))
    share = sum(met) / (len(rows) * times)
    return _beyond(agreed, share**2 + (1 - share) ** 2)


def _beyond(agreed: float, chance: float) -> float | None:
    return None if 1 - chance < 1e-12 else (agreed - chance) / (1 - chance)
