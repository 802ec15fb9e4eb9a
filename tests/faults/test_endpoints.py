"""Model endpoints as they are: every row ends in one state, with the reason; a run that cannot be answered stops."""

import email.utils
import os
import random
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint, choice_of, endless, endpoint, reset
from tests.faults.conftest import Bench, Forge, make_bench

ONE = "workflow: one\nmodel: m\nnodes:\n  say: {timeout_s: %s, llm: {prompt: 'read #{{ task_query }}#'}}\n"
ROWS = int(os.environ.get("STORM_ROWS", "100"))


class Storm:
    """30 % 429, 10 % 5xx, 5 % resets, 5 % bad JSON, and answers that are empty, endless or refused; the same for the same seed."""

    def __init__(self, seed: int):
        self.seed, self.lock = seed, threading.Lock()
        self.said: dict[str, list[str]] = defaultdict(list)
        """Task to what it was told, call by call."""

    def __call__(self, body: dict[str, Any]) -> Any:
        task = str(body["messages"][-1]["content"]).split("#")[1]
        with self.lock:
            dice = random.Random(f"{self.seed}/{task}/{len(self.said[task])}")
            words = ["slow down", "down", "reset", "garbage", "empty", "endless", "filtered", "refused", "fine"]
            [word] = dice.choices(words, [30, 10, 5, 5, 3, 1, 1, 1, 44])
            self.said[task].append(word)
        past = email.utils.formatdate(time.time() - 60, usegmt=True)
        headers: dict[str, str] = dice.choice([{}, {"retry-after-ms": "20"}, {"Retry-After": "0.05"}, {"Retry-After": "-5"}, {"Retry-After": past}])
        return {
            "slow down": (429, headers, {"error": {"message": "too many requests", "code": "rate_limit_exceeded"}}),
            "down": (dice.choice([500, 502, 503, 529]), headers, dice.choice([b"<html>", b"", b'{"error": "overloaded"}'])),
            "reset": reset,
            "garbage": (200, {}, dice.choice([b"<html>", b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": "no"}]}', b"[" * 100_000])),
            "empty": (200, {}, {"choices": [choice_of(content=dice.choice([None, "", " \n"]))], "usage": {"prompt_tokens": "many"}}),
            "endless": lambda handler: endless(handler, dice.choice([200, 200, 500])),
            "filtered": (400, {}, {"error": {"message": "the prompt was filtered", "code": "content_filter"}}),
            "refused": (200, {}, {"choices": [dice.choice([choice_of(refusal="I would rather not"), choice_of("content_filter", content="")])]}),
            "fine": task,
        }[word]


def test_in_a_storm_every_row_ends_in_one_state_with_the_reason(tmp_path, forge: Forge):
    """The states add up to the input, the calls counted are those of the journal, and memory is bounded."""
    storm = Storm(7)
    with endpoint(storm) as model:
        bench = one_node(tmp_path, forge, model, ROWS, "tries: 4, concurrency: 32")
        ended = bench.run()
        calls = len(model.journal)
    rows = bench.runs[0].steps().to_pylist()
    states = Counter(row["error_type"] or row["outcome"] for row in rows)

    assert ended.code == 0
    assert sorted(row["task_id"] for row in rows) == sorted(f"t{number}" for number in range(ROWS))
    assert {name: states[name] > 0 for name in ("done", "ModelUnavailable", "ModelRefused", "BadAnswer")} == dict.fromkeys(states, True)
    assert all((row["outcome"] == "done") == (row["error"] is None) for row in rows)
    assert sum(row["calls"] for row in rows) == calls
    for row in rows:
        last = storm.said[row["task_id"][1:]][-1]
        assert (row["error_type"] or "done") == {"fine": "done", "filtered": "ModelRefused", "refused": "ModelRefused", "empty": "BadAnswer"}.get(
            last, row["error_type"]
        ), (row["error"], last)
    assert ended.rss < 600_000_000


def test_when_the_quota_is_used_up_the_run_stops_and_goes_on_later(bench: Bench, undisturbed: Bench):
    """Exit 3 and no failed row: an empty purse is no row's own failure."""
    usual = bench.model.answer
    bench.model.answer = lambda body: (
        usual(body) if len(bench.model.journal) <= 20 else (429, {}, {"error": {"message": "you exceeded your current quota", "code": "insufficient_quota"}})
    )
    ended = bench.run()
    bench.model.answer = usual
    bench.model.journal = bench.model.journal[:20]
    bench.kills = [(at, 20) for at, _ in bench.kills]
    again = bench.run()

    assert ended.code == 3
    assert "you exceeded your current quota" in ended.err and "once there is quota again, run the same command again" in ended.err
    assert again.code == 0
    bench.assert_nothing_paid_twice()
    assert bench.result() == undisturbed.result()


@pytest.mark.parametrize(("status", "tries", "state"), [(200, 1, "BadAnswer: the reply has more than 4,000,000 bytes"), (500, 2, "ModelUnavailable")])
def test_an_endless_reply_is_read_no_further_than_it_is_of_use(tmp_path, forge: Forge, status, tries, state):
    """An endless answer is a bad one, and not asked for again; an endless complaint is a complaint."""
    with endpoint(lambda body: lambda handler: endless(handler, status)) as model:
        bench = one_node(tmp_path, forge, model, 4, "tries: 2")
        ended = bench.run()
        calls = len(model.journal)

    assert (ended.code, calls) == (0, 4 * tries)
    assert [f"{row['error_type']}: {row['error']}"[: len(state)] for row in bench.runs[0].steps().to_pylist()] == [state] * 4
    assert ended.rss < 500_000_000


def test_an_answer_in_drops_ends_with_the_time_that_a_call_has(tmp_path, forge: Forge):
    """A limit on silence alone would wait for ever."""
    with endpoint(lambda body: lambda handler: endless(handler, 200, 0.05, b" ")) as model:
        bench = one_node(tmp_path, forge, model, 2, "tries: 1", timeout_s=1)
        ended = bench.run()

    assert ended.code == 0
    assert [row["error"] for row in bench.runs[0].steps().to_pylist()] == ["no answer within 1 s"] * 2


def one_node(folder: Path, forge: Forge, model: Endpoint, rows: int, settings: str, timeout_s: int = 60) -> Bench:
    """A bench whose workflow asks the model once a row."""
    bench = make_bench(folder / "bench", forge, model, rows)
    (bench.folder / "work.yaml").write_text(ONE % timeout_s)
    (bench.folder / "models.yaml").write_text(f"m: {{base_url: '{model.url}', model: x, {settings}}}\n")
    return bench
