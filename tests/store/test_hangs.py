"""S3 servers that take a request and fall silent: each call ends by its time-out, and is made again or given up."""

import itertools
import socket
from collections.abc import Callable
from typing import Any

import pytest
import stamina

from beam_ray.errors import Stopped
from beam_ray.store import s3
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.opening import open_objects
from tests.store.proxy import HANGS, Proxy

pytestmark = pytest.mark.timeout(60)

BODY = b"0123456789" * 1_000

CALLS: dict[str, tuple[Callable[[Objects], Any], Any]] = {
    "create": (lambda store: (store.create("b/new", BODY), store.read("b/new")), (True, BODY)),
    "put": (lambda store: (store.put("b/put", BODY), store.read("b/put")), (None, BODY)),
    "read": (lambda store: store.read("a/x"), BODY),
    "keys": (lambda store: list(store.keys("a/")), [("a/deep/er/y", 1), ("a/x", len(BODY))]),
    "folders": (lambda store: store.folders("a/deep"), ["er"]),
    "age": (lambda store: 0 <= store.age("a/x") < 3_600, True),
    "delete": (lambda store: (store.delete("a/x"), store.delete("a/x")), (None, None)),
}
"""Each call of a store, and what comes of it."""

# answers without a body have no middle
CASES = [(call, hang) for call in CALLS for hang in HANGS if hang != "half a reply" or call in ("read", "keys", "folders")]


@pytest.fixture
def store(s3_uri: str, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """A store behind the proxy, which waits for a fifth of a second where others wait for a minute."""
    monkeypatch.setattr(s3, "READ_S", 0.2)
    found = open_objects(s3_uri)
    found.create("a/x", BODY)
    found.create("a/deep/er/y", b"y")
    return found


@pytest.mark.parametrize(("call", "hang"), CASES, ids=lambda word: word.replace(" ", "-"))
def test_a_call_on_which_the_server_falls_silent_is_made_again(store: Objects, s3_proxy: Proxy, call: str, hang: str):
    """Whether it was not done, or done and not answered: a create that won knows it, and nothing is read by half."""
    do, result = CALLS[call]
    before = s3_proxy.done.total()
    s3_proxy.befalls = iter([hang])

    assert do(store) == result
    assert s3_proxy.done[hang] == 1
    assert s3_proxy.done.total() >= before + 2


@pytest.mark.parametrize("call", ["create", "read", "keys"])
def test_a_server_that_stays_silent_is_given_up_with_the_words_that_go_on(store: Objects, s3_proxy: Proxy, call: str, monkeypatch):
    """Exit 3; what was asked is not taken for absent."""
    monkeypatch.setattr(s3, "PATIENCE_S", 0.5)
    stamina.set_testing(False)
    s3_proxy.befalls = itertools.repeat("silence")
    with pytest.raises(Stopped, match=r"Read timeout on endpoint URL.*; when the store is back, run the same command again") as stop:
        CALLS[call][0](store)
    s3_proxy.befalls = iter(())

    assert stop.value.exit_code == 3
    assert s3_proxy.done["silence"] >= 2
    assert store.read("a/x") == BODY
    with pytest.raises(NotThere):
        store.read("b/new")


def test_a_server_that_takes_no_connection_is_given_up(s3_uri: str, monkeypatch: pytest.MonkeyPatch):
    """As behind a firewall that answers nothing."""
    monkeypatch.setattr(s3, "CONNECT_S", 0.1)
    monkeypatch.setattr(s3, "PATIENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        # one connection fills the queue of who never accepts; what the next ones send is dropped
        crowd = [socket.socket() for _ in range(3)]
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(deaf.getsockname())
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(Stopped, match=r"Connect timeout on endpoint URL.*; when the store is back, run the same command again"):
            open_objects(s3_uri)
        for each in crowd:
            each.close()
