"""How often the judges of a panel disagreed, per criterion and side."""

from collections.abc import Mapping

import pyarrow as pa

from beam_ray.evaluate.panel import disagree


def judge_notes(sides: Mapping[str, pa.Table]) -> tuple[str, ...]:
    """
    Sentences about panels of judges; none where single models or rules decided.

    Args:
        sides: Name to steps, with the columns node and criteria.
    """
    counts = {name: disagreements(steps) for name, steps in sides.items()}
    found = []
    for criterion in dict.fromkeys(key for each in counts.values() for key in each):
        shares = [
            f"{100 * apart / judged:.1f}% of {judged:,} outputs ({name})"
            for name, each in counts.items()
            for judged, apart in (each.get(criterion, (0, 0)),)
            if judged
        ]
        found.append(f"{criterion}: the judges disagreed on {' and '.join(shares)}.")
    return tuple(found)


def disagreements(steps: pa.Table) -> dict[str, tuple[int, int]]:
    """``node/criterion`` to the number of outputs that a panel judged, and of those on which its judges disagreed."""
    counts: dict[str, tuple[int, int]] = {}
    for batch in steps.select(["node", "criteria"]).to_batches(max_chunksize=5_000):
        for row in batch.to_pylist():
            for entry in row["criteria"] or ():
                if entry.get("judges"):
                    judged, apart = counts.get(f"{row['node']}/{entry['id']}", (0, 0))
                    counts[f"{row['node']}/{entry['id']}"] = judged + 1, apart + disagree(entry["judges"])
    return counts
