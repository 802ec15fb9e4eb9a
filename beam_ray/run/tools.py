"""
Tools: importable functions from allowed folders.

An async tool runs on the event loop of its runner. Any other tool runs in a child process
that is killed, with everything it started, when its time is up; that sees only a few
environment variables; and that is replaced after a number of calls, so that leaks do not add up.
"""

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import pydantic
import pydantic_core

from beam_ray.define.fingerprint import Json
from beam_ray.define.tool_source import Tool, find_tool, program_versions
from beam_ray.define.workflow import Workflow
from beam_ray.errors import ToolFailed

CALLS_PER_PROCESS = 200
PAGE = os.sysconf("SC_PAGE_SIZE")
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Environment variables that a child process sees, besides those named BEAM_RAY_TOOL_…"""
MAX_GROWTH = 500_000_000
"""Bytes by which a child process may grow after its first call before it is replaced."""
MAX_RESULT = 8_000_000
"""Maximum size of a tool's result, in bytes."""


def project_folder(folder: Path | None = None) -> Path:
    """The folder that commands start in: *folder*, where this machine has it, or the working folder."""
    return folder if folder and folder.is_dir() else Path.cwd()


def tool_folders(workflow: Workflow, folder: Path | None = None) -> list[Path]:
    """
    Folders that the workflow's tools may be imported from: its own folder, the one above, and those in BEAM_RAY_TOOLS.

    The workflow's folder is relative to *folder*, or to the working folder.
    """
    own = project_folder(folder) / workflow.tools_from
    further = [Path(entry) for entry in os.environ.get("BEAM_RAY_TOOLS", "").split(os.pathsep) if entry]
    return [own, own.parent, *further]


def tool_environment() -> dict[str, str]:
    """What a child process of a tool sees of our environment."""
    return {name: value for name, value in os.environ.items() if name in ENVIRONMENT or name.startswith("BEAM_RAY_TOOL_")}


def command_environment() -> dict[str, str]:
    """What the process of a command sees of our environment; ``python`` in it is the Python that runs us, with its packages."""
    found = tool_environment()
    return {**found, "PATH": os.pathsep.join([str(Path(sys.executable).parent), *([found["PATH"]] if found.get("PATH") else [os.defpath])])}


def tool_processes(cpus: int, runners: int) -> int:
    """Child processes of each of so many runners: its CPUs, and one more, so that no CPU waits while the runner takes a result."""
    return cpus // runners + 1


class Tools:
    """Calls a workflow's tools, at most *children* of them in child processes at a time."""

    def __init__(self, workflow: Workflow, children: int = 2, folder: Path | None = None):
        self.workflow = workflow
        self.folders, self.project = tool_folders(workflow, folder), project_folder(folder)
        nodes = workflow.nodes.values()
        named = [node.tool for node in nodes if node.tool] + [str(entry.tool) for node in nodes if node.agent for entry in node.agent.functions]
        self.found: dict[str, Tool] = {tool: find_tool(workflow, tool, self.folders) for tool in named}
        self._slots = asyncio.Semaphore(children)
        self._idle: list[_ChildProcess] = []

    def version(self, program: str) -> str:
        """The digest of the source file of a tool, or of the files of a command."""
        return self.found[program].version if program in self.found else self._versions[program]

    @cached_property
    def _versions(self) -> dict[str, str]:
        return program_versions(self.workflow, self.folders, self.project)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """One of the places for child processes; waits for it."""
        return self._slots

    async def call(self, tool: str, arguments: Mapping[str, Json], timeout_s: float, memory: int | None = None, *, typed: bool = False) -> Any:
        """
        The tool's result; its process is limited to *memory* bytes, if given.

        With *typed*, arguments are converted to the types that the function declares, and its result to JSON.

        Raises:
            ToolFailed: it raised, ran out of time, died, or returned a value that is not JSON.
        """
        if self.found[tool].is_async:
            return await self._call_here(tool, arguments, timeout_s, typed)
        async with self._slots:
            child = self._idle.pop() if self._idle else _ChildProcess(self.folders)
            try:
                value = await child.call(tool, arguments, timeout_s, memory, typed)
            except BaseException:
                if child.usable:
                    self._idle.append(child)
                else:
                    await child.end()
                raise
            if child.calls < CALLS_PER_PROCESS and child.grown() < MAX_GROWTH:
                self._idle.append(child)
            else:
                await child.end()
            return value

    @property
    def run_in_process(self) -> bool:
        """Whether code of the workflow's author runs in the runner itself, which then keeps the imported modules for as long as it lives."""
        criteria = (item for node in self.workflow.nodes.values() if node.evaluate for item in node.evaluate.criteria)
        keys = any(entry.key for node in self.workflow.nodes.values() if node.agent for entry in node.agent.tools)
        return keys or any(tool.is_async for tool in self.found.values()) or any(item.kind == "python" for item in criteria)

    def function(self, reference: str) -> Callable[..., Any]:
        """The function of a ``python`` criterion, or of a tool's ``key``, which runs in the runner itself."""
        return load_function(reference, self.folders)

    async def close(self) -> None:
        """Kill all child processes."""
        while self._idle:
            await self._idle.pop().end()

    async def _call_here(self, tool: str, arguments: Mapping[str, Json], timeout_s: float, typed: bool) -> Any:
        try:
            function = load_function(tool, self.folders)
            async with asyncio.timeout(timeout_s):
                value = await (pydantic.validate_call(function) if typed else function)(**arguments)
            if typed:
                value = pydantic_core.to_jsonable_python(value)
            json.dumps(value, allow_nan=False)
            return value
        except TimeoutError:
            raise ToolFailed(f"{tool} took longer than {timeout_s:g} s") from None
        except Exception as error:  # an error of the tool fails the row
            raise ToolFailed(f"{tool}: {type(error).__name__}: {error}") from None


def load_function(reference: str, folders: list[Path]) -> Callable[..., Any]:
    """The function that ``module:function`` names, imported from *folders*."""
    module, function = reference.split(":")
    # bytecode is matched to its source by second and size, and an edit may change neither
    sys.dont_write_bytecode = True
    for folder in reversed(folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


class _ChildProcess:
    """A child process that runs one call at a time."""

    def __init__(self, folders: list[Path]):
        self.folders = [str(folder) for folder in folders]
        self.process: asyncio.subprocess.Process | None = None
        self.calls = 0
        self.first_size = 0
        self.usable = True

    async def call(self, tool: str, arguments: Mapping[str, Json], timeout_s: float, memory: int | None, typed: bool) -> Any:
        module, function = tool.split(":")
        try:
            line = json.dumps({"module": module, "function": function, "arguments": dict(arguments), "memory": memory, "typed": typed}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ToolFailed(f"{tool}: an argument is not JSON: {error}") from None
        self.usable = False
        process = self.process = self.process or await self._start()
        self.calls += 1
        assert process.stdin and process.stdout
        try:
            async with asyncio.timeout(timeout_s):
                process.stdin.write(line.encode() + b"\n")
                await process.stdin.drain()
                reply = await process.stdout.readline()
                # a process may close its output and keep running
                code = 0 if reply.endswith(b"\n") else await process.wait()
        except TimeoutError:
            raise ToolFailed(f"{tool} took longer than {timeout_s:g} s and was killed") from None
        except (ConnectionError, ValueError) as error:
            raise ToolFailed(f"{tool}: {error or 'its process ended'}") from None
        if not reply.endswith(b"\n"):
            raise ToolFailed(f"{tool}: its process died ({signal.Signals(-code).name if code < 0 else f'exit {code}'})")
        self.usable = True
        result = json.loads(reply)
        if "error" in result:
            raise ToolFailed(f"{tool}: {result['error']}")
        return result["value"]

    def grown(self) -> int:
        """Bytes of memory gained since its first call; 0 where the system does not report it."""
        try:
            size = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE if self.process else 0
        except (OSError, ValueError, IndexError):
            return 0
        self.first_size = self.first_size or size
        return size - self.first_size

    async def end(self) -> None:
        """Kill the process and everything that it started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # otherwise our own folder would come first, and hide the user's modules
            str(Path(__file__).with_name("tool_worker.py")),
            *self.folders,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=tool_environment(),
            start_new_session=True,
            limit=MAX_RESULT,
        )
