"""What if the prompt were another one: an editor that says what a try costs and can show, and its paired result."""

import re
from urllib.parse import urlencode

import pytest

from beam_ray.console.pages.what_if import _typed
from beam_ray.errors import Unusable
from tests.console.conftest import InProcess, OpenTab, Tab, beside, served
from tests.console.shop import Shop

TASK = "order-005"


def test_a_change_is_checked_priced_run_and_kept(tab: Tab, shop: Shop):
    """
    While typing the page says what is wrong, what the model would get, what so many tasks cost and can show.

    Run keeps the prompt as a draft; the pairs come in beside the editor, and the address of the try shows them again. A form that is
    sent twice is one try.
    """
    page = tab.page
    tab.open(f"/tasks/{shop.run}/{TASK}?step=extract")
    page.get_by_role("link", name="Try a change").click()
    tab.see("Change the prompt to run it.")
    user = page.get_by_label("User", exact=True)
    user.fill("Read this order.\n\n{{ task_qery }}")
    tab.see("task_qery")
    broken = page.get_by_role("button", name="Run").count()
    user.fill("Read this order carefully.\n\n{{ task_query }}")
    tab.see("1 word added")
    page.get_by_label("Tasks beside this one").fill("20")
    tab.see("This task and 20 drawn")
    power = page.locator("#power").inner_text()
    sent = page.locator("#preview ins").all_inner_texts()
    sent_form = page.evaluate("[...new FormData(document.getElementById('editor'))]")
    page.get_by_role("button", name="Run").click()
    tab.see("20 of 20 drawn tasks")
    tab.see("Success rate")
    result, address = page.locator("#results").inner_text(), page.url
    tab.open("/")
    page.goto(address)
    again = page.locator("#results").inner_text()
    headers = {"origin": tab.served.base, "content-type": "application/x-www-form-urlencoded"}
    twice = page.request.post(f"{tab.served.base}/what-if/rerun", data=urlencode([(name, value) for name, value in sent_form]), headers=headers)

    assert twice.url == address
    assert shop.store.draft("purchase-orders", "try-extract").number == 2
    assert broken == 0
    assert re.search(r"20 tasks can show ±\d+ points of the success rate", power)
    assert [text.strip() for text in sent] == ["carefully"]
    assert re.search(r"This task\s+\w", result)
    assert re.search(r"newly passing\s+\d newly failing", result)
    assert re.search(r"change \+[\d.]+ \([+−][\d.]+ … \+[\d.]+, 95%\)", result)
    assert again == result
    assert "draft=purchase-orders%40try-extract%3A2" in address and "count=20" in address
    draft = shop.store.draft("purchase-orders", "try-extract", 2)
    assert [str(change) for change in shop.store.draft_changes(draft)] == ["extract.llm.prompt"]


def test_a_try_on_a_newly_failing_task_changes_the_prompt_that_was_sent(tab: Tab, shop: Shop):
    """From the candidate's side of a backtest the editor has the candidate's prompt, and says so."""
    candidate = shop.store.verdict(shop.backtest).best.run.id
    tab.open(f"/what-if?task={candidate}/order-006&step=extract")
    tab.see("the prompt of this run")

    assert tab.page.get_by_label("User", exact=True).input_value().startswith("Read this order carefully.")
    assert tab.page.locator("#preview ins, #preview del").count() == 0


def test_a_try_on_a_candidates_task_becomes_a_backtest_over_the_baselines_run(shop: Shop):
    """There the published version has run the same tasks, so that its side borrows them."""
    candidate = shop.store.verdict(shop.backtest).best.run.id
    task = f"{candidate}/order-006"
    made = beside(lambda: shop.store.save_try(task, "extract", [{"role": "user", "content": "Read {{ task_query }}"}]))
    page = beside(lambda: InProcess(shop.store).get(f"/what-if?task={task}&step=extract&draft={made.reference}").text)
    [link] = re.findall(r'href="(/backtests/new[^"]*)">Make it a backtest', page)

    assert f"tasks=run%3A{shop.run}" in link


def test_a_try_is_reverted_and_stays_in_the_store(tab: Tab, shop: Shop):
    """The editor shows the published prompt again; the draft is dropped, and its revisions can still be read."""
    made = shop.store.save_try(f"{shop.run}/{TASK}", "extract", [{"role": "user", "content": "Short: {{ task_query }}"}])
    page = tab.page
    tab.open(f"/what-if?task={shop.run}/{TASK}&step=extract&draft={made.reference}")
    before = page.get_by_label("User", exact=True).input_value()
    page.get_by_role("button", name="Revert").click()
    page.wait_for_url(lambda url: "draft=" not in url)

    assert before == "Short: {{ task_query }}"
    assert page.get_by_label("User", exact=True).input_value().startswith("Read this order.")
    assert made.name not in [each.name for each in shop.store.drafts("purchase-orders")]
    assert shop.store.draft("purchase-orders", made.name, made.number).text == made.text


def test_what_is_typed_is_checked_without_javascript(new_tab: OpenTab, shop: Shop):
    """A button checks the prompt and shows what it costs; what was typed stays in the form."""
    tab = new_tab(java_script_enabled=False)
    page = tab.page
    tab.open(f"/what-if?task={shop.run}/{TASK}&step=extract&count=3")
    page.get_by_label("User", exact=True).fill("Read carefully: {{ task_query }}")
    page.get_by_role("button", name="Check the prompt").click()

    tab.see("This task and 3 drawn")
    assert page.get_by_label("User", exact=True).input_value() == "Read carefully: {{ task_query }}"
    assert page.get_by_role("button", name="Run").count() == 1


def test_a_prompt_from_a_browser_keeps_its_line_ends(shop: Shop):
    """An unchanged prompt that came back with the line ends of a browser is unchanged."""
    before = shop.store.prompt_of(f"{shop.run}/{TASK}", "extract")
    typed = _typed({"role": [turn["role"] for turn in before], "turn": [turn["content"].replace("\n", "\r\n") for turn in before]})

    assert typed == [dict(turn) for turn in before]
    assert not beside(lambda: shop.store.try_prompt(f"{shop.run}/{TASK}", "extract", typed)).changed


def test_read_only_shows_the_cost_and_starts_nothing(new_tab: OpenTab, shop: Shop):
    """No button runs, reverts or checks; a limit keeps what is dearer shut."""
    with served(shop.folder, "--read-only") as only:
        tab = new_tab(only)
        tab.open(f"/what-if?task={shop.run}/{TASK}&step=extract")
        text = tab.page.locator("main").inner_text()

        assert "model calls at most" in text
        assert tab.page.locator("main").get_by_role("button").count() == 0


def test_a_tool_has_no_prompt_to_try(tab: Tab, shop: Shop):
    """Its panel has no such button, and its address says why."""
    tab.open(f"/tasks/{shop.run}/{TASK}?step=lookup")
    buttons = tab.page.get_by_role("link", name="Try a change").count()
    answer = tab.page.request.get(f"{tab.served.base}/what-if?task={shop.run}/{TASK}&step=lookup")

    assert buttons == 0
    assert (answer.ok, "is a tool and has no prompt" in answer.text()) == (False, True)


def test_drawn_tasks_are_the_same_every_time(shop: Shop):
    """A random order that does not depend on results; the task that is looked at is never among them."""
    prompt = [{"role": "user", "content": "Read carefully: {{ task_query }}"}]
    small, large = beside(lambda: [shop.store.try_prompt(f"{shop.run}/{TASK}", "extract", prompt, count=count) for count in (5, 12)])

    assert large.tasks[:6] == small.tasks
    assert f"{shop.run}/{TASK}" not in large.tasks[1:]
    assert large.available == 26
    assert large.detectable.success_rate < small.detectable.success_rate or small.detectable.success_rate is None


@pytest.mark.parametrize(
    ("node", "base", "said"), [("lookup", "", "is a tool"), ("nothing", "", "has no node"), ("extract", "purchase-orders@nobody:1", "has no draft")]
)
def test_a_try_of_nothing_is_refused(node: str, base: str, said: str, shop: Shop):
    """Of a tool, of a node that is not there, and of a draft that is not there."""
    with pytest.raises(Unusable, match=said):
        shop.store.try_prompt(f"{shop.run}/{TASK}", node, [], base=base)
