"""A task's page beyond its timeline: its template, attempts side by side, files to save, keys."""

import re

import pytest

from tests.console.conftest import OpenTab, Tab, beside
from tests.console.shop import Shop

TASK = "order-014"


def test_the_template_leads_to_the_steps_that_it_takes_from(tab: Tab, shop: Shop):
    """The prompt's tab switches to the template; a variable of another step is a link to that step."""
    page = tab.page
    tab.open(f"/tasks/{shop.run}/{TASK}?step=confirm&tab=prompt")
    page.get_by_role("link", name="Template").click()
    page.wait_for_url("**view=template*")
    page.locator("mark").first.wait_for()
    marked = page.locator(".tab-body mark").all_inner_texts()
    page.get_by_role("link", name="{{ extract.vendor }}").click()
    page.wait_for_url("**step=extract*")

    assert marked == ["marks", "{{ extract.po_number }}", "{{ extract.vendor }}"]


def test_attempts_stand_side_by_side(tab: Tab, shop: Shop):
    """Two of them next to each other, each with what is different from the one before."""
    tab.open(f"/tasks/{shop.run}/{TASK}?step=extract&tab=attempts")
    boxes = [each.bounding_box() for each in tab.page.locator(".attempt").all()]

    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert "Meyer" in tab.page.locator(".attempt").nth(1).locator("ins").all_inner_texts()


def test_an_output_is_saved_as_a_file(tab: Tab, shop: Shop):
    """As a table of fields, raw, and as a download whose content is the output."""
    page = tab.page
    tab.open(f"/tasks/{shop.run}/{TASK}?step=extract")
    page.get_by_text("Raw", exact=True).click()
    raw = page.locator(".tab-body details .value").inner_text()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download").click()

    assert saved.value.suggested_filename == f"{TASK}-extract.json"
    assert saved.value.path().read_text().strip() == raw.strip()
    assert page.locator(".fields dt").all_inner_texts() == ["amount", "po_number", "vendor"]


def test_an_attachment_is_saved_and_never_shown(tab: Tab, shop: Shop):
    """Markup in an attachment comes as a file of no kind that a browser would open."""
    (shop.folder / "note.html").write_text("<script>alert(1)</script>")
    rows = [{"id": "with-file", "task_query": "Our order number is PO-10014.", "attachments": ["note.html"]}]
    run = beside(lambda: shop.store.run("purchase-orders", rows))
    page = tab.page
    tab.open(f"/tasks/{run.id}/with-file")
    page.get_by_text("Attachments (1)").click()
    link = page.get_by_role("link", name="note.html")
    with page.expect_download() as saved:
        link.click()
    answer = page.request.get(tab.served.base + link.get_attribute("href"))

    assert saved.value.path().read_text() == "<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment;")


@pytest.mark.parametrize(
    "address", ["/download?task={run}/order-014", "/download?task={run}/order-014&attachment=1", "/download?task={run}/order-014&step=escalate"]
)
def test_what_is_no_file_is_refused(address: str, tab: Tab, shop: Shop):
    """Without a step, without an attachment, and where the step has no output: said on a page, nothing is saved."""
    answer = tab.page.request.get(tab.served.base + address.format(run=shop.run))

    assert answer.status in (400, 404)
    assert "content-disposition" not in answer.headers
    assert re.search("is the output of a step|has no attachment 1|has no output", answer.text())


def test_keys_of_a_task(tab: Tab, shop: Shop):
    """Digits choose the step's tabs; ] and [ go through the list that the task was opened from; the dot shows JSON."""
    page = tab.page
    tab.open(f"/tasks?run={shop.run}&status=failing")
    first, second = [link.get_attribute("href") for link in page.locator("table.tasks [data-open]").all()[:2]]
    page.locator("table.tasks [data-open]").first.click()
    page.wait_for_url(f"**{first}")
    tab.press("]")
    page.wait_for_url(f"**{second}")
    tab.press("[")
    page.wait_for_url(f"**{first}")
    tab.press("4")
    page.wait_for_url("**tab=criteria*")
    page.locator("table.criteria").wait_for()
    tab.press(".")

    page.wait_for_url(f"**{first}.json*")


def test_re_run_task_stays_in_view(new_tab: OpenTab, shop: Shop):
    """On a screen that is lower than the timeline, the button under its last step is seen without scrolling to it."""
    tab = new_tab(viewport={"width": 1280, "height": 600})
    tab.open(f"/tasks/{shop.run}/{TASK}")
    box = tab.page.get_by_role("link", name="Re-run task").bounding_box()

    assert box["y"] + box["height"] <= 600
