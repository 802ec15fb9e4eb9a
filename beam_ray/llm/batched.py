"""
A model that is asked through batches.

What a batch has brought for a request is its answer; any other request is put aside for the next
batch, and its row deferred. So a row that is run again comes to the same place, whoever runs it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from beam_ray.define.fingerprint import Json, JsonObject, digest
from beam_ray.errors import ModelUnavailable
from beam_ray.llm.client import UNANSWERED, OpenAIModel, Refused, characters, hidden_in
from beam_ray.llm.refusals import Kind, Refusal, read_refusal, status_within
from beam_ray.llm.request import Answer, Deferred, Request
from beam_ray.llm.usage import Usage

TRIES = 3
"""Batches that a request may be in before its row fails, or is asked interactively."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one batch brought for a request."""

    status: int
    """The HTTP status; 0 where the batch ended without an answer."""
    body: Json
    """The reply; for status 0 the reason, a word such as expired."""


@dataclass(frozen=True, slots=True)
class PutAside:
    """A request that waits for a batch."""

    call: str
    """Identifies the call within its run."""
    model: str
    """The model's name in the models file."""
    body: JsonObject
    input_tokens: int
    """Estimated."""
    request: Request


class Mailbox(Protocol):
    """Where replies are found, and requests are put aside."""

    def replies(self, request: Request, call: str) -> Sequence[Reply]:
        """What batches brought for the *call*, the oldest first."""

    def put(self, waiting: PutAside) -> None:
        """Put a request aside for the next batch."""


class BatchedModel:
    """Answers requests from what batches brought, and puts the others aside."""

    def __init__(self, model: OpenAIModel, mailbox: Mailbox, *, defers: bool = True):
        """
        Args:
            defers: Whether requests without a reply wait for a batch; otherwise they are asked interactively.
        """
        self.model, self.mailbox, self.defers = model, mailbox, defers

    async def ask(self, request: Request, usage: Usage) -> Answer:
        """
        The answer.

        Raises:
            Deferred: it will be there when the next batch has ended.
        """
        body = self.body_of(request)
        found = self._brought(body, request, usage)
        return found[1] if found else await self.model.ask(request, usage)

    def body_of(self, request: Request) -> JsonObject:
        """The body of the HTTP request for *request*."""
        return self.model.body_of(request)

    async def reply(self, body: JsonObject, request: Request, usage: Usage, *, api: str | None = None) -> JsonObject:
        """
        The endpoint's reply to *body*.

        Raises:
            Deferred: it will be there when the next batch has ended; never for a program's body.
        """
        found = None if request.by_program else self._brought(body, request, usage)
        return cast(JsonObject, hidden_in(found[0], self.model.settings)) if found else await self.model.reply(body, request, usage, api=api)

    def read(self, reply: Json, body: JsonObject, request: Request) -> Answer:
        """The answer in the *reply* to the *body* of *request*."""
        return self.model.read(reply, body, request)

    def _brought(self, body: JsonObject, request: Request, usage: Usage) -> tuple[Json, Answer] | None:
        """The reply that a batch brought, and the answer in it; None where it is to be asked for interactively."""
        call = call_digest(request, body)
        reasons = []
        for reply in self.mailbox.replies(request, call):
            try:
                return reply.body, self._read(reply, body, request, usage)
            except Refused as error:
                if error.kind in (Kind.CONTENT, Kind.ROW):
                    raise self.model.failure(error, request) from None
                reasons.append(str(self.model.failure(error, request)))
            except UNANSWERED as error:
                reasons.append(self.model.settings.hide(str(error))[:300])
            except _Unanswered as error:
                reasons.append(str(error))
        if not self.defers or (len(reasons) >= TRIES and self.model.settings.batch.fallback == "interactive"):
            return None
        if len(reasons) >= TRIES:
            raise ModelUnavailable(f"no answer in {len(reasons)} batches: {reasons[-1]}")
        self.mailbox.put(PutAside(call, self.model.name, body, characters(request) // 4 + 1, request))
        raise Deferred

    async def close(self) -> None:
        """Close the connections."""
        await self.model.close()

    def _read(self, reply: Reply, body: JsonObject, request: Request, usage: Usage) -> Answer:
        if reply.status == 0:
            raise _Unanswered(f"the batch ended without an answer ({reply.body})")
        usage.add(Usage(1, usd=0.0 if self.model.price else None))
        status = reply.status
        if status == 200 and isinstance(reply.body, Mapping) and not reply.body.get("choices") and not reply.body.get("output"):
            status = status_within(reply.body) or status
        if status != 200:
            found = read_refusal(status, reply.body)
            raise Refused(Refusal(status, found.code, found.param, self.model.settings.hide(found.message)[:1_000]), body, {})
        answer = self.model.read(reply.body, body, request)
        usage.add(self.model.cost(dataclasses.replace(answer, tier="batch")))
        return answer


class _Unanswered(Exception):
    """A batch ended without an answer to the request."""


def call_digest(request: Request, body: Mapping[str, Json]) -> str:
    """Identifies a call within its run: whose it is, and what is asked."""
    asked = {**body, "messages": request.question, "input": ""} if request.question else body
    return digest("call/1", request.node, request.task_id, request.trial, request.attempt, request.judges, request.seed, asked)
