"""A backtest that goes on: its sides, the pairs so far, and each line of the gate as it forms."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from beam_ray.console.charts import limit_mark, sequence_marks
from beam_ray.console.commands import Started, budget_words, new_key
from beam_ray.console.forms import Fields, one, raised
from beam_ray.console.links import backtest_path
from beam_ray.console.pages.new_backtest import require_within
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

if TYPE_CHECKING:
    from beam_ray import BacktestProgress


def backtest_progress(site: Site, name: str, going_on: Sequence[Started]) -> Page:
    """The page; *going_on* are the backtests that were started here and had not ended before the store was read."""
    found = site.store.backtest_progress(name)
    started = next((each for each in going_on if found.id in (each.backtest, *each.words)), None)
    resumable = found.state == "stopped" and site.store.backtest_spec(found.id) is not None
    values: dict[str, Any] = {
        "backtest": found,
        "pairs": dict(found.pairs),
        "budget": dict(found.budget),
        "forming": _forming(found),
        "so_far": [(each, [_line(line) for line in each["lines"]]) for each in found.so_far],
        "resumable": resumable and started is None,
        "resuming": started if found.state == "stopped" else None,
        "used_up": _used_up(found),
        "key": new_key(),
    }
    command = f"beam-ray backtest {found.id}{site.store.option}"
    live = found.state == "running" or started is not None
    return Page("backtest_progress", f"Backtest {found.name}", values, found.document(), section="backtests", command=command, live=live)


def _used_up(found: BacktestProgress) -> list[tuple[str, float]]:
    """The limit of the backtest's budget that stopped it; a side has what the others left of it."""
    budget = dict(found.budget)
    names = dict.fromkeys(name for _, side in found.sides for name, _ in side.used_up) if found.state == "stopped" else {}
    return [(name, budget[name]) for name in names if name in budget]


def _line(written: Any) -> dict[str, Any]:
    interval = written["interval"]
    mark = limit_mark(interval["low"], interval["value"], interval["high"], interval["limit"]) if interval else None
    return {"line": written["line"], "interval": interval, "mark": mark}


def _forming(found: BacktestProgress) -> list[dict[str, Any]]:
    """Per candidate the newest interim analysis, and each line over all analyses so far."""
    made = []
    for name in found.candidates:
        looks = sorted((look for look in found.looks if look["candidate"] == name), key=lambda look: look["tasks"])
        if not looks:
            continue
        newest = looks[-1]
        lines = []
        for at, written in enumerate(newest["lines"]):
            intervals = [(look["tasks"], look["lines"][at]["interval"]) for look in looks if at < len(look["lines"])]
            points = [(tasks, each["low"], each["value"], each["high"]) for tasks, each in intervals if each is not None]
            chart = sequence_marks(points, written["interval"]["limit"], found.tasks) if points and written["interval"] else None
            lines.append({**_line(written), "chart": chart, "analyses": len(points)})
        made.append({"candidate": name, "newest": newest, "lines": lines, "analyses": len(looks)})
    return made


def resume(site: Site, path: str, fields: Fields) -> str:
    """Resume a backtest by its command; its page."""
    name = path.split("/")[2]
    found = site.store.backtest_progress(name)
    if found.state != "stopped" or site.store.backtest_spec(found.id) is None:
        raise Unusable(f"backtest {found.id} cannot be resumed here: it is running, or its spec was not kept\n  run its command again to resume it")
    if site.commands.max_usd is not None:
        require_within(site, site.store.plan_backtest(found.id))
    budget = raised(f"backtest {found.id}", _used_up(found), dict(found.budget), fields)
    limits = budget_words(budget) if budget != dict(found.budget) else []
    site.commands.start(one(fields, "key"), ["backtest", found.id, "--mlflow", "none", *limits], f"Resume backtest {found.name}")
    return backtest_path(found.id)
