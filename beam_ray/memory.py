"""Memory of our own processes: what Arrow and the C library would keep or load without need."""

import contextlib
import ctypes
import sys
import threading
from importlib.abc import MetaPathFinder

import pyarrow as pa


def release_memory() -> None:
    """Give freed memory back to the system, which Arrow and the C library keep for what comes next."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)


_ARENA_MAX = -8
"""M_ARENA_MAX of the C library's mallopt."""


def return_memory() -> None:
    """
    Have Arrow and all threads of this process share two arenas of the C library, so that what one of them frees the next one uses.

    For a server: Arrow's own allocator keeps memory for each thread that ever used some, and the C library an arena.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such function
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)


class _Absent(MetaPathFinder):
    """Finds no pandas in the thread that it was made in."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas" and threading.get_ident() == self._thread:
            raise ImportError("not loaded")


def spare_pandas() -> None:
    """
    Keep Arrow from loading pandas, which takes 45 MB and 0.2 s of CPU time, only to see whether a list is one of its series.

    For our own processes: a table becomes a frame as ever, but a series is a list like any other until one has.
    """
    if "pandas" not in sys.modules:
        absent = _Absent()
        sys.meta_path.insert(0, absent)
        try:
            pa.array([0])  # Arrow looks for it once
        finally:
            sys.meta_path.remove(absent)
