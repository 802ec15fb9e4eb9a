"""What people do in the console, clicked in a real Chromium on real runs."""

import dataclasses
import json
import re

import pytest

import beam_ray
from tests.console.conftest import OpenTab, Tab, beside, served
from tests.console.shop import Shop

TASK = "order-014"


def test_from_the_tasks_page_to_the_end_of_a_timeline_and_re_run_task(tab: Tab, shop: Shop):
    """Tasks, a task, the button under its last step, the plan, start, and the result before and after."""
    page = tab.page
    tab.begin()
    page.get_by_role("link", name="Tasks", exact=True).click()
    page.get_by_role("link", name="Failing").click()
    page.locator("table.tasks").get_by_role("link", name=TASK).last.click()
    timeline = page.get_by_role("region", name="Execution timeline")
    last, button = timeline.get_by_text("File the e-mail"), timeline.get_by_role("link", name="Re-run task")
    page.mouse.wheel(0, 5_000)
    page.wait_for_timeout(300)  # the wheel scrolls smoothly
    below = button.bounding_box()["y"] > last.bounding_box()["y"]
    button.click()
    plan = page.get_by_role("region", name="Plan")
    tab.see("model calls at most")
    page.get_by_label("Why").fill("to see whether it fails again")
    page.wait_for_url("**because=to*")
    plan.get_by_role("button", name="Start").click()
    tab.see("Before and after")

    assert below
    assert page.get_by_role("cell", name="80.00%").count() == 2
    assert "Not solved" in page.locator("main").inner_text()
    [made] = [run for run in shop.store.runs() if run.record.because == "to see whether it fails again" and run.id != shop.rerun]
    assert (made.record.origin, made.record.start_node, made.record.version) == (shop.run, None, 1)


def test_a_step_and_re_run_from_here(tab: Tab, shop: Shop):
    """A click on a step shows its panel; the panel's button reruns from it, and says what is borrowed before it starts."""
    page = tab.page
    tab.open(f"/tasks/{shop.run}/{TASK}")
    page.get_by_role("link", name="Look the order up").click()
    page.get_by_role("heading", name="Look the order up").wait_for()
    page.get_by_role("link", name="Re-run from here").click()
    plan = page.get_by_role("region", name="Plan")
    rows = [row.inner_text().split("\t") for row in plan.get_by_role("row").all()[1:]]
    page.get_by_role("radio", name=re.compile("Original")).check()
    page.wait_for_url("**using=original*")
    plan.get_by_role("button", name="Start").click()
    tab.see("Before and after")

    assert [(row[0].splitlines()[0], row[1], row[2]) for row in rows[:2]] == [("Extract the order details", "–", "1"), ("Look the order up", "1", "–")]
    newest = shop.store.runs()[0]
    assert (newest.record.start_node, newest.task(TASK).step("extract").outcome) == ("lookup", "borrowed")


def test_the_panel_of_a_step(tab: Tab, shop: Shop):
    """Output with what is not met, the prompt as it was sent per attempt, input, criteria with reasons, attempts with their differences, the row."""
    page = tab.page
    tab.open(f"/tasks/{shop.run}/{TASK}?step=extract")
    panel = page.locator(".step-panel")

    def show(name: str) -> str:
        panel.locator(f"a[data-tab]:has-text('{name}')").click()
        panel.locator(f"a[aria-current]:has-text('{name}')").wait_for()
        return str(panel.locator(".tab-body").inner_text())

    assert "Jane Miller is a person" in panel.locator(".tab-body").inner_text()
    prompt = show("Prompt")
    assert "As it was sent" in prompt
    assert "This answer does not meet:" in prompt
    panel.get_by_role("link", name="Attempt 1").click()
    page.wait_for_url("**attempt=1*")
    assert "does not meet" not in panel.locator(".tab-body").inner_text()
    assert "sees only the task" in show("Input")
    criteria = show("Criteria")
    assert ("Not met" in criteria, "scripted/judge" in criteria, "rule" in criteria) == (True, True, True)
    assert "Attempt 3" in show("Attempts")
    assert panel.locator("ins, del").count() > 0
    assert '"fingerprint"' in show("Record")


def test_the_timeline_says_what_happened(tab: Tab, shop: Shop):
    """Model or tool, accuracy with two decimals, the route's label, and why a step was skipped."""
    tab.open(f"/tasks/{shop.run}/{TASK}")
    text = tab.page.get_by_role("region", name="Execution timeline").inner_text()

    assert [word in text for word in ("scripted/reader · 3 attempts", "60.00%", "tools.orders:find", "PO found, proceed")] == [True] * 4
    assert "route not taken: not lookup.found" in text
    assert "4 of 5" in tab.page.locator(".facts").inner_text()


def test_lineage_leads_to_the_rerun_and_back(tab: Tab, shop: Shop):
    """Original and reruns stand in a row with their scores; the rerun is compared with its original by one click."""
    page = tab.page
    tab.open(f"/tasks/{shop.run}/{shop.failed}")
    page.get_by_role("region", name="Original and reruns").get_by_role("link", name=re.compile("rerun")).first.click()
    page.wait_for_url(f"**/tasks/{shop.rerun}/{shop.failed}")
    page.get_by_role("link", name="Compare with original").click()

    tab.see("The definitions are equal.")
    assert page.get_by_role("heading", name=shop.failed).count() == 1


def test_accuracy_has_two_decimals_and_its_count(tab: Tab, shop: Shop):
    """25 of 27 is 92.59%, with the branch labels beside their nodes."""
    tab.open(f"/runs/{shop.store.verdict(shop.backtest).best.run.id}")
    text = tab.page.locator("main").inner_text()

    assert "92.59%" in text
    assert "25 of 27" in text
    assert [label in text for label in ("PO found, proceed", "PO not found, handle")] == [True, True]


def test_a_run_of_a_backtest_leads_to_its_verdict(tab: Tab, shop: Shop):
    """Both sides name the backtest that they belong to; a rerun names none."""
    verdict = shop.store.verdict(shop.backtest)
    tab.open(f"/runs/{shop.rerun}")
    facts = tab.page.locator("ul.facts").inner_text()
    tab.open(f"/runs/{verdict.best.baseline_run.id}")
    baseline = tab.page.get_by_role("link", name=verdict.id).count()
    tab.open(f"/runs/{verdict.best.run.id}")
    tab.page.get_by_role("link", name=verdict.id).click()
    tab.page.wait_for_url(f"**/backtests/{verdict.id}")

    assert "Backtest" not in facts
    assert baseline == 1


def test_filters_are_addresses(new_tab: OpenTab, shop: Shop):
    """What is filtered, searched and sorted is in the address: another browser shows the same, and each filter can be taken away."""
    first = new_tab()
    page = first.page
    first.open(f"/tasks?run={shop.run}")
    page.get_by_text("Filters", exact=True).click()
    page.get_by_role("group", name="Label").get_by_role("link", name="large").click()
    page.wait_for_url("**label=large*")
    page.get_by_role("link", name="Score").click()
    page.wait_for_url("**sort=score*")
    page.get_by_label("Search in id, query and output").fill("forklift")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=forklift*")
    address, shown = page.url, page.locator("table.tasks tbody").inner_text()
    other = new_tab()
    other.page.goto(address)
    same = other.page.locator("table.tasks tbody").inner_text()
    page.get_by_role("link", name="text: forklift").click()
    page.wait_for_url(lambda url: "forklift" not in url)

    assert same == shown
    assert "order-017" in shown
    assert page.get_by_role("columnheader", name="Score").get_attribute("aria-sort") == "ascending"


def test_pages_of_tasks_forwards_and_back(tab: Tab, shop: Shop):
    """By button and by key; going back in the browser gives the same page."""
    page = tab.page
    tab.open("/tasks")
    first = page.locator("table.tasks tbody").inner_text()
    page.get_by_role("link", name="Next").click()
    page.wait_for_url("**after=*")
    tab.press("p")
    page.wait_for_url("**before=*")

    assert page.locator("table.tasks tbody").inner_text() == first
    page.go_back()
    page.wait_for_url("**after=*")


def test_ticked_tasks_are_compared_or_re_run(tab: Tab, shop: Shop):
    """By mouse or by the keys j and x; the bar says how many are ticked."""
    page = tab.page
    tab.open(f"/tasks?q={TASK}")
    tab.press("j")
    tab.press("x")
    ticked = page.locator("[data-ticked-count]").inner_text()
    page.get_by_label("Tick all tasks of this page").check()
    page.get_by_role("button", name="Re-run", exact=True).click()
    tab.see("A new run is made")

    assert ticked == "1 ticked"
    assert page.get_by_role("heading", name=re.compile(r"Re-run \d+ tasks")).count() == 1


def test_a_changed_query_is_planned_before_it_is_run(tab: Tab, shop: Shop):
    """The form's query can be edited; the command then names the change, and where to start is not asked."""
    page = tab.page
    tab.open(f"/rerun?task={shop.run}/{TASK}&from=lookup")
    page.get_by_text("Change the query").click()
    page.get_by_label("Query").fill("Please deliver 4 label printers. Our order number is PO-10020.")
    line = page.locator("#plan .command code").filter(has_text="PO-10020")
    line.wait_for(state="attached")

    assert "--with 'task_query=Please deliver 4 label printers." in str(line.text_content())
    assert "--from" not in str(line.text_content())
    assert page.evaluate("document.activeElement.id") == "task_query"


def test_a_verdict_with_its_flips(tab: Tab, shop: Shop):
    """From the list to the verdict, its gate and intervals, the group of newly failing tasks, and through its pairs by the key n."""
    page = tab.page
    tab.begin()
    page.get_by_role("link", name="Backtests", exact=True).click()
    page.get_by_role("link", name="extract-prompt-v2").click()
    tab.see("Tasks that changed sides")
    matrix = page.locator("table.matrix").inner_text()
    group = page.locator(".group summary").first.inner_text()
    page.get_by_role("link", name="Go through them one by one").first.click()
    tab.see("1 of 2")
    first = page.locator("h1").inner_text()
    text = page.locator("main").inner_text()
    tab.press("n")
    tab.see("2 of 2")

    counts = re.findall(r"(\d+)\s*(newly|both) (\w+)", matrix)
    assert counts == [("15", "both", "passing"), ("2", "newly", "failing"), ("10", "newly", "passing"), ("0", "both", "failing")]
    assert ("first difference" in text, "Jane" in text, "The sides part at extract" in text) == (True, True, True)
    assert (first, page.locator("h1").inner_text()) == ("order-006", "order-012")
    assert "2 newly failing part at extract extract/the_vendor_is_a_company_name_not_a_person, extract/vendor" in re.sub(r"\s+", " ", group)


def test_what_is_pasted_is_found(tab: Tab, shop: Shop):
    """The address of a step, and the beginning of a run's id."""
    page = tab.page
    tab.begin()
    tab.press("/")
    page.keyboard.type(f"{shop.run}/{TASK}/lookup")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/tasks/{shop.run}/{TASK}?step=lookup")
    page.get_by_label("Find tasks by text, or paste an address").fill(shop.run[:11])
    page.keyboard.press("Enter")

    page.wait_for_url(f"**/runs/{shop.run}")


def test_everything_is_read_without_javascript(new_tab: OpenTab, shop: Shop):
    """Pages, steps, tabs and filters are plain links; only keys and live changes need a script."""
    tab = new_tab(java_script_enabled=False)
    page = tab.page
    tab.open(f"/tasks/{shop.run}/{TASK}")
    page.get_by_role("link", name="Look the order up").click()
    page.get_by_role("heading", name="Look the order up").wait_for()
    page.locator(".step-panel").get_by_role("link", name="Record").click()

    tab.see('"fingerprint"')
    assert page.locator("time").first.inner_text().startswith("20")


def test_markup_in_a_task_is_text(new_tab: OpenTab, shop: Shop):
    """Queries, ids, labels and outputs are shown as they are, on every page; no script of theirs runs, and marks that cannot be seen are named."""
    attack = '<img src=x onerror="alert(1)"><script>alert(2)</script>{{ 7*7 }}'
    ids = ["a/b c", "x.json", "50%25", "..", "ä?#&=", '"><script>alert(3)</script>', "-rf", "#2"]
    rows = [{"id": name, "task_query": attack + "\u202egnp.exe", "expected": {"vendor": attack}, "labels": [attack[:30]]} for name in ids]
    run = beside(lambda: shop.store.run("purchase-orders", rows))
    tab = new_tab()
    page = tab.page
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    found = []
    for name in ids:
        tab.open(f"/tasks?run={run.id}&limit=50")
        page.locator("table.tasks tbody").get_by_role("link", name=name, exact=True).click()
        page.get_by_role("heading", name=name, exact=True).wait_for()
        found.append(name)
        shown = page.locator(".given").inner_text()
        assert attack in shown
        assert "⟨RIGHT-TO-LEFT OVERRIDE⟩" in shown

    assert (found, dialogs) == (ids, [])
    assert beam_ray.open(shop.store.uri).task(f"{run.id}/a%2Fb c").id == "a/b c"


def test_read_only_has_no_buttons_that_change(new_tab: OpenTab, shop: Shop):
    """Nothing can be started; the pages say so."""
    with served(shop.folder, "--read-only") as only:
        tab = new_tab(only)
        tab.open(f"/tasks/{shop.run}/{TASK}")

        assert tab.page.get_by_role("link", name=re.compile("^Re-run")).count() == 0
        assert tab.page.get_by_text("read-only").count() == 1


@pytest.mark.parametrize("limit", ["0"])
def test_a_limit_keeps_the_start_shut(limit: str, new_tab: OpenTab, shop: Shop):
    """What costs more than --max-usd cannot be started; what costs nothing can."""
    with served(shop.folder, "--max-usd", limit) as frugal:
        tab = new_tab(frugal)
        tab.open(f"/rerun?task={shop.run}/{TASK}")

        tab.see("model calls at most")
        assert tab.page.get_by_role("button", name="Start").count() == 1


AGENT = """
workflow: desk
model: scripted/agent
nodes:
  resolve:
    title: Resolve the question
    agent:
      prompt: "Where is {{ task_query }}?"
      tools: [tools.orders:find]
      returns: {answer: str}
"""


def test_the_calls_of_an_agent(new_tab: OpenTab, shop: Shop):
    """Each with what was asked, what came back, and where the answer came from; steps that are no agents have no such tab."""
    answers = [{"has": ["Hamburg"], "answer": {"answer": "in Hamburg"}}, {"call": {"find": {"po_number": "PO-10003"}}}]
    (shop.folder / "desk.yaml").write_text(AGENT)
    (shop.folder / "agent.yaml").write_text(json.dumps({"scripted/agent": {"answers": answers}}))
    store = dataclasses.replace(shop.store, models="agent.yaml")
    run = beside(lambda: store.run("desk.yaml", [{"id": "q", "task_query": "PO-10003"}]))
    tab = new_tab()
    tab.open(f"/tasks/{run.id}/q")
    tab.page.get_by_role("link", name="Calls").click()
    tab.page.locator(".tab-body").get_by_role("heading").first.wait_for()
    text = tab.page.locator(".tab-body").inner_text()
    tab.open(f"/tasks/{shop.run}/{TASK}")

    assert [line in text for line in ("1. scripted/agent", "calls find", "2. find", "tool · live", "Hamburg", "3. scripted/agent")] == [True] * 6
    assert tab.page.get_by_role("link", name="Calls").count() == 0


@pytest.mark.parametrize("width", [1280, 1440, 1680])
def test_every_column_of_the_tasks_page_is_seen(width: int, new_tab: OpenTab):
    """From 1280 pixels on, the list needs no scrolling to the side."""
    tab = new_tab(viewport={"width": width, "height": 800})
    tab.open("/tasks")
    room, needed = tab.page.evaluate("(({ clientWidth, scrollWidth }) => [clientWidth, scrollWidth])(document.querySelector('#ticked .scroll'))")

    assert needed <= room
