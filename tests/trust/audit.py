"""
``make audit``: every locked version against the index of known vulnerabilities (threat 26).

Asks osv.dev by pip-audit; says so and leaves with 0 where either is not to be had, and with 1
when a version has a known vulnerability.
"""

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

INDEX = "api.osv.dev"
LOCK = Path(__file__).parents[2] / "requirements.txt"


def main() -> int:
    """Audit, or say why not."""
    if importlib.util.find_spec("pip_audit") is None:
        print("skipped: pip-audit is not installed here (pip install pip-audit)")
        return 0
    try:
        socket.create_connection((INDEX, 443), timeout=10).close()
    except OSError as error:
        print(f"skipped: {INDEX} is not reachable from here ({error})")
        return 0
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--disable-pip", "--require-hashes", "-r", str(LOCK)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
