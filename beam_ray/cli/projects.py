"""init: a new project."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import click

import beam_ray
from beam_ray.cli.screen import emit, plural, show


@click.command()
@click.argument("folder", default=".", metavar="[FOLDER]", type=click.Path(file_okay=False))
@click.option("--from-prompt", "prompt", metavar="FILE", help="Begin with this prompt: its {{ name }} or {name} become variables of tasks.")
@click.option("--scripted", is_flag=True, help="Answer from a script, also where the embedded model is installed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def init(folder: str, prompt: str | None, scripted: bool, as_json: bool) -> None:
    """
    Write a new project into FOLDER: workflow, models file, tasks, gate, backtest spec, CI recipe and .rayignore.

    It runs at once, on the embedded model where that is installed, else on scripted answers. No file is overwritten.
    """
    made = beam_ray.init(folder, prompt=prompt, scripted=scripted or None)
    if as_json:
        emit(made.document())
        return
    show(f"wrote {plural(len(made.files), 'file')}; the workflow asks the model {made.model}")
    for file in made.files:
        show(f"  {file}")
    show()
    show("next:" if folder == "." else f"next, in {folder}:")
    for command in made.commands:
        show(f"  {command}")
    show(f"then edit {made.prompt} and run the last command again")
