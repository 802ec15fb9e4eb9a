"""Optimise your prompt: analysis, weaknesses, a diff with reasons, apply, the step rerun, and scores before and after."""

import re

from tests.console.conftest import OpenTab, Tab, served
from tests.console.shop import Shop

TASK = "order-023"


def test_from_the_failed_step_to_scores_before_and_after(new_tab: OpenTab, shop: Shop):
    """
    The button in the panel, what it costs, the analysis, apply, and the scores side by side with the criteria that changed.

    Another console shows the same: what was paid for is in the store.
    """
    tab = new_tab()
    page = tab.page
    tab.open(f"/tasks/{shop.run}/{TASK}?step=extract")
    page.get_by_role("link", name="Optimise your prompt").click()
    tab.see("1 model call")
    cost = page.get_by_role("region", name="Analysis").inner_text()
    page.get_by_role("button", name="Analyse the prompt").click()
    tab.see("Changes, and why")
    analysis = page.get_by_role("region", name="Analysis").inner_text()
    proposed = page.get_by_role("region", name="Proposed prompt")
    added = " ".join(proposed.locator("ins").all_inner_texts())
    page.get_by_role("button", name="Apply and re-run").click()
    tab.see("Before and after")
    tab.see("Cost of the rerun")
    result = page.get_by_role("region", name="Before and after").inner_text()
    with served(shop.folder) as other:
        again = new_tab(other)
        again.open(f"/optimise?task={shop.run}/{TASK}&step=extract")
        kept = again.page.locator("main").inner_text()

    assert "about" in cost and "$0.00 at most" in cost
    assert "The answer named Jane Miller" in analysis
    assert "carefully" in added and "a company, never the person who signs" in added
    assert re.search(r"60\.00%\s+100\.00%\s+better", result)
    assert "Not met" in result and "changed" in result
    assert "optimised-extract:2" in result
    assert all(word in kept for word in ("Weaknesses of the prompt", "The answer named Jane Miller", "100.00%", "better"))
    draft = shop.store.draft("purchase-orders", "optimised-extract")
    assert [str(change) for change in shop.store.draft_changes(draft)] == ["extract.llm.prompt"]
    assert shop.store.versions("purchase-orders")[0].number == 1


def test_a_step_that_cannot_be_optimised_says_why(tab: Tab, shop: Shop):
    """The button is shut where the step passed or is a tool, with the reason beside it."""
    page = tab.page
    reasons = []
    for node in ("confirm", "lookup"):
        tab.open(f"/tasks/{shop.run}/order-014?step={node}")
        button = page.get_by_role("button", name="Optimise your prompt")
        assert button.is_disabled()
        reasons.append(page.locator(f"#{button.get_attribute('aria-describedby')}").inner_text())

    assert "the step passed" in reasons[0]
    assert "is a tool and has no prompt" in reasons[1]


def test_without_javascript_and_without_leave_to_change(new_tab: OpenTab, shop: Shop):
    """The page of a step that nobody has asked about shows what failed and what asking costs; read-only has no button."""
    with served(shop.folder, "--read-only") as only:
        tab = new_tab(only, java_script_enabled=False)
        tab.open(f"/optimise?task={shop.run}/order-007&step=extract")
        text = tab.page.locator("main").inner_text()

        assert "is not 'PO-10007'" in text and "1 model call" in text
        assert tab.page.get_by_role("button", name=re.compile("Analyse")).count() == 0
