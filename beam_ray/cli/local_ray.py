"""up and down: a local Ray that stays up between commands."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import click

import beam_ray
from beam_ray.cli.screen import say, show


@click.command()
@click.option(
    "--keep",
    envvar="BEAM_RAY_KEEP",
    default=beam_ray.DEFAULT_KEEP,
    show_default=True,
    metavar="TIME",
    help="Time without a command after which it ends: 30s, 10m, 2h.",
)
def up(keep: str) -> None:
    """
    Start a local Ray that following commands use.

    A command then need not start Ray. Only this user's commands with the same installation use it; --address and RAY_ADDRESS take precedence.
    With BEAM_RAY_KEEP=10m in the environment, commands start one by themselves; with BEAM_RAY_KEEP=0 they use none.
    """
    found = beam_ray.start_local_ray(keep)
    show(f"local Ray at {found.address}; it ends after {found.keep_s:g} s without a command, or by  beam-ray down")


@click.command()
def down() -> None:
    """End the local Ray that stays up between commands."""
    if beam_ray.stop_local_ray():
        show("the local Ray has ended")
    else:
        say("no local Ray is up")
