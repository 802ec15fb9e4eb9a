"""
The process that tools run in: reads one call per line, writes one result per line.

Started as a file and not as a module, so that it imports nothing but the tool. What the tool
prints goes to standard error and cannot be mistaken for a result.
"""

import importlib
import json
import os
import resource
import sys
from collections.abc import Awaitable, Callable
from typing import Any


def main(folders: list[str]) -> None:
    """Run calls until standard input ends."""
    me = os.getpid()
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path[:0] = folders
    # bytecode is matched to its source by second and size, and an edit may change neither
    sys.dont_write_bytecode = True
    for line in sys.stdin:
        call = json.loads(line)
        try:
            _limit_memory(call["memory"])
            module = importlib.import_module(call["module"])
            # without a function, only the import is tried
            function = getattr(module, call["function"]) if call["function"] else None
            if function and call.get("typed"):
                value: Any = _typed(function, call["arguments"])
            else:
                value = function(**call["arguments"]) if function else None
                if hasattr(value, "__await__"):
                    value = _awaited(value)
            result = json.dumps({"value": value}, allow_nan=False)
        except BaseException as error:  # an error of the tool is its result
            _limit_memory(None)
            text = str(error) or (f"it needed more than {call['memory']:,} bytes, the node's resources.memory" if isinstance(error, MemoryError) else "")
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            result = json.dumps({"error": f"{type(error).__name__}: {text}"[:2000], "missing": missing})
        if os.getpid() != me:
            # the tool forked and its copy returned: a second result would be taken for the next call's
            os._exit(0)
        results.write(result + "\n")
        results.flush()


def _typed(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """The result of a function with types that JSON has not: its arguments are converted to them, and what it returns to JSON."""
    import pydantic
    import pydantic_core

    return pydantic_core.to_jsonable_python(pydantic.validate_call(function)(**arguments))


def _awaited(value: Awaitable[object]) -> object:
    """The result of an async tool."""
    import asyncio  # takes longer than many a tool

    async def wait() -> object:
        return await value

    return asyncio.run(wait())


def _limit_memory(memory: int | None) -> None:
    """Limit the memory of the process to so many bytes, or to what the system allows; the next call may have another limit."""
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if not memory or (memory > most != resource.RLIM_INFINITY):
        memory = most
    resource.setrlimit(resource.RLIMIT_DATA, (memory, most))


if __name__ == "__main__":
    main(sys.argv[1:])
