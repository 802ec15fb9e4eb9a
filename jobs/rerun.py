"""
``beam-ray rerun`` as a Ray job, with the same arguments and the same exit code.

    ray job submit --working-dir . -- python jobs/rerun.py TASK …
"""

import sys

from beam_ray.cli.submit import as_job

as_job("rerun", tuple(sys.argv[1:]))
