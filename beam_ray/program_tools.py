"""
Tools of a program's own, recorded and replayed with its model calls.

    from beam_ray import recorded_tool

    @recorded_tool(effects="write")
    def send(to: str, text: str) -> str: ...

In a run of beam_ray each call of the function is asked of the run first: a rerun answers it from the
recording, and refuses what would write in a test. Anywhere else the function is what it was.
"""

import asyncio
import functools
import inspect
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar, overload

from beam_ray.errors import ToolFailed

Function = TypeVar("Function", bound=Callable[..., Any])

PATIENCE_S = 86_400.0
"""Seconds to wait for the run's answer; it ends the program when its time is up."""


@overload
def recorded_tool(function: Function) -> Function: ...


@overload
def recorded_tool(*, name: str | None = None, effects: str | None = None, on_miss: str | None = None) -> Callable[[Function], Function]: ...


def recorded_tool(function: Any = None, *, name: str | None = None, effects: str | None = None, on_miss: str | None = None) -> Any:
    """
    The function, whose calls are recorded in runs and answered from the recording in reruns and backtests.

    Arguments and result must be JSON. A result in a run is what JSON makes of it, as it will be when it is
    replayed. A call that is refused, or whose recording is an error, raises ``ToolFailed``.

    Args:
        name: What the tool is called in recordings. Default: the function's name.
        effects: none, read or write. Default: what its module declares in ``EFFECTS``, else write.
        on_miss: What a call does in a test that the recording does not answer: live, refuse or fail.
            Default: live, and refuse for write tools. Write tools are never called in tests unless --allow-writes.
    """
    if function is None:
        return functools.partial(recorded_tool, name=name, effects=effects, on_miss=on_miss)
    called = name or function.__name__
    policy = {"tool": called, "effects": effects or _declared(function), "on_miss": on_miss}
    signature = inspect.signature(function)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            if not os.environ.get("BEAM_RAY_GATEWAY"):
                return await function(*args, **kwargs)
            call = _Call(policy, signature.bind(*args, **kwargs).arguments)
            if not await asyncio.to_thread(call.begin):
                return call.answer()
            try:
                value = await function(*args, **kwargs)
            except Exception as error:
                await asyncio.to_thread(call.failed, error)
                raise
            return await asyncio.to_thread(call.returned, value)

        return asynchronous

    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        if not os.environ.get("BEAM_RAY_GATEWAY"):
            return function(*args, **kwargs)
        call = _Call(policy, signature.bind(*args, **kwargs).arguments)
        if not call.begin():
            return call.answer()
        try:
            value = function(*args, **kwargs)
        except Exception as error:
            call.failed(error)
            raise
        return call.returned(value)

    return synchronous


class _Call:
    """One call of a tool, as the gateway of the run knows it."""

    def __init__(self, policy: dict[str, Any], arguments: dict[str, Any]):
        self.name = str(policy["tool"])
        try:
            self.body = json.dumps({**policy, "arguments": arguments}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"an argument of the recorded tool {self.name!r} is not JSON: {error}") from None
        self.reply: dict[str, Any] = {}

    def begin(self) -> bool:
        """Whether the function is to be called."""
        self.reply = _post("", self.body)
        return "run" in self.reply

    def answer(self) -> Any:
        """The answer from elsewhere."""
        if self.reply.get("error") is not None:
            raise ToolFailed(self.reply["error"])
        return self.reply.get("answer")

    def failed(self, error: Exception) -> None:
        """Report that the function raised."""
        _post(f"/{self.reply['run']}", json.dumps({"error": f"{self.name}: {type(error).__name__}: {error}"[:2_000]}))

    def returned(self, value: Any) -> Any:
        """Report what the function returned; gives it as a replay will."""
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            self.failed(error)
            raise TypeError(f"the result of the recorded tool {self.name!r} is not JSON: {error}") from None
        _post(f"/{self.reply['run']}", f'{{"value": {text}}}')
        return json.loads(text)


def _declared(function: Callable[..., Any]) -> str:
    declared = getattr(sys.modules.get(function.__module__), "EFFECTS", None)
    found = declared.get(function.__name__) if isinstance(declared, dict) else declared
    return found if found in ("none", "read", "write") else "write"


def _post(path: str, body: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {os.environ.get('BEAM_RAY_GATEWAY_KEY', '')}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{os.environ['BEAM_RAY_GATEWAY']}/v1/beam_ray/tools{path}", body.encode(), headers)
    try:
        # no proxy: the gateway is on this machine
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE_S) as reply:
            found: dict[str, Any] = json.load(reply)
            return found
    except urllib.error.HTTPError as error:
        raise ToolFailed(json.load(error)["error"]["message"]) from None
    except OSError as error:
        raise ToolFailed(f"the run does not answer: {error}") from None
