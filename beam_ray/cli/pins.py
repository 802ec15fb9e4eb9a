"""pin: views of tasks that show the same numbers to whoever opens them."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import click

import beam_ray
from beam_ray.cli.options import Place, reads_store
from beam_ray.cli.screen import emit, plural, show, table


@click.command()
@click.argument("view", required=False, metavar="[LINK|FILTERS|DIGEST]")
@click.option("--note", default="", metavar="TEXT", help="What the view shows, for readers.")
@reads_store
def pin(view: str | None, note: str, place: Place) -> None:
    """
    Pin a view of tasks, show what changed since one was pinned, or list all.

    A link of the console's Tasks page, or filters such as 'status=failing&label=scan', pin a view: its filters, the finished
    runs that it stands on, and its numbers. The digest of a pinned view shows it; without an argument all are listed.
    """
    store = place.opened
    if not view:
        _list(store.pins(), place)
    elif "=" in view or "/" in view:
        _show(store.pinned_view(store.pin(view, note=note).id), place)
    else:
        _show(store.pinned_view(view), place)


def _list(pins: list[beam_ray.Pin], place: Place) -> None:
    if place.as_json:
        emit([{"pin": each.id, "filters": each.filters, "note": each.note, "pinned_at": each.pinned_at, "numbers": each.numbers} for each in pins])
        return
    rows = [
        [each.id, f"{each.numbers['tasks']:,}", f"{each.numbers['passed']:,}", each.pinned_at[:16], each.pinned_by, each.filters, each.note] for each in pins
    ]
    show(table(["pin", "tasks", "passed", "pinned", "by", "filters", "note"], rows, right=[1, 2], width=60) if rows else "no view is pinned")


def _show(view: beam_ray.PinnedView, place: Place) -> None:
    if place.as_json:
        emit(view.document())
        return
    pin = view.pin
    show(
        f"pin {pin.id}: {pin.filters or 'all tasks'}, {plural(len(pin.runs), 'run')}, pinned {pin.pinned_at[:16]} by {pin.pinned_by}{f': {pin.note}' if pin.note else ''}"
    )
    rows = [
        [name, _number(before), _number(now), "" if before == now else "changed"]
        for (name, before), now in zip(pin.numbers.items(), view.numbers.values(), strict=True)
    ]
    show(table(["", "pinned", "now", ""], rows, right=[1, 2]))
    for line in changes(view):
        show(f"  {line}")
    show(f"open it:   /e/{pin.id} in beam-ray console{place.option}")
    show(f"write it:  beam-ray console --export DIR --pin {pin.id}{place.option}")


def changes(view: beam_ray.PinnedView) -> list[str]:
    """What changed since, one line each."""
    found = ["the same numbers, from the same files"] if view.same else []
    if view.changed:
        found.append(f"repaired since: {', '.join(view.changed)}")
    if view.missing:
        found.append(f"no longer there: {', '.join(view.missing)}")
    if view.newer:
        tasks, runs = sum(view.newer.values()), len(view.newer)
        found.append(f"not in the view: {tasks:,} task{'' if tasks == 1 else 's'} of {runs} other run{'' if runs == 1 else 's'} match its filters now")
    return found


def _number(value: object) -> str:
    return "-" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
