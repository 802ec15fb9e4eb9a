"""Other shapes of work than a chain of model steps: the workflow of each, and the time that nothing could be faster than."""

import math
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.work import CONCURRENCY, MEDIAN_S

SCORED = "evaluate: {criteria: [check: \"'ok' in %s.text\"]}"
LONG = 20_000
"""Characters of a long prompt."""
LONG_TEXT = "lorem ipsum " * (LONG // 12)
CRITERIA = ("It is short.", "It is true.", "It is kind.", "It is clear.", "It is polite.")
BURN_S = 0.05


def _model(name: str, step: int, more: str = "") -> str:
    return f"  {name}:\n    llm: {{prompt: 'task {{{{ task_query }}}} step {step}', max_tokens: 64}}\n    {SCORED % name}\n{more}"


@dataclass(frozen=True)
class Shape:
    """A workflow over so many tasks."""

    what: str
    nodes: str
    tasks: int
    calls: float
    """Model calls of a task, or of a trial."""
    depth: int
    """Of them those that wait for each other."""
    limit: float
    """The largest allowed ratio of the makespan to the ideal."""
    trials: int = 1
    burn_s: float = 0.0
    """CPU time of a task's tools."""

    def write(self, folder: Path) -> Path:
        """The workflow in a file."""
        path = folder / "shape.yaml"
        path.write_text(f"workflow: shape\n{'' if self.burn_s else 'model: m' + chr(10)}nodes:\n{self.nodes}")
        return path

    def ideal_s(self, cores: int) -> float:
        """Seconds: the longest task, or all calls with all permits in use, or all CPU time on all cores."""
        rows = self.tasks * self.trials
        return max(self.depth * MEDIAN_S, rows * self.calls * MEDIAN_S / CONCURRENCY, rows * self.burn_s / cores)

    @property
    def expected_calls(self) -> int:
        """Model calls of the run."""
        return math.ceil(self.tasks * self.trials * self.calls)


SHAPES = {
    "branches": Shape(
        "one of two branches, then a merge",
        _model("a", 1)
        + _model("b", 2, "    after: a\n    when: task_query | int % 2 == 0\n    route: even\n")
        + _model("c", 3, "    after: a\n    when: task_query | int % 2 == 1\n    route: odd\n")
        + _model("d", 4, "    after: [b, c]\n"),
        500,
        3,
        3,
        1.15,
    ),
    "parallel": Shape(
        "ten parallel nodes, then a merge",
        "".join(_model(f"n{number}", number) for number in range(10)) + _model("z", 10, f"    after: [{', '.join(f'n{number}' for number in range(10))}]\n"),
        150,
        11,
        2,
        1.20,
    ),
    "judges": Shape(
        "four steps, each with five criteria for a judge",
        "".join(
            _model(f"s{number}", number, f"    after: s{number - 1}\n" if number > 1 else "").replace(
                SCORED % f"s{number}", f"evaluate: {{judge: m, criteria: [{', '.join(CRITERIA)}]}}"
            )
            for number in range(1, 5)
        ),
        200,
        8,
        8,
        1.20,
    ),
    "reruns": Shape(
        "two steps, which pass in the second attempt",
        _model("a", 1, "    auto_rerun: {max: 2}\n").replace("step 1", "step 1 twice")
        + _model("b", 2, "    after: a\n    auto_rerun: {max: 2}\n").replace("step 2", "step 2 twice"),
        400,
        4,
        4,
        1.15,
    ),
    "trials": Shape(
        "four steps, five trials",
        "".join(_model(f"s{number}", number, f"    after: s{number - 1}\n" if number > 1 else "") for number in range(1, 5)),
        80,
        4,
        4,
        1.15,
        trials=5,
    ),
    "long": Shape(
        f"four steps with prompts of {LONG // 1000} kB",
        "".join(
            _model(f"s{number}", number, f"    after: s{number - 1}\n" if number > 1 else "").replace("'task {{ task_query }}", "'task {{ task_query }}")
            for number in range(1, 5)
        ).replace("', max_tokens", ' {{ "lorem ipsum " * ' + str(LONG // 12) + " }}', max_tokens"),
        400,
        4,
        4,
        1.20,
    ),
    "tools": Shape(
        f"two tools of {1000 * BURN_S:.0f} ms CPU",
        "".join(
            f"  t{number}:\n    tool: work:burn\n    with: {{query: '{{{{ task_query }}}}', seconds: {BURN_S}}}\n"
            + (f"    after: t{number - 1}\n" if number > 1 else "")
            for number in (1, 2)
        ),
        100,
        0,
        0,
        1.25,
        burn_s=2 * BURN_S,
    ),
}
