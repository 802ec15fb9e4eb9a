"""One attempt of a program as the gateway sees it: its key, the models that it may ask, and its calls in flight."""

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.errors import NoAnswer, StepFailed, Stopped, ToolFailed
from beam_ray.llm.request import Request
from beam_ray.llm.usage import Usage
from beam_ray.run.calls import Calls, ToolPolicy, ToolReply


class Refused(Exception):
    """What the program is told where it gets no reply."""

    def __init__(self, status: int, message: str, code: str, param: str = ""):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def again(self) -> "Refused":
        """The same refusal for another call."""
        return Refused(self.status, self.message, self.code, self.param)


class _Call:
    """A model call of the program, and whether its reply was received."""

    def __init__(self, task: "asyncio.Task[JsonObject]"):
        self.task = task
        self.listener: Callable[[], bool] = lambda: True
        """Whether the program still waits for the reply."""


class ProgramSession:
    """One attempt of a program: whoever has its key may ask its models, until it is closed."""

    def __init__(self, calls: Calls, request: Request, usage: Usage, models: Mapping[str, str], at_most: int):
        """
        Args:
            request: Whose calls they are.
            usage: What they cost is added to it.
            models: Our name of each model that may be asked, to the name by which its endpoint knows it.
            at_most: Model calls that the attempt may make.
        """
        self.calls, self.request, self.usage, self.models, self.at_most = calls, request, usage, models, at_most
        self.id, self._secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        self.made = 0
        self.ended = asyncio.Event()
        """Set when the program has to end: the run was stopped, or the step has failed."""
        self.error: BaseException | None = None
        """Why."""
        self.closed = False
        self._calls: dict[str, list[_Call]] = {}
        self._failed: dict[str, Refused] = {}
        self._waits: list[tuple[float, float]] = []
        self._tools: dict[str, _ToolUse] = {}
        self._tasks: set[asyncio.Task[Json]] = set()

    @property
    def key(self) -> str:
        """The key, good until the session is closed."""
        return f"br-{self.id}-{self._secret}"

    def opens(self, key: str) -> bool:
        """Whether *key* is the session's, compared in constant time."""
        return hmac.compare_digest(self.key.encode(), key.encode("utf-8", "surrogatepass")) and not self.closed

    @property
    def in_flight(self) -> bool:
        """Whether a call of the program is being answered."""
        return bool(self._tasks)

    @property
    def waited(self) -> float:
        """Seconds in which at least one call waited for a permit."""
        total, until = 0.0, 0.0
        for begin, end in sorted(self._waits):
            total += max(end - max(begin, until), 0.0)
            until = max(until, end)
        return total

    async def idle(self) -> None:
        """Wait until no call of the program is being answered; who waits for a program's tool result is not waited for."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """End the session: its key is dead at once, and calls in flight, which are paid for, are waited for."""
        self.closed = True
        for use in self._tools.values():
            if isinstance(self.error, Stopped) and use.task:
                use.task.cancel()  # not recorded, as the program calls it again when the run is resumed
            else:
                use.give_up()
        await asyncio.gather(*(use.task for use in self._tools.values() if use.task), return_exceptions=True)
        await self.idle()

    def abandon(self) -> None:
        """Cancel calls in flight: nobody keeps their answers."""
        self.closed = True
        for task in [*self._tasks, *(use.task for use in self._tools.values() if use.task)]:
            task.cancel()

    def fail(self, error: BaseException) -> None:
        """Have the program ended, with this error as the step's."""
        if self.error is None or isinstance(error, Stopped):
            self.error = error
        self.ended.set()

    # -- models -----------------------------------------------------------------------------

    def name_of(self, model: Json) -> str:
        """
        Our name of the model that a program names.

        Raises:
            Refused: it may not ask it.
        """
        if model in self.models:
            return str(model)
        found = next((name for name, known in self.models.items() if known == model), None)
        if found is None:
            allowed = ", ".join(self.models)
            raise Refused(404, f"the model {model!r} is not one that node {self.request.node!r} asks; it may ask: {allowed}", "model_not_found", "model")
        return found

    async def ask(self, model: str, api: str, body: JsonObject, equal: str, listener: Callable[[], bool]) -> JsonObject:
        """
        The reply to *body*. Where the program gave up on an equal call that is still in flight or was answered since, that call's reply.

        Args:
            equal: Identifies the request as it was sent.
            listener: Whether the program still waits for the reply.

        Raises:
            Refused: there is none.
        """
        if equal in self._failed:
            # the libraries of programs try again by themselves, and the endpoint was tried often enough
            raise self._failed[equal].again()
        call = next((one for one in self._calls.get(equal, ()) if not one.listener()), None)
        if call is None:
            if self.made >= self.at_most:
                raise Refused(403, f"node {self.request.node!r} has made {self.at_most} model calls, its max_calls", "max_calls")
            self.made += 1
            call = _Call(self._start(self._answer(model, api, body, equal)))
            self._calls.setdefault(equal, []).append(call)
        call.listener = listener
        try:
            reply: JsonObject = await asyncio.shield(call.task)
            return reply
        finally:
            if listener():
                self._calls[equal].remove(call)

    async def _answer(self, model: str, api: str, body: JsonObject, equal: str) -> JsonObject:
        began, spent = time.monotonic(), Usage()
        try:
            return await self.calls.ask(model, body, self.request, spent, api=api)
        except Stopped as error:
            self.fail(error)
            raise Refused(403, "the run was stopped", "run_stopped") from None
        except NoAnswer as error:
            refused = _refused(error)
        except StepFailed as error:
            if type(error) is StepFailed:
                self.fail(error)  # the recording has no answer, and a miss fails the step
            refused = Refused(503, str(error), "no_answer")
        except Exception as error:
            self.fail(error)
            raise Refused(500, "the gateway failed", "internal_error") from None
        finally:
            self.usage.add(spent)
            if spent.waited > 0:
                self._waits.append((began, began + spent.waited))
        self._failed[equal] = refused
        raise refused

    def _start(self, work: Awaitable[Json]) -> "asyncio.Task[Json]":
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Json]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the program may have gone before it could be told

    # -- tools ------------------------------------------------------------------------------

    async def use(self, policy: ToolPolicy, arguments: JsonObject) -> "ToolReply | str":
        """
        What a tool of the program's own answers for *arguments*, or, where the program is to call it, the id under which it reports the result.

        Raises:
            Refused: the step has failed.
        """
        use = _ToolUse()
        task = self._start(self._used(policy, arguments, use))
        use.task = task
        asked = asyncio.ensure_future(use.asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
        if task.done():
            reply: ToolReply = task.result()
            return reply
        id = secrets.token_hex(8)
        self._tools[id] = use
        # the program itself is at work, not the gateway
        self._tasks.discard(task)
        return id

    async def report(self, id: str, value: Json, error: str | None) -> None:
        """
        The program's own tool returned *value*, or failed with *error*.

        Raises:
            Refused: no such call is open.
        """
        use = self._tools.pop(id, None)
        if use is None:
            raise Refused(404, f"no call of a tool is open under the id {id[:40]!r}", "unknown_call")
        use.report(value, error)
        assert use.task
        await use.task

    async def _used(self, policy: ToolPolicy, arguments: JsonObject, use: "_ToolUse") -> ToolReply:
        try:
            return await self.calls.use(policy, arguments, use.call)
        except Stopped as error:
            self.fail(error)
            raise Refused(403, "the run was stopped", "run_stopped") from None
        except StepFailed as error:
            self.fail(error)
            raise Refused(403, str(error), "not_recorded") from None
        except Exception as error:
            self.fail(error)
            raise Refused(500, "the gateway failed", "internal_error") from None


class _ToolUse:
    """A tool that the program itself calls, from our question to its report."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.result: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[Json] | None = None

    async def call(self) -> Json:
        """The result that the program reports."""
        self.asked.set()
        return await self.result

    def report(self, value: Json, error: str | None) -> None:
        """Hand over the result."""
        if not self.result.done():
            if error is None:
                self.result.set_result(value)
            else:
                self.result.set_exception(ToolFailed(error))

    def give_up(self) -> None:
        """The program ended without a report."""
        self.report(None, "the program ended before it reported a result")


def _refused(error: NoAnswer) -> Refused:
    """What the program is told of an endpoint that did not answer: the endpoint's own refusal where another request may do better."""
    if error.status in (400, 403, 404, 413, 422):
        return Refused(error.status, str(error), error.code or "refused", error.param)
    if error.status == 429:
        return Refused(429, str(error), "rate_limit_exceeded")
    return Refused(503, str(error), "no_answer")
