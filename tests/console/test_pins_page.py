"""Pinned views in a browser: pinned by a button, opened by a link, and the same on files."""

import re
from pathlib import Path

from beam_ray.console import export
from tests.console.conftest import Tab, beside
from tests.console.shop import Shop
from tests.console.test_export import dead_links


def test_pin_freezes_what_the_tasks_page_shows(tab: Tab, shop: Shop):
    """The button leads to a link of its own, whose numbers lead to their tasks; a run that comes later is named and not counted."""
    page = tab.page
    tab.open("/tasks?workflow=purchase-orders&label=scan&status=failing&q=brackets")
    matching = int(page.locator(".head .note").inner_text().split()[0])
    page.get_by_role("button", name="Pin").click()
    page.wait_for_url("**/e/*")
    address, figures = page.url, page.get_by_role("region", name="Numbers").inner_text()
    page.get_by_role("region", name="Numbers").get_by_role("link", name=re.compile("^Tasks")).click()
    page.wait_for_url("**/tasks?**")
    listed = int(page.locator(".head .note").inner_text().split()[0])
    late = {"id": "late-1", "task_query": "600 anodized brackets", "labels": ["scan"], "expected": {"vendor": "nobody", "po_number": "none"}}
    run = beside(lambda: shop.store.run("purchase-orders", [late]))
    page.goto(address)
    tab.see("As it was pinned")
    now = page.locator("main").inner_text()

    assert matching == listed == int(re.search(r"Tasks\s+(\d+)", figures)[1])  # type: ignore[index]
    assert f"1 task of run {run.id}" in now
    assert page.get_by_role("region", name="Numbers").inner_text() == figures


def test_several_pages_are_bundled_as_files(shop: Shop, tmp_path: Path):
    """A backtest and a pinned view in one folder, with a page that leads to both; no link is dead."""
    made = beside(lambda: export(shop.store, tmp_path / "out", backtest=shop.backtest, pins=[shop.pin], max_pairs=1))
    start = made.start.read_text(encoding="utf-8")
    links = re.findall(r'<li><a href="(pages/[^"]+)">([^<]+)<', start)
    pinned = (made.folder / links[1][0]).read_text(encoding="utf-8")

    assert [title for _, title in links] == ["Backtest extract-prompt-v2", "What fails before the change"]
    assert "As it was pinned" in pinned
    assert len(re.findall(r'href="tasks-[^"]+"', pinned)) == shop.store.get_pin(shop.pin).numbers["tasks"]
    assert dead_links(made.folder) == []
