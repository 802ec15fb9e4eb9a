"""
The spec of a backtest, kept when it begins, so that it can be resumed and repeated without its file.

    backtests/<backtest>/spec.json      created if absent

Drafts are named with their revision: what is resumed is what was begun. Webhooks are not kept, since an address may be a secret.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from beam_ray.backtest.spec import Resolved
from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.define.yaml_file import relative_path
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.drafts import last_number, parse_draft_reference
from beam_ray.store.objects import NotThere, Objects

MAX_PATH = 500
"""Characters that the name of a file may have; longer text is none."""


class KeptSpec(TypedDict):
    """The content of spec.json."""

    spec: JsonObject
    """The spec as in a file; files are named from where the command ran."""
    labels: list[str]
    """The labels that its tasks must have."""


def keep_spec(objects: Objects, backtest: str, resolved: Resolved, labels: Sequence[str] = ()) -> None:
    """Keep the spec of a backtest that begins; one that is kept stays."""
    written = resolved.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"notify"})
    for key in ("workflow", "baseline", "gate", "tasks", "candidates", "matrix"):
        if key in written:
            written[key] = _located(_pinned(objects, written[key]), resolved.folder, many=key == "tasks")
    kept: KeptSpec = {"spec": written, "labels": list(labels)}
    objects.create(f"backtests/{backtest}/spec.json", seal(kept))


def read_spec(objects: Objects, backtest: str) -> KeptSpec | None:
    """The spec of the backtest with this id; None where none was kept: of one that was made in Python, or by an earlier version."""
    try:
        return read_document(objects, f"backtests/{backtest}/spec.json", KeptSpec)
    except NotThere:
        return None


def _pinned(objects: Objects, written: Json) -> Json:
    """*written*, with the newest revision where it names a draft without one."""
    if isinstance(written, dict):
        return {name: _pinned(objects, value) if isinstance(value, str) else value for name, value in written.items()}
    draft = parse_draft_reference(written) if isinstance(written, str) else None
    if draft is None or draft.number is not None:
        return written
    return f"{written}:{last_number(objects, draft.workflow, draft.name)[0]}"


def _located(written: Json, folder: Path, *, many: bool) -> Json:
    """*written*, with what names a file beside the spec named from here; with *many* also a folder or a pattern."""
    if isinstance(written, dict):
        return {name: _located(value, folder, many=many) for name, value in written.items()}
    if isinstance(written, list):
        return [_located(value, folder, many=many) for value in written]
    if not isinstance(written, str) or not written or "\n" in written or len(written) > MAX_PATH or written.startswith("/"):
        return written
    there = (folder / written).is_file() or (many and ((folder / written).is_dir() or any(folder.glob(written))))
    return relative_path(folder / written, Path.cwd()) if there else written
