"""Ctrl-C and SIGTERM while a run is executed."""

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
        self._immediate = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self._install()
        return self

    def _install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before.setdefault(number, signal.signal(number, self._catch))
            except ValueError:
                break  # only the main thread may install handlers; elsewhere signals are up to the program that runs us

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_interrupted(self) -> None:
        """
        Stop if a signal has arrived.

        Raises:
            Interrupted: one has; its exit code is 130 for Ctrl-C and 143 for SIGTERM.
        """
        if self.caught:
            error = Interrupted("stopped; all finished results are kept")
            error.exit_code = 128 + self.caught
            raise error

    @contextlib.contextmanager
    def immediately(self) -> Iterator[None]:
        """
        Raise from the signal handler itself, where no result could be lost.

        Ray installs a SIGTERM handler of its own when it starts; afterwards ours is installed again.
        """
        self._immediate = True
        try:
            self.raise_if_interrupted()
            yield
        except SystemExit as leave:
            self.caught = leave.code if isinstance(leave.code, int) else 0
            self.raise_if_interrupted()
            raise
        except Exception:
            self.raise_if_interrupted()  # raised during an import, it appears as an error of that import
            raise
        finally:
            self._immediate = False
            self._install()

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught:
            os._exit(128 + number)
        self.caught = number
        if self._immediate:
            self.raise_if_interrupted()
