"""Pages as files: they open without a server, lead nowhere that is not there, and are the same each time."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beam_ray.console import Exported, export
from beam_ray.errors import Unusable
from tests.commands import CommandResult, run_command
from tests.console.conftest import beside
from tests.console.shop import Shop
from tests.console.test_accessible import axe  # noqa: F401 (a fixture)


@pytest.fixture
def give(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Gives ``beam-ray console`` with options, in the shop."""
    monkeypatch.chdir(shop.folder)
    command = partial(run_command, capsys, "console", "--store", "store", "--models", "models.yaml")
    return lambda *words: beside(lambda: command(*words))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def exported(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The backtest of the shop as files, with what was proven and marked."""
    shop.store.prove(shop.backtest)
    shop.store.mark_pair(shop.backtest, "order-006", "noise", by="ann")
    return export(shop.store, tmp_path_factory.mktemp("export") / "out", backtest=shop.backtest)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its place."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_backtest_is_read_from_files(exported: Exported, chromium: Any, axe: str):  # noqa: F811
    """From the verdict to a flipped pair, to its task and a step of it, without a server, a script, a form or a request."""
    page, folder = chromium.new_page(viewport={"width": 1280, "height": 800}), exported.folder
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda request: faults.append(request.url) if not request.url.startswith(f"file://{folder}/") else None)
    page.on("requestfailed", lambda request: faults.append(request.url))
    found: list[list[str]] = []

    def look() -> None:
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
        found.append([f"{each['id']}: {node['html'][:120]}" for each in result["violations"] for node in each["nodes"]])

    page.goto(f"file://{exported.start}")
    look()
    page.get_by_role("link", name="2 newly failing").click()
    look()
    page.get_by_role("link", name="Next").click()
    page.get_by_role("heading", name="order-012").wait_for()
    page.locator("a.side").last.click()
    look()
    page.get_by_role("link", name="Look the order up").click()
    chosen = page.evaluate("document.querySelector(':target h2').innerText")
    served = page.locator("form, button, input, script, [hx-get]").count()
    page.close()

    assert (found, faults) == ([[], [], []], [])
    assert (chosen, served) == ("Look the order up", 0)


def test_a_page_from_files_runs_and_loads_nothing_else(exported: Exported, chromium: Any, tmp_path: Path):
    """Were there a hole in what is escaped, its script, its picture from elsewhere and its form would do nothing, opened as a file."""
    folder = tmp_path / "out"
    shutil.copytree(exported.folder, folder)
    (folder / "evil.js").write_text("document.title = 'run'")
    hole = (
        "<script>document.title = 'inline'</script><script src='evil.js'></script><img src='http://127.0.0.1:9/x.png' onerror='document.title = 1'>"
        "<iframe src='index.html'></iframe><form action='http://127.0.0.1:9/'><button id='send'>Send</button></form>"
    )
    start = folder / "index.html"
    start.write_text(start.read_text(encoding="utf-8").replace("<h1>", f"{hole}<h1>", 1), encoding="utf-8")
    page, loaded, refused = chromium.new_page(), list[str](), list[str]()
    page.on("requestfinished", lambda request: loaded.append(request.url))
    page.on("console", lambda message: refused.append(message.text))
    page.goto(f"file://{start}")
    title, styled = page.title(), page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth")
    page.evaluate("document.getElementById('send').click()")
    page.wait_for_timeout(500)
    page.close()

    assert title not in ("run", "inline", "1")
    assert styled != "none"
    assert [url for url in loaded if not url.startswith(f"file://{folder}/") or url.endswith(".js")] == []
    assert len([text for text in refused if "Content Security Policy" in text]) >= 5


def dead_links(folder: Path) -> list[str]:
    """Links of pages that lead to no file of the folder, or to no place in it."""
    dead = []
    for page in sorted(folder.rglob("*.html")):
        for link in re.findall(r'(?:href|src)="([^"]*)"', page.read_text(encoding="utf-8")):
            target, _, fragment = link.partition("#")
            file = (page.parent / target).resolve() if target else page
            if not file.is_file() or (fragment and f'id="{fragment}"' not in file.read_text(encoding="utf-8")):
                dead.append(f"{page.name}: {link}")
    return dead


def test_no_link_is_dead_and_all_is_small(exported: Exported):
    """Every link of every page leads to a file of the folder and to a place in it."""
    files = contents(exported.folder)

    assert dead_links(exported.folder) == []
    assert (exported.pairs, exported.pairs_left_out) == (27, 0)
    assert sum(name.endswith(".html") for name in files) == exported.pages
    assert sum(map(len, files.values())) < 2_000_000


def test_proofs_and_marks_are_among_the_files(exported: Exported):
    """The verdict leads to what was proven, to the tasks of the experiments, and to the pairs that people marked."""
    start = exported.start.read_text(encoding="utf-8")
    proof = next(text.decode() for name, text in contents(exported.folder).items() if b"<h1>Prove it</h1>" in text)
    pair = exported.folder / re.findall(r'href="(pages/[^"]*)">1 noise', start)[0]
    record = re.findall(r'href="([^"]*order-006[^"]*)"', proof)[0]

    assert ("2 of 2 recover with the baseline" in proof, (exported.folder / "pages" / record).is_file()) == (True, True)
    assert "order-006" in pair.read_text(encoding="utf-8")


def test_of_a_large_backtest_the_flips_are_written(give: Callable[..., CommandResult], shop: Shop, tmp_path: Path):
    """As many as --pairs allows; how many are left out is said on the screen and on every page, and no link leads to them. Written again, nothing changes."""
    made = give("--export", tmp_path / "out", "--backtest", shop.backtest, "--pairs", "2")
    files = contents(tmp_path / "out")
    again = give("--export", tmp_path / "out", "--backtest", shop.backtest, "--pairs", "2", "--json").json
    pages = {name: body.decode() for name, body in files.items() if name.endswith(".html")}
    pairs = [text for name, text in pages.items() if "-flips-" in name]

    assert "25 pairs left out" in made.out
    assert len(pairs) == 2
    assert all("newly failing" in text or "newly passing" in text for text in pairs)
    assert all("25 pairs left out" in text for text in pages.values())
    assert dead_links(tmp_path / "out") == []
    assert contents(tmp_path / "out") == files
    assert again == {"start": str(tmp_path / "out" / "index.html"), "pages": len(pages), "pairs": 2, "pairs_left_out": 25}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--export", "taken", "--backtest", "extract-prompt-v2"), "no export; name a new folder"),
        (("--export", "new"), "name what is exported"),
        (("--export", "new", "--backtest", "nothing"), "nothing"),
        (("--export", "new", "--pin", "0123456789ab"), "no pinned view"),
        (("--backtest", "extract-prompt-v2"), "need --export DIR"),
    ],
)
def test_what_cannot_be_written_is_refused(options: tuple[str, ...], words: str, give: Callable[..., CommandResult], shop: Shop, tmp_path: Path):
    """One line and exit code 2; a folder of something else stays as it is."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    made = give(*(str(tmp_path / word) if word in ("taken", "new") else word for word in options))

    assert made.code == 2
    assert words in made.err
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["letter.txt"]
    assert not (tmp_path / "new").exists()


def test_a_folder_with_other_files_is_not_written_over(exported: Exported, shop: Shop, tmp_path: Path):
    """One more file than an export writes, and the folder is somebody's own."""
    folder = tmp_path / "out"
    shutil.copytree(exported.folder, folder)
    (folder / "pages" / "notes.txt").write_text("mine")

    with pytest.raises(Unusable, match="is there already and is no export"):
        export(shop.store, folder, backtest=shop.backtest)
    assert (folder / "pages" / "notes.txt").read_text() == "mine"
