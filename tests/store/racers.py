"""What the processes do that race for the lease of a run."""

from multiprocessing.synchronize import Barrier
from typing import Any

from beam_ray.errors import RunIsTaken
from beam_ray.store.lease import Lease
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run


def race(uri: str, rounds: int, takeover: bool, gate: Barrier, results: Any) -> None:
    """Take the lease of each run at the same time as others; put (round, taken, kept) for each."""
    objects = open_objects(uri, proven=True)
    for number in range(rounds):
        gate.wait()
        lease = None
        try:
            lease = Lease(Run(objects, f"r{number}"), takeover=takeover)
        except RunIsTaken:
            pass
        gate.wait()
        kept = False
        if lease:
            try:
                lease.beat()
                kept = True
            except RunIsTaken:
                pass
        results.put((number, lease is not None, kept))
        gate.wait()
