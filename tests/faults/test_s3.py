"""A store on S3: a command is killed at a named point, the network fails there, or the server stops answering; the same command resumes."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endpoint import endpoint
from tests.faults.conftest import BUSY_LATE_S, Bench, Forge, answer, make_bench, opened
from tests.faults.test_crash import strike
from tests.store.proxy import Proxy

COMMITS = ("put", "answered", "delete", "deleted")
DOUBTED = ("lease", "spool", "part", "manifest")


@pytest.fixture
def bench(tmp_path: Path, forge: Forge, s3_uri: str) -> Iterator[Bench]:
    """A bench with 16 tasks, a model that takes 10 ms, and a store on S3."""
    with endpoint(answer, latency_s=0.01) as model:
        made = make_bench(tmp_path / "bench", forge, model, 16, s3_uri, {name: value for name, value in os.environ.items() if name.startswith("AWS_")})
        # the bench itself looks past any proxy
        opened(made.uri)
        yield made


def calm(bench: Bench, undisturbed: Bench) -> list[str]:
    """Every point by which a command comes that is left alone, in the order in which it first does."""
    order = list(bench.run(fail="*.*:0:kill").hits)
    bench.finish(undisturbed)
    return order


def test_killed_at_every_named_point_of_a_commit(bench: Bench, undisturbed: Bench):
    """Before a request, between the server's answer and its writer, and while a doubtful answer is settled: what was kept is not paid for again."""
    order, faults = [], {}
    for point in calm(bench, undisturbed):
        name, _, call = point.partition(".")
        order.append(point)
        if call in COMMITS:
            faults[point] = f"{point}:1:kill"
        if call == "answered" and name in DOUBTED:
            # an answer is doubtful when the connection breaks behind the request
            order.append(f"{name}.recall")
            faults[order[-1]] = f"{point}:1:EIO, {name}.recall:1:kill"

    assert len(faults) >= 25
    assert {point.partition(".")[0] for point in faults} >= {"tasks", "run", "open", "lease", "beat", "part", "outcome-part", "steps", "outcome", "manifest"}
    strike(bench, undisturbed, order, "put", faults, "kill")


@pytest.mark.parametrize("action", ["EIO", "delay=0.02"])
def test_a_network_that_breaks_or_is_slow_at_every_point_changes_nothing(action: str, bench: Bench, undisturbed: Bench):
    """Once at each: a broken connection is asked again, and a create behind which it broke knows that it won."""
    order = calm(bench, undisturbed)
    # waits between tries are for networks that are tired, not for this one
    ended = bench.run(fail=", ".join(f"{point}:1:{action}" for point in order), environment={"IMPATIENT": ""})

    assert ended.code == 0, ended.err
    assert action != "EIO" or ended.hits["part.recall"] >= 1
    bench.finish(undisturbed)


def test_a_server_that_falls_silent_stops_the_command_and_the_same_one_goes_on(bench: Bench, undisturbed: Bench, s3_proxy: Proxy):
    """Exit 3 with the words that go on; what was kept is not paid for again."""
    bench.model.latency_s = 0.2
    waits, silent_at = {"beam_ray.store.s3:READ_S": 0.2, "beam_ray.store.s3:PATIENCE_S": 1.0}, []

    def silence(driver: int) -> None:
        s3_proxy.befalls = itertools.repeat("silence")
        silent_at.append(time.time())

    ended = bench.run_beside(silence, calls=20, settings=waits, environment={"AWS_ENDPOINT_URL": s3_proxy.url})
    [run] = bench.runs
    # what was answered in the silence could not be kept
    bench.kills.insert(0, (silent_at[0], len(bench.model.journal)))

    assert ended.code == 3, ended.err
    assert "when the store is back, run the same command again" in ended.err
    assert f"resume with:  beam-ray resume {run.run_id} --store {bench.uri}" in ended.err
    assert s3_proxy.done["silence"] >= 2
    bench.finish(undisturbed, BUSY_LATE_S)
