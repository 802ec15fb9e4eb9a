"""
A name of this machine that only one user of it knows, such as ``5f0c….localhost``.

Browsers send a cookie to every port of its host, so that a server of somebody else on ``127.0.0.1`` gets that of a console there.
Under a name that nobody else knows, nobody else can have a page asked for. Browsers and curl take every name under
``.localhost`` for this machine without asking anybody; other programs may not know it.
"""

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{16}\.localhost")


def own_name() -> str:
    """The name, the same at each start so that links can be kept; another one where it cannot be kept where only this user reads it."""
    file = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam-ray" / "console-name"
    name = f"{secrets.token_hex(8)}.localhost"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
                made.write(name)
        except FileExistsError:
            status, kept = file.lstat(), file.read_text(encoding="utf-8")
            private = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
            if private and _NAME.fullmatch(kept):
                return kept
    return name
