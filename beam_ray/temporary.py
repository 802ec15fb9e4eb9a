"""Where temporary files go."""

import os
import tempfile


def ensure_temporary_folder() -> None:
    """
    Put temporary files into Ray's folder where the system has no writable one.

    So it is in a container with a read-only root, whose only volume is Ray's. The variables also
    count for processes started later; Ray itself stays where it is.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        folder = os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray")
        if os.access(folder, os.W_OK):
            os.environ.setdefault("RAY_TMPDIR", "/tmp")
            os.environ["TMPDIR"] = folder
