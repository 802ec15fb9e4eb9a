"""How the process of a command ends."""

import subprocess
import sys
from pathlib import Path

PROGRAM = '''
import atexit, os, signal, sys, threading, time
import beam_ray.cli

def strike():
    """A thread that is never done, and sends a signal once the process waits for it."""
    while sys._current_frames()[threading.main_thread().ident].f_code.co_name != "_shutdown":
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)

def command(**_):
    atexit.register(print, "cleaned up")
    {ending}

beam_ray.cli.beam_ray.main = command
sys.argv = ["beam-ray"]
beam_ray.cli.main()
'''


def ended(tmp_path: Path, ending: str) -> subprocess.CompletedProcess[str]:
    """What the process of a command that ends so printed, and its exit code."""
    return subprocess.run([sys.executable, "-c", PROGRAM.format(ending=ending)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)


def test_what_libraries_do_at_the_end_is_done(tmp_path: Path):
    """Though the process does not take down its modules; the exit code is the command's."""
    done = ended(tmp_path, "print('result'); return 3")

    assert (done.returncode, done.stdout) == (3, "result\ncleaned up\n")


def test_modules_are_not_taken_down(tmp_path: Path):
    """That takes as long as a short command."""
    done = ended(tmp_path, "import json; json.last = type('Last', (), {'__del__': lambda self: os.write(2, b'taken down')})()")

    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_of_ours_is_shown_as_python_shows_it(tmp_path: Path):
    """Exit code 1 and a traceback."""
    done = ended(tmp_path, "raise RuntimeError('ours')")

    assert done.returncode == 1
    assert "RuntimeError: ours" in done.stderr


def test_a_signal_ends_the_wait_for_a_thread(tmp_path: Path):
    """At once, with the code that the command had."""
    done = ended(tmp_path, "threading.Thread(target=strike).start(); return 3")

    assert done.returncode == 3
