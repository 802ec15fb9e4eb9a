"""The pictures of docs/console.md: made by UPDATE_SCREENSHOTS=1, and else checked to be there and small."""

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from beam_ray import DraftEdit, ReviewSample
from tests.console.conftest import OpenTab, beside
from tests.console.shop import Shop

ROOT = Path(__file__).parents[2]
PICTURES = {
    "console-tasks": ("/tasks?run={run}", "light", 720),
    "console-task": ("/tasks/{run}/order-014", "light", 900),
    "console-flow": ("/flows/purchase-orders?node=extract&numbers=run:{run}", "light", 860),
    "console-edit": ("/flows/purchase-orders?draft=shorter&node=extract", "light", 1240),
    "console-versions": ("/flows/purchase-orders/versions", "light", 900),
    "console-new-backtest": ("/backtests/new?workflow=purchase-orders&tasks=run:{run}&path=nodes.extract.evaluate.threshold&value=80&limit=20", "light", 900),
    "console-rerun": ("/rerun?task={run}/order-014&from=extract", "light", 640),
    "console-optimise": ("/optimise?task={run}/order-014&step=extract", "light", 900),
    "console-what-if": ("/what-if?task={run}/order-014&step=extract&draft=purchase-orders@pictured:2", "light", 640),
    "console-home": ("/", "light", 760),
    "console-library": ("/libraries/regressions", "light", 900),
    "console-add": ("/add-to-library?all=yes&run={run}&label=large", "light", 760),
    "console-backtest": ("/backtests/{backtest}", "dark", 1240),
    "console-pair": ("/backtests/{backtest}/flips", "light", 640),
    "console-review": ("/review?workflow=purchase-orders&run={run}&node=extract&count=27&reviewer=ann&at={run}%2Forder-014%2Fextract", "light", 760),
    "console-prove": ("/backtests/{backtest}/prove", "light", 720),
}
"""Name to page, color scheme and height."""


@pytest.fixture(scope="module")
def posed(shop: Shop) -> None:
    """A proposal, a draft, a try of a prompt and reviews for the pictures of their pages."""
    changes = [DraftEdit("nodes.extract.evaluate.threshold", 80), DraftEdit("nodes.extract.auto_rerun.max", 3)]
    shop.store.edit_draft(shop.store.create_draft("purchase-orders", "shorter"), changes)
    beside(lambda: shop.store.optimise(f"{shop.run}/order-014", "extract"))
    people = {"order-014": "Jane Miller signed for the company, which is the vendor."}
    for item in shop.store.review_queue("purchase-orders", "extract", run=shop.run, sample=ReviewSample(count=27)).items[:24]:
        task = item.address.split("/")[1]
        met = {each.criterion: bool(each.judge_met) or task in people for each in item.questions}
        shop.store.record_review(item, met, reviewer="ann", comment=people.get(task, ""))
    turns = [{"system": "You read order e-mails. Return vendor, order number and amount as JSON."}, {"user": "Read this order carefully.\n\n{{ task_query }}"}]
    shop.store.edit_draft(shop.store.create_draft("purchase-orders", "pictured"), [DraftEdit("nodes.extract.llm.prompt", turns)])


@pytest.mark.usefixtures("posed")
@pytest.mark.skipif("UPDATE_SCREENSHOTS" not in os.environ, reason="pictures are made with UPDATE_SCREENSHOTS=1")
@pytest.mark.parametrize("name", PICTURES)
def test_make_the_picture(name: str, new_tab: OpenTab, shop: Shop):
    """Of the page as a browser shows it."""
    address, scheme, height = PICTURES[name]
    tab = new_tab(viewport={"width": 1280, "height": height}, color_scheme=scheme)
    tab.open(address.format(run=shop.run, backtest=shop.backtest))
    tab.page.wait_for_load_state("networkidle")
    path = ROOT / f"docs/images/{name}.png"
    tab.page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def test_the_page_shows_every_picture_and_each_is_small():
    """At most 80 kB each."""
    shown = re.findall(r"\(images/(console-[\w-]+)\.png\)", (ROOT / "docs/console.md").read_text(encoding="utf-8"))

    assert sorted(shown) == sorted(PICTURES)
    assert all((ROOT / f"docs/images/{name}.png").stat().st_size < 80_000 for name in PICTURES)
