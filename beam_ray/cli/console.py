"""console: what is in a store, and the commands that change it, as pages in a browser."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass

import click

from beam_ray.cli.options import Place, grouped, runs_on_ray
from beam_ray.cli.screen import say


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
@runs_on_ray
def console(listening: Listening, place: Place) -> None:
    """Open the store as pages in a browser; Ctrl-C ends it, and runs that it started go on."""
    from beam_ray.console import ConsoleOptions, serve

    options = ConsoleOptions(
        host=listening.host,
        port=listening.port,
        read_only=listening.read_only,
        no_publish=listening.no_publish,
        author=listening.author,
        max_usd=listening.max_usd,
        allow_hosts=listening.allow_hosts,
    )
    serve(place.opened, options, lambda address: say(f"Console:  {address}  (Ctrl-C ends it)"))
