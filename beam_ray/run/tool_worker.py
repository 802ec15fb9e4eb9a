"""
The process that tools run in: reads a call a line, writes a result a line.

Started as a file and not as a module, so that it imports nothing but the tool. The tool's
own prints go to standard error and cannot be mistaken for a result.
"""

import importlib
import json
import os
import resource
import sys


def main(folders: list[str]) -> None:
    """Answer calls until standard input ends."""
    me = os.getpid()
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path[:0] = folders
    # bytecode is told from its source by second and size, and an edit may change neither
    sys.dont_write_bytecode = True
    for line in sys.stdin:
        call = json.loads(line)
        try:
            _bound(call["memory"])
            module = importlib.import_module(call["module"])
            value = getattr(module, call["function"])(**call["arguments"])
            said = json.dumps({"value": value}, allow_nan=False)
        except BaseException as error:  # the tool's fault is its result
            _bound(None)
            words = str(error) or (f"more than {call['memory']:,} bytes, the node's resources.memory" if isinstance(error, MemoryError) else "")
            said = json.dumps({"error": f"{type(error).__name__}: {words}"[:2000]})
        if os.getpid() != me:
            # the tool forked and let its copy return: a second answer would be taken for the next call's
            os._exit(0)
        results.write(said + "\n")
        results.flush()


def _bound(memory: int | None) -> None:
    """Let the process have so many bytes of its own, or as many as the system allows; the next call may have another bound."""
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if not memory or (memory > most != resource.RLIM_INFINITY):
        memory = most
    resource.setrlimit(resource.RLIMIT_DATA, (memory, most))


if __name__ == "__main__":
    main(sys.argv[1:])
