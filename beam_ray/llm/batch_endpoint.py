"""The batch endpoint of an OpenAI-compatible API: files go up, batches are created and watched, and what they brought comes down."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import openai

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import OutOfQuota, WrongSetting
from beam_ray.llm.batch_format import URLS
from beam_ray.llm.client import default_headers
from beam_ray.llm.refusals import Kind, kind_of, read_refusal
from beam_ray.llm.settings import ModelSettings

MARK = "beam_ray"
"""The key of a batch's metadata under which its mark is."""

TIMEOUT_S = 60.0
"""Seconds without a sign of the endpoint after which a call is given up, and made again later."""

UPLOAD_TIMEOUT_S = 900.0

ENDED = ("completed", "failed", "expired", "cancelled")
"""States in which nothing more comes."""

_MAX_PAGES = 200
_Result = TypeVar("_Result")


class NotNow(Exception):
    """The endpoint did not answer, or is busy; whether it did what was asked is unknown. Ask again later."""


@dataclass(frozen=True)
class BatchState:
    """A batch as the endpoint describes it."""

    id: str
    status: str
    """validating, failed, in_progress, finalizing, completed, expired, cancelling or cancelled."""
    mark: str = ""
    """Ours, from its metadata."""
    rows: int = 0
    answered: int = 0
    """Rows that are done, with an answer or an error."""
    created_at: float = 0.0
    """Seconds since 1970."""
    expires_at: float | None = None
    output_file: str | None = None
    error_file: str | None = None
    errors: tuple[tuple[str, str], ...] = ()
    """Code and message of what is wrong with the input file, where it failed."""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.status in ENDED


class BatchEndpoint:
    """The batch endpoint of one model."""

    def __init__(self, settings: ModelSettings, name: str):
        self.settings, self.name = settings, name
        self._options: Any = {"extra_headers": {"Authorization": openai.Omit()}} if settings.key_elsewhere else {}
        self._client = openai.OpenAI(
            base_url=settings.url,
            api_key=settings.secret,
            max_retries=0,
            timeout=TIMEOUT_S,
            default_headers=default_headers(settings),
            default_query=settings.own_query,
        )

    def upload(self, name: str, body: bytes) -> str:
        """Upload an input file; its id. A second upload costs nothing."""
        return str(self._ask(lambda: self._client.files.create(file=(name, body), purpose="batch", timeout=UPLOAD_TIMEOUT_S, **self._options)).id)

    def create(self, file_id: str, mark: str) -> BatchState:
        """Create a batch that carries *mark*. After ``NotNow`` look for it with ``find``."""
        url: Any = URLS[self.settings.call.api]
        window: Any = self.settings.batch.window
        # endpoints that know the header make no second batch for the same key; the others ignore it
        options = {**self._options, "extra_headers": {**self._options.get("extra_headers", {}), "Idempotency-Key": mark}}
        return _state(
            self._ask(lambda: self._client.batches.create(input_file_id=file_id, endpoint=url, completion_window=window, metadata={MARK: mark}, **options))
        )

    def find(self, mark: str, since: float) -> list[BatchState]:
        """The batches that carry *mark*, created at *since* (seconds since 1970) or later, the oldest first."""
        found: list[BatchState] = []
        after: Any = openai.omit
        for _ in range(_MAX_PAGES):
            start = after
            page = self._ask(lambda start=start: self._client.batches.list(after=start, limit=100, **self._options))  # type: ignore[misc]
            states = [_state(each) for each in page.data]
            found += [state for state in states if state.mark == mark]
            if not states or not page.has_more or max(state.created_at for state in states) < since:
                break
            after = states[-1].id
        return sorted({state.id: state for state in found}.values(), key=lambda state: (state.created_at, state.id))

    def get(self, batch_id: str) -> BatchState:
        """A batch as it is now."""
        return _state(self._ask(lambda: self._client.batches.retrieve(batch_id, **self._options)))

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch; what it has answered so far is kept and billed."""
        self._ask(lambda: self._client.batches.cancel(batch_id, **self._options))

    def lines(self, file_id: str | None) -> Iterator[JsonObject]:
        """The JSON objects of an output or error file; none where there is no file. Lines that are no JSON object are left out."""
        if file_id is None:
            return
        try:
            with self._client.files.with_streaming_response.content(file_id, timeout=UPLOAD_TIMEOUT_S, **self._options) as reply:
                rest = b""
                for piece in reply.iter_bytes():
                    *lines, rest = (rest + piece).split(b"\n")
                    yield from filter(None, map(_object, lines))
                yield from filter(None, [_object(rest)])
        except openai.NotFoundError:
            return  # providers delete files after some weeks
        except openai.APIError as error:
            self._raise(error)
        except httpx2.HTTPError as error:
            raise NotNow(self.settings.hide(str(error))[:300]) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, call: Callable[[], _Result]) -> _Result:
        try:
            return call()
        except openai.APIError as error:
            self._raise(error)
            raise AssertionError("unreachable") from None

    def _raise(self, error: openai.APIError) -> None:
        """
        Raise what *error* means.

        Raises:
            NotNow: another try may succeed.
            WrongSetting, OutOfQuota: none will.
        """
        said = self.settings.hide(str(error))[:300]
        if not isinstance(error, openai.APIStatusError):
            raise NotNow(said) from None
        refusal = read_refusal(error.status_code, error.body or error.message)
        kind, _ = kind_of(refusal, {})
        if kind in (Kind.RATE_LIMIT, Kind.BUSY):
            raise NotNow(said) from None
        if kind is Kind.QUOTA:
            raise OutOfQuota(f"{self.settings.model}: {said}; once there is quota again, run the same command again") from None
        raise WrongSetting(
            f"{self.settings.model} at {self.settings.base_url}: the batch endpoint refuses: {said}\n"
            f"  if this endpoint takes no batches, write  lane: interactive  for {self.name!r} in the models file, or use --lane interactive"
        ) from None


def _object(line: bytes) -> JsonObject | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _state(batch: Any) -> BatchState:
    counts, errors = batch.request_counts, batch.errors.data if batch.errors else None
    return BatchState(
        id=str(batch.id),
        status=str(batch.status),
        mark=str((batch.metadata or {}).get(MARK, "")),
        rows=counts.total if counts else 0,
        answered=counts.completed + counts.failed if counts else 0,
        created_at=float(batch.created_at or 0),
        expires_at=float(batch.expires_at) if batch.expires_at else None,
        output_file=batch.output_file_id or None,
        error_file=batch.error_file_id or None,
        errors=tuple((str(each.code or ""), str(each.message or "")) for each in errors or ()),
    )
