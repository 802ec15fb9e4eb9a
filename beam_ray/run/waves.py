"""
The waves of a run, as its driver sees them: closed, submitted, watched, and their answers committed.

A wave is what all rows wait for when none of them can go on. What is to be submitted is in the
store before anything is sent, so a driver that dies anywhere leaves nothing to guess: the next
one finds a batch whose reply was lost by the mark that it carries.
"""

import contextlib
import datetime
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import OutOfQuota, Stopped, WrongSetting
from beam_ray.failpoint import reach
from beam_ray.llm.batch_format import custom_id_of, input_line, read_line
from beam_ray.llm.prices import Tokens, price_of
from beam_ray.llm.refusals import Kind, kind_of, read_refusal
from beam_ray.llm.scripted import Models
from beam_ray.llm.settings import ModelSettings
from beam_ray.store.batches import Batches, Ended, InputEntry, Wave, shard_of
from beam_ray.store.run_record import now

if TYPE_CHECKING:
    from beam_ray.llm.batch_endpoint import BatchEndpoint, BatchState

FIRST_PAUSE_S = 1.0
"""Seconds until an open batch is first asked about again; each pause is half as long again as the one before."""
MAX_PAUSE_S = float(os.environ.get("BEAM_RAY_BATCH_POLL_S", "60"))
"""Seconds between two looks at an open batch at most."""
TICK_S = 0.25
REST_AFTER_S = 30.0
"""Seconds of waiting after which Ray is left: a local one ends, runners on a cluster give their memory back."""
LOST_REPLY_S = 3.0
"""Seconds after a lost reply before a batch is looked for: the endpoint may still be creating it."""
SUBMIT_TRIES = 60
"""Times in a row that a batch cannot be created before the run stops: about an hour."""
CLOCK_S = 3_600.0
"""Seconds by which the endpoint's clock may differ from ours."""

_STOPS = {Kind.QUOTA: OutOfQuota, Kind.ACCESS: WrongSetting, Kind.SETTING: WrongSetting}


@dataclass
class _Open:
    """An input file whose batch has not ended."""

    entry: InputEntry
    number: int = 0
    """How many batches were created for it."""
    batch_id: str = ""
    doubtful: bool = True
    """Whether a batch may have been created that the store does not know."""
    state: "BatchState | None" = None
    failures: int = 0
    reason: str = ""
    """Why it could not be submitted the last time."""
    file_id: str = ""
    """The uploaded input file, once it is there."""
    full: bool = False
    """Whether it waits for room in the endpoint's queue."""


@dataclass
class Waves:
    """The waves of one run."""

    batches: Batches
    models: Models
    order: tuple[str, ...]
    """The nodes of the workflow."""
    check: Callable[[], None]
    """Called while something is waited for; raises when the run must stop."""
    say: Callable[[str], None]
    """Receives what is waited for, as people read it, again and again."""
    rest: Callable[[], None] = lambda: None
    """Called once the wait is long: what is not needed meanwhile can be released."""
    _endpoints: dict[str, "BatchEndpoint"] = field(default_factory=dict)
    _fresh: set[str] = field(default_factory=set)
    """Input files that this driver wrote and has not submitted yet: no batch of them can exist."""

    @property
    def next(self) -> int:
        """The number of the wave that is not closed yet."""
        return max((wave["wave"] for wave in self.batches.waves()), default=0) + 1

    # -- closing ----------------------------------------------------------------------------

    def pack(self, wave: int, epoch: int) -> list[InputEntry]:
        """Write the input files of a wave from what the runners of the driver *epoch* put aside; what they may cost."""
        entries = []
        for model, rows in self._packets(wave, epoch):
            settings = self._settings(model)
            body = b"".join(input_line(row["custom_id"], row["body"], settings.call.api) for row in rows)
            name = hashlib.sha256(body).hexdigest()[:16]
            price = price_of(settings)
            costs = [price.cost(Tokens(row["input_tokens"], row["max_tokens"]), "batch") if price else None for row in rows]
            self.batches.write_input(wave, name, body)
            entries.append(
                InputEntry(
                    name=name,
                    model=model,
                    rows=len(rows),
                    bytes=len(body),
                    input_tokens=sum(row["input_tokens"] for row in rows),
                    max_output_tokens=sum(row["max_tokens"] for row in rows),
                    max_usd=None if None in costs else round(sum(cost for cost in costs if cost is not None), 6),
                    nodes=dict(Counter(f"judge of {row['node']}" if row["judges"] else str(row["node"]) for row in rows)),
                )
            )
        return entries

    def close(self, wave: int, entries: list[InputEntry]) -> None:
        """Close a wave: it is submitted from now on."""
        if self.batches.close_wave(wave, entries):
            self._fresh |= {entry["name"] for entry in entries}
        self.batches.empty_outbox()

    def _packets(self, wave: int, epoch: int) -> Iterator[tuple[str, list[JsonObject]]]:
        """The rows of each input file, with the name of their model. Whoever asked twice is asked about once."""
        open_rows: dict[str, list[JsonObject]] = {}
        sizes: Counter[str] = Counter()
        seen: set[str] = set()
        for table in self.batches.outbox(wave, epoch):
            for row in table.to_pylist():
                if row["custom_id"] in seen:
                    continue
                seen.add(row["custom_id"])
                model, limits = row["model"], self._settings(row["model"]).batch
                size = len(row["body"].encode()) + 200
                rows = open_rows.setdefault(model, [])
                if rows and (len(rows) >= limits.rows or sizes[model] + size > limits.megabytes * 1_000_000):
                    yield model, rows
                    rows = open_rows[model] = []
                    sizes[model] = 0
                rows.append(row)
                sizes[model] += size
        yield from open_rows.items()

    # -- waiting ----------------------------------------------------------------------------

    def unfinished(self) -> Wave | None:
        """The wave that is closed, and whose answers are not all in the store."""
        for wave in self.batches.waves():
            if any(self.batches.ended(wave["wave"], entry["name"]) is None for entry in wave["inputs"]):
                return wave
        return None

    def _open_batches(self, wave: Wave) -> int:
        """How many batches of the wave are out."""
        names = [entry["name"] for entry in wave["inputs"] if self.batches.ended(wave["wave"], entry["name"]) is None]
        return sum(bool(self.batches.submitted(wave["wave"], name)[1]) for name in names)

    def finish(self, wave: Wave) -> None:
        """
        Submit what is not submitted, wait until all batches have ended, and commit what they brought.

        Raises:
            Stopped: the batches go on, and the next driver goes on with them.
        """
        number, started, pause, rested = wave["wave"], time.monotonic(), FIRST_PAUSE_S, False
        waiting = []
        for entry in wave["inputs"]:
            if self.batches.ended(number, entry["name"]) is None:
                count, batch_id = self.batches.submitted(number, entry["name"])
                waiting.append(_Open(entry, count, batch_id, doubtful=entry["name"] not in self._fresh))
        try:
            while waiting:
                self.check()
                for each in list(waiting):
                    if self._aside(partial(self._advance, wave, each, [other for other in waiting if other is not each])):
                        waiting.remove(each)
                        pause = FIRST_PAUSE_S
                if not waiting:
                    break
                if not rested and time.monotonic() - started > REST_AFTER_S:
                    self.rest()
                    rested = True
                self._sleep(wave, waiting, pause)
                pause = min(pause * 1.5, MAX_PAUSE_S)
        except Stopped as error:
            with contextlib.suppress(Stopped):
                if count := self._open_batches(wave):
                    error.add_note(f"{count} batch{'es go' if count > 1 else ' goes'} on at the endpoint; resuming the run collects their answers")
            raise

    def _aside(self, step: Callable[[], bool]) -> bool:
        """The result of *step*, done in another thread: an endpoint that hangs delays neither Ctrl-C nor the driver's signs of life."""
        results: list[bool | BaseException] = []

        def work() -> None:
            try:
                results.append(step())
            except BaseException as error:
                results.append(error)

        working = threading.Thread(target=work, daemon=True)
        working.start()
        while working.is_alive():
            working.join(TICK_S)
            self.check()
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    def _sleep(self, wave: Wave, waiting: list[_Open], seconds: float) -> None:
        until = time.monotonic() + min(seconds, MAX_PAUSE_S)
        while (left := until - time.monotonic()) > 0:
            self.say(self._described(wave, waiting))
            time.sleep(min(left, TICK_S))
            self.check()

    def _advance(self, wave: Wave, each: _Open, others: list[_Open]) -> bool:
        """Bring one input file a step further; whether all that its batch brought is in the store."""
        from beam_ray.llm.batch_endpoint import NotNow

        endpoint = self._endpoint(each.entry["model"])
        try:
            if not each.batch_id:
                if each.full and any(other.batch_id for other in others):
                    return False
                self._submit(endpoint, wave, each)
            reach("poll", self._key(wave, each))
            each.state = endpoint.get(each.batch_id)
            each.failures = 0
            if not each.state.ended:
                return False
            if each.state.status == "failed" and _is_full(each.state):
                each.batch_id, each.doubtful, each.full = "", False, True
                self._count_failure(each, "; ".join(message for _, message in each.state.errors))
                return False
            self._collect(endpoint, wave, each.entry, each.state)
            return True
        except NotNow as error:
            if not each.batch_id:
                self._count_failure(each, str(error))
            return False

    def _count_failure(self, each: _Open, reason: str) -> None:
        each.failures, each.reason = each.failures + 1, reason
        if each.failures >= SUBMIT_TRIES:
            raise Stopped(
                f"no batch can be created for {each.entry['model']!r}: {reason}\n"
                "  a smaller  batch: {rows: …}  in the models file makes smaller batches; run the same command again to resume"
            )

    def _submit(self, endpoint: "BatchEndpoint", wave: Wave, each: _Open) -> None:
        """Create a batch for the input file, unless there is one already."""
        number, name = each.number + 1, each.entry["name"]
        mark = f"{self.batches.run.run_id}/{wave['wave']}/{name}/{number}"
        found = None
        if each.doubtful:
            there = endpoint.find(mark, _seconds(wave["closed_at"]) - CLOCK_S)
            found = there[0] if there else None
            for extra in there[1:]:
                endpoint.cancel(extra.id)
        if found is None:
            if not each.file_id:
                reach("upload", self._key(wave, each))
                each.file_id = endpoint.upload(f"{name}.jsonl", self.batches.read_input(wave["wave"], name))
                reach("uploaded", self._key(wave, each))
            # from here on a batch may exist that nobody has written down
            each.doubtful = True
            reach("create", self._key(wave, each))
            try:
                found = endpoint.create(each.file_id, mark)
            except Exception:
                time.sleep(LOST_REPLY_S)
                raise
            reach("created", self._key(wave, each))
        kept = self.batches.submit(wave["wave"], name, number, found.id)
        if kept != found.id:
            endpoint.cancel(found.id)  # another driver was first, and this one is about to learn that the run was taken from it
        self._fresh.discard(name)
        each.batch_id, each.number, each.full = kept, number, False

    # -- answers ----------------------------------------------------------------------------

    def _collect(self, endpoint: "BatchEndpoint", wave: Wave, entry: InputEntry, state: "BatchState") -> None:
        """Commit what an ended batch brought; a row without an answer gets the reason."""
        reach("fetch", f"{self.batches.prefix}/waves/{wave['wave']:04d}/{entry['name']}.batch-00.json")
        sent = {custom_id_of(line): line for line in self.batches.read_input(wave["wave"], entry["name"]).splitlines()}
        replies: dict[str, tuple[int, str]] = {}
        """Status and JSON text."""
        stop: Stopped | None = None
        for line in (*endpoint.lines(state.output_file), *endpoint.lines(state.error_file)):
            name = line.get("custom_id")
            if name not in sent or replies.get(name, (0, ""))[0] == 200:
                continue
            status, body = read_line(line, state.status)
            if status not in (0, 200):
                refusal = read_refusal(status, body)
                kind, parameter = kind_of(refusal, json.loads(sent[name])["body"])
                if kind in _STOPS:
                    # not a try of this row: the next wave asks again, when the reason is gone
                    said = endpoint.settings.hide(refusal.message)[:300]
                    about = f"refuses {parameter!r}" if parameter else "cannot be called"
                    stop = stop or _STOPS[kind](f"{endpoint.settings.model} at {endpoint.settings.base_url} {about}: {said}")
                    sent.pop(name)
                    continue
            replies[name] = status, json.dumps(body)
        reason = "; ".join(message or code for code, message in state.errors)[:500]
        if state.status == "failed":
            sent = {}
            stop = WrongSetting(
                f"{endpoint.settings.model} at {endpoint.settings.base_url}: batch {state.id} failed: {endpoint.settings.hide(reason) or 'no reason is given'}"
            )
        by_shard: dict[int, list[JsonObject]] = {}
        for name in sorted(sent):
            status, text = replies.get(name) or (0, json.dumps("missing" if state.status == "completed" else state.status))
            by_shard.setdefault(shard_of(name), []).append({"custom_id": name, "status": status, "body": text})
        for shard, rows in by_shard.items():
            self.batches.keep_answers(shard, wave["wave"], entry["name"], rows)
        statuses = Counter(row["status"] for rows in by_shard.values() for row in rows)
        ended = Ended(
            status=state.status,
            answered=statuses[200],
            refused=statuses.total() - statuses[200] - statuses[0],
            unanswered=entry["rows"] - statuses.total() + statuses[0],
            at=now(),
        )
        self.batches.end(wave["wave"], entry["name"], Ended(**ended, reason=reason) if reason else ended)
        if stop:
            raise stop

    # -- words ------------------------------------------------------------------------------

    def _described(self, wave: Wave, waiting: list[_Open]) -> str:
        """Such as: node 2 of 4: batch 3 of 3, 18,200 of 50,000 answered, expires in 19 h."""
        asking = dict.fromkeys(name for entry in wave["inputs"] for name in entry["nodes"])
        first, rows = waiting[0], sum(entry["rows"] for entry in wave["inputs"])
        left = sum(each.entry["rows"] - (each.state.answered if each.state else 0) for each in waiting)
        place = [entry["name"] for entry in wave["inputs"]].index(first.entry["name"]) + 1
        text = f"{self._nodes(list(asking))}: batch {place} of {len(wave['inputs'])}, {rows - left:,} of {rows:,} answered"
        if not first.batch_id:
            why = "waiting for room in the queue" if first.full else f"not submitted yet ({first.reason})" if first.reason else "not submitted yet"
            return f"{text}, {why}"
        if first.state and first.state.status in ("validating", "finalizing", "cancelling"):
            return f"{text}, {first.state.status}"
        if first.state and first.state.expires_at:
            return f"{text}, expires in {_hours(first.state.expires_at - time.time())}"
        return text

    def _nodes(self, asking: list[str]) -> str:
        judges = all(name.startswith("judge of ") for name in asking)
        places = sorted({self.order.index(name.removeprefix("judge of ")) + 1 for name in asking})
        text = f"node {places[0]}" if len(places) == 1 else f"nodes {', '.join(map(str, places[:-1]))} and {places[-1]}"
        return f"{'judge of ' if judges else ''}{text} of {len(self.order)}"

    def _key(self, wave: Wave, each: _Open) -> str:
        return f"{self.batches.prefix}/waves/{wave['wave']:04d}/{each.entry['name']}.batch-{each.number:02d}.json"

    def _settings(self, model: str) -> ModelSettings:
        settings = self.models[model]
        assert isinstance(settings, ModelSettings), "a model object has no batch endpoint"
        return settings

    def _endpoint(self, model: str) -> "BatchEndpoint":
        if model not in self._endpoints:
            from beam_ray.llm.batch_endpoint import BatchEndpoint  # loads openai

            self._endpoints[model] = BatchEndpoint(self._settings(model), model)
        return self._endpoints[model]


def _is_full(state: "BatchState") -> bool:
    """Whether the batch failed because too many tokens are waiting already, which passes."""
    return any(code == "token_limit_exceeded" or "enqueued token limit" in message.lower() for code, message in state.errors)


def _seconds(at: str) -> float:
    return datetime.datetime.fromisoformat(at).timestamp()


def _hours(seconds: float) -> str:
    minutes = max(round(seconds / 60), 0)
    return f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min"
