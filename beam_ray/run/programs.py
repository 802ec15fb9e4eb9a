"""
Programs: commands, and tools that ask models themselves. Each attempt is a process of its own.

The process starts in the project's folder without a shell, sees the environment that tools see,
and is killed, with everything that it started, when it has given its result or its time is up.
One that asks models gets the address of the runner's gateway and a key that is good for this
attempt alone; what it spends is counted in the attempt.
"""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beam_ray.define.fingerprint import Json, strict_json
from beam_ray.define.workflow import Node
from beam_ray.errors import Stopped, ToolFailed, Unusable
from beam_ray.llm.usage import Usage
from beam_ray.run.tools import MAX_RESULT, Tools, command_environment, tool_environment

if TYPE_CHECKING:
    from beam_ray.run.gateway import Gateway
    from beam_ray.run.program_session import ProgramSession

ASKING = 8
"""Programs that ask models and run at a time in one runner, unless BEAM_RAY_PROGRAMS says otherwise: each is a process, and mostly waits."""

MAX_STDERR = 4_000
"""Bytes of standard error that are kept, its end."""

SHOWN_STDERR = 1_500
"""Characters of standard error in an error message."""

LOOK_S = 0.1
"""Seconds between two looks at whether a program has ended whose output is still open."""

GRACE_S = 1.0
"""Seconds for the output of a program that has ended, which something that it started may hold open."""


class Programs:
    """Runs the programs of a workflow."""

    def __init__(self, tools: Tools, names: Mapping[str, str] | None = None):
        """
        Args:
            names: Our name of a model to the name by which its endpoint knows it.
        """
        self.tools, self.names = tools, names or {}
        self._gateway: Gateway | None = None
        self._starting = asyncio.Lock()
        self._sessions: set[ProgramSession] = set()
        self._stopped: Stopped | None = None
        self._asking = asyncio.Semaphore(_asking())

    async def call(self, node: Node, arguments: Mapping[str, Json], session: "ProgramSession | None", usage: Usage) -> Json:
        """
        The program's result; its time is kept in *usage*, without waiting for a place and for permits.

        Args:
            session: Its attempt, for a program that asks models.

        Raises:
            ToolFailed: it failed, ran out of time, died, or wrote no JSON.
            StepFailed: a call of it left the recording, where that fails the step.
            Stopped: the run was stopped, and the program with it.
        """
        if session is None:
            async with self.tools.slot():
                with _timed(usage, None):
                    return await _Process(self.tools, node, {}).run(arguments, None)
        async with self._asking:
            if self._stopped:
                raise self._stopped
            gateway = await self._started()
            self._sessions.add(session)
            try:
                with gateway.serving(session) as environment, _timed(usage, session):
                    try:
                        return await _Process(self.tools, node, environment).run(arguments, session)
                    except asyncio.CancelledError:
                        session.abandon()
                        raise
                    finally:
                        # calls in flight are paid for, and belong to the attempt
                        await session.close()
            finally:
                self._sessions.discard(session)

    def stop(self, error: Stopped) -> None:
        """End the programs that ask models, and start no other: what they were answered is in the store."""
        self._stopped = error
        for session in self._sessions:
            session.fail(error)

    async def close(self) -> None:
        """Close the gateway."""
        if self._gateway:
            await self._gateway.close()

    async def _started(self) -> "Gateway":
        async with self._starting:
            if self._gateway is None:
                from beam_ray.run.gateway import Gateway  # loads aiohttp's server

                gateway = Gateway()
                await gateway.start()
                self._gateway = gateway
        return self._gateway


@contextlib.contextmanager
def _timed(usage: Usage, session: "ProgramSession | None") -> Iterator[None]:
    """Put the time that the block takes into *usage*, in place of that of the calls in it, which may overlap."""
    before, started = usage.seconds, time.monotonic()
    try:
        yield
    finally:
        usage.seconds = before + max(time.monotonic() - started - (session.waited if session else 0.0), 0.0)


def _asking() -> int:
    written = os.environ.get("BEAM_RAY_PROGRAMS") or str(ASKING)
    if not (written.isascii() and written.isdigit() and 0 < int(written) <= 10_000):
        raise Unusable(f"BEAM_RAY_PROGRAMS must be a number of programs from 1 to 10000, not {written!r}")
    return int(written)


class _Process:
    """One run of a program."""

    def __init__(self, tools: Tools, node: Node, environment: Mapping[str, str]):
        self.tools, self.node, self.environment = tools, node, environment
        self.name = str(node.program)
        self.secret = environment.get("OPENAI_API_KEY", "")
        self.command: Sequence[str]
        if node.command:
            self.command = node.command
        else:
            # "-P": otherwise our own folder would come first, and hide the user's modules
            self.command = [sys.executable, "-P", str(Path(__file__).with_name("tool_worker.py")), *map(str, tools.folders)]

    async def run(self, arguments: Mapping[str, Json], session: "ProgramSession | None") -> Json:
        """Its result; nothing that it started is left."""
        given = self._input(arguments)
        started = time.monotonic()
        process = await self._start()
        work = asyncio.ensure_future(self._communicate(process, given))
        try:
            await self._wait(work, started, session)
            if session and session.error:
                raise session.error
            if not work.done():
                raise ToolFailed(f"{self.name} took longer than {self.node.timeout_s:g} s and was killed")
            return self._result(*work.result())
        finally:
            _kill(process)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, ToolFailed):
                await work
            await process.wait()

    async def _wait(self, work: "asyncio.Future[tuple[int, bytes, str]]", started: float, session: "ProgramSession | None") -> None:
        """Until it has ended, has to end, or its time is up; waiting for permits is not its time."""
        waits: set[asyncio.Future[Any]] = {work}
        ended = asyncio.ensure_future(session.ended.wait()) if session else None
        if ended:
            waits.add(ended)
        try:
            while True:
                left = started + self.node.timeout_s + (session.waited if session else 0.0) - time.monotonic()
                if left <= 0 and session and session.in_flight:
                    # its calls have time limits of their own, and say when they end how long they waited for permits
                    idle = asyncio.ensure_future(session.idle())
                    await asyncio.wait({*waits, idle}, return_when=asyncio.FIRST_COMPLETED)
                    idle.cancel()
                elif left > 0:
                    await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                else:
                    return
                if any(future.done() for future in waits):
                    return
        finally:
            if ended:
                ended.cancel()

    def _input(self, arguments: Mapping[str, Json]) -> bytes:
        given: Json = dict(arguments)
        if self.node.tool:
            module, function = self.node.tool.split(":")
            memory = self.node.resources.memory if self.node.resources else None
            given = {"module": module, "function": function, "arguments": given, "memory": memory}
        try:
            return json.dumps(given, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise ToolFailed(f"{self.name}: an argument is not JSON: {error}") from None

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self.tools.project,
                env={**(command_environment() if self.node.command else tool_environment()), **self.environment},
                start_new_session=True,
                limit=MAX_RESULT,
            )
        except (OSError, ValueError) as error:
            raise ToolFailed(f"{self.name} cannot be started: {getattr(error, 'strerror', None) or error}") from None
        memory = self.node.resources.memory if self.node.resources else None
        if memory and self.node.command and hasattr(resource, "prlimit"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
        return process

    async def _communicate(self, process: asyncio.subprocess.Process, given: bytes) -> tuple[int, bytes, str]:
        """The exit code, standard output and the end of standard error."""
        assert process.stdin and process.stdout and process.stderr
        # a tool's line ends its attempt: threads that it left would keep its process alive
        reading = asyncio.ensure_future((self._line if self.node.tool else self._everything)(process.stdout))
        errors, feeding = asyncio.ensure_future(_tail(process.stderr)), asyncio.ensure_future(_feed(process.stdin, given))
        try:
            # process.wait() would wait for the pipes too, which something that it started may hold open
            while not reading.done() and process.returncode is None:
                await asyncio.wait({reading}, timeout=LOOK_S)
            if not reading.done():
                _kill(process)
            output = await asyncio.wait_for(reading, GRACE_S)
            code = 0 if self.node.tool and output.endswith(b"\n") else await process.wait()
            _kill(process)
            await asyncio.wait({errors}, timeout=GRACE_S)
            return code, output, errors.result() if errors.done() else ""
        except TimeoutError:
            raise ToolFailed(f"{self.name} ended, but something that it started holds its standard output open") from None
        finally:
            for task in (reading, errors, feeding):
                task.cancel()

    async def _line(self, stream: asyncio.StreamReader) -> bytes:
        try:
            return await stream.readline()
        except ValueError:
            raise ToolFailed(f"{self.name}: its result has more than {MAX_RESULT:,} bytes") from None

    async def _everything(self, stream: asyncio.StreamReader) -> bytes:
        pieces, length = [], 0
        while piece := await stream.read(65_536):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_RESULT:
                raise ToolFailed(f"{self.name}: its result has more than {MAX_RESULT:,} bytes")
        return b"".join(pieces)

    def _result(self, code: int, output: bytes, errors: str) -> Json:
        text, said = self._hidden(output.decode("utf-8", "replace")), self._hidden(errors).strip()[-SHOWN_STDERR:]
        wrote = f"; the end of its standard error:\n{said}" if said else ""
        if code != 0 or (self.node.tool and not text.endswith("\n")):
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise ToolFailed(f"{self.name} {how}{wrote}")
        try:
            value = strict_json(text)
        except (ValueError, RecursionError) as error:
            start = f"begins with {text.strip()[:80]!r}" if text.strip() else "is empty"
            raise ToolFailed(f"{self.name}: its standard output is not JSON ({error}): it {start}; logs belong on standard error{wrote}") from None
        if not self.node.tool:
            return value
        if "error" in value:
            raise ToolFailed(f"{self.name}: {value['error']}{wrote}")
        return value["value"]

    def _hidden(self, text: str) -> str:
        return text.replace(self.secret, "[key]") if self.secret else text


async def _feed(stream: asyncio.StreamWriter, given: bytes) -> None:
    """Write what the program is given; it need not read it."""
    with contextlib.suppress(ConnectionError):
        stream.write(given)
        await stream.drain()
        stream.close()


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of what is written to *stream*."""
    end = b""
    while piece := await stream.read(65_536):
        end = (end + piece)[-MAX_STDERR:]
    return end.decode("utf-8", "replace")


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the process's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
