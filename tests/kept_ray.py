"""A local Ray that stays up for the commands that tests start in processes of their own, so that each need not start one."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile


def command_environment() -> dict[str, str]:
    """The environment of such a command. The first that needs a Ray starts it; it ends with the tests."""
    mine = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**mine, **kept_ray()}


def kept_ray() -> dict[str, str]:
    """Variables by which commands share it."""
    return {"BEAM_RAY_KEEP": "10m", "XDG_RUNTIME_DIR": _runtime_folder()}


@functools.cache
def _runtime_folder() -> str:
    made = tempfile.mkdtemp(prefix="beam-ray-tests-")
    atexit.register(_end, made)
    return made


def _end(folder: str) -> None:
    subprocess.run([sys.executable, "-m", "beam_ray", "down"], env={**os.environ, "XDG_RUNTIME_DIR": folder}, capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
