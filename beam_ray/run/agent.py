"""
One attempt of an agent: its model is asked, and calls tools, turn by turn, until it answers.

What goes wrong in a tool, in its arguments or in the form of the answer is told to the model, which
may do better in its next turn. Only what no turn can mend fails the attempt.
"""

import asyncio
from dataclasses import replace

from beam_ray.define.fingerprint import Json, JsonObject, strict_json
from beam_ray.errors import BadAnswer
from beam_ray.llm.answer import first_fault, read_answer
from beam_ray.llm.request import Answer, Message, ToolCall, tool_turns
from beam_ray.llm.structured import ANSWER_FUNCTION
from beam_ray.run.agent_tools import OfferedTool
from beam_ray.run.attempt import Attempt
from beam_ray.run.calls import Calls, ToolPolicy
from beam_ray.run.context import PreparedNode, StepContext, TaskTrial
from beam_ray.run.model_call import request_of
from beam_ray.store.parquet import to_json

MAX_RESULT = 400_000
"""Characters of a tool's result that the model is shown."""

REPAIRS = 2
"""Answers of an attempt that do not fit and that the model is asked to correct."""


async def run_agent(context: StepContext, node: PreparedNode, task: TaskTrial, attempt: Attempt, messages: tuple[Message, ...], calls: Calls) -> None:
    """
    Run the agent, and keep its answer in *attempt*.

    Raises:
        ModelRefused: it declined to answer.
        BadAnswer: its answers are not what the node returns, or it did not answer within its turns.
        ModelUnavailable: there was no answer in time.
        StepFailed: the recording has no answer to a call, and ``on_miss`` is ``fail``.
        Deferred: a call waits for a batch.
    """
    await _Agent(context, node, task, attempt, calls).run(messages)


class _Agent:
    def __init__(self, context: StepContext, node: PreparedNode, task: TaskTrial, attempt: Attempt, calls: Calls):
        self.context, self.node, self.task, self.attempt, self.calls = context, node, task, attempt, calls
        assert node.node.agent
        self.agent = node.node.agent
        self.tools = context.agents.of[node.name]

    async def run(self, messages: tuple[Message, ...]) -> None:
        repairs = 0
        for turn in range(1, self.agent.max_turns + 1):
            answer = await self._ask(messages, turn)
            if answer.tool_calls and not answer.answer_call:
                messages += tool_turns(answer, await self._use_all(answer))
                continue
            try:
                self.attempt.output = read_answer(answer, self.agent.returns, self.agent.max_tokens)
                return
            except BadAnswer as error:
                repairs += 1
                if not error.again or repairs > REPAIRS or turn == self.agent.max_turns:
                    raise
                messages += _correction(answer, error)
        raise BadAnswer(f"no answer within {self.agent.max_turns} turns (max_turns)", again=self.node.node.auto_rerun is not None)

    async def _ask(self, messages: tuple[Message, ...], turn: int) -> Answer:
        model = self.context.models[str(self.node.model)]
        request = request_of(self.context, self.node, self.task, self.attempt, messages)
        request = replace(request, tools=tuple(tool.offer for tool in self.tools.values()))
        body = model.body_of(request)
        reply = await self.calls.ask(str(self.node.model), body, request, self.attempt.usage)
        answer = model.read(reply, body, request)
        self.attempt.reasoning = "\n".join(part for part in (self.attempt.reasoning, answer.reasoning) if part)
        if answer.finish == "length" and answer.tool_calls:
            # its last call may have been cut off in the middle of its arguments
            raise BadAnswer(f"the answer was cut off at max_tokens ({self.agent.max_tokens:,}) within a call of {answer.tool_calls[-1].name!r}", again=False)
        return replace(answer, tool_calls=_named(answer.tool_calls, turn))

    async def _use_all(self, answer: Answer) -> list[tuple[ToolCall, str]]:
        """Each call of a turn with what the model is told of it; all of them at once."""
        # where one may not begin any more, the others end, so that what they did is recorded and not done again
        told = await asyncio.gather(*(self._use(call) for call in answer.tool_calls), return_exceptions=True)
        for found in told:
            if isinstance(found, BaseException):
                raise found
        return list(zip(answer.tool_calls, (str(text) for text in told), strict=True))

    async def _use(self, call: ToolCall) -> str:
        tool = self.tools.get(call.name)
        if tool is None:
            return f"Error: there is no tool {call.name[:64]!r}; the tools are {', '.join(self.tools)}"
        arguments = _arguments(call, tool)
        if isinstance(arguments, str):
            return f"Error: {arguments}"

        async def live() -> Json:
            memory = self.node.node.resources.memory if self.node.node.resources else None
            return await self.context.agents.call(tool, arguments, self.node.node.timeout_s, memory)

        reply = await self.calls.use(policy_of(tool, self.agent.on_miss), arguments, live)
        if reply.error is not None:
            return f"Error: {reply.error}"
        text = reply.value if isinstance(reply.value, str) else to_json(reply.value)
        return text if len(text) <= MAX_RESULT else f"{text[:MAX_RESULT]}\n(cut: the result has {len(text):,} characters)"


def policy_of(tool: OfferedTool, on_miss: str | None) -> ToolPolicy:
    """What the recording needs to know of a tool; *on_miss* is that of its agent."""
    entry = tool.entry
    return ToolPolicy(tool.name, tool.effects, tool.version, entry.on_miss or on_miss, entry.key)  # type: ignore[arg-type]


def _arguments(call: ToolCall, tool: OfferedTool) -> JsonObject | str:
    """The arguments of a call, or what is wrong with them."""
    written = call.arguments.strip() or "{}"
    try:
        arguments = strict_json(written)
    except (ValueError, RecursionError) as error:
        return f"the arguments of {call.name!r} are not JSON ({error}): {written[:500]}"
    if not isinstance(arguments, dict):
        return f"the arguments of {call.name!r} are not a JSON object: {written[:500]}"
    # the schema of an MCP server is a stranger's, and may take for ever to check; the server checks its arguments itself
    fault = first_fault(arguments, tool.offer["parameters"]) if tool.entry.tool else None
    return f"the arguments do not fit {call.name!r}: {fault}" if fault else arguments


def _named(calls: tuple[ToolCall, ...], turn: int) -> tuple[ToolCall, ...]:
    """The calls of a turn, each with an id of its own: some endpoints give none, or one twice."""
    taken: set[str] = set()
    named = []
    for number, call in enumerate(calls, 1):
        id = call.id if call.id and call.id not in taken else f"call_{turn}_{number}"
        taken.add(id)
        named.append(replace(call, id=id))
    return tuple(named)


def _correction(answer: Answer, error: BadAnswer) -> tuple[Message, ...]:
    """The turns that tell the model why its *answer* does not fit."""
    if answer.answer_call:
        given = answer.answer_call if answer.answer_call.id else replace(answer.answer_call, id=ANSWER_FUNCTION)
        others = [(call, f"Error: not called, because {ANSWER_FUNCTION!r} was called in the same turn") for call in answer.tool_calls]
        return tool_turns(answer, [(given, f"Error: {error}. Call {ANSWER_FUNCTION!r} again so that it fits."), *others])
    return (
        {"role": "assistant", "content": answer.text or "(no answer)"},
        {"role": "user", "content": f"This answer cannot be used: {error}. Answer again so that it can."},
    )
