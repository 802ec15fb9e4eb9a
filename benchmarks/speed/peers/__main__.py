"""
Install peers, each in its own environment.

    python -m benchmarks.speed.peers [NAME …]
"""

import shutil
import subprocess
import sys
import venv

from benchmarks.speed.peers import HERE, PEERS, environment


def install(peer: str) -> None:
    """Install the versions listed in the peer's folder; a partial installation is replaced."""
    place = environment(peer)
    if peer == "promptfoo":
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / peer / "package.json", place)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place)], check=True)
        return
    venv.create(place, clear=True, with_pip=True)
    subprocess.run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(HERE / peer / "requirements.txt")], check=True)
    (place / "installed").touch()


def main() -> int:
    """Install the peers that are named, or all; 1 if one could not be installed."""
    failed = []
    for peer in sys.argv[1:] or PEERS:
        sys.stderr.write(f"-- {peer}\n")
        try:
            install(peer)
        except (OSError, subprocess.CalledProcessError) as error:
            failed.append(peer)
            sys.stderr.write(f"{peer} could not be installed: {error}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
