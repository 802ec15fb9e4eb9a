"""
Measure the speed of beam_ray against the ideal, a plain asyncio loop, and comparable tools.

    python -m benchmarks.speed [PART …] [--sizes 50,500,2000] [--large 1000,10000,100000] [--million 1000000] [--every-peer | --no-peers]

Everything runs on this machine, one after the other; compare ratios within one execution. The tables
are printed as Markdown on standard output; the last one lists every target with the measured value.
Progress is printed on standard error. A peer that is not installed is skipped with a note.
"""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable

from benchmarks.speed.parts import again, agents, commands, console, gateway, large, latency, limits, many_runs, nodes, row, s3, shapes, store, stragglers
from benchmarks.speed.peers import LARGEST, PEERS, command
from benchmarks.speed.report import Report, machine, say


def agents_and_programs(report: Report) -> None:
    """What recording costs, and what the gateway adds."""
    agents.measure(report)
    gateway.measure(report)


def main() -> int:
    """Run all parts, or those that were named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--sizes", default="50,500,2000", help="numbers of tasks of the parts fixed and lognormal")
    parser.add_argument("--large", default="1000,10000,100000", help="numbers of tasks of the part large")
    parser.add_argument("--million", type=int, default=1_000_000, help="number of tasks of the part million")
    parser.add_argument("--repeats", type=int, default=1, help="repetitions of the loop and of beam_ray; the median is reported")
    parser.add_argument("--every-peer", action="store_true", help="run every peer at every size (one more hour)")
    parser.add_argument("--no-peers", action="store_true", help="run only the loop and beam_ray")
    report = Report()
    parts: dict[str, tuple[str, Callable[[], None]]] = {}
    parser.add_argument("parts", nargs="*", metavar="PART")
    arguments = parser.parse_args()
    sizes, many = ([int(size) for size in each.split(",")] for each in (arguments.sizes, arguments.large))

    def shape(name: str) -> None:
        largest = dict.fromkeys(PEERS, max(sizes)) if arguments.every_peer else {} if arguments.no_peers else LARGEST[name]
        latency.measure(report, sizes, name, repeats=arguments.repeats, largest=largest)

    parts = {
        "prompt": ("Commands that do not start Ray", lambda: commands.prompt(report)),
        "cold": ("Cold start", lambda: commands.cold(report)),
        "fixed": ("Four steps of 200 ms, concurrency 64", lambda: shape("fixed")),
        "lognormal": ("The same with lognormal latency: median 200 ms, sigma 0.8", lambda: shape("lognormal")),
        "pairs": ("beam_ray and the loop in turn", lambda: latency.pairs(report, [100, 200, 500, 1_000], count=max(arguments.repeats, 5))),
        "again": ("A backtest of one changed node", lambda: again.measure(report)),
        "stragglers": ("Stragglers: tasks that take twenty times as long", lambda: stragglers.measure(report)),
        "limits": ("Rate limits", lambda: limits.measure(report)),
        "large": ("Number of tasks, with scripted answers", lambda: large.measure(report, many)),
        "million": ("A million tasks", lambda: large.million(report, arguments.million)),
        "nodes": ("One, two and four Ray nodes on one machine", lambda: nodes.measure(report)),
        "row": ("CPU time of a step", lambda: row.measure(report)),
        "agents": ("Agents and programs", lambda: agents_and_programs(report)),
        "console": ("Pages of the console over 100,000 tasks", lambda: console.measure(report)),
        "many-runs": ("Commands over 5,000 runs", lambda: many_runs.measure(report)),
        "store": ("Requests to the store", lambda: store.measure(report)),
        "shapes": ("Other shapes of work", lambda: shapes.measure(report, repeats=max(arguments.repeats, 3))),
        "s3": ("A store on S3 with 30 ms per request", lambda: s3.measure(report)),
    }
    unknown = [name for name in arguments.parts if name not in parts]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(parts)}")
    began = time.monotonic()
    say(f"{machine()}\n")
    missing = [name for name in PEERS if command(name) is None]
    if missing:
        say(f"Not installed, so not measured: {', '.join(missing)} (`python -m benchmarks.speed.peers {' '.join(missing)}` installs them).\n")
    for name, (title, part) in parts.items():
        if arguments.parts and name not in arguments.parts:
            continue
        report.part(title)
        report.progress(f"-- {name}")
        start = time.monotonic()
        try:
            part()
        except Exception:  # a part that fails must not end the others
            traceback.print_exc()
            report.failed.append(name)
        report.progress(f"-- {name} took {time.monotonic() - start:.0f} s; load {os.getloadavg()[0]:.1f}")
    report.part("Targets")
    report.table(["metric", "target", "measured", ""], [target.row for target in report.targets])
    minutes = (time.monotonic() - began) / 60
    say(
        f"{sum(target.met for target in report.targets)} of {len(report.targets)} targets met; {minutes:.0f} min in total; load at the end {os.getloadavg()[0]:.1f}."
    )
    if report.failed:
        say(f"Parts that failed, see standard error: {', '.join(report.failed)}.")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
