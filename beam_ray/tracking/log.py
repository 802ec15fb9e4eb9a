"""
Log a backtest or a published version to MLflow, from a process that does not import mlflow.
"""

from beam_ray.define.workflow import Workflow
from beam_ray.tracking.backtest_log import BacktestLog, Logged, trimmed
from beam_ray.tracking.snapshot import write
from beam_ray.tracking.watchdog import PATIENCE_S, run_worker


def log_backtest(uri: str, log: BacktestLog, *, patience_s: float = PATIENCE_S) -> Logged:
    """
    Log a backtest to the MLflow at *uri*. It is safe to log it again: nothing is duplicated.

    Raises:
        TrackingUnavailable: MLflow is unreachable, refuses, or did not answer for *patience_s* seconds.
            What was logged stays logged; ``beam-ray mlflow-sync`` logs the rest.
    """
    found = run_worker(
        lambda folder: write(folder, "log_backtest", uri, trimmed(log)),
        uri=uri,
        patience_s=patience_s,
        retry=f"the results are in the store; log them later with: beam-ray mlflow-sync {log.backtest_id}",
    )
    return Logged(found["experiment_id"], found["run_ids"], found["url"])


def production_alias(uri: str, workflow: Workflow, *, patience_s: float = PATIENCE_S) -> dict[str, int]:
    """
    Point the alias ``production`` at the prompts of *workflow*, which was just published.

    Returns:
        Prompt name to version number in MLflow's registry.

    Raises:
        TrackingUnavailable: As for ``log_backtest``.
    """
    found = run_worker(
        lambda folder: write(folder, "production_alias", uri, workflow), uri=uri, patience_s=patience_s, retry="the version is published nevertheless"
    )
    return {name: int(version) for name, version in found.items()}
