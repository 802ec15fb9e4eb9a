"""A backtest's page, its pairs, and proving which node made them flip; clicked in a real Chromium on real runs."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

import beam_ray
from beam_ray.console.commands import Commands
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.pages.backtests import backtest
from beam_ray.console.reading import Reader
from beam_ray.console.site import Site
from beam_ray.errors import BudgetReached, Unusable
from tests.console.conftest import InProcess, OpenTab, Served, Tab, beside, served
from tests.console.shop import Shop
from tests.console.test_accessible import axe, violations  # noqa: F401  # a fixture


@pytest.fixture
def page(tab: Tab, shop: Shop) -> Tab:
    """The page of the shop's backtest."""
    tab.open(f"/backtests/{shop.backtest}")
    return tab


def test_gate_lines_are_drawn_against_their_limits(page: Tab):
    """
    Each limit with an interval has a picture that says the same in words; counts say that they are exact.
    """
    line = page.page.get_by_role("row", name=re.compile("^success rate not worse than 5"))

    expect(line.get_by_role("img", name=re.compile(r"to \+51\.9, limit .5\.0; allowed above it"))).to_be_visible()
    expect(page.page.get_by_role("row", name=re.compile("^regressions at most"))).to_contain_text("exact count")


def test_a_limit_in_percent_of_the_baseline_says_so(page: Tab):
    """
    It is held against the relative change, where the table of metrics has the absolute one.
    """
    expect(page.page.get_by_role("row", name=re.compile("^failing target"))).to_contain_text("down by 50 % of the baseline")
    expect(page.page.get_by_role("row", name=re.compile("^success rate not worse than 5"))).not_to_contain_text("of the baseline")
    expect(page.page.get_by_role("columnheader", name="95% confidence interval of the change")).to_be_visible()


def test_a_rectangle_of_the_scatter_opens_its_pairs(page: Tab):
    """
    The bins link to their pairs one by one, and the same counts stand in a table.
    """
    page.page.get_by_role("link", name="2 pairs: baseline 95 to 100, candidate 80 to 85").click()

    page.see("1 of 2")
    expect(page.page.get_by_role("heading", level=1)).to_have_text("order-006")
    page.page.go_back()
    expect(page.page.get_by_role("group", name="Pairs by score").get_by_role("row", name="95–100 80–85 2 2")).to_be_visible()


def test_tables_of_parts_are_sorted_by_their_heads(page: Tab):
    """
    A click sorts and says so; the address keeps it.
    """
    criteria = page.page.get_by_role("group", name="Criteria")
    criteria.get_by_role("link", name="Change").click()
    page.page.wait_for_url("**sort=criterion.-change**")

    expect(criteria.get_by_role("columnheader", name="Change")).to_have_attribute("aria-sort", "descending")
    expect(criteria.get_by_role("row").nth(1)).to_contain_text("extract/po_number")


def test_pairs_are_walked_swapped_and_painted_without_a_load(page: Tab):
    """
    The next pair is there before it is asked for: n shows it without a new document, back returns, and s swaps the sides.
    """
    page.page.get_by_role("link", name="Go through them one by one").first.click()
    page.see("1 of 2")
    page.page.evaluate("window.same = true")
    page.press("n")
    page.see("2 of 2")
    walked = page.page.evaluate("window.same === true"), page.page.url
    page.page.go_back()
    page.see("1 of 2")
    first = page.page.locator(".side .label").first.inner_text()
    page.press("s")
    page.page.wait_for_url("**swap=yes**")

    assert walked[0]
    assert "at=2" in walked[1]
    assert (first, page.page.locator(".side .label").first.inner_text()) == ("baseline", "v2")


def test_a_person_judges_a_pair_where_the_judge_may_be_wrong(page: Tab):
    """
    From the criteria that changed a link leads to the review of this very output, with these criteria.
    """
    page.page.get_by_role("link", name="Go through them one by one").first.click()
    page.page.get_by_role("link", name="Judge this output yourself").click()

    page.see("order-006")
    page.see("The vendor is a company name, not a person.")


def test_a_report_is_saved(page: Tab):
    """
    As a file, never shown.
    """
    page.page.get_by_text("Export", exact=True).click()
    with page.page.expect_download() as saved:
        page.page.get_by_role("link", name="Report as HTML").click()

    assert saved.value.suggested_filename.endswith("-report.html")


def test_everything_is_there_without_a_script(new_tab: OpenTab, shop: Shop):
    """
    Verdict, groups, scatter and pairs are links and tables.
    """
    tab = new_tab(java_script_enabled=False)
    tab.open(f"/backtests/{shop.backtest}")
    tab.page.get_by_role("link", name="Go through them one by one").first.click()
    tab.page.get_by_role("link", name="Next", exact=True).click()

    tab.see("2 of 2")


def test_prove_it_says_its_price_runs_and_is_shown_afterwards(page: Tab, shop: Shop):
    """
    From a group: the plan, the start, the progress on the same page, then what recovers; a second look costs nothing.
    """
    page.page.get_by_role("link", name="Prove it for this group").first.click()
    page.see("2 model calls")
    page.page.get_by_role("button", name=re.compile("^Start")).click()
    page.see("2 of 2 recover with the baseline's output at 'extract'.")
    page.see("Everything that can be tried was tried.")
    page.page.get_by_role("link", name="extract-prompt-v2").click()
    page.see("2 of 2 recover")
    page.page.get_by_role("link", name="recovers").first.click()
    page.see("order-006")
    proof = beside(lambda: shop.store.proof(shop.backtest))

    assert (proof.tried, proof.recovered) == (2, 2)


def test_what_was_proven_is_the_document_of_the_command(console: Served, tab: Tab, shop: Shop):
    """
    The JSON face has what ``beam-ray prove --json`` prints; Markdown says it in a sentence.
    """
    proof = beside(lambda: shop.store.prove(shop.backtest))
    document = tab.page.request.get(f"{console.base}/backtests/{shop.backtest}/prove.json").json()
    text = tab.page.request.get(f"{console.base}/backtests/{shop.backtest}/prove.md").text()
    printed = json.loads(json.dumps({**proof.document(), "group": "newly-failing"}))

    assert {key: document[key] for key in printed} == printed
    assert "recover with the baseline's output" in text


def test_a_stopped_backtest_is_seen_and_resumed(new_tab: OpenTab, shop: Shop, axe: str, tmp_path: Path):  # noqa: F811
    """
    Without a verdict it has a page with its sides and the gate over the pairs so far, which says that they decide nothing; a button resumes it.
    """
    folder = tmp_path / "shop"
    shutil.copytree(shop.folder, folder)
    store = dataclasses.replace(beam_ray.open(folder / "store", models="models.yaml"), connection=shop.store.connection)

    def interrupt(progress: beam_ray.Progress) -> None:
        if "repeated 1 times" in progress.message:
            raise KeyboardInterrupt

    def stopped() -> None:
        with pytest.raises(KeyboardInterrupt):
            store.backtest(str(folder / "spec.yaml"), options=beam_ray.BacktestOptions(changes={"confirm": 1}), progress=interrupt)

    beside(stopped)
    with served(folder) as console:
        tab = new_tab(console)
        tab.open("/backtests")
        tab.page.get_by_role("link", name=re.compile("^Stopped")).click()
        tab.see("of 27 tasks done on both sides")
        tab.see("This decides nothing.")
        found = violations(tab, axe)
        tab.page.get_by_role("button", name="Resume").click()
        tab.see("Tasks that changed sides")
        tab.page.close()  # before the console ends, and its stream of events with it

    assert found == []


def test_a_backtest_whose_budget_is_used_up_asks_for_a_higher_one(shop: Shop):
    """
    Its page says which limit stopped it; resuming it with no more of that would stop at once, and is refused. Home and the run's page lead there.
    """
    options = beam_ray.BacktestOptions(changes={"budget": {"max_calls": 5}, "confirm": 1})
    with pytest.raises(BudgetReached):
        beside(lambda: shop.store.backtest("spec.yaml", options=options))
    browser = InProcess(shop.store)
    [name] = beside(shop.store.unfinished_backtests)
    page = browser.get(f"/backtests/{name}").text
    run = next(progress.run_id for _, progress in beside(lambda: shop.store.backtest_progress(name)).sides if progress.state == "stopped")
    leads = [f'href="/backtests/{name}">Resume the backtest' in browser.get(path).text for path in ("/", f"/runs/{run}")]
    answers = [browser.send(f"/backtests/{name}/resume", **fields) for fields in ({}, {"max_calls": "5"})]

    assert "This backtest stopped: its budget is used up (5 model calls)" in page
    assert 'name="max_calls"' in page
    assert leads == [True, True]
    assert [(answer.status_code, "give more than 5 as max_calls" in answer.text) for answer in answers] == [(400, True)] * 2


def test_a_verdict_that_comes_while_the_page_is_made_is_shown(shop: Shop):
    """
    The verdict is looked for, is not there, and is written before the progress is read: the page is that of the verdict.
    """

    class Late(Reader):
        """Finds no verdict at first."""

        late = True

        def backtest(self, name: str) -> beam_ray.Verdict:
            if self.late:
                self.late = False
                raise Unusable(f"the backtest {name} is not finished; run its command again to resume it")
            return super().backtest(name)

    site = Site(shop.store, ConsoleOptions(), Late(shop.store), Commands(shop.store))
    made = beside(lambda: backtest(site, f"/backtests/{shop.backtest}", {}))

    assert made.template == "backtest"
