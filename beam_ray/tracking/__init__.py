"""
Logging to MLflow: a backtest becomes an experiment.

The question: how can MLflow show everything without being able to break anything? The
answer: results are logged after the fact, from the store, by a worker process that is killed
when MLflow stops answering. Ids, names and times are derived from ours, so logging is
idempotent. The road not taken: logging during the run. MLflow's tracer drops traces under
load and blocks for minutes when its server is unreachable.

Only the modules that the worker runs (``experiments``, ``prompts``, ``traces``, ``trace_search``,
``evaluation_datasets``) import mlflow, so a driver never loads its 150 MB.
"""

from beam_ray.tracking.backtest_log import BacktestLog, Logged, SideLog
from beam_ray.tracking.location import default_uri, exists
from beam_ray.tracking.server import serve
from beam_ray.tracking.watchdog import PATIENCE_S
from beam_ray.tracking.worker_calls import ExportedDataset, copied_traces, export_dataset, log_backtest, production_alias

__all__ = [
    "PATIENCE_S",
    "BacktestLog",
    "ExportedDataset",
    "Logged",
    "SideLog",
    "copied_traces",
    "default_uri",
    "exists",
    "export_dataset",
    "log_backtest",
    "production_alias",
    "serve",
]
