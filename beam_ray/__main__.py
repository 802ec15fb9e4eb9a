"""``python -m beam_ray``: the command line."""

from beam_ray.cli import main

main()
