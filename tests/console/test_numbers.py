"""Every number that is a link leads to as many tasks as it says."""

import html
import json
import re

import pytest

from tests.console.conftest import Served
from tests.console.shop import Shop
from tests.console.test_safety import Client, log_in

NUMBER = re.compile(r'<a [^>]*?href="(/tasks\?[^"]*)"[^>]*>(.*?)</a>', re.S)
PAGES = {"home": "/", "runs": "/runs", "run": "/runs/{run}", "backtest": "/backtests/{backtest}", "pin": "/e/{pin}", "waiting": "/review"}


@pytest.fixture(scope="module")
def inside(console: Served) -> Client:
    """A client that is logged in."""
    return log_in(console)


@pytest.mark.parametrize("name", PAGES)
def test_numbers_lead_to_their_tasks(name: str, inside: Client, shop: Shop):
    """Counts in tables and on cards, at least one on each page: the list behind the link has so many."""
    page = inside.ask("GET", PAGES[name].format(run=shop.run, backtest=shop.backtest, pin=shop.pin)).text
    links: dict[str, int] = {}
    for href, body in NUMBER.findall(page.partition("<main")[2].partition("</main>")[0]):
        figure = re.search(r'class="figure[^"]*">([\d,]+)<', body)
        written = figure[1] if figure else body.strip()
        if re.fullmatch(r"[\d,]+", written):
            links[html.unescape(href)] = int(written.replace(",", ""))
    found = {href: json.loads(inside.ask("GET", href.replace("/tasks?", "/tasks.json?", 1)).text)["matching"] for href in links}

    assert links
    assert found == links
