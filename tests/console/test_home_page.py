"""The first page, health, history and settings: what needs somebody, with what can be done about it, and what the numbers stand on."""

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import beam_ray
from beam_ray.console.commands import Commands
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.server import create_app
from beam_ray.errors import Stopped
from tests.console.conftest import OpenTab, Served, Tab, beside, served, wait_for
from tests.console.shop import Shop
from tests.console.test_safety import log_in

WORSE = """
backtest: a-worse-prompt
workflow: purchase-orders
tasks: orders.jsonl
baseline: published
candidates:
  worse: {nodes.extract.llm.prompt: "What is this? {{ task_query }}"}
gate: gate.yaml
"""


@dataclasses.dataclass
class Busy:
    """A store in which much is left to do."""

    folder: Path
    store: beam_ray.Store
    backtest: str
    stopped: str
    another: str
    """Stopped too."""
    damaged: str


@pytest.fixture(scope="module")
def busy(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """The shop, with a backtest that says BLOCK, a run that ran out of its budget, and a run with a damaged file."""
    folder = tmp_path_factory.mktemp("busy") / "shop"
    shutil.copytree(shop.folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "worse.yaml").write_text(WORSE)
        store = dataclasses.replace(beam_ray.open("store", models="models.yaml"), connection=shop.store.connection)
        verdict = store.backtest("worse.yaml")
        for limit in (9, 8):
            with pytest.raises(Stopped):
                store.run("purchase-orders", beam_ray.Tasks("orders.jsonl", limit=limit), budget={"max_calls": 4})
        stopped, another = [run.id for run in store.runs() if not run.finished]
        file = folder / "store" / "runs" / shop.rerun / "outcome.parquet"
        file.write_bytes(file.read_bytes()[:-40] + b"x" * 40)
        yield Busy(folder, store, verdict.id, stopped, another, shop.rerun)


@pytest.fixture(scope="module")
def desk(busy: Busy) -> Iterator[Served]:
    """A console over it."""
    with served(busy.folder) as found:
        yield found


def test_home_says_what_needs_somebody_and_resumes_a_run(new_tab: OpenTab, desk: Served, busy: Busy):
    """The backtest that blocks, the run whose budget is used up and how it goes on, the damaged run with its command, and the warnings of health."""
    tab = new_tab(desk)
    page = tab.page
    tab.begin()
    needs = page.get_by_role("region", name="Needs you")
    needs.get_by_text("Auto-reruns are used up at extract").wait_for()
    text = needs.inner_text()
    needs.get_by_role("link", name=f"Raise the budget of run {busy.stopped}").click()
    page.wait_for_url(f"**/runs/{busy.stopped}#budget")
    said = page.get_by_role("region", name="Progress").inner_text()
    page.get_by_label("Model calls in all").fill("500")
    page.get_by_role("button", name="Resume with this budget").click()
    wait_for(lambda: beside(lambda: busy.store.get_run(busy.stopped).finished))

    assert ["its budget is used up (4 model calls)" in each for each in (text, said)] == [True, True]
    assert ("BLOCK" in text, "a-worse-prompt" in text, f"Run {busy.damaged}" in text, f"beam-ray repair {busy.damaged}" in text) == (True,) * 4


def test_workflows_show_their_success_rate_with_its_interval(new_tab: OpenTab, desk: Served, busy: Busy):
    """The newest run's rate and Wilson's interval, the number of tasks, and links to health and history."""
    tab = new_tab(desk)
    tab.begin()
    row = tab.page.get_by_role("row", name=re.compile("purchase-orders v1")).first
    text = row.inner_text()
    found = next(each for each in busy.store.flows() if each.workflow == "purchase-orders")
    low, high = found.success_interval or (0, 0)

    assert f"{found.success_rate:.2f}%" in text
    assert f"{low:.1f} to {high:.1f}" in text
    assert f"{found.passed} of {found.tasks}" in text
    assert [" ".join(link.split()) for link in row.get_by_role("link").all_inner_texts()[-2:]] == ["Health of purchase-orders", "History of purchase-orders"]


def test_a_backtest_is_settled_by_a_publication(busy: Busy):
    """Until then it needs somebody; so it does until a newer one of its name is finished."""
    before = [each.id for each in busy.store.unsettled_backtests()]
    verdicts = busy.store.backtests()
    newer = [each for each in verdicts if each.word == "WARN"]
    changed = Path("changed.yaml")
    changed.write_text(Path("purchase-orders.yaml").read_text(encoding="utf-8").replace("in one friendly sentence", "in one sentence"), encoding="utf-8")
    busy.store.publish(changed, without_evidence="acted on it")

    assert before == [busy.backtest]
    assert busy.store.unsettled_backtests() == busy.store.unsettled_backtests(newer) == []


def test_a_warning_of_health_leads_to_what_can_be_done(tab: Tab, shop: Shop):
    """Its tasks are rerun from the step, added to a library, and its prompt is optimised, each by a link."""
    page = tab.page
    tab.open("/health/purchase-orders")
    warning = page.get_by_role("region", name="Auto-reruns are used up at extract")
    links = {link.inner_text(): link.get_attribute("href") or "" for link in warning.locator(".buttons a").all()}
    commands = [text.partition("Copy")[0] for text in warning.locator(".command code").all_text_contents()]
    warning.get_by_role("link", name="Re-run").click()
    page.get_by_role("region", name="Plan").get_by_role("button", name="Start").wait_for()

    assert list(links) == ["Review the criteria", "Optimise the prompt", "Re-run", "Add to library"]
    assert re.fullmatch(rf"/tasks/{shop.run}/order-\d+\?step=extract", links["Optimise the prompt"])
    assert [command.split()[1] for command in commands] == ["criteria", "optimise"]
    assert "from=extract" in page.url


def test_history_draws_the_trend_that_its_table_says(tab: Tab, shop: Shop):
    """Every point of the chart is a row, and the ledger names the rerun with its reason."""
    page = tab.page
    tab.open("/history/purchase-orders")
    chart = page.locator("svg.trend").first
    chart.wait_for()
    points = chart.locator("title").all_text_contents()
    rows = page.get_by_role("group", name="Per version and day").locator("tbody tr").all_inner_texts()
    page.get_by_role("link", name=shop.rerun, exact=True).first.click()
    page.wait_for_url(f"**/runs/{shop.rerun}")
    page.go_back()

    assert len(points) == len(rows) >= 2
    assert all(point.rpartition(": ")[2] in row for point, row in zip(reversed(points), rows, strict=True))
    assert "to see whether it fails again" in page.locator("main").inner_text()


def test_a_resumed_run_obeys_the_consoles_limit(busy: Busy):
    """It goes on with its own limits and with the dollars that this console may spend; where a model has no price, it stays stopped."""
    commands = Commands(busy.store, max_usd=2.0)
    unpriced = create_app(dataclasses.replace(busy.store, models=dict[str, object]()), ConsoleOptions(max_usd=2.0))
    browser = TestClient(unpriced, base_url="http://127.0.0.1:8090")
    browser.get(f"/?token={unpriced.token}")
    fields = {"form_token": unpriced.form_token, "key": "a1"}
    refused = browser.post(f"/runs/{busy.another}/resume", data={**fields, "max_calls": "9"}, headers={"Origin": "http://127.0.0.1:8090"})
    same = browser.post(f"/runs/{busy.another}/resume", data=fields | {"max_calls": "4"}, headers={"Origin": "http://127.0.0.1:8090"})

    assert commands.within({"max_calls": 4}, 0.5) == ["--budget", "max_calls=4", "--budget", "max_usd=2.5"]
    assert commands.within({"max_usd": 1.0}, 0.5) == ["--budget", "max_usd=1.0"]
    assert Commands(busy.store).within({"max_calls": 4}, None) == []
    assert (refused.status_code, "a model has no price" in refused.text) == (400, True)
    assert (same.status_code, "give more than 4 as max_calls" in same.text) == (400, True)
    assert not busy.store.get_run(busy.another).finished


def test_settings_name_the_variables_of_keys_and_never_their_values(new_tab: OpenTab, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor a password in an address."""
    monkeypatch.setenv("SHOP_KEY", "very-secret")
    shutil.copytree(shop.folder / "store", tmp_path / "store")
    (tmp_path / "models.yaml").write_text(
        "hosted: {base_url: 'https://user:hidden@models.example/v1', model: large, api_key: '${env:SHOP_KEY}', usd_per_million: {input: 1.5, output: 6}}\n"
        "other: {base_url: 'https://models.example/v1', model: small, api_key: '${env:NOT_THERE}'}\n"
    )
    with served(tmp_path, "--max-usd", "2", "--no-publish") as found:
        tab = new_tab(found)
        tab.begin()
        tab.page.get_by_role("link", name="Settings").click()
        tab.see("Keys are read from the environment")
        text = tab.page.locator("main").inner_text()
        written = tab.page.request.get(f"{found.base}/settings.json").text()
        tab.page.goto("about:blank")

    assert re.search(r"hosted\s.*SHOP_KEY\s+set", text, re.DOTALL)
    assert re.search(r"NOT_THERE\s+not set", text)
    assert ("$2 at most: --max-usd" in text, "no: --no-publish" in text, "never: beam-ray models check hosted" in text) == (True, True, True)
    assert [secret in text + written for secret in ("very-secret", "hidden")] == [False, False]


def test_programs_find_the_pages_in_one_text(console: Served):
    """It needs the login as all pages do, and each page that it links answers."""
    client = log_in(console)
    text = client.ask("GET", "/llms.txt").text
    linked = re.findall(r"\]\((/[^)]*)\)", text)

    assert client.ask("GET", "/llms.txt", Cookie="").status == 403
    assert len(linked) > 5
    assert [client.ask("GET", path).status for path in linked] == [200] * len(linked)


def test_without_scripts_the_warnings_are_one_link_away(new_tab: OpenTab, shop: Shop):
    """Whoever loads them themselves gets the same page."""
    tab = new_tab(java_script_enabled=False)
    tab.begin()
    tab.page.get_by_role("link", name="Warnings of health").click()

    tab.see("Auto-reruns are used up at extract")
