"""The trend as tables for the terminal, as Markdown, and as a self-contained HTML page with plots."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from beam_ray.compare.formatting import amount, change, plain, plural, span
from beam_ray.compare.html import page
from beam_ray.compare.markdown import all_safe, safe
from beam_ray.compare.markdown import table as markdown_table
from beam_ray.compare.plots import drawn
from beam_ray.compare.statistics import Interval
from beam_ray.improve.ledger_report import Table
from beam_ray.improve.trend import CanarySet, Level, Trend, TrendPoint

SHOWN = 500
"""The most rows of a table that a page shows."""

CAUTION = (
    "Days run different tasks, so numbers of two days are comparable only within a canary set. "
    "Each new canary run is another test: about 1 of 20 finds a change where there is none."
)
_COLOURS = ("#2563eb", "#b45309", "#15803d", "#7c3aed", "#b91c1c", "#0e7490")


def tables(trend: Trend) -> tuple[Table, ...]:
    """The numbers per version and day, the canary sets, and the runs of each set."""
    return (
        Table(
            "Per version and day",
            ("day", "version", "tasks", "success rate %", "mean score", "cost per task", "seconds per task", "auto-reruns per task"),
            tuple(_point(point) for point in trend.points),
            (2, 3, 4, 5, 6, 7),
        ),
        Table(
            "Canary sets: the newest run against the first",
            ("tasks from", "version", "models", "runs", "first", "newest", "tasks", "success rate", "mean score", "outputs differ", "p", ""),
            tuple(_canary(canary) for canary in trend.canaries),
            (3, 6, 7, 8, 9, 10),
            (0, 2),
        ),
        Table(
            "Runs of canary sets",
            ("tasks from", "version", "run", "day", "success rate %", "mean score"),
            tuple(
                (plain(canary.source), version(canary), run.run_id, run.day, level(run.success, "%"), level(run.score, "points"))
                for canary in trend.canaries
                for run in canary.runs
            ),
            (4, 5),
        ),
    )


def summary(trend: Trend) -> list[str]:
    """What the trend shows, in sentences."""
    lines = [f"{plural(len({run for point in trend.points for run in point.runs}), 'run')} on {plural(len({point.day for point in trend.points}), 'day')}"]
    away = sum(point.unanswered for point in trend.points)
    if away:
        lines.append(f"{plural(away, 'task')} left out because a model did not answer, which is not the workflow's fault")
    if not trend.canaries:
        return [*lines, "no canary set: run the same library with the same version and models again to see whether a model changed"]
    changed = [canary for canary in trend.canaries if canary.word == "CHANGED"]
    for canary in changed:
        lines.append(
            f"CHANGED: answers of {', '.join(canary.models)} are not what they were: {version(canary)} on the same {plural(canary.tasks, 'task')}, "
            f"{canary.runs[0].day} to {canary.runs[-1].day}, success rate {_change(canary, 'success_rate')}, mean score {_change(canary, 'score')}, "
            f"p {p_text(canary.p) if canary.p < 0.0001 else f'= {p_text(canary.p)}'}"
        )
    if not changed:
        lines.append(f"no change shown in {plural(len(trend.canaries), 'canary set')}")
    return lines


def commands(trend: Trend) -> list[str]:
    """Commands that compare the runs of each changed canary set."""
    return [f"beam-ray compare {canary.runs[0].run_id} {canary.runs[-1].run_id}" for canary in trend.canaries if canary.word == "CHANGED"]


def markdown(trend: Trend) -> str:
    """The trend as Markdown; text from tasks, models and definitions is escaped."""
    parts = [f"# {safe(trend.workflow)} over time", "\n".join(f"- {safe(line)}" for line in summary(trend)), f"*{CAUTION}*"]
    for table in tables(trend):
        if table.rows:
            shown = markdown_table(table.header, [all_safe(row) for row in table.rows[-SHOWN:]], table.right)
            parts.append(f"## {table.title}\n\n{shown}")
    return "\n\n".join(parts) + "\n"


def html(trend: Trend) -> str:
    """The trend as one page without scripts, links or fonts; text from tasks, models and definitions is escaped."""
    wanted = [("Success rate", [(one, one.success) for one in trend.points]), ("Mean score", [(one, one.score) for one in trend.points])]
    plots = [(title, drawn(partial(_plot, title=title, found=found), (9.8, 3.2))) for title, found in wanted]
    return page(
        "trend.html",
        "beam_ray.improve",
        title=f"{trend.workflow} over time",
        summary=summary(trend),
        caution=CAUTION,
        plots=[(f"{title} per day with 95% intervals, one colour per version.", Markup(svg)) for title, svg in plots if svg],
        tables=tables(trend),
        shown=SHOWN,
    )


def version(one: TrendPoint | CanarySet) -> str:
    """The version's name, or the beginning of a draft's digest."""
    return f"version {one.version}" if one.version else f"draft {one.definition.rpartition(':')[2][:8]}"


def level(found: Level | None, unit: str) -> str:
    """A mean with its interval."""
    if found is None:
        return "-"
    interval = None if found["low"] is None or found["high"] is None else Interval(found["low"], found["high"])
    value = amount(found["value"], unit).removesuffix(f" {unit}")
    return f"{value} ({span(interval, unit, signed=False)})" if interval else value


def p_text(p: float) -> str:
    """A p-value as people read it."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def _point(point: TrendPoint) -> tuple[str, ...]:
    levels = ((point.success, "%"), (point.score, "points"), (point.usd, "USD"), (point.seconds, "s"), (point.auto_reruns, "attempts"))
    return (point.day, version(point), f"{point.tasks:,}", *(level(found, unit) for found, unit in levels))


def _canary(canary: CanarySet) -> tuple[str, ...]:
    return (
        plain(canary.source),
        version(canary),
        plain(", ".join(canary.models)),
        f"{len(canary.runs):,}",
        canary.runs[0].day,
        canary.runs[-1].day,
        f"{canary.tasks:,}",
        _change(canary, "success_rate"),
        _change(canary, "score"),
        f"{canary.outputs_differ:,}",
        p_text(canary.p),
        canary.word,
    )


def _change(canary: CanarySet, name: str) -> str:
    found = next(each for each in canary.changes if each["name"] == name)
    interval = None if found["low"] is None or found["high"] is None else Interval(found["low"], found["high"])
    shown = change(found["change"], found["unit"])
    return f"{shown} ({span(interval, found['unit'])})" if interval else shown


def _plot(figure: Any, *, title: str, found: Sequence[tuple[TrendPoint, Level | None]]) -> bool:
    known = [(point, number) for point, number in found if number is not None]
    if not known:
        return False
    axes = figure.subplots()
    days = {day: index for index, day in enumerate(sorted({point.day for point, _ in known}))}
    names = list(dict.fromkeys(version(point) for point, _ in known))
    for place, name in enumerate(names):
        mine = [(days[point.day] + 0.12 * (place - (len(names) - 1) / 2), number) for point, number in known if version(point) == name]
        below = [number["value"] - (number["low"] if number["low"] is not None else number["value"]) for _, number in mine]
        above = [(number["high"] if number["high"] is not None else number["value"]) - number["value"] for _, number in mine]
        colour = _COLOURS[place % len(_COLOURS)]
        axes.errorbar([x for x, _ in mine], [number["value"] for _, number in mine], yerr=[below, above], fmt="o-", color=colour, capsize=3, label=name)
    axes.set(ylim=(-2, 102), title=title)
    step = max(1, len(days) // 12)
    axes.set_xticks([*days.values()][::step], [*days][::step])
    axes.legend(frameon=False, loc="lower left", ncols=4)
    return True
