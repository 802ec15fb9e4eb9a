"""history: a task with all its reruns, or the ledger of a workflow's reruns."""

from pathlib import Path

import click

from beam_ray.cli.screen import MARKS, emit, existing, number, say, show, store_options, store_words, table
from beam_ray.errors import Unusable
from beam_ray.store.lookup import find_task
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, find_runs

SHOWN = 30
"""Rows of a table on the terminal."""


@click.command()
@click.argument("subject", metavar="TASK|WORKFLOW")
@click.option("--report", is_flag=True, help="The ledger of all reruns of the workflow: why, what had changed, solved or not, and for how much.")
@click.option("--markdown", "markdown_file", metavar="FILE", help="Write the ledger as Markdown.")
@click.option("--html", "html_file", metavar="FILE", help="Write the ledger as one page that needs nothing else.")
@store_options
def history(subject: str, report: bool, markdown_file: str | None, html_file: str | None, store: str, as_json: bool) -> None:
    """Show TASK with everything that it redoes and everything that redoes it; or what the reruns of WORKFLOW cost and brought."""
    objects = existing(store)
    if report or markdown_file or html_file or _only_a_workflow(objects, subject):
        _ledger(objects, subject, markdown_file, html_file, store, as_json)
    else:
        _family(objects, subject, as_json)


def _only_a_workflow(objects: Objects, subject: str) -> bool:
    """Whether the word names a workflow, and no task."""
    if "/" in subject or not any(Run(objects, run_id).record.workflow == subject for run_id in find_runs(objects)):
        return False
    try:
        find_task(objects, subject)
    except Unusable:
        return True
    return False


def _family(objects: Objects, task: str, as_json: bool) -> None:
    from beam_ray.rerun import family

    members = family(objects, find_task(objects, task))
    if as_json:
        emit(members)
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
        for member in members
    ]
    show(table(["task", "as", "when", "score", "status", "from", "changed", "because", "solved"], rows, right=[3], width=48))


def _ledger(objects: Objects, workflow: str, markdown_file: str | None, html_file: str | None, store: str, as_json: bool) -> None:
    from beam_ray.improve.ledger import ledger
    from beam_ray.improve.ledger_report import CAUTION, html, markdown, summary, tables

    found = ledger(objects, workflow)
    for file, face in ((markdown_file, markdown), (html_file, html)):
        if file:
            _write(file, face(found))
            say(f"wrote {file}")
    if as_json:
        emit(found.document())
        return
    if not found.reruns:
        show(f"no task of {workflow} was redone yet")
        show(f"do it:  beam-ray rerun --from-run RUN --failed --because TEXT{store_words(store)}")
        return
    show(f"{found.workflow}: {summary(found)[0]}")
    for part in tables(found):
        if part.rows:
            show()
            show(part.title)
            show(table(part.header, part.rows[:SHOWN], right=part.right, width=64))
            if len(part.rows) > SHOWN:
                show(f"  … and {len(part.rows) - SHOWN:,} more; --html FILE and --json show more")
    show()
    for line in summary(found)[1:]:
        show(line)
    show(CAUTION)


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unusable(f"{file}: cannot be written ({error.strerror or error})") from None
