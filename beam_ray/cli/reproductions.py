"""reproduce: compute a verdict again, and carry a backtest to another store."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from pathlib import Path

import click

import beam_ray
from beam_ray.cli.options import Place, reads_store
from beam_ray.cli.screen import emit, plural, say, show, table


@click.command()
@click.argument("subject", metavar="BACKTEST|FILE")
@click.option("--bundle", metavar="FILE", help="Write the backtest with its runs, tasks and attachments to this file, if it is reproduced.")
@reads_store
@click.pass_context
def reproduce(context: click.Context, subject: str, bundle: str | None, place: Place) -> None:
    """
    Compute the comparison and verdict of BACKTEST again from the stored rows. No model is called.

    A FILE that --bundle wrote is imported into the store first. Exits with code 0 if everything is as recorded, and with
    code 6 if not, with the first difference.
    """
    store = place.opened
    if Path(subject).is_file():
        file, subject = subject, store.import_backtest(subject)
        say(f"imported backtest {subject} from {file}")
    found = store.reproduce(subject)
    if place.as_json:
        emit(found.document())
    else:
        _show(found)
    if bundle and found.reproduced:
        count = store.export_backtest(found.backtest, bundle)
        say(f"wrote {bundle}: {plural(count, 'file')}")
    context.exit(found.exit_code)


def _show(found: beam_ray.Reproduction) -> None:
    if found.difference is None:
        show(
            f"backtest {found.backtest}: {found.word} by the gate {found.gate}, reproduced from {plural(len(found.runs), 'run')}, {plural(found.rows, 'pair')}"
        )
        return
    show(f"backtest {found.backtest}: not reproduced; recorded was {found.word} by the gate {found.gate}")
    show(f"first difference: {found.difference.place}")
    show(f"  recorded  {found.difference.recorded}")
    show(f"  here      {found.difference.here}")
    rows = [[name, was, found.versions_here.get(name, "-"), "" if was == found.versions_here.get(name) else "differs"] for name, was in found.versions.items()]
    show(table(["version of", "recorded", "here", ""], rows))
