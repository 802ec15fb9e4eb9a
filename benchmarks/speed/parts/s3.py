"""A run on a store on S3 whose every request takes 30 ms longer, beside the same run on a disk."""

import collections
import re
import sys
import tempfile
from pathlib import Path

from benchmarks.speed.endpoint import ROOT, Endpoint, endpoint
from benchmarks.speed.report import Report
from benchmarks.speed.resources import Used, run_measured
from benchmarks.speed.slow_store import DELAY_S, SlowStore, slow_store

TASKS, PAIRS, LIMIT = 500, 3, 1.10


def measure(report: Report) -> None:
    """Run the same on a disk and on S3 in turn; the median of the pairs' ratios, and the requests of the last run by kind."""
    pairs = []
    with endpoint() as model, slow_store() as store:
        for number in range(PAIRS):
            disk = _seconds(_run(model))
            store.forget()
            pairs.append((disk, _seconds(_run(model, store, f"s3://beam/bench-{number}"))))
            report.progress(f"disk {disk:.2f} s, S3 {pairs[-1][1]:.2f} s")
        requests = store.requests()
    ratios = sorted(slow / disk for disk, slow in pairs)
    report.table(["500 tasks", "disk s", "S3 s", "ratio"], [[f"pair {number}", disk, slow, slow / disk] for number, (disk, slow) in enumerate(pairs, 1)])
    counted = collections.Counter(f"{each.method} {_kind(each.key)}" for each in requests)
    report.table(["requests, with the warm-up", "number"], [[what, count] for what, count in sorted(counted.items())])
    report.at_most(f"{TASKS} tasks on S3 with {1000 * DELAY_S:.0f} ms per request / on disk, median of {PAIRS} pairs", ratios[PAIRS // 2], LIMIT)


def _run(model: Endpoint, store: SlowStore | None = None, uri: str = "") -> Used:
    with tempfile.TemporaryDirectory() as name:
        words = [sys.executable, "-m", "benchmarks.speed.ours", name, model.url, str(TASKS), *(["--store", uri] if uri else [])]
        return run_measured(words, ROOT, **(store.environment if store else {}))


def _seconds(used: Used) -> float:
    return float(used.printed["seconds"])


def _kind(key: str) -> str:
    """The kind of object that a request is about."""
    path = Path(key.partition("?")[0])
    if "list-type" in key:
        prefix = re.search(r"prefix=([^&]*)", key)
        path = Path((prefix[1] if prefix else "").replace("%2F", "/"))
    place = re.sub(r"^.*?runs/[^/]*/?", "", str(path)) if "runs/" in str(path) else "/".join(path.parts[3:4])
    return ("LIST " if "list-type" in key else "") + (place.split("/")[0] or "runs")
