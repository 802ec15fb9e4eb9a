"""Trying a draft on tasks, clicked in a real Chromium: the plan, the start, the verdict, and the same again."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from beam_ray import DraftEdit
from beam_ray.console import ConsoleOptions, create_app
from tests.console.conftest import Tab
from tests.console.shop import Shop, orders

NAME = "purchase-orders"
SYSTEM = "You read order e-mails. Return the vendor, the purchase order number (it begins with PO-) and the amount as JSON."


@pytest.fixture(scope="module")
def drafted(shop: Shop) -> Shop:
    """The shop with a draft and a library."""
    shop.store.edit_draft(
        shop.store.create_draft(NAME, "tried"),
        [DraftEdit("nodes.extract.llm.prompt", [{"system": SYSTEM}, {"user": "Read this carefully.\n\n{{ task_query }}"}])],
    )
    shop.store.add_to_library("tried-orders", orders())
    return shop


def client(shop: Shop, **options: object) -> TestClient:
    """A browser's session at a console over the shop."""
    app = create_app(shop.store, ConsoleOptions(**options))  # type: ignore[arg-type]
    made = TestClient(app, base_url="http://127.0.0.1:8090", follow_redirects=True)
    made.get(f"/?token={app.token}")
    return made


def test_a_draft_is_tried_on_six_tasks_and_repeated(tab: Tab, drafted: Shop):
    """The form's state is its address; the page of the start leads to the backtest, and a repeat fills the form in."""
    page = tab.page
    tab.open("/backtests")
    page.get_by_role("link", name="New backtest").click()
    plan = page.get_by_role("region", name="Plan")
    tab.see("choose at least one candidate")
    page.get_by_role("checkbox", name=re.compile("^tried")).check()
    page.get_by_label("From", exact=True).select_option("library:tried-orders")
    page.get_by_label("How many").fill("6")
    page.get_by_label("Gate").select_option("none")
    page.wait_for_url("**gate=none*")
    tab.see("6 tasks")
    query = parse_qs(urlsplit(page.url).query)
    spec = plan.locator(".spec pre").text_content()
    plan.get_by_role("button", name="Start").click()
    page.get_by_role("link", name="Open the backtest").click()
    made = page.url.rpartition("/")[2].partition("?")[0]
    tab.open(f"/backtests/new?repeat={made}")
    tab.see("This very backtest has its verdict")

    assert (query["candidate"], query["tasks"], query["limit"]) == ([f"{NAME}@tried:2"], ["library:tried-orders"], ["6"])
    assert "limit: 6" in spec and f"tried: {NAME}@tried:2" in spec
    verdict = drafted.store.verdict(made)
    assert verdict.best.document["comparison"]["pairs"] == 6
    assert verdict.best.run.record.definition_digest == drafted.store.draft(NAME, "tried", 2).definition.digest  # type: ignore[union-attr]
    assert page.get_by_role("checkbox", name=re.compile("tried as in the repeated backtest")).is_checked()
    assert page.get_by_label("How many").input_value() == "6"


def test_a_single_change_is_a_candidate_within_a_visitors_limits(drafted: Shop):
    """A threshold may be tried; a model that the workflow does not use, or a file, is for authors."""
    browser = client(drafted)
    base = f"/backtests/new.json?workflow={NAME}&tasks=library:tried-orders"
    threshold = browser.get(f"{base}&path=nodes.extract.evaluate.threshold&value=70&limit=5").json()
    model = browser.get(f"{base}&path=nodes.extract.llm.model&value=dear").json()
    file = browser.get(f"{base}&path=nodes.extract.llm.prompt&value=models.yaml").json()
    tasks = browser.get(f"/backtests/new.json?workflow={NAME}&tasks=models.yaml&candidate={NAME}@tried").json()
    workflow = browser.get(f"/backtests/new.json?workflow=models.yaml&tasks=library:tried-orders&candidate={NAME}@tried").json()
    candidate = browser.get(f"{base}&candidate={NAME}@../models.yaml").json()

    assert threshold["spec"]["candidates"] == {"change": {"nodes.extract.evaluate.threshold": 70}}
    assert threshold["plan"]["tasks"] == 5
    assert "only an author may bring" in model["refused"]
    assert "the name of a prompt file" in file["refused"]
    assert "is not a library or a run" in tasks["refused"]
    assert "is not the name of a workflow" in workflow["refused"]
    assert "is not a draft of" in candidate["refused"]


def test_a_single_change_that_leads_into_a_list_is_refused(drafted: Shop):
    """In one line: there are no parts there."""
    base = f"/backtests/new.json?workflow={NAME}&tasks=library:tried-orders"
    found = client(drafted).get(f"{base}&path=nodes.extract.evaluate.criteria.0&value=x")

    assert "'nodes.extract.evaluate.criteria' has no parts" in found.json()["refused"]


def test_a_start_obeys_the_consoles_limit(drafted: Shop):
    """What may cost more, or has no price, is refused before it starts; the budget is part of the spec."""
    address = f"/backtests/new.json?workflow={NAME}&tasks=library:tried-orders&candidate={NAME}@tried&trials=101"
    assert "trials: '101' is not a number from 1 to 100" in client(drafted).get(address).json()["refused"]

    found = client(drafted, max_usd=2.0).get(address.replace("trials=101", "max_usd=5")).json()
    assert found["spec"]["budget"] == {"max_usd": 2.0}


def test_a_console_that_is_only_read_shows_the_plan(drafted: Shop):
    """There is no start, and nothing to send it to."""
    browser = client(drafted, read_only=True)
    page = browser.get(f"/backtests/new?workflow={NAME}&tasks=library:tried-orders&candidate={NAME}@tried").text

    assert "model call" in page and "data-start" not in page
    assert browser.post("/backtests/new", data={"workflow": NAME}, headers={"origin": "http://127.0.0.1:8090"}).status_code in (403, 404, 405)
