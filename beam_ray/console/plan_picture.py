"""A plan as a picture: which of its nodes are executed and which are borrowed."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beam_ray import Plan


BOX_WIDTH, BOX_HEIGHT, BOX_GAP, LAYER_GAP = 168.0, 30.0, 14.0, 22.0


@dataclass(frozen=True)
class Box:
    """A node of a plan."""

    title: str
    state: str
    """run, rescore, borrow, or none where nothing is executed: no task reaches it, or its recorded output is replayed."""
    x: float
    y: float


@dataclass(frozen=True)
class PlanPicture:
    """A plan's nodes in layers from top to bottom, and the lines between them."""

    boxes: tuple[Box, ...]
    lines: tuple[str, ...]
    """Paths of SVG."""
    width: float
    height: float
    said: str
    """The same in words."""


def plan_picture(plan: Plan) -> PlanPicture:
    """Which nodes a plan executes and which it borrows."""
    nodes, states = (
        plan.workflow.nodes,
        {node.node: "run" if node.run else "rescore" if node.rescore else "borrow" if node.borrow else "none" for node in plan.nodes},
    )
    layers: dict[str, int] = {}
    for name in plan.workflow.order:
        layers[name] = 1 + max((layers[parent] for parent in nodes[name].after), default=-1)
    rows = [[name for name in plan.workflow.order if layers[name] == layer] for layer in range(max(layers.values(), default=-1) + 1)]
    width = max((len(row) for row in rows), default=1) * (BOX_WIDTH + BOX_GAP) - BOX_GAP
    places: dict[str, tuple[float, float]] = {}
    for layer, row in enumerate(rows):
        start = (width - len(row) * (BOX_WIDTH + BOX_GAP) + BOX_GAP) / 2
        places |= {name: (start + index * (BOX_WIDTH + BOX_GAP), layer * (BOX_HEIGHT + LAYER_GAP)) for index, name in enumerate(row)}
    lines = []
    for name in plan.workflow.order:
        for parent in nodes[name].after:
            (x, y), (u, v) = places[parent], places[name]
            start, end, middle = y + BOX_HEIGHT, v, (y + BOX_HEIGHT + v) / 2
            lines.append(f"M{x + BOX_WIDTH / 2:g} {start:g}C{x + BOX_WIDTH / 2:g} {middle:g} {u + BOX_WIDTH / 2:g} {middle:g} {u + BOX_WIDTH / 2:g} {end:g}")
    titles = {name: plan.workflow.title_of(name) for name in plan.workflow.order}
    words = (("executed", "run"), ("scored again", "rescore"), ("borrowed", "borrow"))
    said = "; ".join(f"{word}: {', '.join(titles[name] for name in titles if states.get(name) == state)}" for word, state in words if state in states.values())
    boxes = tuple(Box(title if len(title) <= 19 else f"{title[:18].rstrip()}…", states.get(name, "none"), *places[name]) for name, title in titles.items())
    return PlanPicture(boxes, tuple(lines), width, max(len(rows) * (BOX_HEIGHT + LAYER_GAP) - LAYER_GAP, 0.0), said)
