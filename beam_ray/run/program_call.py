"""One attempt of a program: its process, whose calls to models are the attempt's."""

from collections.abc import Mapping

from beam_ray.define.fingerprint import Json
from beam_ray.llm.request import Request
from beam_ray.run.attempt import Attempt
from beam_ray.run.calls import Calls
from beam_ray.run.context import PreparedNode, StepContext, TaskTrial
from beam_ray.run.program_session import ProgramSession


async def call_program(context: StepContext, node: PreparedNode, task: TaskTrial, attempt: Attempt, arguments: Mapping[str, Json], calls: Calls | None) -> None:
    """
    Run the node's program, and keep its result and what it spent in *attempt*.

    Args:
        calls: The calls of the attempt, for a program that asks models.

    Raises:
        StepFailed: it gave no result.
        Stopped: the run was stopped, and the program with it.
    """
    session, programs = None, context.programs
    assert programs
    if calls is not None:
        request = Request((), timeout_s=node.node.timeout_s, node=node.name, task_id=task.task_id, trial=task.trial, attempt=attempt.number, by_program=True)
        names = {name: programs.names.get(name, name) for name in node.node.asks}
        session = ProgramSession(calls, request, attempt.usage, names, node.node.calls_at_most)
    attempt.output = await programs.call(node.node, arguments, session, attempt.usage)
