"""
TELLING MLflow: a backtest as an experiment that people can look at.

The question: how can MLflow show everything without being able to break anything? The
answer: it is told at the end, from what is in the store, by a child process that is ended
when MLflow stops answering; every id, name and time comes from ours, so that telling it
again changes nothing. The road not taken: logging while the run goes on. MLflow's tracer
drops traces when it is hurried and blocks for minutes when its server is away.

Nothing here imports mlflow but the modules that the child runs (``backtests``, ``prompts``,
``traces``), so that a driver never carries its 150 MB.
"""

from beam_ray.tracking.location import default_uri, exists
from beam_ray.tracking.log import BacktestLog, Logged, SideLog, log_backtest, production_alias
from beam_ray.tracking.server import serve
from beam_ray.tracking.watchdog import PATIENCE_S

__all__ = ["PATIENCE_S", "BacktestLog", "Logged", "SideLog", "default_uri", "exists", "log_backtest", "production_alias", "serve"]
