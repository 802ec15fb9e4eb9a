"""Slices and clusters as reports show them, and notes where the total and its parts point in different directions."""

from beam_ray.compare.classification_tables import Table
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.formatting import amount, change, plain, plural, span
from beam_ray.compare.grouping import FEW_CLUSTERS
from beam_ray.compare.statistics import Interval
from beam_ray.compare.subgroups import POOLED, SubgroupMetric, Subgroups

MOST_NAMED = 5


def subgroup_table(group: Subgroups, confidence: float) -> Table:
    """Success rate and mean score of each slice, with the interval of the change as found and the change partially pooled."""
    header = [f"{group.field} (change, {confidence:g}% interval)", "tasks", "success rate", "pooled", "mean score", "pooled", ""]
    rows = []
    for member in group.members:
        metrics = [member.metric(name) for name in POOLED]
        cells = [cell for entry in metrics for cell in (_cell(entry), change(entry.pooled, entry.metric.unit))]
        words = dict.fromkeys(word for word in map(subgroup_word, metrics) if word)
        rows.append([plain(member.value, 40), f"{member.tasks:,}", *cells, " and ".join(words)])
    return Table(header, rows, f"{group.left_out:,} more values are not shown" if group.left_out else "")


def subgroup_word(entry: SubgroupMetric) -> str:
    """Whether the slice changed beyond chance, with all slices in mind."""
    if entry.p_adjusted > 0.05 or not entry.metric.change:
        return ""
    return "better" if (entry.metric.change > 0) == (entry.metric.better == "up") else "WORSE"


def cluster_notes(comparison: Comparison) -> list[str]:
    """How many clusters the numbers stand on, and what so few are worth."""
    found = comparison.clustering
    if found is None:
        return []
    sizes = f"{found.smallest:,}" if found.smallest == found.largest else f"{found.smallest:,} to {found.largest:,}"
    alone = f"; {plural(found.alone, 'task')} without {found.field} count{'s'[: found.alone == 1]} as a cluster each" if found.alone else ""
    notes = [
        f"Clustered by {found.field}: {plural(comparison.tasks, 'task')} in {plural(found.clusters, 'cluster')} of {sizes}; intervals and tests count clusters{alone}."
    ]
    if found.clusters < FEW_CLUSTERS:
        notes.append(
            f"{plural(found.clusters, 'cluster')} are few: intervals are wide, and those of levels hold in somewhat fewer than 95% where clusters differ in size."
        )
    return notes


def slice_notes(comparison: Comparison) -> list[str]:
    """What to think of so many slices."""
    count = sum(len(group.members) for group in comparison.subgroups)
    if count < 2:
        return []
    return [
        f"{plural(count, 'slice')}: each interval alone leaves out the truth in {100 - comparison.confidence:g} of 100 backtests, so the most extreme slices are partly chance. "
        f"Words are corrected for all {count:,} (Holm's method); pooled changes are drawn toward the mean of the slices by their share of noise."
    ]


def direction_notes(comparison: Comparison) -> list[str]:
    """Where the total and its parts point in different directions."""
    notes = []
    for name in POOLED:
        total = comparison.metric(name)
        if total.change is None or not total.change:
            continue
        up = total.change > 0
        parts = {group.field: [(member.value, member.metric(name)) for member in group.members] for group in comparison.subgroups}
        for field, members in parts.items():
            notes += _reversed(total.title, total.change, field, [(value, entry.metric.change) for value, entry in members if entry.metric.low is not None], "")
            against = [(value, entry) for value, entry in members if subgroup_word(entry) == ("WORSE" if up else "better")]
            if against and total.low is not None and total.high is not None and (total.low > 0 or total.high < 0):
                listed = ", ".join(f"{plain(value, 40)} ({change(entry.metric.change, entry.metric.unit)})" for value, entry in against[:MOST_NAMED])
                notes.append(f"{_title(total.title)} {'rises' if up else 'falls'} ({change(total.change, total.unit)}), but not everywhere. {field}: {listed}.")
        if name == "score":
            routes = [(part.name, part.change) for part in comparison.of_kind("route") if part.low is not None]
            why = f" among tasks that took it on both sides: {plural(comparison.route_changes, 'pair')} took another route, and routes differ in score (Simpson's paradox)"
            notes += _reversed(total.title, total.change, "route", routes, why if comparison.route_changes else "")
    return notes


def _reversed(title: str, total: float, field: str, parts: list[tuple[str, float | None]], why: str) -> list[str]:
    """The note for parts that all moved against the total."""
    moved = [(value, found) for value, found in parts if found]
    if len(moved) < 2 or any((found > 0) == (total > 0) for _, found in moved):
        return []
    listed = ", ".join(f"{plain(value, 40)} {change(found, 'points')}" for value, found in moved[:MOST_NAMED])
    return [
        f"{_title(title)} {'rises' if total > 0 else 'falls'} ({change(total, 'points')}), yet {'falls' if total > 0 else 'rises'} in every {field}{why}: {listed}."
    ]


def _title(title: str) -> str:
    return f"The {title}"


def _cell(entry: SubgroupMetric) -> str:
    metric = entry.metric
    text = f"{amount(metric.before, 'points')} → {amount(metric.after, 'points')}{' %' if metric.unit == '%' else ''}"
    if metric.low is None or metric.high is None:
        return text
    return f"{text} ({span(Interval(metric.low, metric.high), metric.unit)})"
