"""The picture of several candidates: score against cost and against time, with the Pareto front."""

from typing import Any

from beam_ray.compare.candidate_tables import axis
from beam_ray.compare.candidates import Front, Overview, title_of
from beam_ray.compare.formatting import plain
from beam_ray.compare.metric_definitions import KINDS
from beam_ray.compare.plots import AFTER, BEFORE, drawn

DOMINATED = "#9ca3af"


def front_plot(overview: Overview) -> str:
    """SVG with a part for each of cost and time; empty without such numbers."""
    return drawn(lambda figure: _draw(figure, overview), (9.8, 4.2)) if overview.fronts else ""


def _draw(figure: Any, overview: Overview) -> bool:
    for axes, found in zip(figure.subplots(1, len(overview.fronts), squeeze=False)[0], overview.fronts, strict=True):
        _draw_front(axes, found, overview.baseline)
    return True


def _draw_front(axes: Any, found: Front, baseline: str) -> None:
    best = sorted((point for point in found.points if not point.dominated_by), key=lambda point: point.cost)
    # from each point on the front the next one takes over only at its own cost
    axes.step([point.cost for point in best], [point.score for point in best], where="post", color=AFTER, linewidth=1, alpha=0.6, zorder=1)
    for point in found.points:
        colour = DOMINATED if point.dominated_by else AFTER
        axes.scatter(point.cost, point.score, s=44, c=BEFORE if point.name == baseline else colour, marker="s" if point.name == baseline else "o", zorder=2)
        axes.annotate(plain(point.name, 30), (point.cost, point.score), xytext=(6, 4), textcoords="offset points", fontsize=8, color=colour, zorder=3)
    unit = KINDS[found.cost].unit
    axes.set(xlabel=f"{title_of(found.cost)}{'' if unit == 'tokens' else f', {unit}'}", ylabel=title_of(found.score), title=f"Score against {axis(found.cost)}")
    axes.margins(x=0.18, y=0.12)
    axes.set_xlim(left=max(axes.get_xlim()[0], 0))
