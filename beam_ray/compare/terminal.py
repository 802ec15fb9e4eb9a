"""The comparison on a terminal: aligned, in words, and safe whatever the tasks say."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from beam_ray.compare.breakdown import Slice
from beam_ray.compare.candidate_tables import SHOWN_IN_FULL, front_table, gain_table, overview_notes, rerun_notes
from beam_ray.compare.candidates import Overview, overview
from beam_ray.compare.classification_tables import classification_notes, confusion_table, measures_table
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.error_kinds import KINDS as ERROR_KINDS
from beam_ray.compare.formatting import amount, change, line_word, plain, plural, span
from beam_ray.compare.metric_definitions import OF_CALLS
from beam_ray.compare.metrics import NOT_RECORDED, Metric
from beam_ray.compare.power import noise_floor
from beam_ray.compare.report import Result, best_first
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval
from beam_ray.compare.subgroup_tables import cluster_notes, direction_notes, slice_notes, subgroup_table
from beam_ray.compare.verdict import Verdict

SHOWN_IDS = 8


def terminal(results: Sequence[Result], title: str = "", rerun: Result | None = None) -> str:
    """Each candidate's table, gate and flips as text, and last those of the *rerun*; no colour, so that nothing depends on it."""
    found = overview(results)
    shown = best_first(results)[:SHOWN_IN_FULL] if found else results
    parts = [_overview(found, title)] if found else []
    parts += [_result(comparison, verdict, title) for comparison, verdict in results if any(comparison is each.comparison for each in shown)]
    if len(shown) < len(results):
        parts.append(f"{len(results) - len(shown):,} further candidates are compared in full in report.html")
    if rerun:
        parts += ["\n".join(rerun_notes(rerun, len(results))), _result(*rerun, title)]
    return "\n\n".join(parts) + "\n"


def metric_cells(metric: Metric) -> list[str]:
    """A metric's row: name, baseline, candidate, change, relative change, interval."""
    if metric.before is None or metric.after is None:
        return [metric.title, *(amount(value, metric.unit) for value in (metric.before, metric.after)), "-", "-", metric.note]
    ends = Interval(metric.low, metric.high) if metric.low is not None and metric.high is not None else None
    relative = "-" if metric.relative is None else amount(metric.relative, "%", signed=True)
    values = [amount(value, metric.unit) for value in (metric.before, metric.after)]
    if metric.change is None:
        return [metric.title, *values, "-", "-", metric.note]
    return [metric.title, *values, change(metric.change, metric.unit), relative, span(ends, metric.unit)]


def slice_cells(part: Slice) -> list[str]:
    """A slice's row: name, pairs, before, after, change, interval, verdict of the test."""
    if part.before is None:
        return [plain(part.name, 50), str(part.pairs), "-", "-", "-", "-", ""]
    ends = Interval(part.low, part.high) if part.low is not None and part.high is not None else None
    values = [amount(value, part.unit) for value in (part.before, part.after)]
    return [plain(part.name, 50), f"{part.pairs:,}", *values, change(part.change, part.unit), span(ends, part.unit), part_word(part)]


def part_word(part: Slice) -> str:
    """Whether the part changed beyond chance, with all parts of its kind in mind."""
    if part.p_adjusted > 0.05 or not part.change:
        return ""
    return "better" if part.change > 0 else "WORSE"


def ids(tasks: Sequence[str], shown: int = SHOWN_IDS) -> str:
    """The first few task ids, and how many more there are."""
    named = ", ".join(plain(task, 40) for task in tasks[:shown])
    return f"{named} and {len(tasks) - shown:,} more" if len(tasks) > shown else named


def worth_showing(comparison: Comparison) -> list[Metric]:
    """The metrics, without errors and auto-reruns that neither side has."""
    quiet = {*OF_CALLS, "unscored", "tool_errors", "infrastructure_errors", "answer_errors", *ERROR_KINDS, "auto_reruns", "auto_rerun_tokens", "auto_rerun_usd"}
    return [metric for metric in comparison.metrics if metric.name not in quiet or metric.before or metric.after]


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = [f"{comparison.advice}."]
    if comparison.same:
        found += noise(comparison)
    if comparison.metric("calls").note.startswith(NOT_RECORDED):
        found.append("The baseline is what production recorded: its costs, times, routes and inner steps are unknown.")
    if comparison.planned:
        found.append("Sequential test: intervals stay valid at every interim analysis, so they are wider.")
        seen = comparison.tasks + comparison.unpaired.count
        if seen < comparison.planned:
            found.append(
                f"Stopped early after {seen:,} of {comparison.planned:,} tasks because the verdict could no longer change. Regressions are counted among these {seen:,}."
            )
    able = []
    if comparison.detectable_score is not None:
        able.append(f"{amount(comparison.detectable_score, 'points')} points of score")
    if comparison.detectable_rate is not None:
        able.append(f"{amount(comparison.detectable_rate, 'points')} points of success rate")
    if able:
        found.append(f"Minimum detectable effect at 80% power: {', '.join(able)}.")
    for name, tasks in (
        ("missing on the candidate", comparison.unpaired.baseline_only),
        ("missing on the baseline", comparison.unpaired.candidate_only),
        ("with different inputs", comparison.unpaired.inputs_differ),
        ("not judged: the model was unavailable", comparison.unpaired.not_judged),
    ):
        if tasks:
            found.append(f"{plural(len(tasks), 'task')} {name}: {ids(tasks)}.")
    found += [f"{metric.title}: {metric.note}." for metric in comparison.metrics if metric.note and metric.after is not None and metric.low is not None]
    found += [note for classification in comparison.shown_classifications for note in classification_notes(classification)]
    found += comparison.replay.notes() if comparison.replay else []
    found += comparison.judge_notes
    found += [*cluster_notes(comparison), *slice_notes(comparison), *direction_notes(comparison)]
    found += comparison.cost_notes
    return found


def noise(comparison: Comparison) -> list[str]:
    """What two samples of one definition say of every other comparison of this size."""
    floors = []
    for metric in worth_showing(comparison):
        if metric.low is None or metric.high is None:
            continue
        floor = noise_floor(
            Interval(metric.low, metric.high), Confidence(comparison.confidence, comparison.planned, comparison.units).quantile(comparison.units)
        )
        if floor:
            points = " points" if metric.unit in ("%", "points") else ""
            floors.append(f"{metric.title} ±{amount(floor, 'points' if points else metric.unit)}{points}")
    flipped = len(comparison.newly_passing) + len(comparison.newly_failing)
    share = 100 * flipped / comparison.tasks if comparison.tasks else 0.0
    return [
        "A/A test: the baseline was compared with itself, so every difference is noise.",
        f"{flipped:,} of {plural(comparison.tasks, 'task')} flipped although nothing changed ({amount(share, '%')}).",
        f"Noise floor (1.96 standard errors; a smaller change over this many tasks may be none): {'; '.join(floors) or 'too few tasks'}.",
    ]


def _overview(found: Overview, title: str) -> str:
    gains, fronts = gain_table(found), front_table(found)
    lines = [plain(" · ".join([*([title] if title else []), plural(len(found.candidates), "candidate")])), *overview_notes(found), ""]
    lines += aligned([gains.header, *gains.rows], left=3)
    if fronts:
        lines += ["", *aligned([fronts.header, *fronts.rows])]
    return "\n".join(lines)


def _result(comparison: Comparison, verdict: Verdict, title: str) -> str:
    sides = {"baseline": comparison.baseline.name, "candidate": comparison.candidate.name}
    names = [plural(comparison.tasks, "task"), *(f"{side} {name}" for side, name in sides.items() if name != side)]
    if comparison.trials > 1:
        names.insert(1, f"{comparison.trials} trials")
    lines = [plain(" · ".join([title, *names] if title else names)), *(plain(note, 400) for note in notes(comparison)), ""]
    header = ["", "baseline", "candidate", "change", "relative", f"{comparison.confidence:g}% confidence interval"]
    lines += aligned([header, *(metric_cells(metric) for metric in worth_showing(comparison))])
    for kind, heading in (("node", "node"), ("criterion", "criterion, % met"), ("label", "label"), ("route", "route"), ("recording", "recording")):
        parts = comparison.of_kind(kind)
        if parts:
            header = [heading, "pairs", "baseline", "candidate", "change", f"{comparison.confidence:g}% confidence interval", ""]
            lines += ["", *aligned([header, *(slice_cells(part) for part in parts)])]
    for classification in comparison.shown_classifications:
        for table in (measures_table(classification, comparison.confidence), confusion_table(classification)):
            if table.rows:
                lines += ["", *aligned([table.header, *table.rows]), *([f"  {table.note}"] if table.note else [])]
    for group in comparison.shown_subgroups:
        sliced = subgroup_table(group, comparison.confidence)
        lines += ["", *aligned([sliced.header, *sliced.rows]), *([f"  {sliced.note}"] if sliced.note else [])]
    lines += ["", *_flips(comparison), ""]
    if verdict.word == "NONE":
        lines += [] if comparison.same else ["verdict: none; the gate 'none' only compares"]
        return "\n".join(line.rstrip() for line in lines)
    rows = [[line.rule, line.allowed, line.found, line_word(line.word, line.level)] for line in verdict.lines]
    lines += aligned([[f"gate {verdict.gate}", "limit", "observed", ""], *rows], left=3)
    reasons = [f"{line.word}: {plain(line.rule)}: {line.reason}" for line in verdict.lines if line.word != "PASS" and line.level != "target"]
    alone = f" ({verdict.own_word} alone)" if verdict.own_word not in (None, verdict.word) else ""
    lines += ["", *reasons, f"verdict: {verdict.word}{alone}"]
    return "\n".join(line.rstrip() for line in lines)


def _flips(comparison: Comparison) -> list[str]:
    confirmed, noise, unrepeated = comparison.regressions
    rows = [
        ("newly passing", comparison.newly_passing),
        ("newly failing", comparison.newly_failing),
        ("  confirmed by repeats", confirmed),
        ("  not confirmed: noise", noise),
        ("  not repeated", unrepeated if len(unrepeated) < len(comparison.newly_failing) else ()),
        ("both failing", comparison.both_failing),
    ]
    lines = [f"  {name:<24} {len(tasks):>5,}   {ids(tasks)}" for name, tasks in rows if tasks or not name.startswith(" ")]
    test = "test by clusters" if comparison.clustering else "McNemar's exact test"
    lines[0] += f"   ({test}: p = {comparison.p:.2g})" if comparison.newly_passing or comparison.newly_failing else ""
    if comparison.route_changes:
        lines.append(f"  {'route changed':<24} {comparison.route_changes:>5,}")
    told = [(plain(f"{each.task_id} {each.diverges_at}", 60), plain(each.first_call, 160)) for each in comparison.changes if each.first_call][:SHOWN_IDS]
    return [*lines, *(["  first call that differs, of tasks that flipped:", *aligned([["  " + name, call] for name, call in told])] if told else [])]


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """The rows with columns under each other; the first *left* to the left, and the last."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(cell_len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [f"  {'  '.join(_padded(row, widths, left))}".rstrip() for row in cells]


def _padded(row: Sequence[str], widths: Sequence[int], left: int) -> Iterable[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        space = " " * (width - cell_len(cell))
        yield cell + space if column < left or column == len(row) - 1 else space + cell
