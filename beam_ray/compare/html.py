"""The comparison as one page that needs nothing else: no script, no address, no font."""

from collections.abc import Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from beam_ray.compare.candidate_tables import SHOWN_IN_FULL, front_table, gain_table, overview_notes, rerun_notes
from beam_ray.compare.candidates import Overview, overview
from beam_ray.compare.classification_tables import all_measures, confusion_table
from beam_ray.compare.formatting import amount, change, line_word, plain
from beam_ray.compare.front_plot import front_plot
from beam_ray.compare.metric_definitions import OF_CALLS
from beam_ray.compare.plots import plots
from beam_ray.compare.report import Result, best_first
from beam_ray.compare.subgroup_tables import subgroup_table
from beam_ray.compare.terminal import ids, metric_cells, notes, slice_cells

SHOWN_CHANGES = 50


def html(results: Sequence[Result], title: str = "Backtest", rerun: Result | None = None) -> str:
    """The page. Everything that comes from tasks or models is escaped."""
    found = overview(results)
    # pictures take most of the time and of the page's size
    drawn = [*(results if found is None else best_first(results)[:SHOWN_IN_FULL]), *([rerun] if rerun else [])]
    sections = [
        {
            "comparison": comparison,
            "verdict": verdict,
            "notes": notes(comparison),
            "metrics": [metric_cells(metric) for metric in comparison.metrics if metric.name not in OF_CALLS or metric.pairs],
            "parts": [(heading, [slice_cells(part) for part in comparison.of_kind(kind)]) for kind, heading in _KINDS],
            "fields": [part for part in comparison.of_kind("criterion") if part.field],
            "classes": [(found.name, all_measures(found), confusion_table(found)) for found in comparison.shown_classifications],
            "subgroups": [(group.field, subgroup_table(group, comparison.confidence)) for group in comparison.shown_subgroups],
            "plots": [
                (caption, Markup(svg), wide) for caption, svg, wide in (plots(comparison) if any(comparison is each.comparison for each in drawn) else [])
            ],
            "changes": comparison.changes[:SHOWN_CHANGES],
            "hidden": comparison.changes_left_out + max(0, len(comparison.changes) - SHOWN_CHANGES),
        }
        for comparison, verdict in [*([rerun] if rerun else []), *results]
    ]
    return page(
        "report.html",
        title=title,
        sections=sections,
        overview=_overview(found) if found else None,
        rerun=list(rerun_notes(rerun, len(results))) if rerun else [],
    )


def _overview(found: Overview) -> dict[str, Any]:
    tables = [made for made in (gain_table(found), front_table(found)) if made]
    return {"count": len(found.candidates), "notes": list(overview_notes(found)), "tables": tables, "plot": Markup(front_plot(found))}


def page(template: str, package: str = "beam_ray.compare", **values: Any) -> str:
    """A page from the *package*'s template, which may extend ``page.html``; every value is escaped."""
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("beam_ray.compare")])
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters.update(plain=plain, ids=ids, amount=amount, change=change, line_word=line_word, pretty=_pretty)
    return pages.get_template(template).render(**values)


_KINDS = (
    ("node", "Score by node"),
    ("criterion", "Criteria, percent met"),
    ("label", "Score by label"),
    ("route", "Score by route"),
    ("recording", "Score by recording"),
)


def _pretty(text: str | None) -> str:
    return "no output" if text is None else plain(text, 1_200)
