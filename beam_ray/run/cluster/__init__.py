"""
Ray: the only package that runs anything on it.

Runners are actors that Ray never restarts, and steps are calls that Ray never repeats: our
driver does both, so that attempts, crashes and money are counted.
"""

import os

from beam_ray.run.cluster_auth import auth_environment

# all of these count only before Ray is imported
os.environ.setdefault("RAY_task_oom_retries", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.update(auth_environment())
# calls of a run that was stopped have nobody left to read their errors
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

from beam_ray.run.cluster.connection import Cluster, RunnerDied, RunnerHandle

__all__ = ["Cluster", "RunnerDied", "RunnerHandle"]
