"""
Measure the error rates that docs/statistics.md states: python -m benchmarks.coverage [PART …] [REPETITIONS]

Parts: intervals (10 minutes with 3,000 repetitions), regressions, sequential, classes, candidates, clusters, slices, judges. Seeds are fixed.
"""

import sys

from benchmarks.coverage import candidates, classes, clusters, intervals, judges, regressions, sequential, slices

PARTS = {
    "intervals": intervals.table,
    "regressions": regressions.table,
    "sequential": sequential.table,
    "classes": classes.table,
    "candidates": candidates.table,
    "clusters": clusters.table,
    "slices": slices.table,
    "judges": judges.table,
}


def main(words: list[str]) -> None:
    """Print the tables of the parts, all of them where none is named."""
    repetitions = next((int(word) for word in words if word.isdecimal()), 3_000)
    unknown = [word for word in words if not word.isdecimal() and word not in PARTS]
    if unknown:
        sys.exit(f"unknown part {unknown[0]!r}; parts: {', '.join(PARTS)}")
    for name in [word for word in words if word in PARTS] or PARTS:
        sys.stdout.write(f"## {name}, {repetitions:,} repetitions\n\n{PARTS[name](repetitions)}\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
