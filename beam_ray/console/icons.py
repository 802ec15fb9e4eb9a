"""Small drawings, so that a state is never told by its color alone."""

from markupsafe import Markup

_PATHS = {
    "check": "M3.5 8.5l3 3 6-7",
    "below": "M8 3.5v8m0 0l-3.5-3.5M8 11.5l3.5-3.5",
    "above": "M8 12.5v-8m0 0L4.5 8M8 4.5L11.5 8",
    "cross": "M4 4l8 8M12 4l-8 8",
    "run": "M5.5 3.5l7 4.5-7 4.5z",
    "stop": "M4.5 4.5h7v7h-7z",
    "skip": "M3.5 8h9",
    "borrow": "M4 6.5h7.5M9 4l2.5 2.5L9 9M4 12h8",
    "eye": "M1.8 8S4 4 8 4s6.2 4 6.2 4S12 12 8 12 1.8 8 1.8 8zM8 9.6a1.6 1.6 0 1 0 0-3.2 1.6 1.6 0 0 0 0 3.2z",
    "minus": "M4 8h8",
    "question": "M6 6.2a2 2 0 1 1 2.7 1.9c-.5.2-.7.5-.7 1v.4M8 11.9v.2",
    "rerun": "M12.5 8a4.5 4.5 0 1 1-1.4-3.3M12.6 2.6v2.6H10",
    "spark": "M8 2.5l1.4 4.1L13.5 8l-4.1 1.4L8 13.5 6.6 9.4 2.5 8l4.1-1.4z",
    "copy": "M6 6V3.5h6.5V10H10M3.5 6H10v6.5H3.5z",
    "search": "M7 11.5a4.5 4.5 0 1 1 0-9 4.5 4.5 0 0 1 0 9zM10.3 10.3l3.2 3.2",
    "arrow": "M3.5 8h9M9 4.5L12.5 8 9 11.5",
    "compare": "M5.5 3v10M10.5 3v10M2.5 5.5h3M10.5 10.5h3",
    "model": "M3 4.5h10v7H3zM6 11.5V14M10 11.5V14M6 2v2.5M10 2v2.5M5.7 8h.1M10.2 8h.1",
    "tool": "M10.5 2.8a3.2 3.2 0 0 0-3 4.3L2.8 11.8a1 1 0 0 0 1.4 1.4l4.7-4.7a3.2 3.2 0 0 0 4.3-3l-2 1-1.6-1.6z",
    "agent": "M8 2.2v2M4 4.2h8v6.6H4zM6.3 7.2v.6M9.7 7.2v.6M5.5 10.8V13M10.5 10.8V13M2.2 6.5v2M13.8 6.5v2",
    "plus": "M8 3.5v9M3.5 8h9",
    "pin": "M6 2.8h4M6.8 2.8v3.4L5 8.6h6L9.2 6.2V2.8M8 8.6v4.6",
    "book": "M3.5 3h3.2C7.6 3 8 3.6 8 4.2V13c0-.6-.4-1.1-1.3-1.1H3.5zM12.5 3H9.3C8.4 3 8 3.6 8 4.2V13c0-.6.4-1.1 1.3-1.1h3.2z",
    "pencil": "M10.6 3.2l2.2 2.2-7.3 7.3-2.7.5.5-2.7z",
    "save": "M8 2.8v7M5 7l3 3 3-3M3 12.8h10",
    "warning": "M8 2.8l5.7 10.2H2.3zM8 6.6v3M8 11.3v.1",
    "wait": "M8 4v4l2.5 1.5M8 13.5a5.5 5.5 0 1 1 0-11 5.5 5.5 0 0 1 0 11z",
}

STATUS = {
    "passed": "check",
    "below": "below",
    "failed": "cross",
    "running": "run",
    "stopped": "stop",
    "review": "eye",
    "finished": "check",
    "done": "check",
    "skipped": "skip",
    "borrowed": "borrow",
    "unscored": "question",
    "PASS": "check",
    "WARN": "below",
    "BLOCK": "cross",
    "INCONCLUSIVE": "question",
    "NONE": "minus",
}
"""A state to its drawing."""


def icon(name: str) -> Markup:
    """The drawing of that name; a screen reader passes over it, for a word stands beside it."""
    return Markup(
        '<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">'
        '<path d="{}" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round"/></svg>'
    ).format(_PATHS[name])


def status_icon(status: str) -> Markup:
    """The drawing of a state."""
    return icon(STATUS.get(status, "minus"))
