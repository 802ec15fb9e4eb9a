"""The pictures of the report, drawn by matplotlib as SVG that stands inside a page."""

import contextlib
import io
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from beam_ray.compare.comparison import Comparison
from beam_ray.compare.formatting import plain
from beam_ray.compare.pairs import numbers

BEFORE, AFTER = "#8a94a6", "#2563eb"
GAIN, LOSS = "#15803d", "#b91c1c"
MAX_BARS = 25
WIDE = 8
MAX_POINTS = 2_000
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "beam_ray",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}


def plots(comparison: Comparison) -> list[tuple[str, str, bool]]:
    """The plots that the comparison has numbers for: caption, SVG, and whether it wants the page's whole width."""
    wanted: list[tuple[str, Callable[[Any, Comparison], bool], tuple[float, float]]] = [
        ("Score of each task, before and after: above the line it got better.", _scatter, (4.6, 4.2)),
        ("How the scores are distributed.", _distribution, (5.4, 4.2)),
        ("How often each criterion holds, with the interval of the change.", _criteria, (9.8, 0)),
        ("Execution time and cost of each task: the line shows which part of the tasks takes at most so much.", _cost, (9.8, 3.2)),
    ]
    made = []
    for caption, draw, size in wanted:
        svg = _svg(draw, comparison, size)
        if svg:
            made.append((caption, svg, size[0] > WIDE))
    return made


def _svg(draw: Callable[[Any, Comparison], bool], comparison: Comparison, size: tuple[float, float]) -> str:
    return drawn(lambda figure: draw(figure, comparison), size)


def drawn(draw: Callable[[Any], bool], size: tuple[float, float]) -> str:
    """What *draw* draws on a matplotlib figure of that size in inches, as SVG for a page; empty where it says that there is nothing to draw."""
    with _quiet():
        import matplotlib
        from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(size[0], size[1] or 3.0), layout="constrained")
        if not draw(figure):
            return ""
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), transparent=True)
    svg = sink.getvalue()
    # a page needs neither the document's header nor namespaces, and no address of anyone
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without matplotlib's warning that it cannot write to the home folder, which a container need not have."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _scores(comparison: Comparison) -> tuple[Any, Any, Any]:
    table = comparison.table
    before, after = numbers(table["before_score"]).astype(float), numbers(table["after_score"]).astype(float)
    there = ~(np.isnan(before) | np.isnan(after))
    return before[there], after[there], np.array(table["flip"].to_pylist())[there]


def _scatter(figure: Any, comparison: Comparison) -> bool:
    before, after, flips = _scores(comparison)
    if not len(before):
        return False
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="#d1d5db", linewidth=1, zorder=0)
    chance = np.random.default_rng(0)
    shown = np.sort(chance.permutation(len(before))[:MAX_POINTS])
    # scores fall on few values; without a little shaking sixty tasks look like three
    nudge = chance.normal(0, 1.2, (2, len(shown)))
    kinds = (("same verdict", BEFORE, "o"), ("newly passing", GAIN, "^"), ("newly failing", LOSS, "X"))
    words = np.where(np.isin(flips[shown], ("newly passing", "newly failing")), flips[shown], "same verdict")
    for word, colour, marker in kinds:
        mine = words == word
        if mine.any():
            points = (before[shown] + nudge[0])[mine], (after[shown] + nudge[1])[mine]
            axes.scatter(*points, s=22, alpha=0.6, c=colour, marker=marker, linewidths=0, label=word)
    axes.legend(frameon=False, loc="lower right")
    axes.set(
        xlim=(-5, 105),
        ylim=(-5, 105),
        xlabel=f"baseline {_name(comparison.baseline.name)}",
        ylabel=f"candidate {_name(comparison.candidate.name)}",
        title="Score per task",
    )
    axes.set_aspect("equal")
    return True


def _distribution(figure: Any, comparison: Comparison) -> bool:
    before, after, _ = _scores(comparison)
    if not len(before):
        return False
    axes = figure.subplots()
    axes.hist([before, after], bins=np.linspace(0, 100, 11), color=[BEFORE, AFTER], label=["baseline", "candidate"])
    for values, colour in ((before, BEFORE), (after, AFTER)):
        axes.axvline(values.mean(), color=colour, linestyle="--", linewidth=1.2)
    axes.set(xlabel="score (dashed: mean)", ylabel="tasks", title="Scores")
    axes.legend(frameon=False)
    return True


def _criteria(figure: Any, comparison: Comparison) -> bool:
    parts = [part for part in comparison.of_kind("criterion") if part.pairs and part.before is not None and part.after is not None]
    parts = sorted(parts, key=lambda part: part.change or 0.0)[:MAX_BARS][::-1]
    if not parts:
        return False
    figure.set_figheight(1.1 + 0.42 * len(parts))
    axes = figure.subplots()
    places = np.arange(len(parts))
    axes.barh(places - 0.2, [part.before for part in parts], 0.38, color=BEFORE, label="baseline")
    reach = np.array([[max(0.0, (part.change or 0) - (part.low or 0)), max(0.0, (part.high or 0) - (part.change or 0))] for part in parts]).T
    axes.barh(places + 0.2, [part.after for part in parts], 0.38, color=AFTER, label="candidate", xerr=reach, error_kw={"ecolor": "#111827", "elinewidth": 1})
    axes.set_yticks(places, [_name(part.name) for part in parts])
    axes.set(xlim=(0, 105), xlabel="percent of steps that meet it", title="Criteria")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return True


def _cost(figure: Any, comparison: Comparison) -> bool:
    table = comparison.table
    units = (("seconds", "seconds"), ("tokens", "tokens"), ("usd", "USD"))
    kept = [
        (name, unit) for name, unit in units if comparison.metric(name).after is not None and (comparison.metric(name).before or comparison.metric(name).after)
    ]
    if not kept:
        return False
    for axes, (name, unit) in zip(np.atleast_1d(figure.subplots(1, len(kept))), kept, strict=True):
        for side, colour, label in (("before", BEFORE, "baseline"), ("after", AFTER, "candidate")):
            values = numbers(table[f"{side}_{name}"]).astype(float)
            if np.isnan(values).all():
                continue
            values = np.quantile(values[~np.isnan(values)], np.linspace(0, 1, 201))
            axes.plot(values, np.linspace(0, 100, len(values)), color=colour, label=label, drawstyle="steps-post")
        axes.set(
            xlabel=f"{unit} per task", ylabel="percent of tasks", title={"seconds": "Execution time", "tokens": "Tokens", "usd": "Cost"}[name], ylim=(0, 101)
        )
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
    return True


def _name(text: str) -> str:
    return plain(text, 40)
