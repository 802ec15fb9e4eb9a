"""The form of a rerun: which definition, which input, and what its plan shows before it starts."""

import re

import pytest

from beam_ray import DraftEdit
from tests.console.conftest import OpenTab, Tab, beside
from tests.console.shop import Shop

TASK = "order-014"
BETTER = [
    {"system": "You read order e-mails. Return the vendor, the order number and the amount as JSON."},
    {"user": "Read this order carefully.\n\n{{ task_query }}"},
]


@pytest.fixture
def draft(shop: Shop) -> str:
    """A draft whose second revision has the better prompt."""
    if all(each.name != "careful" for each in shop.store.drafts("purchase-orders")):
        made = shop.store.create_draft("purchase-orders", "careful")
        shop.store.edit_draft(made, [DraftEdit("nodes.extract.llm.prompt", BETTER)])
    return "purchase-orders@careful:2"


def test_a_draft_is_chosen_planned_and_run(tab: Tab, shop: Shop, draft: str):
    """
    The plan refreshes with the choice, shows the diff by node and field and which nodes are executed.

    The result shows before and after: output as a word diff, criteria that changed, cost, and that one task proves nothing.
    """
    page = tab.page
    tab.open(f"/rerun?task={shop.run}/{TASK}&from=extract")
    page.get_by_role("radio", name=re.compile("Draft careful")).check()
    page.wait_for_url("**using=purchase-orders%40careful%3A2*")
    plan = page.get_by_role("region", name="Plan")
    plan.get_by_text("extract.llm.prompt").wait_for()
    shown, picture = plan.inner_text(), plan.get_by_role("img").get_attribute("aria-label")
    plan.get_by_role("button", name="Start").click()
    tab.see("What differs")
    page.wait_for_url("**/reruns/*")
    text, address = page.locator("main").inner_text(), page.url
    removed, added = (page.locator(mark).all_inner_texts() for mark in ("del", "ins"))
    page.get_by_role("link", name="try it on 20 tasks").click()
    page.wait_for_url("**/backtests/new?*")
    form = page.locator("main").inner_text()

    assert "careful" in form
    assert "+Read this order carefully." in shown
    assert picture == "executed: Extract the order details, Look the order up, Confirm the order"
    assert ("Jane" in " ".join(removed), "Hansen" in " ".join(added)) == (True, True)
    assert all(word in text for word in ("Solved", "80.00%", "100.00%", "One task proves nothing", "purchase-orders@careful:2"))
    [newest] = [run for run in shop.store.runs() if run.id in address]
    assert newest.record.changed == ["extract.llm.prompt"]


def test_an_earlier_revision_can_be_chosen(tab: Tab, shop: Shop, draft: str):
    """By a link below the draft; the first revision is the published definition."""
    page = tab.page
    tab.open(f"/rerun?task={shop.run}/{TASK}&from=extract&using={draft}")
    page.locator(".revisions", has_text="2").get_by_role("link", name="1", exact=True).first.click()
    page.wait_for_url("**using=purchase-orders%40*%3A1*")

    assert "The chosen definition is the one that the task was run with." in page.get_by_role("region", name="Plan").inner_text()


def test_variables_are_edited_as_json(tab: Tab, shop: Shop):
    """A changed variable is named in the command, what is no JSON is said where it is typed, and a removed one is refused."""
    rows = [{"id": "vars", "task_query": "Our order number is PO-10014.", "variables": {"customer": "Ace", "limit": 3}}]
    run = beside(lambda: shop.store.run("purchase-orders", rows))
    page = tab.page
    tab.open(f"/rerun?task={run.id}/vars")
    page.get_by_text("Change the variables").click()
    field = page.get_by_label("Variables")
    field.fill('{"customer": "Bob", "limit": 3}')
    page.locator("#plan .command code").filter(has_text="Bob").wait_for(state="attached")
    line = str(page.locator("#plan .command code").text_content())
    field.fill('{"customer": ')
    tab.see("this is not JSON")
    field.fill('{"limit": 3}')
    tab.see("'customer' is left out")

    assert """--with 'variables.customer="Bob"'""" in line
    assert "limit" not in line


def test_a_file_of_this_machine_is_no_definition(tab: Tab, shop: Shop):
    """A form that names one is refused, also with a workflow's name before it."""
    said = []
    for using in ("purchase-orders.yaml", "purchase-orders@../spec.yaml", "other@careful"):
        tab.open(f"/rerun?task={shop.run}/{TASK}&using={using}")
        said.append(tab.page.locator("#plan .refusal").inner_text())

    assert all("uses the published version, the original or a draft of purchase-orders" in each for each in said)


def test_the_plan_is_there_without_javascript(new_tab: OpenTab, shop: Shop, draft: str):
    """A button shows the plan of what was chosen."""
    tab = new_tab(java_script_enabled=False)
    page = tab.page
    tab.open(f"/rerun?task={shop.run}/{TASK}&from=extract")
    page.get_by_role("radio", name=re.compile("Draft careful")).check()
    page.get_by_role("button", name="Show the plan").click()

    assert "+Read this order carefully." in page.get_by_role("region", name="Plan").inner_text()
