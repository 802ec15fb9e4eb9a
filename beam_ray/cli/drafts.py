"""draft: definitions that have no version yet, kept in the store and changed value by value."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import sys
from pathlib import Path
from typing import Any

import click

import beam_ray
from beam_ray.cli.options import Place, reads_store
from beam_ray.cli.screen import emit, plural, say, show, table
from beam_ray.errors import Unusable

_NAME = click.argument("reference", metavar="WORKFLOW@DRAFT")


@click.group()
def draft() -> None:
    """Make and change drafts: definitions in the store that have no version yet."""


@draft.command("list")
@click.argument("workflow", required=False)
@reads_store
def list_(workflow: str | None, place: Place) -> None:
    """List the drafts of WORKFLOW, or all drafts, newest first."""
    found = place.opened.drafts(workflow)
    if place.as_json:
        emit([each.document() for each in found])
        return
    if not found:
        show(f"no drafts; beam-ray draft create {workflow or 'WORKFLOW'}@DRAFT{place.option}  makes one")
        return
    rows = [[f"{each.workflow}@{each.name}", each.number, _base(each), each.saved_by, f"{each.saved_at:%Y-%m-%d %H:%M}", _state(each)] for each in found]
    show(table(["draft", "revision", "base", "changed by", "changed", "check"], rows, right=[1]))


@draft.command("show")
@click.argument("reference", metavar="WORKFLOW@DRAFT[:N]")
@click.option("--text", "only_text", is_flag=True, help="Print the YAML text and nothing else.")
@reads_store
def show_(reference: str, only_text: bool, place: Place) -> None:
    """Show a draft: what differs from the published version, problems, and with --text its YAML."""
    found = place.opened.draft(*_named(reference))
    if place.as_json:
        emit(found.document())
        return
    if only_text:
        show(found.text.removesuffix("\n"))
        return
    show(f"{found.reference}, from {_base(found)}, changed {found.saved_at:%Y-%m-%d %H:%M} UTC by {found.saved_by}")
    _show_state(found, place)


@draft.command()
@_NAME
@click.option("--from", "file", metavar="FILE", type=click.Path(dir_okay=False), help="Workflow file to begin with. Default: the published version.")
@reads_store
def create(reference: str, file: str | None, place: Place) -> None:
    """Begin a draft of a workflow with its published version, or with FILE."""
    workflow, name, _ = _named(reference, revision=False)
    text = _read(file) if file else None
    made = place.opened.create_draft(workflow, name, text=text, author=True, folder=Path(file).parent if file and file != "-" else None)
    _show_saved(made, place)


@draft.command("set")
@click.argument("reference", metavar="WORKFLOW@DRAFT[:N]")
@click.argument("changes", metavar="PATH=VALUE...", nargs=-1, required=True)
@reads_store
def set_(reference: str, changes: tuple[str, ...], place: Place) -> None:
    """
    Change values of a draft; comments and order stay.

    PATH is as in nodes.extract.llm.prompt or nodes.extract.evaluate.criteria[0]. VALUE is YAML: a number, text, [a list] or
    {a: mapping}; =@FILE takes the text of FILE; =null removes what is there. With :N the draft must not have changed since
    revision N.
    """
    edits = []
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals or not path:
            raise click.UsageError(f"{change}: write it as PATH=VALUE")
        edits.append(beam_ray.DraftEdit(path, _value(value)))
    _show_saved(place.opened.edit_draft(place.opened.draft(*_named(reference)), edits, author=True), place)


@draft.command()
@click.argument("reference", metavar="WORKFLOW@DRAFT[:N]")
@click.argument("file", type=click.Path(dir_okay=False))
@reads_store
def save(reference: str, file: str, place: Place) -> None:
    """
    Replace the text of a draft by FILE, or by standard input where FILE is -.

    Prompt files that FILE names are read and become part of the draft. With :N the draft must not have changed since revision N.
    """
    before = place.opened.draft(*_named(reference))
    _show_saved(place.opened.save_draft(before, _read(file), author=True, folder=Path(file).parent if file != "-" else None), place)


@draft.command()
@_NAME
@reads_store
def drop(reference: str, place: Place) -> None:
    """End a draft. Its revisions stay in the store."""
    workflow, name, _ = _named(reference, revision=False)
    place.opened.drop_draft(workflow, name)
    if place.as_json:
        emit({"workflow": workflow, "name": name, "dropped": True})
        return
    show(f"dropped {workflow}@{name}")


def _named(reference: str, *, revision: bool = True) -> tuple[str, str, int | None]:
    """Workflow, draft and revision of what is written as WORKFLOW@DRAFT[:N]."""
    workflow, at, rest = reference.partition("@")
    name, colon, number = rest.partition(":")
    if not (workflow and at and name) or (colon and not (revision and number.isdecimal())):
        raise click.UsageError(f"{reference!r}: write it as WORKFLOW@DRAFT{'[:N]' if revision else ''}, such as orders@shorter")
    return workflow, name, int(number) if number else None


def _read(file: str) -> str:
    try:
        raw: bytes = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise Unusable(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise Unusable(f"{file}: the file is not UTF-8; save it as UTF-8") from None


def _value(written: str) -> Any:
    """The value of PATH=VALUE."""
    if written.startswith("@"):
        return _read(written[1:])
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(written)
    except YAMLError:
        return written  # text with a colon or a bracket in it


def _base(found: beam_ray.Draft) -> str:
    return "the newest run" if found.base is None else f"version {found.base}"


def _state(found: beam_ray.Draft) -> str:
    if found.definition is None:
        return plural(len(found.problems), "problem")
    return "OK" if not found.problems else f"OK, {plural(len(found.problems), 'warning')}"


def _show_saved(found: beam_ray.Draft, place: Place) -> None:
    if place.as_json:
        emit(found.document())
        return
    show(f"saved {found.reference}")
    _show_state(found, place)


def _show_state(found: beam_ray.Draft, place: Place) -> None:
    for problem in found.problems:
        say(str(problem))
    if found.definition is None:
        show(f"check: {_state(found)}; it cannot be run or published")
        return
    changes = place.opened.draft_changes(found)
    show(f"check: OK; {plural(len(changes), 'change')} against the published version{':' if changes else ''}")
    for change in changes:
        show(f"  {change}")
        for line in change.text_diff.splitlines():
            show(f"      {line}")
    show(f"try it:  beam-ray rerun TASK --using {found.workflow}@{found.name}{place.option}")
