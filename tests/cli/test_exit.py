"""How the process of a command ends."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import atexit, sys
import beam_ray.cli

def command(**_):
    atexit.register(print, "cleaned up")
    {ending}

beam_ray.cli.beam_ray.main = command
sys.argv = ["beam-ray"]
beam_ray.cli.main()
"""


def ended(tmp_path: Path, ending: str) -> subprocess.CompletedProcess[str]:
    """What the process of a command that ends so printed, and its exit code."""
    return subprocess.run([sys.executable, "-c", PROGRAM.format(ending=ending)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)


def test_what_libraries_do_at_the_end_is_done(tmp_path: Path):
    """Though the process does not take down its modules; the exit code is the command's."""
    done = ended(tmp_path, "print('result'); return 3")

    assert (done.returncode, done.stdout) == (3, "result\ncleaned up\n")


def test_modules_are_not_taken_down(tmp_path: Path):
    """That takes as long as a short command."""
    done = ended(tmp_path, "import json, os; json.last = type('Last', (), {'__del__': lambda self: os.write(2, b'taken down')})()")

    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_of_ours_is_shown_as_python_shows_it(tmp_path: Path):
    """Exit code 1 and a traceback."""
    done = ended(tmp_path, "raise RuntimeError('ours')")

    assert done.returncode == 1
    assert "RuntimeError: ours" in done.stderr
