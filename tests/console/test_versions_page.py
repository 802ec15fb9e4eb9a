"""Versions, drafts and publishing, clicked in a real Chromium; the store has no runs, so none is waited for."""

import contextlib
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import beam_ray
from beam_ray import DraftEdit
from beam_ray.console import ConsoleOptions, create_app
from tests.console.conftest import OpenTab, Served, served
from tests.console.shop import Shop, write_files

NAME = "purchase-orders"
CAREFULLY = "Read this order carefully.\n\n{{ task_query }}"


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store has two versions, a sound draft and one with a problem."""
    folder = tmp_path_factory.mktemp("orders")
    write_files(folder)
    with contextlib.chdir(folder):
        store = beam_ray.open("store", models="models.yaml")
        store.publish(f"{NAME}.yaml", without_evidence="the first version")
        store.edit_draft(store.create_draft(NAME, "carefully"), [DraftEdit("nodes.extract.llm.prompt", CAREFULLY)])
        store.publish(f"{NAME}@carefully", without_evidence="asked for by sales")
        store.edit_draft(store.create_draft(NAME, "lower"), [DraftEdit("nodes.extract.evaluate.threshold", 80)], by="ann")
        store.edit_draft(store.create_draft(NAME, "odd"), [DraftEdit("nodes.extract.auto_rerun.max", 9)])
    return folder


@pytest.fixture
def folder(orders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and the working folder in it."""
    copied = tmp_path / "orders"
    shutil.copytree(orders, copied)
    monkeypatch.chdir(copied)
    return copied


@pytest.fixture
def desk(folder: Path, chromium: object) -> Iterator[Served]:
    """A console over it."""
    with served(folder) as found:
        yield found


def client(**options: bool) -> TestClient:
    """A browser's session at a console over the store in the working folder."""
    app = create_app(beam_ray.open("store", models="models.yaml"), ConsoleOptions(**options))
    made = TestClient(app, base_url="http://127.0.0.1:8090", follow_redirects=True)
    made.get(f"/?token={app.token}")
    return made


def test_a_version_is_published_without_waiting_for_mlflow(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The alias of its prompts is set while the page of the versions is shown already."""
    answered, begun, done = threading.Event(), threading.Event(), list[str]()

    def slow(store: beam_ray.Store, version: beam_ray.Version, uri: str | None = None) -> bool:
        begun.set()
        answered.wait(60)
        done.append(version.workflow)
        return True

    monkeypatch.setattr(beam_ray.Store, "mark_production", slow)
    browser = client()
    shown = browser.get(f"/flows/{NAME}/versions").text
    token = re.findall(r'name="form_token" value="(\w+)"', shown)[0]
    form = {"form_token": token, "version": "1", "because": "it reads worse"}
    page = browser.post(f"/flows/{NAME}/rollback", data=form, headers={"origin": "http://127.0.0.1:8090"})

    assert "Rolled back to version 1" in page.text
    assert begun.wait(60)
    assert done == []
    answered.set()


def test_a_draft_is_published_and_rolled_back_with_reasons(desk: Served, new_tab: OpenTab, folder: Path):
    """From the list to what changes, the reason, the new version, and back to the old definition."""
    tab = new_tab(desk)
    page = tab.page
    tab.open(f"/flows/{NAME}/versions")
    page.get_by_role("row", name="lower").get_by_role("link", name="Publish").click()
    tab.see("No finished backtest supports this definition")
    changed = page.get_by_role("region", name="extract.evaluate.threshold").inner_text()
    page.get_by_label("Reason").fill("sales accept 80")
    page.get_by_role("button", name="without evidence").click()
    tab.see("sales accept 80")
    page.get_by_role("row", name="Version 1").get_by_text("Roll back…").click()
    page.get_by_label("Reason for going back to version 1").fill("80 is too low")
    page.get_by_role("button", name="Publish version 1 again").click()
    tab.see("Rolled back to version 1")

    assert "90.0 → 80.0" in changed
    versions = beam_ray.open("store").versions(NAME)
    assert [(each.reason, each.rollback_of) for each in versions[:2]] == [("80 is too low", 1), ("sales accept 80", None)]


def test_any_two_definitions_are_compared(desk: Served, new_tab: OpenTab):
    """Versions and drafts, word by word, in the address; one with problems says so."""
    tab = new_tab(desk)
    page = tab.page
    tab.open(f"/flows/{NAME}/versions")
    words = page.get_by_role("region", name="extract.llm.prompt").locator("ins").all_inner_texts()
    page.get_by_label("To", exact=True).select_option(label="draft odd")
    tab.see("has problems, so it cannot be compared yet")
    page.wait_for_url("**b=odd%3A2")
    page.get_by_label("To", exact=True).select_option(label="draft lower")
    page.get_by_role("region", name="extract.evaluate.threshold").wait_for()

    assert any("carefully" in each for each in words)
    assert "1 problem" in page.get_by_role("row", name="odd").inner_text()


@pytest.mark.parametrize("option", ["no_publish", "read_only"])
def test_a_console_that_may_not_publish_has_no_forms_and_refuses(folder: Path, option: str):
    """The pages say why, and what is sent all the same changes nothing."""
    browser = client(**{option: True})
    pages = [browser.get(f"/flows/{NAME}/versions").text, browser.get(f"/flows/{NAME}/publish?draft=lower").text]
    token = client().get(f"/flows/{NAME}/publish?draft=lower").text.partition('name="form_token" value="')[2].partition('"')[0]
    form = {"form_token": token, "draft": "lower", "how": "reason", "reason": "x", "version": "1", "because": "x"}
    sent = [browser.post(f"/flows/{NAME}/{verb}", data=form, headers={"origin": "http://127.0.0.1:8090"}).status_code for verb in ("publish", "rollback")]

    assert all("<button>Publish" not in page and 'value="reason"' not in page for page in pages)
    assert f"--{option.replace('_', '-')}" in pages[1]
    assert all(status in (400, 403, 404, 405) for status in sent)
    assert beam_ray.open("store").versions(NAME)[0].number == 2


def test_why_a_verdict_is_no_evidence(shop: Shop):
    """The page lists the workflow's backtests, each with what it lacks; the JSON face has the same."""
    draft = shop.store.edit_draft(shop.store.create_draft(NAME, "unproven"), [DraftEdit("nodes.extract.evaluate.threshold", 70)])
    app = create_app(shop.store)
    browser = TestClient(app, base_url="http://127.0.0.1:8090", follow_redirects=True)
    browser.get(f"/?token={app.token}")
    page, document = (browser.get(f"/flows/{NAME}/publish{face}?draft=unproven").text for face in ("", ".md"))
    shop.store.drop_draft(NAME, draft.name)

    assert "tested a different definition" in page and shop.backtest in page
    assert f"{shop.backtest}: the backtest" in document.replace("\\", "")
