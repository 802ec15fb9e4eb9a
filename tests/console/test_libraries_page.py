"""Libraries in a browser: what they cover, edited in place, filled, imported, saved to a file, and added to from the tasks."""

import dataclasses
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from tests.console.conftest import InProcess, OpenTab, Tab, served, wait_for
from tests.console.shop import Shop
from tests.console.test_safety import log_in


@pytest.fixture
def kept(shop: Shop) -> beam_ray.Store:
    """The shop's store, read anew."""
    return dataclasses.replace(shop.store, connection=None)


def arrive(page: Any, name: str) -> None:
    """Wait for the page of a library; on a busy machine the page of the command comes first."""
    page.wait_for_url(re.compile(f"/libraries/{name}$|/started/"))
    if "/started/" in page.url:
        page.get_by_role("link", name="Open the library").click()
        page.wait_for_url(f"**/libraries/{name}")


def test_a_library_shows_what_it_covers_and_what_fills_its_gaps(tab: Tab, kept: beam_ray.Store):
    """The grid of routes and labels with what could be added, size, failing share, age, and each gap with a button that adds past tasks."""
    page = tab.page
    tab.open("/libraries")
    page.get_by_role("link", name="regressions").click()
    tab.see("Tasks by route and label")
    grid = page.get_by_role("group", name="Tasks by route and label").inner_text()
    cards = page.get_by_role("region", name="In short").inner_text()
    title = page.title()
    page.locator("table.grid").get_by_role("link", name=re.compile("to add")).first.click()
    page.wait_for_url("**/tasks?**route=**")
    filling = page.locator("main").inner_text()

    assert title == "Library regressions · beam_ray"
    assert "PO found, proceed" in grid
    assert ("100.00%" in cards, "outdated from 90 days on" in cards) == (True, True)
    assert "route: PO found, proceed" in filling


def test_a_gap_is_filled_by_one_button(tab: Tab, kept: beam_ray.Store):
    """No task of the library is an edge case: the button adds what the check suggests, by the command that it names."""
    page = tab.page
    before = kept.library("regressions").size
    tab.open("/libraries/regressions/coverage")
    gap = page.locator("li.lack", has_text="no task passed in its newest run")
    command = gap.locator("code").text_content()
    gap.get_by_role("link", name=re.compile("^Add ")).click()
    page.get_by_role("button", name="Add to library").click()
    arrive(page, "regressions")

    assert command
    assert re.match(r"beam-ray library add regressions \S+/order-\d+ --store store", command)
    assert kept.library("regressions").size == before + 1


def test_a_task_is_edited_in_place_as_a_new_version(tab: Tab, kept: beam_ray.Store):
    """Labels, purpose, note and expected outcome; the field has the focus, and what was written wrongly is said."""
    page = tab.page
    version = kept.library("regressions").version
    tab.open("/libraries/regressions")
    page.get_by_role("link", name="Edit order-014").click()
    page.get_by_label("Labels separated by commas").wait_for()
    focused = page.evaluate("document.activeElement.id")
    page.get_by_label("Labels separated by commas").fill("edge, signature")
    page.get_by_label("Tests").fill("extract")
    page.get_by_label("Note", exact=True).fill("signed by a person")
    page.get_by_label("Expected outcome").fill('{"vendor": "Hansen & Søn"')
    page.get_by_role("button", name=f"Save as version {version + 1}").click()
    tab.see("the expected outcome of 'order-014' is not JSON")
    tab.faults.clear()  # the answer was 400
    page.go_back()
    page.get_by_label("Expected outcome").fill('{"vendor": "Hansen & Søn"}')
    page.get_by_role("button", name=f"Save as version {version + 1}").click()
    page.wait_for_url("**/libraries/regressions#order-014")
    row = next(row for row in kept.library("regressions").tasks.to_pylist() if row["task_id"] == "order-014")
    page.get_by_role("link", name=f"changes of version {version + 1}").click()
    changes = page.locator("table.diff").inner_text()

    assert focused == "labels"
    assert (row["labels"], row["tests"], row["notes"], json.loads(row["expected"])) == (
        ["edge", "signature"],
        "extract",
        "signed by a person",
        {"vendor": "Hansen & Søn"},
    )
    assert ("failed at first" in changes, "signed by a person" in changes) == (True, True)


def test_a_second_tab_overwrites_no_edit(new_tab: OpenTab, kept: beam_ray.Store):
    """Who edits an older state of a task is told that it was changed."""
    first, second = new_tab(), new_tab()
    for each, note in ((first, "first"), (second, "second")):
        each.open("/libraries/regressions?edit=order-004")
        each.page.get_by_label("Note", exact=True).fill(note)
    for each in (first, second):
        each.page.get_by_role("button", name=re.compile("Save as version")).click()
        each.page.wait_for_load_state()
    second.see("task 'order-004' was changed after regressions@")
    second.faults.clear()

    assert [row["notes"] for row in kept.library("regressions").tasks.to_pylist() if row["task_id"] == "order-004"] == ["first"]


def test_ticked_tasks_are_added_to_a_new_library(tab: Tab, shop: Shop, kept: beam_ray.Store):
    """With labels, and what came out as what is expected."""
    page = tab.page
    tab.open(f"/tasks?run={shop.run}&status=passed")
    boxes = page.get_by_role("checkbox", name=re.compile("^Tick order"))
    for box in boxes.all()[:2]:
        box.check()
    page.get_by_role("button", name="Add to library").click()
    page.get_by_label("Or a new one").fill("good-ones")
    page.get_by_label("Labels added").fill("keep, edge")
    page.get_by_role("radio", name="What came out").check()
    page.get_by_label("Output of").select_option("extract")
    page.get_by_role("button", name="Add to library").click()
    arrive(page, "good-ones")
    rows = kept.library("good-ones").tasks.to_pylist()

    assert [set(row["labels"]) >= {"keep", "edge"} for row in rows] == [True, True]
    assert [sorted(json.loads(row["expected"])) for row in rows] == [["amount", "po_number", "vendor"]] * 2


def test_all_that_match_are_added_by_their_filter(tab: Tab, shop: Shop, kept: beam_ray.Store):
    """The command has the filter and no ids."""
    page = tab.page
    tab.open(f"/tasks?run={shop.run}&label=large&min_score=50&status=failing")
    page.get_by_role("link", name=re.compile("Add all .* to a library")).click()
    page.get_by_label("Or a new one").fill("by-filter")
    page.get_by_role("button", name="Add to library").click()
    arrive(page, "by-filter")
    saved = {row["origin"] for row in kept.library("by-filter").tasks.to_pylist()}
    command = json.loads(page.request.get(f"{tab.served.base}/add-to-library.json?all=yes&run={shop.run}&label=large&library=by-filter").text())["command"]

    wanted = kept.list_tasks(beam_ray.TaskQuery(run=shop.run, labels=("large",), min_score=50, status="failing", limit=100))
    assert saved == {row["task"] for row in wanted.tasks}
    assert (f"library add by-filter --from-any-run --label large --where 'run_id == \"{shop.run}\"'" in command, "order-" in command) == (True, False)


def test_pasted_tasks_are_imported_and_files_of_this_machine_are_not(tab: Tab, shop: Shop, kept: beam_ray.Store):
    """A wrong line is named, an attachment is refused, and the library comes back as a download."""
    page = tab.page
    lines = [{"id": "n-1", "task_query": "Where is PO-7?\u2028Thanks", "labels": ["new"]}, {"id": "n-2", "task_query": "Cancel it"}]

    def send(rows: list[dict[str, object]], more: str = "") -> None:
        tab.open("/libraries")
        if not page.get_by_label("Library").is_visible():
            page.get_by_text("Import tasks").click()
        page.get_by_label("Library").fill("pasted")
        page.get_by_label("Tasks JSON lines").fill("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + more)
        page.get_by_role("button", name="Import").click()

    send(lines, '\n{"id": ')
    tab.see("standard input:3")
    send([{"id": "x", "task_query": "y", "attachments": ["models.yaml"]}])
    tab.see("the attachment 'models.yaml'")
    tab.faults.clear()
    send(lines)
    arrive(page, "pasted")
    with page.expect_download() as caught:
        page.get_by_role("link", name="Export").click()
    saved = Path(caught.value.path()).read_text(encoding="utf-8")

    assert kept.library("pasted").tasks["task_query"].to_pylist() == ["Where is PO-7?\u2028Thanks", "Cancel it"]
    assert caught.value.suggested_filename == "pasted-1.jsonl"
    assert [json.loads(line)["id"] for line in io.StringIO(saved)] == ["n-1", "n-2"]


@pytest.mark.parametrize("stolen", ["absolute", "../input"])
def test_an_attachment_that_leads_elsewhere_is_refused(stolen: str, shop: Shop):
    """By its whole path, or out of the command's own folder."""
    path = stolen.replace("absolute", str(shop.folder / "models.yaml"))
    console = InProcess(shop.store)
    answer = console.send("/libraries/import", library="stolen", tasks=json.dumps({"id": "x", "task_query": "y", "attachments": [path]}))
    page = answer.headers.get("location")  # on a busy machine that of the command comes first
    wait_for(lambda: f"the attachment '{path}'" in html.unescape(console.get(page).text if page else answer.text))

    assert "stolen" not in [each.name for each in shop.store.libraries()]


def test_without_scripts_everything_is_there_and_works(new_tab: OpenTab, kept: beam_ray.Store):
    """The coverage by its link, an edit and the removal of ticked tasks by plain forms."""
    tab = new_tab(java_script_enabled=False)
    page = tab.page
    kept.add_to_library("plain", [{"id": "a", "task_query": "one"}, {"id": "b", "task_query": "two"}])
    tab.open("/libraries/regressions")
    page.get_by_role("link", name="What the tasks cover, and what is missing").click()
    covered = page.locator("main").inner_text()
    tab.open("/libraries/plain")
    page.get_by_role("link", name="Edit a").click()
    page.get_by_label("Note", exact=True).fill("by hand")
    page.get_by_role("button", name="Save as version 2").click()
    page.get_by_role("checkbox", name="Tick b").check()
    page.get_by_role("button", name="Remove from the library").click()
    page.wait_for_url("**/libraries/plain")

    assert "Tasks by route and label" in covered
    assert [(row["task_id"], row["notes"]) for row in kept.library("plain").tasks.to_pylist()] == [("a", "by hand")]


def test_a_console_that_is_only_read_changes_no_library(shop: Shop, kept: beam_ray.Store):
    """It has neither buttons nor routes for it, and still shows and exports."""
    with served(shop.folder, "--read-only") as locked:
        client = log_in(locked)
        form = {"Origin": locked.base, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
        refused = {path: client.ask("POST", path, "task=x", **form).status for path in ("/add-to-library", "/libraries/import", "/libraries/regressions/edit")}
        shown = client.ask("GET", "/libraries/regressions").text
        saved = client.ask("GET", "/libraries/regressions/export")

    assert set(refused.values()) == {405} or set(refused.values()) <= {404, 405}
    assert ("Remove from the library" in shown, ">Edit<" in shown, "Import tasks" in shown) == (False, False, False)
    assert saved.headers["Content-Disposition"].startswith('attachment; filename="regressions-')


@pytest.mark.parametrize(("library", "tasks", "said"), [("../../x", "kept", "cannot name a library"), ("pasted", " ", "there is no task to import")])
def test_a_refused_import_keeps_what_was_typed(library: str, tasks: str, said: str, shop: Shop):
    """The form comes back with the fault beside its fields and with all that was typed; nothing is saved."""
    before = [each.name for each in shop.store.libraries()]
    answer = InProcess(shop.store).send("/libraries/import", library=library, tasks=tasks, replace="yes")
    form = answer.text.partition('class="panel import" open')[2]

    assert answer.status_code == 400
    assert said in form.partition("<form")[0]
    assert [f'value="{library}"' in form, f"\n{tasks}</textarea>" in form, 'value="yes" checked' in form] == [True] * 3
    assert [each.name for each in shop.store.libraries()] == before
