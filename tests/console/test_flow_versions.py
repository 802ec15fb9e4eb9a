"""A workflow's versions, run after run, on its page: numbers, shares and prompts change in place."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import beam_ray
from beam_ray.llm import Request
from beam_ray.store.opening import open_objects
from tests.conftest import Lab
from tests.console.conftest import OpenTab, Served, beside, served

WORKFLOW = """
workflow: mail
model: m
nodes:
  sort:
    llm: {prompt: "first {{ task_query }}", returns: {n: int}}
    evaluate: {criteria: [{check: sort.n < 3, id: small}]}
  high: {after: sort, when: sort.n >= 3, route: High, llm: {prompt: "high {{ sort.n }}"}}
  low: {after: sort, when: sort.n < 3, route: Low, llm: {prompt: "low {{ sort.n }}"}}
"""


def answer(request: Request) -> object:
    """The number in the query; with the second prompt none above 2."""
    word, number = str(request.messages[-1]["content"]).split()[:2]
    return {"n": int(number) if word == "first" else int(number) % 3} if word in ("first", "second") else "done"


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A console over a store with two versions, each with a run of ten tasks."""
    folder = tmp_path_factory.mktemp("mail")
    lab = Lab(folder, open_objects(str(folder / "store")))
    store = beam_ray.open(folder / "store", models={"m": beam_ray.ScriptedModel(answer)})
    for number, text in enumerate((WORKFLOW, WORKFLOW.replace("first", "second")), 1):
        beside(partial(lab.run, text, [str(n) for n in range(10)], answer, version_number=number))
        store.publish(str(folder / "workflow.yaml"), without_evidence="to try it")
    Path(folder / "models.yaml").write_text("m: {answers: [{answer: ok}]}\n")
    with served(folder) as found:
        yield found


def test_versions_change_numbers_shares_and_prompts_in_place(new_tab: OpenTab, mail: Served):
    """The same node stays open, the address names the version, and the focus stays on its link; back returns."""
    tab = new_tab(to=mail)
    page = tab.page
    tab.open("/flows/mail?node=sort")
    page.locator(".graph.drawn .edge").first.wait_for(state="attached")
    newest = page.locator("#node-sort").inner_text(), page.locator(".labels").inner_text(), page.locator("#node-panel").inner_text()
    page.get_by_role("link", name="v1", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**version=1*")
    page.locator("#node-sort .accuracy").get_by_text("30.00%").wait_for()
    page.locator(".graph.drawn .edge").first.wait_for(state="attached")
    first = page.locator("#node-sort").inner_text(), page.locator(".labels").inner_text(), page.locator("#node-panel").inner_text()
    focused = page.evaluate("document.activeElement.textContent")
    page.go_back()
    page.locator("#node-sort .accuracy").get_by_text("100.00%").wait_for()

    assert ("100.00%" in newest[0], "100%" in newest[1], "second {{ task_query }}" in newest[2]) == (True, True, True)
    assert ("30.00%" in first[0], "30%" in first[1], "first {{ task_query }}" in first[2]) == (True, True, True)
    assert focused == "v1"


def test_the_version_with_which_the_line_bends_is_marked(new_tab: OpenTab, mail: Served):
    """The node's accuracy went from 30% to 100%, beyond both intervals: version 2 says so, and of a node without scores none does."""
    tab = new_tab(to=mail)
    tab.open("/flows/mail?node=sort")
    marked = {name: tab.page.locator(f"#{name} [data-bend]").all_text_contents() for name in ("v1", "v2")}
    tab.open("/flows/mail?node=low")
    unscored = tab.page.locator("[data-bend]").count()

    assert (marked["v1"], unscored) == ([], 0)
    assert "30.00% before, 100.00% with v2; the 95% intervals do not overlap" in marked["v2"][0]
