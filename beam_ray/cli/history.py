"""history: a task with all its reruns, or the ledger of a workflow's reruns."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass
from pathlib import Path

import click

import beam_ray
from beam_ray.cli.options import Place, grouped, reads_store
from beam_ray.cli.screen import MARKS, emit, number, say, show, table
from beam_ray.errors import Unusable

SHOWN = 30
"""Rows of a table on the terminal."""


@dataclass(frozen=True)
class Reports:
    """Where the ledger is written."""

    report: bool
    markdown_file: str | None
    html_file: str | None


@click.command()
@click.argument("subject", metavar="TASK|WORKFLOW")
@grouped(
    Reports,
    "reports",
    click.option("--report", is_flag=True, help="Show the ledger of all reruns of the workflow: reason, change, result and cost."),
    click.option("--markdown", "markdown_file", metavar="FILE", help="Write the ledger as Markdown."),
    click.option("--html", "html_file", metavar="FILE", help="Write the ledger as one self-contained page."),
)
@reads_store
def history(subject: str, reports: Reports, place: Place) -> None:
    """Show TASK with all its reruns, or what the reruns of WORKFLOW cost and solved."""
    store = place.opened
    found = store.ledger(subject) if reports.report or reports.markdown_file or reports.html_file else store.history(subject)
    if isinstance(found, beam_ray.TaskHistory):  # asking for Ledger would load what computes it
        _show_task(found, place)
    else:
        _show_ledger(found, reports, place)


def _show_task(found: beam_ray.TaskHistory, place: Place) -> None:
    if place.as_json:
        emit(found.document())
        return
    rows = [
        [
            member["task"],
            member["mode"],
            member["started"],
            number(member["score"]),
            MARKS.get(member["status"], member["status"]),
            member["from"] or "",
            ", ".join(member["changed"]),
            member["because"],
            member["solved"],
        ]
        for member in found.members
    ]
    show(table(["task", "as", "when", "score", "status", "from", "changed", "because", "solved"], rows, right=[3], width=48))


def _show_ledger(found: beam_ray.Ledger, reports: Reports, place: Place) -> None:
    for file, face in ((reports.markdown_file, found.markdown), (reports.html_file, found.html)):
        if file:
            _write(file, face())
            say(f"wrote {file}")
    if place.as_json:
        emit(found.document())
        return
    if found.empty:
        show(f"no task of {found.workflow} was rerun yet")
        show(f"rerun some:  beam-ray rerun --from-run RUN --failed --because TEXT{place.option}")
        return
    show(f"{found.workflow}: {found.summary[0]}")
    for part in found.tables:
        if part.rows:
            show()
            show(part.title)
            show(table(part.header, part.rows[:SHOWN], right=part.right, width=64))
            if len(part.rows) > SHOWN:
                show(f"  … and {len(part.rows) - SHOWN:,} more; --html FILE and --json show all")
    show()
    for line in found.summary[1:]:
        show(line)
    show(found.caution)


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unusable(f"{file}: cannot be written ({error.strerror or error})") from None
