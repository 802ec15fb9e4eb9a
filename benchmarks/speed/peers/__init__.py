"""
Comparable tools, each in its own environment and with its best settings.

Each peer is a folder with ``run.py``, called with URL TASKS STEPS CONCURRENCY OUT; its last
line is ``{"seconds": …}``: from the first task to the last record, imports left out.
"""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEERS = ("langgraph", "promptfoo", "inspect", "prefect", "mlflow")
LARGEST = {
    "fixed": {"langgraph": 2_000, "promptfoo": 2_000, "inspect": 2_000, "prefect": 50, "mlflow": 50},
    "lognormal": {"langgraph": 500, "promptfoo": 500, "inspect": 500},
}
"""The most tasks that a peer gets without --every-peer: larger runs take minutes and add no information."""


def environment(peer: str) -> Path:
    """The folder in which the peer is installed."""
    return HERE / ".venv" / peer


def command(peer: str) -> list[str] | None:
    """The command that runs the peer; None if it is not installed."""
    python = Path(sys.executable)
    if peer == "promptfoo":
        installed = shutil.which("node") is not None and (environment(peer) / "node_modules" / ".bin" / peer).exists()
    elif peer == "loop":
        installed = True
    else:
        python = environment(peer) / "bin" / "python"
        # the last thing that is installed
        installed = (environment(peer) / "installed").exists()
    return [str(python), str(HERE / peer / "run.py")] if installed else None
