"""batches: what endpoints are working on."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import datetime

import click

from beam_ray.cli.options import Place, uses_models
from beam_ray.cli.screen import at_most, duration, emit, plural, show, table


@click.command()
@uses_models
def batches(place: Place) -> None:
    """List the batches that unfinished runs wait for, and what they cost at most."""
    found = place.opened.batches()
    if place.as_json:
        emit([each.document() for each in found])
        return
    if not found:
        show("no unfinished run waits for a batch")
        return
    rows = [
        [
            each.run,
            each.id or "-",
            each.model,
            ", ".join(each.nodes),
            each.status,
            f"{'?' if each.answered is None else f'{each.answered:,}'} of {each.rows:,}",
            _left(each.expires_at),
            at_most(each.max_usd),
        ]
        for each in found
    ]
    show(table(["run", "batch", "model", "nodes", "status", "answered", "expires in", "cost"], rows, right=[5, 6, 7]))
    runs = list(dict.fromkeys(each.run for each in found))
    most = None if any(each.max_usd is None for each in found) else sum(each.max_usd or 0.0 for each in found)
    show(f"{plural(len(found), 'batch', 'batches')} of {plural(len(runs), 'run')}, {at_most(most)}")
    show(f"resume:  beam-ray resume {runs[0]}{place.option}")


def _left(expires_at: str | None) -> str:
    if expires_at is None:
        return "-"
    seconds = (datetime.datetime.fromisoformat(expires_at) - datetime.datetime.now(datetime.UTC)).total_seconds()
    return duration(max(seconds, 0.0))
