"""What a finished backtest keeps, and how it is read. Importing this loads nothing that runs steps or compares."""

import hashlib

from beam_ray.compare.verdict_json import BacktestDocument, CandidateDocument
from beam_ray.errors import Damaged, Unusable
from beam_ray.store.checksummed_json import read_document
from beam_ray.store.objects import NotThere, Objects

FILES = ("report.html", "report.md", "report.txt", "junit.xml", "comparison.parquet", "manifest.json", "verdict.json")
"""What a finished backtest keeps beside its sides; verdict.json is written last."""


def judged_candidates(verdict: BacktestDocument) -> list[CandidateDocument]:
    """The candidates of a backtest, and last the best one as it was run again on fresh tasks, where it was."""
    return [*verdict["candidates"], *([verdict["rerun"]["candidate"]] if "rerun" in verdict else [])]


def read_verdict(objects: Objects, backtest_id: str) -> BacktestDocument:
    """
    The verdict document of a finished backtest; the beginning of its id is enough.

    Raises:
        Unusable: there is no such backtest, or it is not finished.
    """
    known = objects.folders("backtests")
    matches = [backtest_id] if backtest_id in known else [name for name in known if name.startswith(backtest_id)]
    if len(matches) != 1:
        raise Unusable(
            f"{backtest_id!r} is ambiguous: {', '.join(matches[:5])}; give more of the id"
            if matches
            else f"there is no backtest {backtest_id!r}\n  there are: {', '.join(known[-5:]) or 'none'}"
        )
    try:
        return read_document(objects, f"backtests/{matches[0]}/verdict.json", BacktestDocument)
    except NotThere:
        raise Unusable(f"the backtest {matches[0]} is not finished; run its command again to resume it") from None


def report(objects: Objects, backtest_id: str, name: str = "report.txt") -> str:
    """A report of a finished backtest, as it was kept."""
    where = f"backtests/{backtest_id}/{name}"
    try:
        body = objects.read(where)
    except NotThere:
        raise Damaged(f"{where} is missing") from None
    verdict = read_verdict(objects, backtest_id)  # which carries a digest of itself
    if name != "verdict.json" and hashlib.sha256(body).hexdigest() != verdict["files"][name]:
        raise Damaged(f"{where} is damaged: its sha256 is not the one in the verdict")
    return body.decode()
