"""
Where MLflow shows a backtest, kept when it is logged, so that a page can lead there without asking MLflow.

    backtests/<backtest>/mlflow/<digest>.json   one for each address at which it was logged, created if absent
"""

from datetime import UTC, datetime
from typing import TypedDict

from beam_ray.define.fingerprint import digest
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import NotThere, Objects


class MlflowPageDocument(TypedDict):
    """The content of backtests/<backtest>/mlflow/<digest>.json."""

    url: str
    logged_at: str
    """ISO 8601, UTC: when it was first logged there."""


def keep_page(objects: Objects, backtest_id: str, url: str) -> None:
    """Keep where the backtest was logged."""
    kept: MlflowPageDocument = {"url": url, "logged_at": datetime.now(UTC).isoformat(timespec="seconds")}
    objects.create(f"backtests/{backtest_id}/mlflow/{digest('mlflow-page/1', url)[:16]}.json", seal(kept))


def kept_pages(objects: Objects, backtest_id: str) -> list[str]:
    """The addresses at which it was logged, the newest first."""
    found: list[MlflowPageDocument] = []
    for key, _ in objects.keys(f"backtests/{backtest_id}/mlflow/"):
        try:
            found.append(read_document(objects, key, MlflowPageDocument))
        except NotThere:
            continue
    return [each["url"] for each in sorted(found, key=lambda each: each["logged_at"], reverse=True)]
