"""One comparison for every report: a better prompt over 30 tasks, with a regression, labels, routes and criteria."""

from sides import side, step, task

from beam_ray.compare.comparison import compare
from beam_ray.compare.gate_file import default_gate
from beam_ray.compare.regressions import Repeats
from beam_ray.compare.report import Result
from beam_ray.compare.verdict import judge


def result(name="v8", *, odd=""):
    """The result; *odd* is a foreign text that turns up wherever tasks and models write."""
    count = 30

    def made(kind, passes, seconds):
        outcome, steps = [], []
        for index in range(count):
            id_, good = f"order-{index:02d}{odd}", passes(index)
            score = 100.0 if good else 50.0
            more = {
                "labels": [f"{'edge' if index % 3 else 'plain'}{odd}"],
                "routes": [f"{'found' if good else 'not found'}{odd}"],
                "work_seconds": seconds + index / 10,
            }
            outcome.append(task(id_, score, error=None if good else f"wrong{odd}", **more))
            met = {f"vendor{odd}": good, f"amount{odd}": True}
            steps.append(step(id_, score, met=met, output=f'{{"vendor": "{"right" if good else "wrong"}{odd}"}}'))
        return side(f"{kind}{odd}", outcome, steps)

    found = compare(
        made("v7", lambda index: index % 2 == 0, 2.0),
        made(name, lambda index: index not in (4, 5), 2.5),
        order=["extract"],
    ).confirmed({f"order-04{odd}": Repeats(3, 3, 0, 3)}, {f"order-04{odd}": Repeats(8, 8, 0, 8)})
    return Result(found, judge(found, default_gate()))
