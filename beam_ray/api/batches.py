"""Open batches: what endpoints are working on for unfinished runs, and what it will cost."""

import datetime
from dataclasses import dataclass
from typing import TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.errors import BeamRayError, Unusable
from beam_ray.llm.settings import ModelSettings
from beam_ray.store.batches import Batches
from beam_ray.store.lookup import newest_first


class BatchDocument(TypedDict):
    """One open batch as ``beam-ray batches --json`` prints it."""

    run_id: str
    workflow: str
    wave: int
    batch_id: str | None
    model: str
    nodes: dict[str, int]
    status: str
    rows: int
    answered: int | None
    expires_at: str | None
    max_usd: float | None


@dataclass(frozen=True, repr=False)
class OpenBatch(Displayed):
    """A batch of an unfinished run, as its endpoint describes it."""

    run: str
    """The id of the run."""
    workflow: str
    wave: int
    """The number of the wave within the run, from 1."""
    id: str | None
    """The endpoint's id of the batch; None while it is not submitted."""
    model: str
    """The model's name in the models file."""
    nodes: dict[str, int]
    """Node, or ``judge of NODE``, to requests."""
    status: str
    """The endpoint's word, such as in_progress; ``not submitted``, or ``unknown`` where the endpoint does not answer."""
    rows: int
    """Requests."""
    answered: int | None
    """Requests that are done; None where the endpoint does not say."""
    expires_at: str | None
    """ISO 8601, UTC."""
    max_usd: float | None
    """US dollars at most; None when the model has no price."""

    def display(self) -> Display:
        facts = (
            ("run", self.run),
            ("workflow", self.workflow),
            ("model", self.model),
            ("nodes", ", ".join(self.nodes)),
            ("status", self.status),
            ("answered", f"{self.answered:,} of {self.rows:,}" if self.answered is not None else f"? of {self.rows:,}"),
            ("expires", self.expires_at),
            ("cost at most", "unpriced" if self.max_usd is None else f"${self.max_usd:,.4f}"),
        )
        return Display(self.id or "not submitted", facts)

    def document(self) -> BatchDocument:
        """The batch as a JSON document."""
        return {
            "run_id": self.run,
            "workflow": self.workflow,
            "wave": self.wave,
            "batch_id": self.id,
            "model": self.model,
            "nodes": dict(self.nodes),
            "status": self.status,
            "rows": self.rows,
            "answered": self.answered,
            "expires_at": self.expires_at,
            "max_usd": self.max_usd,
        }


def batches(store: Location) -> list[OpenBatch]:
    """See ``Store.batches``."""
    found = []
    for run in newest_first(store.existing()):
        if run.finished:
            continue
        stored = Batches(run)
        for wave in stored.waves():
            for entry in wave["inputs"]:
                if stored.ended(wave["wave"], entry["name"]) is not None:
                    continue
                _, batch_id = stored.submitted(wave["wave"], entry["name"])
                status, answered, expires = _asked(store, entry["model"], batch_id) if batch_id else ("not submitted", 0, None)
                found.append(
                    OpenBatch(
                        run.run_id,
                        run.record.workflow,
                        wave["wave"],
                        batch_id or None,
                        entry["model"],
                        entry["nodes"],
                        status,
                        entry["rows"],
                        answered,
                        expires,
                        entry["max_usd"],
                    )
                )
    return found


def _asked(store: Location, model: str, batch_id: str) -> tuple[str, int | None, str | None]:
    """What the endpoint says of a batch: its status, how many requests are done, and when it expires."""
    from beam_ray.llm.batch_endpoint import BatchEndpoint, NotNow  # loads openai

    try:
        settings = store.known_models.get(model)
    except Unusable:
        settings = None
    if not isinstance(settings, ModelSettings):
        return "unknown", None, None
    try:
        endpoint = BatchEndpoint(settings, model)
        state = endpoint.get(batch_id)
        endpoint.close()
    except (NotNow, BeamRayError):
        return "unknown", None, None
    expires = datetime.datetime.fromtimestamp(state.expires_at, datetime.UTC).isoformat(timespec="seconds") if state.expires_at else None
    return state.status, state.answered, expires
