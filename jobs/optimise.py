"""
``beam-ray optimise`` as a Ray job, with the same arguments and the same exit code.

    ray job submit --working-dir . -- python jobs/optimise.py WORKFLOW --library NAME --budget max_usd=… …
"""

import sys

from beam_ray.cli.submit import as_job

as_job("optimise", tuple(sys.argv[1:]))
