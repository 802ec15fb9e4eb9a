"""Notifications: the verdict of a backtest is sent to webhooks, and a webhook never gets in its way."""

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.backtest import notification
from beam_ray.errors import NotificationFailed, Unusable
from beam_ray.run.cluster import Cluster
from beam_ray.run.connection import Connection
from tests.api.conftest import TASKS, answer
from tests.commands import run_command
from tests.http_server import QuietHandler, serving
from tests.ray_nodes import free_ports
from tests.sums import WORKFLOW


@dataclass
class Hook:
    """A webhook, and what was posted to it."""

    url: str
    bodies: list[Any] = field(default_factory=list)


@contextmanager
def hook(*statuses: int, drip: bool = False) -> Iterator[Hook]:
    """A webhook that answers with these statuses, the last one for ever; or that sends its answer a byte at a time."""
    left = list(statuses)

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            found.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            while drip:
                self.wfile.write(b"H")
                time.sleep(0.05)
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.end_headers()

        do_GET = do_POST

    with serving(Handler) as url:
        found = Hook(f"{url}/services/s3cr3t-path")
        yield found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for as long as in earnest."""
    monkeypatch.setattr(notification, "WAITS_S", (0.0, 0.01, 0.01))
    monkeypatch.setattr(notification, "TRY_S", 0.5)
    monkeypatch.setattr(notification, "TOTAL_S", 1.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_cluster: Cluster) -> beam_ray.Store:
    """A store in a folder with sums.yaml and spec.yaml, whose backtest is finished with PASS."""
    folder = tmp_path_factory.mktemp("notify")
    (folder / "sums.yaml").write_text(WORKFLOW)
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    (folder / "spec.yaml").write_text(
        f"backtest: sums-v2\nworkflow: {folder}/sums.yaml\nbaseline: {folder}/sums.yaml\ntasks: {folder}/tasks.jsonl\ngate: {folder}/gate.yaml\n"
        'candidates: {v2: {nodes.read.llm.prompt: "better {{ task_query }}"}}\n'
    )
    (folder / "gate.yaml").write_text("gate: g\nrules: {regressions: {at_most: 0}}\n")
    opened = beam_ray.open(folder / "store", models={"m": beam_ray.ScriptedModel(answer)})
    store = dataclasses.replace(opened, connection=Connection(cluster=ray_cluster))
    assert store.backtest(folder / "spec.yaml").word == "PASS"
    return store


def spec_of(store: beam_ray.Store) -> Path:
    """The spec of the finished backtest."""
    return Path(store.uri).parent / "spec.yaml"


def test_verdict_is_posted(finished: beam_ray.Store) -> None:
    """
    A webhook receives the verdict document, as verdict.json has it.
    """
    [verdict] = finished.backtests()
    with hook(200) as webhook:
        verdict.notify(webhook.url)

    assert webhook.bodies == [verdict.document()]


def test_slack_message(finished: beam_ray.Store) -> None:
    """
    Slack receives a text and blocks with the verdict, the candidate and the gate's lines.
    """
    with hook(200) as webhook:
        finished.backtests()[0].notify(f"slack:{webhook.url}")
    [message] = webhook.bodies

    assert "PASS: backtest sums-v2-" in message["text"]
    assert [block["type"] for block in message["blocks"]] == ["header", "section", "section", "section"]
    assert "*v2*: PASS, 6 newly passing, 0 newly failing" in message["blocks"][2]["text"]["text"]
    assert "regressions" in message["blocks"][2]["text"]["text"]


def test_failures_are_tried_again(finished: beam_ray.Store) -> None:
    """
    A webhook that fails twice has the verdict with the third try.
    """
    with hook(500, 503, 200) as webhook:
        finished.backtests()[0].notify(webhook.url)

    assert len(webhook.bodies) == 3


def test_refusal_is_not_tried_again(finished: beam_ray.Store) -> None:
    """
    A webhook that does not know the address is asked once.
    """
    with hook(404) as webhook, pytest.raises(NotificationFailed, match="status 404"):
        finished.backtests()[0].notify(webhook.url)

    assert len(webhook.bodies) == 1


def test_redirect_is_a_failure(finished: beam_ray.Store) -> None:
    """
    A redirect, which would lose the document, is not taken for success.
    """
    with hook(302) as webhook, pytest.raises(NotificationFailed, match="status 302"):
        finished.backtests()[0].notify(webhook.url)


def test_sent_once(finished: beam_ray.Store) -> None:
    """
    A verdict that was accepted at an address is not sent there again.
    """
    with hook(200) as webhook:
        finished.backtests()[0].notify(webhook.url)
        finished.backtests()[0].notify(webhook.url)

    assert len(webhook.bodies) == 1


def test_spec_and_options(finished: beam_ray.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The verdict goes to the webhooks of the spec and of the options, each once.
    """
    with hook(200) as of_spec, hook(200) as of_option:
        monkeypatch.setenv("HOOK", of_spec.url)
        spec = spec_of(finished).with_name("notifying.yaml")
        spec.write_text(spec_of(finished).read_text() + "notify: ['${env:HOOK}']\n")
        verdict = finished.backtest(spec, options=beam_ray.BacktestOptions(notify=(of_option.url, of_spec.url)))

    assert verdict.id == finished.backtests()[0].id
    assert (len(of_spec.bodies), len(of_option.bodies)) == (1, 1)


@pytest.mark.parametrize("failure", ["refuses", "hangs"])
def test_failed_notification_is_one_warning(failure: str, finished: beam_ray.Store) -> None:
    """
    Where a webhook refuses the connection, or never ends its answer, there is the verdict and one warning without the address's path.
    """
    said: list[beam_ray.Progress] = []
    with hook(200, drip=True) as webhook:
        url = webhook.url if failure == "hangs" else f"http://127.0.0.1:{free_ports(1)[0]}/s3cr3t-path"
        verdict = finished.backtest(spec_of(finished), options=beam_ray.BacktestOptions(notify=(url,)), progress=said.append)
    warnings = [progress.message for progress in said if progress.message.startswith("warning")]

    assert verdict.exit_code == 0
    assert len(warnings) == 1
    assert "the verdict was not sent to http://127.0.0.1/… (" in warnings[0]
    assert "s3cr3t" not in str(said)


def test_command_exits_with_the_verdict(finished: beam_ray.Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The command prints the warning and exits with the verdict, whatever becomes of the notification.
    """
    monkeypatch.setattr(beam_ray, "open", lambda *_, **__: finished)
    with hook(500) as webhook:
        done = run_command(capsys, "backtest", spec_of(finished), "--mlflow", "none", "--notify", f"slack:{webhook.url}", "--json")

    assert (done.code, done.json["word"]) == (0, "PASS")
    assert "warning: the verdict was not sent to http://127.0.0.1/… (status 500, 3 tries)" in done.err
    assert "s3cr3t" not in done.err + done.out


def test_address_is_not_stored(finished: beam_ray.Store) -> None:
    """
    No file of the store contains the address of a webhook.
    """
    with hook(200) as webhook:
        finished.backtests()[0].notify(webhook.url)

    assert [path for path in Path(finished.uri).rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()] == []


@pytest.mark.parametrize("written", ["s3cr3t", "ftp://host/s3cr3t", "https://", "slack:s3cr3t", "https://me:s3cr3t@host/", "https://host:s3cr3t/", "https://host/s3cr3t\n", "${env:NO_SUCH_HOOK}"])  # fmt: skip
def test_wrong_address_is_refused(written: str, finished: beam_ray.Store) -> None:
    """
    What is no address is refused before anything is run, and is not repeated.
    """
    changes = {"trials": 2}
    before = len(finished.runs())
    with pytest.raises(Unusable, match="notify") as refused:
        finished.backtest(spec_of(finished), options=beam_ray.BacktestOptions(changes, notify=(written,)))

    assert "s3cr3t" not in str(refused.value)
    assert len(finished.runs()) == before


def test_submit_refuses_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    """
    A job's command can be read on the cluster, so an address in it is refused.
    """
    done = run_command(capsys, "submit", "--address", "http://127.0.0.1:9", "backtest", "spec.yaml", "--notify", "https://host/s3cr3t")

    assert done.code == 2
    assert "write --notify '${env:NAME}'" in done.err
    assert "s3cr3t" not in done.err
