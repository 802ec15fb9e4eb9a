"""Opening a store: a folder or a bucket, checked before it is used."""

import json
import uuid
from pathlib import Path
from typing import TypedDict

from beam_ray.errors import Unusable
from beam_ray.store.disk import Disk
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.s3 import S3

FORMAT = 1


class StoreFormat(TypedDict):
    """The content of store.json."""

    format: int
    proof: str
    """Written once; who reads back another one has a store that overwrites."""


def open_objects(uri: str, *, proven: bool = False) -> Objects:
    """
    The objects at *uri*: a folder, or ``s3://bucket/prefix``; made ready if new.

    *proven* says that the caller's own driver has already put the store to the proof.

    Raises:
        Unusable: it cannot be used, or does not honour put-if-absent.
    """
    objects: Objects = S3(uri, proven=proven) if uri.startswith("s3://") else Disk(Path(uri))
    if not proven:
        _prove(objects)
    return objects


def _prove(objects: Objects) -> None:
    try:
        kept = objects.read("store.json")
    except NotThere:
        written: StoreFormat = {"format": FORMAT, "proof": uuid.uuid4().hex}
        objects.create("store.json", json.dumps(written).encode())
        kept = objects.read("store.json")
    try:
        found = json.loads(kept)["format"]
    except (ValueError, KeyError, TypeError):
        raise Unusable(f"{objects.uri}/store.json is not what beam_ray writes; use an empty place or another store") from None
    if found != FORMAT:
        raise Unusable(f"{objects.uri} has store format {found}; this version of beam_ray reads {FORMAT}")
    # the same bytes again: a store that overwrites is found out, and a sound one behind it is not harmed
    if objects.create("store.json", kept):
        raise Unusable(f"{objects.uri} does not honour put-if-absent (If-None-Match), so two writers could overwrite each other; use another store")
