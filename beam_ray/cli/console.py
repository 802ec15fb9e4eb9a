"""console: what is in a store, and the commands that change it, as pages in a browser."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from beam_ray.cli.options import Place, grouped, runs_on_ray
from beam_ray.cli.screen import emit, plural, say, show

if TYPE_CHECKING:
    from beam_ray.console import Exported


@dataclass(frozen=True)
class Listening:
    """Where the console listens, and what it may do."""

    host: str
    port: int
    read_only: bool
    no_publish: bool
    author: bool
    max_usd: float | None
    allow_hosts: tuple[str, ...]


@dataclass(frozen=True)
class Writing:
    """Pages that are written into a folder instead."""

    folder: str | None
    backtest: str
    pins: tuple[str, ...]
    max_pairs: int


@click.command()
@grouped(
    Listening,
    "listening",
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", default=8090, show_default=True, type=click.IntRange(1, 65_535), help="Port to listen on."),
    click.option("--read-only", is_flag=True, help="Start, stop and change nothing."),
    click.option("--no-publish", is_flag=True, help="Publish no versions."),
    click.option("--author", is_flag=True, help="Let drafts made in the browser bring tools, programs, models, MCP servers and files: that is running code."),
    click.option("--max-usd", type=click.FloatRange(min=0), metavar="USD", help="The most that one start may cost."),
    click.option("--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="Another name under which the console is reached, such as a proxy's."),
)
@grouped(
    Writing,
    "writing",
    click.option("--export", "folder", metavar="DIR", help="Write pages into a folder, to be opened without a server, instead of serving them."),
    click.option("--backtest", default="", metavar="ID", help="With --export: the backtest whose pages are written."),
    click.option("--pin", "pins", multiple=True, metavar="DIGEST", help="With --export: a pinned view to write. Repeatable."),
    click.option("--pairs", "max_pairs", default=50, show_default=True, type=click.IntRange(min=0), help="With --export: pairs that get a page at most."),
)
@runs_on_ray
def console(listening: Listening, writing: Writing, place: Place) -> None:
    """Open the store as pages in a browser; Ctrl-C ends it, and runs that it started go on."""
    from beam_ray.console import ConsoleOptions, export, serve

    if writing.folder:
        made = export(place.opened, writing.folder, backtest=writing.backtest, pins=writing.pins, max_pairs=writing.max_pairs)
        _show_exported(made, place)
        return
    if writing.backtest or writing.pins:
        raise click.UsageError("--backtest and --pin need --export DIR")

    options = ConsoleOptions(
        host=listening.host,
        port=listening.port,
        read_only=listening.read_only,
        no_publish=listening.no_publish,
        author=listening.author,
        max_usd=listening.max_usd,
        allow_hosts=listening.allow_hosts,
    )
    serve(place.opened, options, _announce)


def _announce(address: str, own: str) -> None:
    say(f"Console:  {address}  (Ctrl-C ends it)")
    if own:
        say(f"          {own}  (its own name, where others use this machine)")


def _show_exported(made: Exported, place: Place) -> None:
    if place.as_json:
        emit({"start": str(made.start), "pages": made.pages, "pairs": made.pairs, "pairs_left_out": made.pairs_left_out})
        return
    show(f"wrote {plural(made.pages, 'page')}, {plural(made.pairs, 'pair')}; open {made.start}")
    if made.pairs_left_out:
        show(f"  {plural(made.pairs_left_out, 'pair')} left out: --pairs writes more, those that flipped first")
