"""Ctrl-C and SIGTERM while a run is driven."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from beam_ray.errors import Interrupted


class Signals:
    """Ctrl-C and SIGTERM set a flag; a second one ends the process at once."""

    def __init__(self) -> None:
        self.caught = 0
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self._take()
        return self

    def _take(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before.setdefault(number, signal.signal(number, self._catch))
            except ValueError:
                break  # only the main thread may; then whoever runs us handles them

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heed(self) -> None:
        """
        Stop, if we were asked to.

        Raises:
            Interrupted: we were.
        """
        if self.caught:
            error = Interrupted("stopped; nothing that was paid for is lost")
            error.exit_code = 128 + self.caught
            raise error

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Where there is nothing to bring to safety, a signal need not wait until we look; and Ray, when it starts, takes SIGTERM from us."""
        self._at_once = True
        try:
            self.heed()
            yield
        except SystemExit as leave:
            self.caught = leave.code if isinstance(leave.code, int) else 0
            self.heed()
            raise
        except Exception:
            self.heed()  # amid an import it comes out as an error of that import
            raise
        finally:
            self._at_once = False
            self._take()

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught:
            os._exit(128 + number)
        self.caught = number
        if self._at_once:
            self.heed()
