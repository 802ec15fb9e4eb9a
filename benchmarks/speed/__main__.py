"""
How near beam_ray comes to what nobody can beat, beside a plain asyncio loop and beside its peers.

    python -m benchmarks.speed [PART …] [--sizes 50,500,2000] [--large 1000,10000,100000] [--every-peer | --no-peers]

Everything runs on this machine, one after the other; what counts are the ratios of one go. The
tables are Markdown on standard output, the last one holds every bar with what was found; what
goes on is told on standard error. A peer that is not installed is skipped with a word.
"""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable

from benchmarks.speed.parts import again, commands, large, latency, limits, nodes, row, store, stragglers
from benchmarks.speed.peers import LARGEST, PEERS, command
from benchmarks.speed.told import Told, machine, say


def main() -> int:
    """All parts, or those asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--sizes", default="50,500,2000", help="tasks of the parts fixed and lognormal")
    parser.add_argument("--large", default="1000,10000,100000", help="tasks of the part large")
    parser.add_argument("--repeats", type=int, default=1, help="of the loop and of beam_ray; the middle one counts")
    parser.add_argument("--every-peer", action="store_true", help="run every peer at every size: an hour more")
    parser.add_argument("--no-peers", action="store_true", help="only the loop and beam_ray")
    told = Told()
    parts: dict[str, tuple[str, Callable[[], None]]] = {}
    parser.add_argument("parts", nargs="*", metavar="PART")
    arguments = parser.parse_args()
    sizes, many = ([int(size) for size in each.split(",")] for each in (arguments.sizes, arguments.large))

    def shape(name: str) -> None:
        largest = dict.fromkeys(PEERS, max(sizes)) if arguments.every_peer else {} if arguments.no_peers else LARGEST[name]
        latency.measure(told, sizes, name, repeats=arguments.repeats, largest=largest)

    parts = {
        "prompt": ("What one waits for at the prompt", lambda: commands.prompt(told)),
        "cold": ("From nothing", lambda: commands.cold(told)),
        "fixed": ("Four steps of 200 ms, 64 at once", lambda: shape("fixed")),
        "lognormal": ("The same, lognormal: median 200 ms, sigma 0.8", lambda: shape("lognormal")),
        "again": ("A backtest of one changed node", lambda: again.measure(told)),
        "stragglers": ("Rows that take twenty times as long", lambda: stragglers.measure(told)),
        "limits": ("A limit on calls per second", lambda: limits.measure(told)),
        "large": ("As runs grow", lambda: large.measure(told, many)),
        "nodes": ("One, two and four Ray nodes on one machine", lambda: nodes.measure(told)),
        "row": ("Where the CPU of a step goes", lambda: row.measure(told)),
        "store": ("What a run asks of its surroundings", lambda: store.measure(told)),
    }
    unknown = [name for name in arguments.parts if name not in parts]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(parts)}")
    began = time.monotonic()
    say(f"{machine()}\n")
    missing = [name for name in PEERS if command(name) is None]
    if missing:
        say(f"Not installed, so not measured: {', '.join(missing)} (`python -m benchmarks.speed.peers {' '.join(missing)}` installs them).\n")
    for name, (title, part) in parts.items():
        if arguments.parts and name not in arguments.parts:
            continue
        told.part(title)
        told.progress(f"-- {name}")
        start = time.monotonic()
        try:
            part()
        except Exception:  # what one part cannot do is no reason to lose the others
            traceback.print_exc()
            told.failed.append(name)
        told.progress(f"-- {name} took {time.monotonic() - start:.0f} s; load {os.getloadavg()[0]:.1f}")
    told.part("Bars")
    told.table(["what", "bar", "found", ""], [bar.row for bar in told.bars])
    minutes = (time.monotonic() - began) / 60
    say(f"{sum(bar.met for bar in told.bars)} of {len(told.bars)} bars met; {minutes:.0f} min in all; load at the end {os.getloadavg()[0]:.1f}.")
    if told.failed:
        say(f"Parts that failed, see standard error: {', '.join(told.failed)}.")
    return 1 if told.failed else 0


if __name__ == "__main__":
    sys.exit(main())
