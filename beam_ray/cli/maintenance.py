"""repair and gc: keeping a store sound and small."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from beam_ray.cli.engine import drive, probe_models
from beam_ray.cli.screen import at_most, emit, existing, model_options, money, run_options, say, show, store_options, store_words, table
from beam_ray.errors import Damaged, Stopped
from beam_ray.llm.settings import load_models
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, RunRecord, resolve


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what is damaged and what mending it takes; exit 6 if anything is.")
@click.option("--allow-writes", is_flag=True, help="Call tools with write effects again, where their rows are lost.")
@run_options
@model_options
@store_options
def repair(run_id: str, only_plan: bool, allow_writes: bool, address: str | None, takeover: bool, models: str, store: str, as_json: bool) -> None:
    """Check every file of RUN; redo the rows that are damaged, and keep all others. The same command goes on where it was stopped."""
    from beam_ray.diagnosis import diagnose
    from beam_ray.repair import repair as mend

    objects = existing(store)
    run = Run(objects, resolve(objects, run_id))
    found = diagnose(run)
    known: Mapping[str, Any] = {}
    if found.nodes:
        known = load_models(Path(models))
        found = diagnose(run, known)
    document = _document(found)
    if not as_json:
        _tell(found, store)
    if found.hopeless:
        raise Damaged(f"{found.hopeless}\n  put the file back from a copy of the store; everything else of the run can still be read")
    if only_plan or not found.damaged:
        if as_json:
            emit(document)
        click.get_current_context().exit(6 if found.damaged else 0)
    if found.nodes:
        probe_models(known, run.record.plan)

    def execute(record: RunRecord) -> None:
        drive(objects, record, known, address=address, takeover=takeover, quiet=as_json, store=store)

    try:
        mended = mend(objects, run.run_id, known, execute, allow_writes=allow_writes, takeover=takeover)
    except Stopped as error:
        error.resume = f"beam-ray repair {run.run_id}{store_words(store)}"
        raise
    if as_json:
        emit({**document, "repaired": asdict(mended)})
        return
    show(f"mended: {', '.join(mended.files) or 'nothing'}")
    if mended.repair_run:
        show(f"  {mended.rows} rows redone by run {mended.repair_run}: {mended.calls} model calls, {money(mended.usd)}")
    if not found.finished:
        show(f"go on with:  beam-ray resume {run.run_id}{store_words(store)}")


def _document(found: Any) -> dict[str, Any]:
    nodes = [{"node": node.node, "redo": node.redo, "follow": node.follow} for node in found.nodes]
    return {
        "run_id": found.run_id,
        "finished": found.finished,
        "damaged": [asdict(damage) for damage in found.damaged],
        "nodes": nodes,
        "calls": found.calls,
        "calls_at_most": found.most_calls,
        "usd_at_most": found.usd,
        "hopeless": found.hopeless,
        "repaired": None,
    }


def _tell(found: Any, store: str) -> None:
    if not found.damaged:
        show(f"run {found.run_id}: every file is what was written")
        return
    show(f"run {found.run_id}: {len(found.damaged)} file{'s'[: len(found.damaged) != 1]} damaged")
    show(table(["file", "rows lost", "what"], [[damage.name, damage.rows or "", re.sub(r"^\S+ ", "", damage.why)] for damage in found.damaged], right=[1]))
    if found.nodes:
        show()
        show(table(["node", "redo", "follow"], [[node.node, node.redo, node.follow] for node in found.nodes], right=[1, 2]))
        show(f"  {found.calls} model calls, {found.most_calls} if all that follows changes too; {at_most(found.usd)}")
    elif found.finished and not found.hopeless:
        show("  all of it can be made again without a call")


@click.command()
@click.option("--delete", "delete", is_flag=True, help="Take it away; without this it is only listed.")
@click.option("--abandoned", is_flag=True, help="Also unfinished runs without a sign of life, with all that they have paid for.")
@click.option("--older-than", "older_than", default=7.0, show_default=True, metavar="DAYS", help="How long ago an abandoned run gave its last sign of life.")
@store_options
def gc(delete: bool, abandoned: bool, older_than: float, store: str, as_json: bool) -> None:
    """List what is of no use to any run, rerun, backtest, library or version, with its size."""
    from beam_ray.store.gc import Kept, collect

    objects = existing(store)
    spared: list[Kept] = []
    found = collect(objects, abandoned=abandoned, older_than_s=older_than * 86_400, kept=spared.append)
    gone = _remove(objects, found) if delete else []
    total = sum(garbage.bytes for garbage in found)
    if as_json:
        emit({"garbage": [asdict(garbage) for garbage in found], "bytes": total, "deleted": gone, "kept": [asdict(each) for each in spared]})
        return
    if found:
        rows = [[garbage.kind, garbage.place, len(garbage.keys), f"{garbage.bytes:,}", garbage.why] for garbage in found]
        show(table(["what", "where", "objects", "bytes", "why"], rows, right=[2, 3]))
    for each in spared:
        say(f"  left alone: {each.place}: {each.why}")
    if not found:
        show("there is nothing of no use")
    elif delete:
        show(f"{len(gone)} of {len(found)} taken away")
    else:
        show(f"{total:,} bytes; nothing was taken away")
        words = f"{' --abandoned' if abandoned else ''}{f' --older-than {older_than:g}' if older_than != 7 else ''}{store_words(store)}"
        show(f"take it away with:  beam-ray gc --delete{words}")


def _remove(objects: Objects, found: list[Any]) -> list[str]:
    from beam_ray.store.gc import remove

    return [garbage.place for garbage in found if remove(objects, garbage)]
