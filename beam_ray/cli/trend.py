"""trend: a workflow over time, and whether a model changed under its name."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import datetime
from pathlib import Path

import click

from beam_ray.cli.options import Place, reads_store
from beam_ray.cli.screen import emit, say, show, table
from beam_ray.errors import Unusable

SHOWN = 30
"""Rows of a table on the terminal."""


@click.command()
@click.argument("workflow")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help="Only runs from this day on (UTC), e.g. 2026-11-23.")
@click.option("--markdown", "markdown_file", metavar="FILE", help="Write the trend as Markdown.")
@click.option("--html", "html_file", metavar="FILE", help="Write the trend as one self-contained page with plots.")
@reads_store
def trend(workflow: str, since: datetime.datetime | None, markdown_file: str | None, html_file: str | None, place: Place) -> None:
    """
    Show success rate, score, cost, time and auto-reruns of WORKFLOW per version and day, with 95% intervals.

    Runs of the same tasks with one definition and the same models are a canary set: its newest run is compared with its
    first, which tells whether a hosted model has changed under its name.
    """
    found = place.opened.trend(workflow, since=f"{since:%Y-%m-%d}" if since else "")
    for file, face in ((markdown_file, found.markdown), (html_file, found.html)):
        if file:
            _write(file, face())
            say(f"wrote {file}")
    if place.as_json:
        emit(found.document())
        return
    show(f"{found.workflow}: {found.summary[0]}")
    for part in found.tables[:2]:
        if part.rows:
            show()
            show(part.title)
            show(table(part.header, part.rows[-SHOWN:], right=part.right, width=40))
            if len(part.rows) > SHOWN:
                show(f"  {len(part.rows) - SHOWN:,} earlier rows: --html FILE and --json show all")
    show()
    for line in found.summary[1:]:
        show(line)
    for command in found.commands:
        show(f"  {command}{place.option}")
    show(found.caution)


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unusable(f"{file}: cannot be written ({error.strerror or error})") from None
