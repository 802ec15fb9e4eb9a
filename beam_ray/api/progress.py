"""Where the progress of a run goes: nowhere, to a callback, or to a bar on standard error."""

import contextlib
from collections.abc import Callable, Iterator

from beam_ray.run.progress import Progress, ProgressCallback, ignore_progress

ProgressOption = bool | Callable[[Progress], None] | None
"""None or False for nothing, True for a bar on standard error, or a function that receives ``Progress``."""


@contextlib.contextmanager
def progress_callback(option: ProgressOption) -> Iterator[ProgressCallback]:
    """The callback that *option* stands for; a bar ends when the block does."""
    if callable(option):
        yield option
    elif option:
        with _bar() as callback:
            yield callback
    else:
        yield ignore_progress


@contextlib.contextmanager
def _bar() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[cost]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def callback(progress: Progress) -> None:
            if progress.message:
                bar.console.print(f"{progress.title}: {progress.message}" if progress.title else progress.message, markup=False, highlight=False)
                return
            waits = f"{progress.title}: {progress.waits_for}" if progress.waits_for else progress.title
            if progress.title not in tasks:
                tasks[progress.title] = bar.add_task(progress.title, total=progress.steps, cost="")
            cost = "" if progress.usd is None else f"${progress.usd:,.2f}"
            bar.update(tasks[progress.title], description=waits, completed=progress.steps_done, total=progress.steps, cost=cost)

        yield callback
