"""
Send the verdict of a finished backtest to a webhook, within a bounded time.

A verdict is sent once to each address; what could not be sent is sent by the same command later.
The address may contain a secret, so only its host is ever shown, and only its digest is stored:

    backtests/<id>/notified/<digest>.json   the verdict was accepted there
"""

import contextlib
import hashlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from beam_ray.backtest.results import judged_candidates
from beam_ray.compare.formatting import plain
from beam_ray.compare.markdown import SIGNS
from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import BeamRayError, NotificationFailed, Unusable
from beam_ray.llm.settings import resolve
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.run_record import now

WAITS_S = (0.0, 1.0, 3.0)
"""Seconds before each try."""
TRY_S = 5.0
"""Seconds without an answer after which a try has failed."""
TOTAL_S = 20.0
"""Seconds after which a notification is given up, however slowly the server answers."""
SLACK = "slack:"
MAX_LINES = 20
"""Lines of a gate that a Slack message shows for a candidate."""
MAX_SLACK = 2_900
"""Characters of a block; Slack takes 3,000."""


@dataclass(frozen=True)
class Webhook:
    """Where a verdict is sent."""

    url: str = field(repr=False)
    slack: bool = False
    """Whether it takes messages for Slack instead of the verdict document."""

    @property
    def shown(self) -> str:
        """The address without its path, which is often its secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}/…"

    @property
    def digest(self) -> str:
        """Identifies the address."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:32]


def webhook(written: str) -> Webhook:
    """
    The webhook that ``URL`` or ``slack:URL`` names; ``${env:NAME}`` stands for an environment variable.

    Raises:
        Unusable: it is not an http or https address, or the variable is not set.
    """
    text = resolve(written, "notify")
    slack, url = text.startswith(SLACK), text.removeprefix(SLACK)
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and not parts.username and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        # it is not repeated here, because it may contain a secret
        raise Unusable("notify: write https://HOST/PATH or slack:https://HOST/PATH, without a user name, or ${env:NAME} for a variable that contains it")
    return Webhook(url, slack)


def notify(objects: Objects, verdict: BacktestDocument, to: Webhook) -> None:
    """
    Send the content of verdict.json, unless it was sent there before.

    Raises:
        NotificationFailed: the server did not accept it.
    """
    key = f"backtests/{verdict['backtest_id']}/notified/{to.digest}.json"
    if _exists(objects, key):
        return
    _send(to, slack_message(verdict) if to.slack else verdict)
    with contextlib.suppress(BeamRayError):  # then it is sent once more
        objects.create(key, json.dumps({"at": now()}).encode())


def notify_all(objects: Objects, verdict: BacktestDocument, to: Sequence[Webhook]) -> Iterator[str]:
    """Send the content of verdict.json to all webhooks; yields a warning for each that did not accept it."""
    for each in to:
        try:
            notify(objects, verdict, each)
        except BeamRayError as error:
            yield f"warning: {error}"


def slack_message(verdict: BacktestDocument) -> JsonObject:
    """The verdict as a message for a Slack incoming webhook: its word, then each candidate with the lines of the gate, the worst first."""
    title = f"{SIGNS[verdict['word']]} {verdict['word']}: backtest {verdict['backtest_id']}"
    blocks: list[JsonObject] = [{"type": "header", "text": {"type": "plain_text", "text": title[:150], "emoji": True}}]
    blocks.append(_section(f"workflow *{_safe(verdict['workflow'])}*, tasks {_safe(verdict['tasks_source'])}"))
    # the one that decides comes first
    for entry in [*reversed(judged_candidates(verdict)[len(verdict["candidates"]) :]), *verdict["candidates"]][:MAX_LINES]:
        compared, lines = (
            entry["comparison"],
            sorted((line for line in entry["verdict"]["lines"] if line["level"] != "target"), key=lambda line: list(SIGNS).index(line["word"]), reverse=True),
        )
        text = [
            f"*{_safe(compared['candidate']['name'])}*: {entry['verdict']['word']}, {len(compared['newly_passing']):,} newly passing, {len(compared['newly_failing']):,} newly failing"
        ]
        text += [
            f"{SIGNS[line['word']]} {_safe(line['rule'])} {_safe(line['allowed'])}: {_safe(line['found'])}. {_safe(line['reason'])}"
            for line in lines[:MAX_LINES]
        ]
        blocks.append(_section("\n".join(text)))
    blocks.append(_section(f"`beam-ray report {verdict['backtest_id']}`"))
    return {"text": _safe(f"{title} ({verdict['workflow']})"), "blocks": blocks}


def _section(text: str) -> JsonObject:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text if len(text) <= MAX_SLACK else f"{text[:MAX_SLACK]}…"}}


def _safe(text: str) -> str:
    """*text* on one line, in which nothing is a mention or a link for Slack."""
    return plain(str(text), 300).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _exists(objects: Objects, key: str) -> bool:
    try:
        objects.read(key)
    except NotThere:
        return False
    return True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without the verdict."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _send(to: Webhook, document: Mapping[str, object]) -> None:
    body = json.dumps(document).encode()
    faults: list[str] = []
    # a server that sends a byte now and then would keep every timeout of a socket from expiring
    sending = threading.Thread(target=lambda: faults.append(_tried(to, body)), daemon=True)
    sending.start()
    sending.join(TOTAL_S)
    fault = faults[0] if faults else f"no answer within {TOTAL_S:g} s"
    if fault:
        raise NotificationFailed(f"the verdict was not sent to {to.shown} ({fault}); the same command tries again")


def _tried(to: Webhook, body: bytes) -> str:
    """Why the server did not accept the body; empty when it did."""
    fault = ""
    for wait in WAITS_S:
        time.sleep(wait)
        try:
            _post(to.url, body)
            return ""
        except urllib.error.HTTPError as error:
            fault = f"status {error.code}"
            if error.code < 500 and error.code not in (408, 429):
                return fault  # another try would get the same answer
        except TimeoutError:
            fault = f"no answer within {TRY_S:g} s"
        except urllib.error.URLError as error:
            fault = f"no answer within {TRY_S:g} s" if isinstance(error.reason, TimeoutError) else plain(str(error.reason), 200)
        except (OSError, HTTPException, ValueError) as error:
            fault = type(error).__name__
    return f"{fault}, {len(WAITS_S)} tries"


def _post(url: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "beam-ray"}
    opener = urllib.request.build_opener(_NoRedirect)
    with opener.open(urllib.request.Request(url, body, headers, method="POST"), timeout=TRY_S):
        pass
