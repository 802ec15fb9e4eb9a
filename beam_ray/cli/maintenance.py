"""repair and gc: maintenance of a store."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import re

import click

import beam_ray
from beam_ray.cli.options import TAKEOVER, Place, reads_store, runs_on_ray
from beam_ray.cli.screen import at_most, emit, money, plural, progress, say, show, table
from beam_ray.errors import Damaged


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--plan", "only_plan", is_flag=True, help="Only show what is damaged and what a repair takes; exits with code 6 if anything is.")
@click.option("--allow-writes", is_flag=True, help="Call tools with write effects again where their rows are lost.")
@TAKEOVER
@runs_on_ray
@click.pass_context
def repair(context: click.Context, run_id: str, only_plan: bool, allow_writes: bool, takeover: bool, place: Place) -> None:
    """Check every file of RUN, and execute again the rows that are damaged. Run the same command again to resume."""
    store = place.opened
    found = store.diagnose(run_id)
    if not place.as_json:
        _show_diagnosis(found)
    if only_plan or found.intact or found.beyond_repair:
        if place.as_json:
            emit(found.document())
        if found.beyond_repair:
            raise Damaged(f"{found.beyond_repair}\n  restore the file from a copy of the store; everything else of the run can still be read")
        context.exit(0 if found.intact else 6)
    with progress(quiet=place.as_json) as callback:
        done = store.repair(found, allow_writes=allow_writes, takeover=takeover, progress=callback)
    if place.as_json:
        emit(done.document())
        return
    show(f"repaired: {', '.join(done.files) or 'nothing'}")
    if done.repair_run:
        show(f"  {plural(done.rows, 'row')} executed again by run {done.repair_run}: {plural(done.calls, 'model call')}, {money(done.usd)}")
    if not found.finished:
        show(f"resume it with:  beam-ray resume {found.run_id}{place.option}")


def _show_diagnosis(found: beam_ray.Diagnosis) -> None:
    if found.intact:
        show(f"run {found.run_id}: every file is intact")
        return
    show(f"run {found.run_id}: {plural(len(found.files), 'damaged file')}")
    show(
        table(
            ["file", "rows lost", "damage"],
            [[each.name, f"{each.rows:,}" if each.rows else "", re.sub(r"^\S+ (is damaged: )?", "", each.why)] for each in found.files],
            right=[1],
        )
    )
    if found.nodes:
        show()
        show(table(["node", "execute again", "check again"], [[node.node, f"{node.redo:,}", f"{node.follow:,}"] for node in found.nodes], right=[1, 2]))
        show(f"  {plural(found.calls, 'model call')}, {found.max_calls:,} if everything that follows changes too; {at_most(found.max_usd)}")
    elif found.finished and not found.beyond_repair:
        show("  everything can be restored without a model call")


@click.command()
@click.option("--delete", "delete", is_flag=True, help="Delete what is listed.")
@click.option("--abandoned", is_flag=True, help="Include unfinished runs whose driver is gone, with everything they paid for.")
@click.option("--older-than", "older_than", default=7.0, show_default=True, metavar="DAYS", help="Days since an abandoned run was last active.")
@reads_store
def gc(delete: bool, abandoned: bool, older_than: float, place: Place) -> None:
    """List files that no run, rerun, backtest, library or version needs; --delete deletes them."""
    found = place.opened.gc(delete=delete, abandoned=abandoned, older_than_days=older_than)
    if place.as_json:
        emit(found.document())
        return
    if found.garbage:
        rows = [[each.kind, each.place, each.objects, f"{each.bytes:,}", each.why] for each in found.garbage]
        show(table(["kind", "place", "objects", "bytes", "why"], rows, right=[2, 3]))
    for where, why in found.spared:
        say(f"  kept: {where}: {why}")
    if not found.garbage:
        show("there is nothing to delete")
    elif delete:
        show(f"deleted {len(found.deleted)} of {len(found.garbage)}")
    else:
        words = f"{' --abandoned' if abandoned else ''}{f' --older-than {older_than:g}' if older_than != 7 else ''}{place.option}"
        show(f"{found.bytes:,} bytes; nothing was deleted")
        show(f"delete them with:  beam-ray gc --delete{words}")
