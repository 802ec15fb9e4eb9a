"""Calls of agents and programs: recorded, answered from recordings, made where nothing answers them."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.workflow import Workflow
from beam_ray.errors import StepFailed, Stopped, ToolFailed
from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.prices import Price
from beam_ray.run.attempt import Attempt
from beam_ray.run.calls import CallLog, Calls, ToolPolicy, ToolReply
from beam_ray.run.context import StepContext, TaskTrial
from beam_ray.run.replay import model_fingerprint
from beam_ray.run.spool import Spool
from beam_ray.run.tools import Tools
from beam_ray.store.call_table import CallRow, PlacedCallRow
from beam_ray.store.runs import Run
from tests.conftest import Lab

TASK = TaskTrial("t", 1, 0, "q", {}, None)
FIND, SEND = ToolPolicy("find", "read"), ToolPolicy("send", "write")


class World:
    """A model and tools that count how often they are called, and a step whose calls are logged."""

    def __init__(self, recording: Sequence[CallRow] = (), known: Sequence[CallRow] = (), **context: Any):
        self.asked: list[str] = []
        self.called: list[tuple[str, JsonObject]] = []
        self.spooled: list[CallRow] = []
        workflow = Workflow(name="w", model="m", nodes={"n": {"llm": {"prompt": "{{ task_query }}"}}})
        placed: list[PlacedCallRow] = [{"run_id": "r0", "task_id": "t", "node": "n", "trial": 1, **row} for row in recording]
        self.context = StepContext(
            run_id="r1",
            workflow=workflow,
            models={"m": ScriptedModel(self._answer, price=Price(1.0, 1.0))},
            identities={"m": "scripted"},
            tools=Tools(workflow),
            **context,
        )
        self.log = CallLog(self.context, "n", TASK, self.spooled.append, recording=placed, known=known)
        self.attempt = Attempt(1)
        self.calls = self.log.begin(self.attempt)

    def _answer(self, request: Request) -> str:
        self.asked.append(str(request.messages[-1]["content"]))
        return f"answer to {self.asked[-1]}"

    async def ask(self, text: str) -> str:
        """What the model says to *text*."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        reply = await self.calls.ask("m", body, Request(tuple(body["messages"]), node="n", task_id="t"), self.attempt.usage)
        return str(reply["choices"][0]["message"]["content"])

    async def use(self, tool: ToolPolicy, **arguments: Any) -> ToolReply:
        """What the tool returns."""

        async def call() -> Any:
            self.called.append((tool.name, arguments))
            if arguments.get("fails"):
                raise ToolFailed("no such order")
            return {"found": arguments}

        return await self.calls.use(tool, arguments, call)

    @property
    def rows(self) -> list[CallRow]:
        """The calls, as the step's row has them."""
        return self.log.columns(1)["call_rows"]


async def agent(world: World, last: str = "pay?", order: Sequence[int] = (0, 1, 2)) -> list[Any]:
    """A model that is asked, three tools in parallel that end in some order, and the model again."""
    first = await world.ask("what do you need?")
    ended = [asyncio.Event() for _ in range(4)]
    ended[0].set()

    async def use(place: int, **arguments: Any) -> ToolReply:
        await ended[list(order).index(place)].wait()
        reply = await world.use(FIND, **arguments)
        ended[list(order).index(place) + 1].set()
        return reply

    replies = await asyncio.gather(use(0, po="PO-1"), use(1, po="PO-1"), use(2, po=7))
    return [first, *[reply.value for reply in replies], await world.ask(last)]


def recorded(**how: Any) -> tuple[World, list[Any]]:
    """The agent's first execution, in which every call is made."""
    world = World(**how)
    return world, asyncio.run(agent(world))


@given(st.permutations([0, 1, 2]), st.permutations([0, 1, 2]))
@settings(max_examples=25, deadline=None)
def test_an_unchanged_agent_is_answered_from_its_recording(before: list[int], after: list[int]):
    """Nothing is called and the outputs are equal, whatever the orders in which parallel tools begin and end."""
    origin = World()
    first = asyncio.run(agent(origin, order=before))
    again = World(origin.rows, testing=True)
    second = asyncio.run(agent(again, order=after))

    assert (second, again.asked, again.called, again.spooled) == (first, [], [], [])
    assert again.log.columns(1)["calls_recorded"] == 5
    assert again.log.columns(1)["diverged_at"] is None


def test_a_changed_last_prompt_pays_only_from_there():
    """The calls before it are answered from the recording; the step says where it left it, and how."""
    origin, _ = recorded()
    again = World(origin.rows, testing=True)
    asyncio.run(agent(again, last="pay or hold?"))
    columns = again.log.columns(1)

    assert (again.asked, again.called) == (["pay or hold?"], [])
    assert (columns["calls_recorded"], columns["diverged_at"]) == (4, 5)
    assert json.loads(columns["divergence"] or "") == {
        "attempt": 1,
        "made": {"number": 5, "kind": "model", "name": "m"},
        "source": "live",
        "recorded": {"number": 5, "kind": "model", "name": "m"},
        "where": "messages[0].content",
        "before": '"pay?"',
        "after": '"pay or hold?"',
    }


def test_what_is_paid_and_what_the_answers_take_are_kept_apart():
    """A recorded answer costs nothing in this run, and counts in what the output takes."""
    origin, _ = recorded()
    again = World(origin.rows, testing=True)
    asyncio.run(agent(again, last="pay or hold?"))
    work, paid = again.log.work, again.attempt.usage

    assert (origin.attempt.usage.calls, paid.calls, work.calls) == (2, 1, 2)
    assert paid.usd is not None and work.usd is not None and 0 < paid.usd < work.usd
    assert [row["source"] for row in again.rows] == ["recorded"] * 4 + ["live"]
    assert {row["recorded_from"] for row in again.rows} == {"r0/t/n/1", None}


@pytest.mark.parametrize("kept", range(6))
def test_what_was_answered_before_a_crash_is_not_asked_again(kept: int):
    """The calls that were spooled are answered from there, write tools too; together they are what an undisturbed attempt has."""

    async def work(world: World) -> list[Any]:
        return [*await agent(world), (await world.use(SEND, to="a@b")).value]

    undisturbed = World()
    first = asyncio.run(work(undisturbed))
    spooled = undisturbed.spooled[:kept]
    resumed = World(known=spooled)

    assert asyncio.run(work(resumed)) == first
    assert len(resumed.asked) + len(resumed.called) == 6 - kept
    assert [row["number"] for row in resumed.rows] == [1, 2, 3, 4, 5, 6]
    assert resumed.attempt.usage.calls == undisturbed.attempt.usage.calls
    assert resumed.attempt.usage.usd == pytest.approx(undisturbed.attempt.usage.usd)


def test_a_finished_step_of_which_calls_are_lost_says_how_many_there_were(lab: Lab):
    """A torn file of the spool takes calls along, but not the output that is paid for, nor the counts of its step."""
    [row] = lab.run("workflow: w\nmodel: m\nnodes: {n: {llm: {prompt: 'q {{ task_query }}'}}}", ["0"], lambda request: "yes").steps().to_pylist()
    calls, run = recorded()[0].rows, Run(lab.objects, "r")
    spool = Spool(run, "first")
    spool.add({**row, "outcome": "open", "call_rows": calls[:1]})
    asyncio.run(spool.flush())
    spool.add({**row, "turns": len(calls), "call_rows": calls})
    asyncio.run(spool.flush())
    lab.objects.delete("runs/r/spool/first-000000.parquet")

    [found] = Spool(run, "second").read(frozenset({0})).values()

    assert (found["outcome"], found["output"], found["turns"]) == ("done", row["output"], len(calls))
    assert [call["number"] for call in found["call_rows"]] == [call["number"] for call in calls[1:]]


def test_a_write_tool_is_refused_in_a_test():
    """Without a recorded result it is not called, and the model is told why; with one, that is replayed."""
    origin = World()
    asyncio.run(origin.use(SEND, to="a@b"))
    again = World(origin.rows, testing=True, allow_writes=False)
    same, other = asyncio.run(again.use(SEND, to="a@b ")), asyncio.run(again.use(SEND, to="c@d"))

    assert again.called == []
    assert (same.source, same.value) == ("recorded", {"found": {"to": "a@b"}})
    assert (other.source, other.error) == ("refused", "the tool 'send' is not available in a test: its result for these arguments was not recorded")


def test_a_call_that_is_refused_again_does_not_leave_the_recording():
    """Its answer is the same; a call that the recording has otherwise leaves it."""
    origin = World(testing=True, allow_writes=False)
    asyncio.run(origin.use(SEND, to="a@b"))
    again, other = (World(origin.rows, testing=True, allow_writes=False) for _ in range(2))
    asyncio.run(again.use(SEND, to="a@b"))
    asyncio.run(other.use(SEND, to="c@d"))

    assert (again.log.columns(1)["calls_refused"], again.log.columns(1)["diverged_at"]) == (1, None)
    assert other.log.columns(1)["diverged_at"] == 1


def test_a_step_that_left_the_recording_by_a_refusal_says_so_also_when_it_is_executed_again():
    """A repair knows the refused call, and finds the same first divergence."""
    origin = World(testing=True, allow_writes=False)
    asyncio.run(origin.use(SEND, to="a@b"))
    first = World(origin.rows, testing=True, allow_writes=False)
    asyncio.run(first.use(SEND, to="c@d"))
    repaired = World(origin.rows, known=first.rows, testing=True, allow_writes=False)
    asyncio.run(repaired.use(SEND, to="c@d"))

    assert repaired.log.columns(1)["diverged_at"] == first.log.columns(1)["diverged_at"] == 1


@pytest.mark.parametrize(
    ("policy", "how", "calls"),
    [
        (FIND, {"testing": True}, "live"),
        (ToolPolicy("find", "read", on_miss="refuse"), {"testing": True}, "refused"),
        (ToolPolicy("find", "read", on_miss="refuse"), {}, "live"),
        (SEND, {}, "live"),
        (SEND, {"testing": True, "allow_writes": True}, "live"),
        (ToolPolicy("send", "write", on_miss="live"), {"testing": True, "allow_writes": False}, "refused"),
        (ToolPolicy("send", "write", on_miss="fail"), {"testing": True, "allow_writes": False}, "fails"),
        (ToolPolicy("find", "read", on_miss="fail"), {"testing": True}, "fails"),
    ],
)
def test_what_a_tool_call_does_that_nothing_answers(policy: ToolPolicy, how: dict[str, Any], calls: str):
    """Live in plain runs; in tests what on_miss says, except that a write is never made unless writes are allowed."""
    world = World(**how)
    if calls == "fails":
        with pytest.raises(StepFailed, match="on_miss is fail"):
            asyncio.run(world.use(policy, po="PO-1"))
    else:
        assert asyncio.run(world.use(policy, po="PO-1")).source == calls
    assert len(world.called) == (calls == "live")


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"po": "PO-1", "year": 2026}, {"year": 2026.0, "po": " PO-1\n"}, True),
        ({"items": [{"id": 1.0}]}, {"items": [{"id": 1}]}, True),
        ({"po": "PO-1"}, {"po": "po-1"}, False),
        ({"items": [1, 2]}, {"items": [2, 1]}, False),
        ({"ok": True}, {"ok": 1}, False),
        ({"po": "1"}, {"po": 1}, False),
    ],
)
def test_arguments_of_a_tool_are_compared_by_what_they_mean(before: JsonObject, after: JsonObject, same: bool):
    """Key order, 1 and 1.0, and white space at the ends of strings do not count; everything else does."""
    origin = World()
    asyncio.run(origin.use(FIND, **before))
    again = World(origin.rows, testing=True)

    assert asyncio.run(again.use(FIND, **after)).source == ("recorded" if same else "live")


def test_no_tool_is_called_once_the_run_is_to_stop():
    """As no model is asked: a tool may write, and what it did would be lost."""

    def stop() -> None:
        raise Stopped("enough")

    world = World(require_budget=stop)
    with pytest.raises(Stopped):
        asyncio.run(world.use(SEND, to="a@b"))

    assert world.called == []


def test_an_error_of_a_tool_is_replayed():
    """The model was told of it, and is told the same again."""
    origin = World()
    first = asyncio.run(origin.use(FIND, fails=True))
    again = World(origin.rows, testing=True)

    assert asyncio.run(again.use(FIND, fails=True)) == ToolReply(None, first.error, "recorded")
    assert first.error == "no such order"


def test_static_answers_come_before_the_recording():
    """The first case whose arguments the call has answers it; other calls go on to the recording."""
    origin = World()
    asyncio.run(origin.use(FIND, po="PO-1", year=1))
    cases = [{"when": {"po": "PO-2"}, "answer": {"found": "two"}}, {"when": {"po": "PO-3"}, "error": "gone"}]
    again = World(origin.rows, testing=True, tool_answers={"find": cases})
    replies = [asyncio.run(again.use(FIND, po=po, year=1)) for po in ("PO-2 ", "PO-3", "PO-1")]

    assert [(reply.value, reply.error, reply.source) for reply in replies] == [
        ({"found": "two"}, None, "static"),
        (None, "gone", "static"),
        ({"found": {"po": "PO-1", "year": 1}}, None, "recorded"),
    ]
    assert again.called == []


def test_equal_calls_are_told_apart_by_their_number():
    """The second equal call gets the second recorded answer, and a third one is a miss."""
    counter = iter(range(10))

    async def three(calls: Calls) -> list[Any]:
        async def count() -> Any:
            return next(counter)

        return [(await calls.use(FIND, {"po": 1}, count)).value for _ in range(3)]

    origin = World()
    first = asyncio.run(three(origin.calls))
    again = World(origin.rows[:2], testing=True)

    assert (first, asyncio.run(three(again.calls))) == ([0, 1, 2], [0, 1, 3])
    assert again.log.columns(1)["diverged_at"] == 3


def ids(conversation: Sequence[tuple[str, str]]) -> JsonObject:
    turns: list[JsonObject] = []
    for call, result in conversation:
        turns.append({"role": "assistant", "tool_calls": [{"id": call, "type": "function", "function": {"name": "f", "arguments": "{}"}}]})
        turns.append({"role": "tool", "tool_call_id": result, "content": "x"})
    return {"messages": turns}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (ids([("a", "a"), ("b", "b")]), ids([("x", "x"), ("y", "y")]), True),
        (ids([("a", "a"), ("b", "b")]), ids([("x", "y"), ("y", "x")]), False),
        ({"messages": [], "model": "one", "stream": True, "user": "u"}, {"messages": [], "model": "two"}, True),
        ({"messages": [], "temperature": 1.0}, {"temperature": 1, "messages": []}, True),
        ({"messages": [], "temperature": 1}, {"messages": [], "temperature": 0.5}, False),
        ({"input": "x", "previous_response_id": "r1"}, {"input": "x", "previous_response_id": "r2"}, False),
        ({"input": [{"type": "function_call", "id": "i1", "call_id": "c1"}]}, {"input": [{"type": "function_call", "id": "i2", "call_id": "c2"}]}, True),
        ({"input": [{"type": "item_reference", "id": "i1"}]}, {"input": [{"type": "item_reference", "id": "i2"}]}, False),
    ],
)
def test_a_model_call_is_identified_by_what_may_change_its_answer(before: JsonObject, after: JsonObject, same: bool):
    """Ids that models make up count by their order; names of models and of users do not; what an endpoint keeps does."""
    prints = {model_fingerprint("m", "chat", body, 0, 1, 1) for body in (before, after)}

    assert (len(prints) == 1) is same


def test_fingerprints_of_calls_stay_as_they_are():
    """A changed fingerprint would make every recording worthless."""
    body = {"messages": [{"role": "user", "content": "ä"}], "temperature": 0.0}

    assert model_fingerprint("m", "chat", body, 0, 1, 1) == "af476daf9c7c4c1cd7daeba7b5490ae5"


def test_a_call_over_a_megabyte_is_kept_as_an_attachment():
    """Its row has the digest, and what is replayed is the whole reply."""
    kept: dict[str, bytes] = {}

    def keep(body: bytes) -> str:
        kept[str(len(kept))] = body
        return str(len(kept) - 1)

    async def big(world: World) -> Any:
        async def call() -> Any:
            return "x" * 1_000_001

        return (await world.calls.use(FIND, {"po": 1}, call)).value

    how: Any = {"keep_text": keep, "read_text": lambda sha: kept[sha].decode()}
    origin = World(**how)
    first = asyncio.run(big(origin))
    again = World(origin.rows, testing=True, **how)

    assert (origin.rows[0]["reply"], origin.rows[0]["reply_sha256"], len(kept)) == (None, "0", 1)
    assert asyncio.run(big(again)) == first


def test_a_request_that_failed_is_made_again_and_was_paid_for():
    """An error of a model is no answer: neither in a recording nor in the spool."""

    async def failing(world: World) -> None:
        world.context.models["m"].function = _fail  # type: ignore[attr-defined]
        with pytest.raises(StepFailed):
            await world.ask("hello")

    origin = World()
    asyncio.run(failing(origin))
    again, resumed = World(origin.rows, testing=True), World(known=origin.spooled)

    assert [row["error"] for row in origin.rows] == ["ValueError: no"]
    assert asyncio.run(again.ask("hello")) == asyncio.run(resumed.ask("hello")) == "answer to hello"
    assert (resumed.attempt.usage.calls, [row["number"] for row in resumed.rows]) == (2, [1, 2])


def _fail(request: Request) -> str:
    raise ValueError("no")
