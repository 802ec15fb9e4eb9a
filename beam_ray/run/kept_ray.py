"""
A local Ray that stays up between commands: found, started and ended.

    <runtime folder>/lock          held by the keeper, the process that started the Ray
    <runtime folder>/users         held, shared, by every command that uses the Ray: the keeper ends it only when nobody does
    <runtime folder>/ray.json      its address, its token and what it was started with; readable by its user alone
    <runtime folder>/keeper.log    what the keeper printed

It is private to a user, and one per machine. A command with another Python, Ray or beam_ray
does not use it and starts a Ray of its own.
"""

import contextlib
import fcntl
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

from beam_ray.errors import Unusable

KEEP_VARIABLE = "BEAM_RAY_KEEP"
START_S = 30.0
"""Seconds in which a Ray must be up."""
JOIN_S = 0.5
"""Seconds for which a command tries to hold a Ray that is up."""
MAX_KEEP_S = 7 * 86_400.0

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


class KeptDocument(TypedDict):
    """What ray.json says."""

    address: str
    token: str
    keeper: int
    """Process id."""
    keep_s: float
    started_at: float
    python: list[str]
    """What a command must have in common with the Ray to use it."""
    runners: list[str]
    """Names of the runners that were started ahead."""


@dataclass(frozen=True)
class KeptRay:
    """A local Ray that stays up, held by this command until ``release``."""

    document: KeptDocument
    _users: IO[str]

    @property
    def address(self) -> str:
        """HOST:PORT of its head."""
        return self.document["address"]

    def release(self) -> None:
        """Let it end once its time is up."""
        self._users.close()


def seconds_of(written: str) -> float:
    """
    The seconds of a duration such as ``10m``; 0 for ``0`` and ``off``.

    Raises:
        Unusable: it is none, or longer than a week.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", written.strip().lower())
    if written.strip().lower() in ("off", ""):
        return 0.0
    if not found or (seconds := float(found[1]) * _UNITS[found[2]]) > MAX_KEEP_S:
        raise Unusable(f"{written!r} is not a duration of at most a week\n  write it as 30s, 10m or 2h; 0 keeps no Ray")
    return seconds


def asked_keep() -> float | None:
    """
    Seconds from the variable BEAM_RAY_KEEP; None where it is not set.

    Raises:
        Unusable: it is no duration.
    """
    written = os.environ.get(KEEP_VARIABLE)
    if written is None:
        return None
    try:
        return seconds_of(written)
    except Unusable as error:
        raise Unusable(f"{KEEP_VARIABLE}: {error}") from None


def find_or_start() -> KeptRay | None:
    """
    The Ray that stays up, started if BEAM_RAY_KEEP asks for one; None where there is none for this command.

    Raises:
        Unusable: BEAM_RAY_KEEP is no duration.
    """
    asked = asked_keep()
    if asked == 0.0:
        return None
    found = find()
    if found is None and asked:
        with contextlib.suppress(Unusable):  # a Ray of its own serves the command as well
            start(asked)
            found = find()
    return found


def find() -> KeptRay | None:
    """The Ray that stays up, held for this command; None where there is none that it can use."""
    folder = _folder()
    document = _read(folder)
    if document is None or document["python"] != fingerprint():
        return None
    try:
        users = (folder / "users").open("w")
    except OSError:
        return None
    if not _joined(users) or _read(folder) != document:
        users.close()
        return None
    return KeptRay(document, users)


def _joined(users: IO[str]) -> bool:
    """Hold *users* with the other commands; False where the keeper, which looks each second whether anybody does, keeps it because the Ray ends."""
    end = time.monotonic() + JOIN_S
    while True:
        try:
            fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        else:
            return True


def start(keep_s: float) -> KeptDocument:
    """
    Start a Ray that stays up until no command has used it for *keep_s* seconds; one that is up is left as it is.

    Raises:
        Unusable: it does not start, or the one that is up belongs to another installation.
    """
    folder = _private(_folder())
    end = time.monotonic() + START_S
    keeper: subprocess.Popen[bytes] | None = None
    while time.monotonic() < end:
        if document := _read(folder):
            if document["python"] != fingerprint():
                raise Unusable(f"a local Ray of another installation is up ({document['python'][0]})\n  end it with its own  beam-ray down")
            return document
        if keeper is None:
            with (folder / "keeper.log").open("wb") as log:
                words = [sys.executable, "-m", "beam_ray.run.cluster.keeper", str(folder), str(keep_s)]
                # in a session of its own, so that it outlives the command and its terminal
                keeper = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        if keeper.poll() is not None:
            break
        time.sleep(0.02)
    said = (folder / "keeper.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise Unusable(f"the local Ray did not start: {said[-1] if said else 'no reason given'}\n  its log is {folder / 'keeper.log'}")


def stop(timeout_s: float = 20.0) -> bool:
    """End the Ray that stays up; False where there is none."""
    import signal

    folder = _folder()
    document = _read(folder)
    if document is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(document["keeper"], signal.SIGTERM)
    end = time.monotonic() + timeout_s
    while _held(folder) and time.monotonic() < end:
        time.sleep(0.05)
    return True


def fingerprint() -> list[str]:
    """What a command and the Ray must have in common: Python, its packages' folder, Ray, and beam_ray."""
    from importlib.metadata import version

    here = Path(__file__).resolve().parents[2]
    return [sys.executable, sys.version, version("ray"), version("beam-ray"), str(here), os.environ.get("PYTHONPATH", "")]


def write(folder: Path, document: KeptDocument) -> None:
    """Write ray.json, readable by its user alone."""
    handle, name = tempfile.mkstemp(dir=folder)  # with mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(document, file)
    os.replace(name, folder / "ray.json")


def _read(folder: Path) -> KeptDocument | None:
    """What ray.json says while its keeper lives; None otherwise, and where others could have written it."""
    try:
        if not _is_private(folder):
            return None
        document: KeptDocument = json.loads((folder / "ray.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if _held(folder) else None


def _held(folder: Path) -> bool:
    """Whether a keeper is alive."""
    try:
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _folder() -> Path:
    """The folder of this user's kept Ray."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # not tempfile.gettempdir(), which raises where nothing can be written
    base = Path(runtime if runtime and os.access(runtime, os.W_OK) else os.environ.get("TMPDIR") or "/tmp")
    return base / f"beam-ray-{os.getuid()}"


def _is_private(folder: Path) -> bool:
    """Whether it is a folder that this user alone may enter."""
    status = folder.lstat()
    return status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077


def _private(folder: Path) -> Path:
    """
    The folder, made where there is none.

    Raises:
        Unusable: it belongs to somebody else, others may enter it, or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        private = _is_private(folder)
    except OSError as error:
        raise Unusable(f"cannot keep a local Ray: {folder} cannot be made ({error.strerror})") from None
    if not private:
        raise Unusable(f"cannot keep a local Ray: {folder} is not a folder of this user alone\n  delete it, or set XDG_RUNTIME_DIR")
    return folder
