"""Review: what waits, one key per answer, the judge hidden until then, and what the answers say of the judge."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

import beam_ray
from tests.console.conftest import OpenTab, Tab, beside
from tests.console.shop import Shop
from tests.console.test_accessible import axe, violations  # noqa: F401 (a fixture)

WORKFLOW = """
workflow: letters
model: scripted/writer
judge: scripted/strict
nodes:
  reply:
    llm: {prompt: "reply to {{ task_query }}"}
    evaluate:
      threshold: 100
      criteria:
        - {id: polite, text: The reply is polite.}
        - {id: short, text: The reply is short.}
    auto_rerun: {max: 1, on_exhausted: review}
"""
WRONG = ("l3", "l8")
"""Tasks about which the judge is wrong as the person says."""


@dataclass(frozen=True)
class Letters:
    """A run some of whose outputs its workflow has flagged for a person."""

    run: str
    flagged: int


@pytest.fixture(scope="module")
def letters(shop: Shop) -> Letters:
    """Ten letters; the judge says of four that they are not polite."""
    no = {"criterion_1": {"reason": "It is curt.", "met": False}, "criterion_2": {"reason": "One line.", "met": True}}
    yes = {**no, "criterion_1": {"reason": "It says please.", "met": True}}
    rude = [{"has": [f"answer {n}."], "answer": no} for n in (1, 3, 5, 8)]
    writer = [{"has": [f"letter {n}."], "answer": f"answer {n}."} for n in range(10)]
    models = {"scripted/writer": {"answers": [*writer, {"answer": "answer 99."}]}, "scripted/strict": {"answers": [*rude, {"answer": yes}]}}
    (shop.folder / "letters.yaml").write_text(WORKFLOW)
    (shop.folder / "letters-models.yaml").write_text(yaml.safe_dump(models))
    store = dataclasses.replace(shop.store, models="letters-models.yaml")
    tasks = [{"id": f"l{n}", "task_query": f"letter {n}."} for n in range(10)]
    run = beside(lambda: store.run("letters.yaml", tasks))
    return Letters(run.id, store.tasks(run=run.id, status="review").num_rows)


def said(shop: Shop, workflow: str, reviewer: str) -> list[dict[str, Any]]:
    """The reviews of one person, the oldest first."""
    return [row for row in shop.store.reviews(workflow).to_pylist() if row["reviewer"] == reviewer]


def test_a_sample_is_reviewed_by_single_keys(new_tab: OpenTab, shop: Shop, letters: Letters):
    """1 answers each criterion, the judge's word shows when all are answered, Enter goes on, z skips, u takes back; each answer is kept at once."""
    tab = new_tab()
    page = tab.page
    tab.open(f"/review?workflow=letters&run={letters.run}&node=reply&count=5&reviewer=ann")
    first = page.locator(".panel-head a").inner_text()
    before = page.locator("main").inner_text()
    tab.press("1")
    page.locator(".question.current").get_by_text("The reply is short.").wait_for()
    between = page.locator("main").inner_text()
    tab.press("2")
    page.locator("[data-judge]").first.wait_for()
    after = page.locator("main").inner_text()
    tab.press("Enter")
    page.get_by_text("2 of 5").wait_for()
    tab.press("z")
    page.get_by_text("3 of 5").wait_for()
    tab.press("u")
    page.locator(".question.current").get_by_text("The reply is short.").wait_for()
    tab.press("1")
    page.locator("[data-judge]").first.wait_for()
    rows = said(shop, "letters", "ann")

    assert [word in text for text in (before, between) for word in ("It is curt", "It says please", "One line")] == [False] * 6
    assert "One line." in after
    assert ("differs" in after, "4 left" in after) == (True, True)
    assert [(row["address"], row["criterion"], row["met"], row["hidden"]) for row in rows] == [
        (first, "polite", True, True),
        (first, "short", False, True),
        (first, "short", True, False),
    ]
    assert {(row["drawn"], row["sample"], row["population"], row["probability"]) for row in rows} == {("random", 5, 10, 0.5)}


def test_what_waits_is_listed_and_leads_to_its_outputs(tab: Tab, shop: Shop, letters: Letters):
    """Flagged steps first; the row opens the first of them, and an answered one no longer waits."""
    page = tab.page
    flagged = next(each for each in shop.store.review_sources() if each.run_id == letters.run and each.how == "flagged")
    before, known = shop.store.tasks_to_review(), {row["address"] for row in shop.store.reviews("letters").to_pylist()}
    tab.begin()
    tab.press("g")
    tab.press("v")
    page.get_by_role("heading", name="Flagged for a person").wait_for()
    row = page.get_by_role("row").filter(has_text="letters › reply").filter(has=page.locator(".button.primary"))
    figures = [cell.inner_text() for cell in row.get_by_role("cell").all()]
    row.get_by_role("link", name="Review", exact=True).click()
    tab.see("flagged for a person")
    address = page.locator(".panel-head a").inner_text()
    for title in ("The reply is polite.", "The reply is short."):
        page.locator(".question.current").get_by_text(title).wait_for()
        page.get_by_role("button", name="Met 1").click()
    page.locator("[data-judge]").first.wait_for()

    assert figures[1:4] == [str(letters.flagged), str(flagged.reviewed), str(flagged.waiting)]
    assert shop.store.tasks_to_review() == before - (address not in known)


def test_reviews_measure_the_judge(new_tab: OpenTab, shop: Shop, letters: Letters, axe: str):  # noqa: F811
    """The rate as judged and as corrected with its interval, and a wrong judge leads to its counter-examples and to the criterion."""
    queue = shop.store.review_queue("letters", run=letters.run, sample=beam_ray.ReviewSample(count=10))
    for item in queue.items[:-1]:
        judged = item.question("polite").judge_met
        task = item.address.split("/")[1]
        shop.store.record_review(
            item, {"polite": not judged if task in WRONG else judged, "short": True}, reviewer="ben", comment="it is fine" if task in WRONG else ""
        )
    tab = new_tab()
    page = tab.page
    tab.open(f"/review?workflow=letters&run={letters.run}&node=reply&count=10&reviewer=ben")
    figures = page.get_by_role("region", name="The judge so far").inner_text()
    word = queue.items[-1].question("polite").judge_met
    tab.press("2" if word else "1")
    page.locator(".question.current").get_by_text("The reply is short.").wait_for()
    tab.press("1")
    page.locator("[data-judge]").first.wait_for()
    problems = violations(tab, axe)
    page.get_by_role("link", name="The judge is wrong: its counter-examples").click()
    page.get_by_role("heading", name=re.compile("false (pass|failure)")).first.wait_for()
    problems += violations(tab, axe)
    examples = page.locator("#polite .examples").all_inner_texts()
    link = page.locator("#polite").get_by_role("link", name="edit the criterion").get_attribute("href")
    page.locator("#polite .examples a").first.click()
    page.wait_for_url(f"**/tasks/{letters.run}/**")
    report = next(each for each in shop.store.review_agreement("letters") if each.criterion == "polite" and each.drawn)

    assert problems == []
    assert re.search(r"The judge says \d+\.\d\d%; with \d+ reviews [\d.]+% \([\d.]+ … [\d.]+\)", figures)
    assert "Agreement" in figures
    assert "Kappa" in figures
    assert "too few tasks" in figures
    assert link == "/flows/letters?node=reply"
    assert sum(text.count(letters.run) for text in examples) == len(report.false_passes) + len(report.false_failures) > 1


def test_a_persons_expected_outcome_goes_into_a_library(new_tab: OpenTab, shop: Shop):
    """What is written on the page is what runs over the library compare with; the task keeps where it comes from."""
    address = f"{shop.run}/order-001"
    tab = new_tab()
    page = tab.page
    tab.open(f"/review?workflow=purchase-orders&node=extract&run={shop.run}&sample=chosen&task={address}")
    page.get_by_text("Save with an expected outcome").click()
    page.get_by_label("Library").fill("reviewed")
    page.get_by_label("Expected outcome, as JSON").fill('{"vendor": "Jane Miller", "po_number": "PO-7"}')
    page.get_by_role("button", name="Save the task").click()
    tab.see("Saved in library:reviewed")
    library = shop.store.library("reviewed")
    [saved] = library.document()["tasks"]
    run = beside(lambda: shop.store.run("purchase-orders", "library:reviewed"))
    unmet = [each.id for each in run.task("order-001").step("extract").criteria if each.met is False]

    assert (saved["id"], saved["expected"], saved["origin"]) == ("order-001", {"vendor": "Jane Miller", "po_number": "PO-7"}, address)
    assert unmet == ["vendor", "po_number"]


def test_reviews_are_what_criteria_check_compares_with(shop: Shop, letters: Letters):
    """``criteria --check`` asks today's judge about exactly the outputs that were answered on the page."""
    store = dataclasses.replace(shop.store, models="letters-models.yaml")
    [check] = beside(lambda: store.criteria("letters.yaml", "reply", repeats=1))
    polite = next(each for each in check.judges if each.criterion == "polite")

    assert polite.drawn == 10
    assert {name for name, _ in polite.reviewers} >= {"ann", "ben"}
