"""Editing a workflow in the browser: every control changes a draft, and what is wrong is said where it was typed."""

import re
from collections.abc import Iterator
from itertools import count

import pytest

from tests.console.conftest import OpenTab, Tab
from tests.console.shop import Shop
from tests.console.test_accessible import axe, violations_in_both  # noqa: F401

NUMBERS = count(1)


@pytest.fixture
def draft(shop: Shop) -> Iterator[str]:
    """The name of a new draft of the shop's workflow."""
    name = f"try{next(NUMBERS)}"
    shop.store.create_draft("purchase-orders", name)
    yield name
    if any(each.name == name for each in shop.store.drafts("purchase-orders")):
        shop.store.drop_draft("purchase-orders", name)


def open_draft(tab: Tab, draft: str, node: str = "extract") -> None:
    """The draft's page at a node."""
    tab.open(f"/flows/purchase-orders?draft={draft}&node={node}")


def save(tab: Tab) -> None:
    """Press Save and wait for the page of the next revision."""
    with tab.page.expect_navigation():
        tab.page.get_by_role("button", name="Save", exact=True).click()


def test_a_new_draft_is_one_click(tab: Tab, shop: Shop):
    """From the published version; the bar says what it is, that it is valid, and that nothing differs yet. It can be discarded."""
    page = tab.page
    tab.open("/flows/purchase-orders?node=confirm")
    page.get_by_role("button", name="New draft").click()
    page.wait_for_url("**draft=edit*")
    bar = page.get_by_role("region", name="Draft").inner_text()
    page.get_by_text("Discard", exact=True).click()
    page.get_by_role("button", name="Discard the draft").click()
    page.wait_for_url(re.compile(r"purchase-orders\?node=confirm$"))

    assert [word in bar for word in ("Draft edit of version 1", "revision 1", "check OK", "no changes")] == [True] * 4
    assert "edit" not in [each.name for each in shop.store.drafts("purchase-orders")]


def test_the_prompt_is_checked_while_it_is_typed(tab: Tab, shop: Shop, draft: str):
    """The problem stands below the text with its line and column, a click sets the caret there, and nothing is saved before Save."""
    page = tab.page
    open_draft(tab, draft)
    prompt = page.get_by_label("user", exact=True)
    prompt.fill("Read this order.\n\nIt is of {{ customer }}.")
    problem = page.locator("#problem-prompt-1")
    problem.get_by_text("asks for 'customer'").wait_for()
    state = page.locator("#check-state").inner_text()
    problem.get_by_role("button", name="line 3, column 13").click()
    caret = prompt.evaluate("field => field.value.slice(field.selectionStart, field.selectionStart + 8)")
    unsaved = shop.store.draft("purchase-orders", draft).number
    prompt.fill("Read this order well.\n\n")
    page.get_by_role("button", name="task_query", exact=True).click()
    problem.get_by_text("customer").wait_for(state="detached")
    save(tab)

    assert ("1 problem" in state, caret, unsaved) == (True, "customer", 1)
    saved = shop.store.draft("purchase-orders", draft)
    assert saved.definition and saved.definition.nodes["extract"].llm
    assert saved.definition.nodes["extract"].llm.prompt[1].content == "Read this order well.\n\n{{ task_query }}"
    assert "1 change" in page.get_by_role("region", name="Draft").inner_text()


def test_what_differs_is_one_click_away(tab: Tab, shop: Shop, draft: str):
    """The bar's changes show each value before and after."""
    page = tab.page
    open_draft(tab, draft)
    page.locator("#threshold").fill("80")
    save(tab)
    page.get_by_text("1 change", exact=True).click()

    assert "extract.evaluate.threshold" in page.locator(".changes-list").inner_text()
    assert "90.0 -> 80.0" in page.locator(".changes-list").inner_text()


def test_from_the_bar_to_diff_trial_and_publishing(tab: Tab, shop: Shop, draft: str):
    """The bar leads to the versions compared, to the form of a backtest of this revision, and to the form that publishes it."""
    page = tab.page
    open_draft(tab, draft)
    page.locator("#threshold").fill("85")
    save(tab)
    bar = page.get_by_role("region", name="Draft")
    links = {name: bar.get_by_role("link", name=name).get_attribute("href") for name in ("Diff", "Try on 20 tasks", "Publish…")}
    bar.get_by_role("link", name="Diff").click()
    tab.see("extract.evaluate.threshold")
    for name in ("Try on 20 tasks", "Publish…"):
        tab.open(links[name])
        tab.see(draft)

    assert f"purchase-orders%40{draft}%3A2" in links["Try on 20 tasks"]


def test_auto_run_is_switched_on_with_up_to_three_re_runs(tab: Tab, shop: Shop, draft: str):
    """Off by default; for the final step and for tools the check's warning stands at the switch."""
    page = tab.page
    open_draft(tab, draft, "confirm")
    switch = page.get_by_role("switch")
    off = switch.is_checked()
    offered = page.get_by_label("Number of re-runs").locator("option").all_inner_texts()
    switch.check()
    page.get_by_label("Number of re-runs").select_option("3")
    page.get_by_label("When none passes").select_option("review")
    page.locator("#problem-auto_rerun").get_by_text("only rules as criteria").wait_for()
    save(tab)
    definition = shop.store.draft("purchase-orders", draft).definition

    assert (off, offered) == (False, ["1", "2", "3"])
    assert definition and definition.nodes["confirm"].auto_rerun
    assert definition.nodes["confirm"].auto_rerun.model_dump(include={"max", "on_exhausted"}) == {"max": 3, "on_exhausted": "review"}
    assert page.get_by_role("switch").is_checked()


def test_criteria_are_added_by_plain_forms_and_removed(tab: Tab, shop: Shop, draft: str):
    """A sentence, a rule and an equality, each with a weight; the numbers are counted over the workflow."""
    page = tab.page
    open_draft(tab, draft, "confirm")
    for kind, field, text, weight in (("Sentence", "", "The answer is friendly.", "2"), ("Rule", "", "confirm.text != ''", ""), ("Equals", "text", "'ok'", "")):
        if kind == "Sentence":  # the fold stays open from then on
            page.get_by_text("Add criteria").click()
        page.locator("#add-criteria[open]").wait_for()
        page.locator("#add-criteria").get_by_role("radio", name=kind).check()
        if field:
            page.locator("[name=new_field]").fill(field)
        page.locator("[name=new_text]").fill(text)
        page.locator("[name=new_weight]").fill(weight)
        with page.expect_navigation():
            page.get_by_role("button", name="Add to the draft").click()
    numbers = page.locator(".criterion-number").all_inner_texts()
    with page.expect_navigation():
        page.get_by_role("button", name="Remove").nth(0).click()
    definition = shop.store.draft("purchase-orders", draft).definition

    assert numbers == ["Criteria 5", "Criteria 6", "Criteria 7", "Criteria 8"]
    assert definition and definition.nodes["confirm"].evaluate
    assert [(each.kind, each.text, each.weight) for each in definition.nodes["confirm"].evaluate.criteria] == [
        ("plain", "The answer is friendly.", 2),
        ("check", "confirm.text != ''", 1),
        ("equals", "text equals 'ok'", 1),
    ]


def test_settings_are_changed_in_their_fold(tab: Tab, shop: Shop, draft: str):
    """A value that cannot be is kept, said at its field, and keeps the draft from being run."""
    page = tab.page
    open_draft(tab, draft)
    page.locator(".settings summary").click()
    page.get_by_label("Temperature").fill("9")
    page.get_by_label("Max tokens").fill("200")
    page.locator("#problem-temperature").get_by_text("2").first.wait_for()
    save(tab)
    invalid = shop.store.draft("purchase-orders", draft)
    kept = page.get_by_label("Temperature").input_value()
    page.get_by_label("Temperature").fill("0.4")
    save(tab)
    call = shop.store.draft("purchase-orders", draft).definition.nodes["extract"].llm  # type: ignore[union-attr]

    assert (invalid.definition, kept) == (None, "9")
    assert call and (call.temperature, call.max_tokens) == (0.4, 200)


def test_of_two_tabs_the_second_is_told_and_loses_nothing(new_tab: OpenTab, shop: Shop, draft: str):
    """What it typed is still in the form."""
    first, second = new_tab(), new_tab()
    for tab in (first, second):
        open_draft(tab, draft)
    first.page.locator("#threshold").fill("70")
    save(first)
    second.page.locator("#threshold").fill("60")
    second.page.get_by_role("button", name="Save", exact=True).click()
    second.see("was changed in the meantime")

    assert second.page.locator("#threshold").input_value() == "60"
    assert shop.store.draft("purchase-orders", draft).definition.nodes["extract"].evaluate.threshold == 70  # type: ignore[union-attr]


def test_visitors_bring_no_model_or_code(tab: Tab, shop: Shop, draft: str):
    """Only an author may name a model that the published version has not; the typed value stays."""
    page = tab.page
    open_draft(tab, draft)
    page.locator(".settings summary").click()
    page.get_by_label("Model", exact=True).fill("somewhere/else")
    page.get_by_role("button", name="Save", exact=True).click()
    tab.see("only an author may bring")

    assert shop.store.draft("purchase-orders", draft).number == 1
    assert page.locator("[name=set_model]").input_value() == "somewhere/else"


def test_the_whole_text_can_be_changed(tab: Tab, shop: Shop, draft: str):
    """Text that is not YAML is kept with its place; the graph stays that of the published version meanwhile."""
    page = tab.page
    open_draft(tab, draft)
    page.get_by_text("Text of the draft").click()
    text = page.get_by_label("YAML of the whole workflow").input_value()
    page.get_by_label("YAML of the whole workflow").fill(text.replace("title: File the e-mail", "title: [File"))
    page.get_by_role("button", name="Save the text").click()
    tab.see("The text of the draft has no such node, or is not YAML")
    broken = page.get_by_label("YAML of the whole workflow").input_value()
    page.get_by_label("YAML of the whole workflow").fill(text.replace("title: File the e-mail", "title: Keep the e-mail"))
    page.get_by_role("button", name="Save the text").click()
    page.locator("#node-archive").get_by_text("Keep the e-mail").wait_for()

    assert "title: [File" in broken


def test_editing_works_without_scripts(new_tab: OpenTab, shop: Shop, draft: str):
    """The same forms, sent with their buttons."""
    tab = new_tab(java_script_enabled=False)
    page = tab.page
    open_draft(tab, draft)
    page.locator("#threshold").fill("75")
    page.get_by_role("switch").uncheck()
    page.get_by_role("button", name="Save", exact=True).click()
    definition = shop.store.draft("purchase-orders", draft).definition

    assert definition and definition.nodes["extract"].evaluate
    assert (definition.nodes["extract"].evaluate.threshold, definition.nodes["extract"].auto_rerun) == (75, None)


def test_criteria_are_proposed_tried_and_taken(tab: Tab, shop: Shop, draft: str):
    """Re-generate criteria says what asking costs, shows how each proposal does on stored outputs, and the draft gets the chosen ones."""
    page = tab.page
    tab.open("/flows/purchase-orders?node=extract")
    page.get_by_role("button", name="Re-generate criteria").click()
    page.wait_for_url(f"**/criteria?draft={draft}*")
    cost = page.get_by_role("region", name="Cost").inner_text()
    page.get_by_role("button", name="Propose criteria").click()
    tab.see("3 proposals, tried on 20 outputs")
    offered = {each.inner_text().split("\n")[0]: each.get_by_role("checkbox").is_checked() for each in page.locator(".proposal").all()}
    page.get_by_role("radio", name="Beside the present criteria").check()
    page.get_by_role("button", name="Take into the draft").click()
    page.wait_for_url(f"**draft={draft}&node=extract*")
    definition = shop.store.draft("purchase-orders", draft).definition

    assert [word in cost for word in ("scripted/judge, at most 2 calls", "20 outputs of run", "at most 20 judge calls", "$0.00")] == [True] * 4
    assert [(text.partition(" judge")[0].partition(" rule")[0], checked) for text, checked in offered.items()] == [
        ("The vendor is a company that sells something.", True),
        ("The order number begins with PO-.", False),
        ("The amount is positive.", False),
    ]
    assert definition and definition.nodes["extract"].evaluate
    assert [each.text for each in definition.nodes["extract"].evaluate.criteria][4:] == ["The vendor is a company that sells something."]


def test_axe_finds_nothing_on_a_draft(tab: Tab, axe: str, shop: Shop, draft: str):  # noqa: F811
    """Valid and invalid, with its folds open, light and wide, dark and narrow; it is not wider than the screen."""
    found = []
    for threshold in ("80", "high"):
        open_draft(tab, draft)
        tab.page.locator("#threshold").fill(threshold)
        save(tab)
        tab.page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        found += violations_in_both(tab, axe)

    open_draft(tab, draft)
    tab.page.locator("#threshold").fill("80")
    save(tab)
    tab.page.get_by_role("link", name="Re-generate criteria").click()
    tab.see("at most 20 judge calls")
    found += violations_in_both(tab, axe)
    twins = [
        tab.page.evaluate("link => fetch(link).then((answer) => answer.status)", f"/flows/purchase-orders/criteria{face}?draft={draft}&node=extract")
        for face in (".json", ".md")
    ]

    assert found == []
    assert twins == [200, 200]
