"""models: list the models of the models file, and find out what their endpoints accept."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import click

import beam_ray
from beam_ray.cli.options import Place, uses_models
from beam_ray.cli.screen import at_most, emit, money, number, say, show, table


@click.group(invoke_without_command=True)
@click.pass_context
@uses_models
def models(context: click.Context, place: Place) -> None:
    """List models with address, price, limits and how they are called. 'models check' finds out what their endpoints accept."""
    if context.invoked_subcommand:
        return
    found = place.opened.list_models()
    if place.as_json:
        emit([each.document() for each in found])
        return
    rows = [
        [each.name, each.model, each.base_url or "-", _price(each), each.price_source or "-", each.concurrency, _rate(each), each.checked_at or "never"]
        for each in found
    ]
    show(table(["name", "model", "address", "$/M in, out", "price from", "in flight", "per minute", "checked"], rows, right=[5]))
    for each in found:
        if each.settings:
            said = ", ".join(
                f"{name} {_value(value)} ({each.sources[name]})" if name in each.sources else f"{name} {value}" for name, value in each.settings.items()
            )
            show(f"  {each.name}: {said}")
    show("\nfind out what an endpoint accepts:  beam-ray models check NAME")


@models.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@uses_models
def check(names: tuple[str, ...], place: Place) -> None:
    """Find out what endpoints accept, refuse and ignore, with a few short calls. Checks all models unless NAME is given."""
    store = place.opened
    listed = {each.name: each for each in store.list_models()}
    results = []
    for name in names or listed:
        known = listed.get(name)
        if known:
            say(f"{name}: at most {known.check_calls} short calls, {at_most(known.check_usd)}")
        result = store.check_model(name)
        results.append(result)
        if not place.as_json:
            _show(result)
    if place.as_json:
        emit([result.document() for result in results])


def _show(result: beam_ray.ModelCheckResult) -> None:
    if result.error:
        show(f"{result.name}: cannot be called: {result.error}")
        return
    rows = [[finding.setting, finding.result, finding.detail] for finding in result.findings]
    show(table(["setting", "result", "detail"], rows, width=100))
    show(f"  {result.calls} calls, {money(result.usd)}, median latency {number(result.latency_s, 2)} s")
    if result.lines:
        show("Kept in the store and used where the models file says auto. To write it down:")
        show("\n".join(f"  {line}" for line in result.lines))
    else:
        show("  nothing differs from what is known of this endpoint; the models file needs no further line")


def _price(each: beam_ray.ModelInfo) -> str:
    if each.usd_per_million_input is None or each.usd_per_million_output is None:
        return "unpriced"
    return f"{each.usd_per_million_input:g}, {each.usd_per_million_output:g}"


def _rate(each: beam_ray.ModelInfo) -> str:
    parts = [(each.requests_per_minute, "requests"), (each.tokens_per_minute, "tokens")]
    return ", ".join(f"{value:,.0f} {word}" for value, word in parts if value) or "-"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
