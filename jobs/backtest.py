"""
``beam-ray backtest`` as a Ray job, with the same arguments and the same exit code.

    ray job submit --working-dir . -- python jobs/backtest.py SPEC …
"""

import sys

from beam_ray.cli.submit import as_job

as_job("backtest", tuple(sys.argv[1:]))
