"""
``beam-ray run`` as a Ray job, with the same arguments and the same exit code.

    ray job submit --working-dir . -- python jobs/run.py WORKFLOW --tasks SOURCE …
"""

import sys

from beam_ray.cli.submit import as_job

as_job("run", tuple(sys.argv[1:]))
