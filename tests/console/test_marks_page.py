"""Marks on pairs of a backtest, and the way to MLflow."""

import re
from collections.abc import Iterator

import pytest

from beam_ray.backtest.mlflow_pages import keep_page
from tests.commands import run_command
from tests.console.conftest import OpenTab
from tests.console.shop import Shop
from tests.console.test_accessible import axe, violations  # noqa: F401 (a fixture)


@pytest.fixture
def unmarked(shop: Shop) -> Iterator[None]:
    """Marks of a test are taken back after it."""
    yield
    for mark in shop.store.pair_marks(shop.backtest):
        shop.store.mark_pair(shop.backtest, mark.task, "none", by=mark.marked_by)


@pytest.mark.usefixtures("unmarked")
def test_a_pair_is_marked_by_two_keys(new_tab: OpenTab, shop: Shop, axe: str):  # noqa: F811
    """m and a letter mark the pair; the backtest's groups count the marks and lead to the pairs, and the way to correct the judge is shown."""
    tab = new_tab()
    page = tab.page
    tab.open(f"/backtests/{shop.backtest}/flips?reviewer=ann")
    tab.press("m")
    tab.press("n")
    page.locator(".marks [data-mark=n][aria-pressed=true]").wait_for()
    tab.press("n")
    tab.see("2 of 2")
    tab.press("m")
    tab.press("j")
    page.get_by_role("link", name="Judge this output yourself").first.wait_for()
    found = violations(tab, axe)
    tab.open(f"/backtests/{shop.backtest}")
    line = page.locator("[data-marks]").inner_text()
    page.locator(".group").first.get_by_role("link", name="1 judge is wrong").click()
    tab.see("1 of 1")

    assert {(each.task, each.mark, each.marked_by) for each in shop.store.pair_marks(shop.backtest)} == {
        ("order-006", "noise", "ann"),
        ("order-012", "judge", "ann"),
    }
    assert line == "Marked by people: 1 noise, 1 judge is wrong. Marks change no number of the verdict."
    assert (page.locator("h1").inner_text(), found) == ("order-012", [])


@pytest.mark.usefixtures("unmarked")
def test_a_pair_is_marked_without_javascript(new_tab: OpenTab, shop: Shop):
    """By a button, with a reason; the same button's neighbour takes it back, and the JSON and Markdown of the pair say it."""
    tab = new_tab(java_script_enabled=False)
    page = tab.page
    tab.open(f"/backtests/{shop.backtest}/flips")
    page.get_by_label("Why").fill("Jane <b>signs</b>")
    page.get_by_role("button", name="Expected is wrong").click()
    page.get_by_role("link", name="Save the task with the right expected outcome").wait_for()
    shown = page.locator(".marks li").inner_text()
    texts = [page.request.get(f"{tab.served.base}/backtests/{shop.backtest}/flips.{face}").text() for face in ("json", "md")]
    page.get_by_role("button", name="Take back").click()

    assert "Jane <b>signs</b>" in shown
    assert '"mark": "expected"' in texts[0]
    assert "marked: expected is wrong" in texts[1]
    assert page.locator(".marks li").count() == 0


@pytest.mark.usefixtures("unmarked")
def test_the_command_marks_and_counts(shop: Shop, capsys: pytest.CaptureFixture[str]):
    """review mark says what it kept and where to go on; flips counts it."""
    kept = run_command(capsys, "review", "mark", shop.backtest, "order-006", "judge", "--store", "store", "--reviewer", "ben")
    listed = run_command(capsys, "flips", shop.backtest, "--store", "store")
    wrong = run_command(capsys, "review", "mark", shop.backtest, "order-006", "raal", "--store", "store")

    assert "judge is wrong, by ben" in kept.out
    assert f"--run {shop.store.verdict(shop.backtest).best.run.id} --task order-006" in kept.out
    assert re.search(r"marks *\n.*1 judge", listed.out)
    assert (wrong.code, "no mark 'raal'" in wrong.err) == (2, True)


def test_a_logged_backtest_leads_to_mlflow(new_tab: OpenTab, shop: Shop):
    """Without credentials, and only to a web address; before it is logged, the command that logs it is named."""
    tab = new_tab(java_script_enabled=False)
    page = tab.page
    tab.open(f"/backtests/{shop.backtest}")
    before = page.locator(".menu").inner_text() + page.locator(".menu").inner_html()
    keep_page(shop.store.objects, shop.backtest, "https://me:secret@mlflow.example/#/experiments/7/evaluation-runs")
    tab.open(f"/backtests/{shop.backtest}")
    link = page.locator(".menu a[rel=noreferrer]")
    after = (link.get_attribute("href"), "secret" in page.content())
    keep_page(shop.store.objects, shop.backtest, "javascript:alert(1)//")
    tab.open(f"/backtests/{shop.backtest}")

    assert link.get_attribute("href") == after[0]
    assert f"beam-ray mlflow-sync {shop.backtest}" in before
    assert after == ("https://mlflow.example/#/experiments/7/evaluation-runs", False)


def test_the_pairs_of_a_route_are_as_many_as_the_table_says(new_tab: OpenTab, shop: Shop):
    """Each count of the table of routes leads to so many pairs."""
    tab = new_tab(java_script_enabled=False)
    page = tab.page
    tab.open(f"/backtests/{shop.backtest}")
    links = [(link.inner_text(), link.get_attribute("href")) for link in page.locator("section[aria-labelledby=slice-route] tbody a").all()]
    for count, href in links:
        tab.open(href)
        tab.see(f"1 of {count}")

    assert [count for count, _ in links] == ["15", "4"]
