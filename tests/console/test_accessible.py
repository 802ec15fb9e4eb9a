"""Every page for everybody: axe finds nothing, pages fit narrow screens, focus stays where it was."""

from pathlib import Path
from typing import Any

import pytest

from tests.console.conftest import OpenTab, Tab
from tests.console.shop import Shop

PAGES = {
    "home": "/",
    "tasks": "/tasks",
    "tasks-filtered": "/tasks?status=failing&label=large",
    "tasks-empty": "/tasks?q=nothing+has+this",
    "task": "/tasks/{run}/order-014",
    "task-prompt": "/tasks/{run}/order-014?step=extract&tab=prompt",
    "task-criteria": "/tasks/{run}/order-014?step=extract&tab=criteria",
    "task-attempts": "/tasks/{run}/order-014?step=extract&tab=attempts",
    "task-record": "/tasks/{run}/order-014?step=extract&tab=record",
    "flows": "/flows",
    "flow": "/flows/purchase-orders?node=extract",
    "flow-tool": "/flows/purchase-orders?node=lookup&numbers=all",
    "flow-backtest": "/flows/purchase-orders?node=extract&numbers=backtest:{backtest}",
    "versions": "/flows/purchase-orders/versions",
    "new-backtest": "/backtests/new?workflow=purchase-orders&tasks=run:{run}&path=nodes.extract.evaluate.threshold&value=80",
    "runs": "/runs",
    "run": "/runs/{run}",
    "rerun": "/rerun?task={run}/order-014&from=lookup",
    "reruns": "/reruns/{rerun}",
    "what-if": "/what-if?task={run}/order-014&step=extract",
    "optimise": "/optimise?task={run}/order-014&step=extract",
    "backtests": "/backtests",
    "backtest": "/backtests/{backtest}",
    "flips": "/backtests/{backtest}/flips",
    "prove": "/backtests/{backtest}/prove?control=yes",
    "compare": "/compare?a={run}/order-005&b={rerun}/order-005",
    "waiting": "/review",
    "review": "/review?workflow=purchase-orders&run={run}&node=extract&count=3",
    "agreement": "/review/agreement?workflow=purchase-orders",
    "pins": "/e",
    "pin": "/e/{pin}",
    "warnings": "/home/warnings",
    "health": "/health/purchase-orders",
    "history": "/history/purchase-orders",
    "trend": "/history/purchase-orders/trend",
    "settings": "/settings",
    "libraries": "/libraries",
    "library": "/libraries/regressions",
    "library-edit": "/libraries/regressions?edit=order-014",
    "coverage": "/libraries/regressions/coverage",
    "library-diff": "/libraries/regressions/diff",
    "add-to-library": "/add-to-library?all=yes&label=large",
    "refusal": "/tasks?colour=red",
}


def address(name: str, shop: Shop) -> str:
    """The page's address in the shop."""
    return PAGES[name].format(run=shop.run, backtest=shop.backtest, rerun=shop.rerun, pin=shop.pin)


@pytest.fixture(scope="session")
def axe() -> str:
    """The accessibility checker's script."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(tab: Tab, axe: str) -> list[str]:
    """What axe finds on the page, of WCAG 2.2 at level A and AA and of its best practices."""
    if not tab.page.evaluate("'axe' in window"):
        # through the debugger, which the page's own policy does not bind
        tab.page.evaluate(axe)
    found: dict[str, Any] = tab.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{each['id']}: {node['html'][:160]} {node['failureSummary'][:200]}" for each in found["violations"] for node in each["nodes"]]


def violations_in_both(tab: Tab, axe: str) -> list[str]:
    """The same on a wide light page and on a narrow dark one, which is left; and whether the page is wider than the screen."""
    found = []
    for scheme, width in (("light", 1280), ("dark", 360)):
        tab.page.emulate_media(color_scheme=scheme)
        tab.page.set_viewport_size({"width": width, "height": 800})
        wide = tab.page.evaluate("document.documentElement.scrollWidth")
        found += [f"{scheme}: {each}" for each in violations(tab, axe)] + [f"{wide} pixels wide"] * (wide > width)
    return found


@pytest.mark.timeout(600)
def test_axe_finds_nothing(new_tab: OpenTab, axe: str, shop: Shop):
    """On every page, light and wide, dark and narrow; no page is wider than the screen."""
    found = {}
    tab = new_tab(viewport={"width": 360, "height": 800})
    for name in PAGES:
        tab.open(address(name, shop))
        if problems := violations_in_both(tab, axe):
            found[name] = problems
        if name == "refusal":
            tab.faults.clear()  # the browser reports the status of the refused page

    assert found == {}


def test_focus_stays_where_it_was(tab: Tab, shop: Shop):
    """After a step was chosen by keyboard, its link has the focus in the replaced page."""
    tab.open(f"/tasks/{shop.run}/order-014")
    tab.page.get_by_role("link", name="Look the order up").focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**step=lookup*")
    tab.page.get_by_role("heading", name="Look the order up").wait_for()

    assert tab.page.evaluate("document.activeElement.innerText").startswith("Look the order up")


def test_single_keys_can_be_switched_off(tab: Tab, shop: Shop):
    """And do nothing while somebody types."""
    page = tab.page
    tab.begin()
    tab.press("?")
    page.get_by_label("Single keys are on").uncheck()
    page.get_by_role("button", name="Close").click()
    tab.press("g")
    tab.press("t")
    page.wait_for_timeout(200)
    stayed = page.url
    tab.open("/")
    page.evaluate("localStorage.clear()")
    page.get_by_label("Find tasks by text, or paste an address").fill("gt")
    page.keyboard.press("Escape")

    assert stayed.rstrip("/") == tab.served.base
