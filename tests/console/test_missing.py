"""What an address names that does not exist, and the addresses of a page that answers a form."""

import re
import urllib.parse

import pytest

from tests.console.conftest import Served
from tests.console.shop import Shop
from tests.console.test_safety import FORM, Client, log_in


@pytest.fixture
def inside(console: Served) -> Client:
    """A client that is logged in."""
    return log_in(console)


MISSING = [
    "/flows/nothing",
    "/flows/nothing/versions",
    "/flows/purchase-orders?version=99",
    "/flows/purchase-orders?draft=nothing",
    "/flows/purchase-orders/publish?draft=nothing",
    "/libraries/nothing",
    "/libraries/regressions?version=99",
    "/libraries/nothing/coverage",
    "/e/0123456789abcdef",
    "/runs/nothing",
    "/backtests/nothing",
    "/health/nothing",
    "/history/nothing",
    "/tasks/nothing/order-001",
]


@pytest.mark.parametrize("path", MISSING)
def test_what_does_not_exist_is_not_found(path: str, inside: Client):
    """The status is 404 for people and for programs, whatever it is that is missing."""
    before, mark, query = path.partition("?")
    statuses = [inside.ask("GET", each).status for each in (path, f"{before}.json{mark}{query}")]

    assert statuses == [404, 404]


def test_what_cannot_be_is_refused_as_wrong(inside: Client):
    """A bad value is not something that is missing."""
    assert [inside.ask("GET", path).status for path in ("/flows/purchase-orders?version=x", "/flows/purchase-orders?numbers=x")] == [400, 400]


def post(client: Client, path: str, **fields: str) -> "tuple[int, str]":
    """The answer to a form of the flow's page."""
    token = re.findall(r'name="form_token" value="(\w+)"', client.ask("GET", "/flows/purchase-orders").text)[0]
    sent = {"Origin": client.to.base, "Sec-Fetch-Site": "same-origin", "Content-Type": FORM}
    answer = client.ask("POST", path, urllib.parse.urlencode({"form_token": token, **fields}), **sent)
    return answer.status, answer.text  # type: ignore[attr-defined]


def test_a_page_that_answers_a_form_links_its_own_address(inside: Client, shop: Shop):
    """The text that was not kept is shown on the flow's page, whose JSON and Markdown are there to read."""
    draft = shop.store.create_draft("purchase-orders", "refused-text")
    shop.store.save_draft(draft, f"# newer\n{draft.text}")
    status, text = post(inside, "/flows/purchase-orders/draft", do="text", draft=draft.name, number="1", node="extract", text=f"# mine\n{draft.text}")
    links = [link.replace("&amp;", "&") for link in re.findall(r'<link rel="alternate" type="[^"]*" href="([^"]*)"', text)]

    assert status == 200
    assert links == [f"/flows/purchase-orders.{face}?draft=refused-text&node=extract" for face in ("json", "md")]
    assert [inside.ask("GET", link).status for link in links] == [200, 200]


def test_a_refused_form_has_no_other_faces(inside: Client):
    """There is nothing under the address of the form that could be read."""
    status, text = post(inside, "/flows/purchase-orders/draft", do="drop", draft="nothing")

    assert status == 400
    assert "nothing" in text
    assert "This page as" not in text
    assert 'rel="alternate"' not in text
