"""The flow of a workflow, clicked in a real Chromium: the graph left, the panel of a node right."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import beam_ray
from beam_ray.console import ConsoleOptions, create_app
from tests.console.conftest import InProcess, OpenTab, Tab
from tests.console.shop import Shop


def open_flow(tab: Tab, query: str = "") -> None:
    """The page of the shop's workflow, with its graph drawn."""
    tab.open(f"/flows/purchase-orders{query}")
    tab.page.locator(".graph.drawn").wait_for()


def box(tab: Tab, selector: str) -> dict[str, Any]:
    """Where an element is on the page."""
    found: dict[str, Any] = tab.page.locator(selector).bounding_box()
    return found


def test_from_the_list_of_flows_to_a_node(tab: Tab, shop: Shop):
    """Flows, a workflow, its nodes and branches left and the chosen node's panel right; a click chooses another node."""
    page = tab.page
    tab.begin()
    page.get_by_role("link", name="Flows", exact=True).click()
    row = page.get_by_role("row", name=re.compile("purchase-orders")).inner_text()
    tab.see("Auto-reruns are used up at extract")
    page.get_by_role("link", name="purchase-orders", exact=True).click()
    page.locator(".graph.drawn").wait_for()
    graph, panel = box(tab, "#graph"), box(tab, "#node-panel")
    page.get_by_role("link", name=re.compile("Look the order up")).click()
    page.wait_for_url("**node=lookup*")
    page.get_by_role("heading", name="Look the order up").wait_for()

    # other tests may have run it since
    assert "v1" in row
    assert re.search(r"\d+\.\d\d%.*\d+ of \d+", row, re.DOTALL)
    assert graph["x"] + graph["width"] <= panel["x"]
    assert page.locator(".node.chosen").get_attribute("data-node") == "lookup"
    assert "tools.orders:find" in page.locator("#node-panel").inner_text()


def test_nodes_stand_below_what_they_come_after(tab: Tab, shop: Shop):
    """From top to bottom, the two branches side by side, with an edge for each connection."""
    open_flow(tab)
    places = {name: box(tab, f"#node-{name}") for name in ("extract", "lookup", "confirm", "escalate", "archive")}

    assert places["extract"]["y"] < places["lookup"]["y"] < places["confirm"]["y"] < places["archive"]["y"]
    assert abs(places["confirm"]["y"] - places["escalate"]["y"]) < 5
    assert tab.page.locator(".edge").count() == 5


def test_branches_are_labeled_with_their_share(tab: Tab, shop: Shop):
    """The label of the route and how many of the tasks took it, on the edge and in the list that screen readers read."""
    open_flow(tab, f"?numbers=run:{shop.run}")
    labels = [each.inner_text().split("\n") for each in tab.page.locator(".labels .edge-label").all()]
    read = tab.page.locator("#node-lookup .next").text_content()

    assert ["PO found, proceed", "65%"] in labels
    assert ["PO not found, handle", "35%"] in labels
    assert "if PO found, proceed: Confirm the order 65.22% (15 of 23)" in re.sub(r"\s+", " ", read)


def test_a_node_shows_its_tool_or_model_and_its_accuracy(tab: Tab, shop: Shop):
    """With two decimals, how many passed, the interval, and what auto-reruns did."""
    open_flow(tab, f"?numbers=run:{shop.run}")
    extract, lookup = (tab.page.locator(f"#node-{name}").inner_text() for name in ("extract", "lookup"))

    assert [word in extract for word in ("scripted/reader", "85.19%", "17 of 27", "2× · used on 44%")] == [True] * 4
    badge = tab.page.locator("#node-extract .badge.is-warning").get_attribute("title")
    assert badge == "10 of 27 steps use all auto-reruns; health warns from 10%"
    assert "74.86% to 91.60%" in tab.page.locator("#node-extract .whisker").get_attribute("aria-label")
    assert [word in lookup for word in ("tools.orders:find", "23 of 27 executed", "4 failed")] == [True] * 3


def test_the_criteria_of_a_node(tab: Tab, shop: Shop):
    """Numbered, with kind, weight and the share that meets each: 25 of 27 is 92.59%."""
    open_flow(tab, f"?node=extract&numbers=run:{shop.run}")
    criteria = [each.inner_text() for each in tab.page.locator(".criteria-list > li").all()]

    assert [text.split("\n")[0] for text in criteria] == ["Criteria 1", "Criteria 2", "Criteria 3", "Criteria 4"]
    assert [word in criteria[0] for word in ("equals", "vendor equals expected.vendor", "92.59%", "25 of 27")] == [True] * 4
    assert ("weight 2" in criteria[1], "70.37%" in criteria[1]) == (True, True)
    assert [word in criteria[3] for word in ("judge", "The vendor is a company name", "no output was reviewed")] == [True] * 3


def test_auto_run_and_settings(tab: Tab, shop: Shop):
    """A switch that is off unless the workflow says otherwise, the number of re-runs, and the settings in a fold."""
    page = tab.page
    open_flow(tab, "?node=confirm")
    switch = page.get_by_role("switch", name=re.compile("score is below the threshold"))
    off = switch.is_checked()
    hidden = page.get_by_text("Max tokens").is_visible()
    page.locator(".settings summary").click()
    settings = page.locator(".settings").inner_text()
    open_flow(tab, "?node=extract")
    extract = page.locator(".auto-run").inner_text()

    assert (off, hidden, switch.is_checked()) == (False, False, True)
    assert [word in settings for word in ("scripted/reader", "Temperature", "Max tokens", "1,024", "Seed", "Time limit", "120 s")] == [True] * 7
    assert re.search(r"Number of re-runs\s+2", extract)


def test_a_backtest_shows_both_sides(tab: Tab, shop: Shop):
    """The selector takes the numbers of a backtest: the candidate's, with the change against the baseline; the address has the choice."""
    page = tab.page
    open_flow(tab, "?node=extract")
    page.get_by_label("Numbers of").select_option(f"backtest:{shop.backtest}:v2")
    page.wait_for_url("**numbers=backtest*")
    page.locator("#node-extract").get_by_text("97.04%").wait_for()
    page.locator(".graph.drawn .edge").first.wait_for(state="attached")

    assert "+11.9 against 85.19%" in page.locator("#node-extract").inner_text()
    assert "100.00%" in page.locator(".criteria-list > li").nth(1).inner_text()


def test_the_graph_is_walked_by_keys(tab: Tab, shop: Shop):
    """Arrows move along the edges and between branches; Enter opens; the focus stays on the node."""
    page = tab.page
    open_flow(tab, "?node=lookup")

    def focused() -> str:
        return str(page.evaluate("document.activeElement.closest('.node')?.dataset.node"))

    page.locator("#node-extract .node-card").focus()
    tab.press("ArrowDown")
    walked = [focused()]
    for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        walked.append(focused())
    page.keyboard.press("Enter")
    page.wait_for_load_state("networkidle")

    assert walked[0] == walked[-1] == "lookup"
    assert {"confirm", "escalate"} <= set(walked)
    assert focused() == "lookup"


def test_without_scripts_a_flow_is_a_list(new_tab: OpenTab, shop: Shop):
    """The same nodes, numbers, branches and panel; also on a phone."""
    for how in ({"java_script_enabled": False}, {"viewport": {"width": 360, "height": 740}}):
        tab = new_tab(**how)
        page = tab.page
        tab.open(f"/flows/purchase-orders?node=escalate&numbers=run:{shop.run}")
        nodes = page.locator(".node").all()
        tops = [each.bounding_box()["y"] for each in nodes]

        assert tops == sorted(tops)
        assert page.locator(".graph.drawn").count() == 0
        assert page.get_by_text("if PO not found, handle: Escalate to a person 34.78% (8 of 23)").is_visible()
        assert "Criteria 6" in page.locator("#node-panel").inner_text()


def test_one_review_says_nothing_of_agreement(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A node's page says how many outputs were reviewed until there are five; kappa is undefined while all answers are the same."""
    shutil.copytree(shop.folder, tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    store = beam_ray.open("store", models="models.yaml")
    queue = store.review_queue("purchase-orders", "extract", run=shop.run)
    for n, item in enumerate(queue.items[:5]):
        store.record_review(item, {name: True for name in queue.criteria}, reviewer="ann")
        if n in (0, 4):
            app = create_app(store, ConsoleOptions())
            browser = TestClient(app, base_url="http://127.0.0.1:8090", follow_redirects=True)
            browser.get(f"/?token={app.token}")
            page = browser.get("/flows/purchase-orders?node=extract")
            assert page.status_code == 200
            assert ("1 output reviewed; figures of agreement begin with 5." in page.text) == (n == 0)
            assert ("Agreement of the judge with people: kappa" in page.text) == (n == 4)


def test_nodes_may_be_named_as_javascript_names_its_own(tab: Tab, shop: Shop):
    """The graph of nodes called constructor and prototype is drawn with all of its edges."""
    open_flow(tab)
    before = tab.page.locator(".edges .edge").count()
    tab.page.evaluate(
        """() => {
          for (const [name, other] of [["extract", "constructor"], ["lookup", "prototype"]])
            for (const key of ["node", "target"])
              for (const each of document.querySelectorAll(`#graph [data-${key}="${name}"]`)) each.dataset[key] = other;
        }"""
    )
    tab.page.set_viewport_size({"width": 500, "height": 800})
    tab.page.locator(".graph:not(.drawn)").wait_for()
    tab.page.set_viewport_size({"width": 1280, "height": 800})
    tab.page.locator('.edges .edge[data-source="constructor"]').first.wait_for(state="attached")

    assert tab.page.locator(".edges .edge").count() == before > 0


def test_what_did_not_pass_at_a_node_is_one_click_away(tab: Tab, shop: Shop):
    """The node's panel leads to the tasks whose step did not pass, and each criterion to those that do not meet it; the command line lists the same."""
    open_flow(tab, f"?node=extract&numbers=run:{shop.run}")
    tab.page.get_by_role("link", name="see what did not").click()
    tab.see("not passed at: extract")
    failed = tab.page.locator("table.tasks tbody tr").count()
    tab.page.go_back()
    tab.page.locator(".criteria-list").get_by_role("link", name="2 not met").first.click()
    tab.see("not met: vendor")
    missed = tab.page.locator("table.tasks tbody tr .col-task a").all_inner_texts()
    line = tab.page.locator("footer .command code").text_content()
    steps = shop.store.get_run(shop.run).steps(["extract"], ["task_id", "criteria"]).to_pylist()
    browser = InProcess(shop.store)
    answers = [browser.get(f"/tasks?{query}") for query in ("node=extract", f"run={shop.run}&node=nothing", f"run={shop.run}&node=extract&criterion=nothing")]

    assert failed == 10
    assert missed == [row["task_id"] for row in steps if any(item["id"] == "vendor" and item["met"] is False for item in row["criteria"])]
    assert line.startswith(f"beam-ray tasks --run {shop.run} --node extract --criterion vendor")
    assert [
        (answer.status_code in (400, 404), word in answer.text)
        for answer, word in zip(answers, ("name the run", "it has: extract", "it has: vendor"), strict=True)
    ] == [(True, True)] * 3
