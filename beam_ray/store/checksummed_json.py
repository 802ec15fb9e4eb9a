"""
JSON documents that carry a digest of themselves, so that a changed bit is noticed and never believed.

The digest is over what the document says and not over its bytes: whoever sets it out
anew has not changed it.
"""

import json
from collections.abc import Mapping
from typing import TypedDict, TypeVar, cast

from beam_ray.define.fingerprint import JsonObject, digest, strict_json
from beam_ray.errors import Damaged
from beam_ray.store.objects import Objects

Document = TypeVar("Document")


class RunMark(TypedDict):
    """A document that names a run, and nothing else."""

    run_id: str


def seal(document: Mapping[str, object]) -> bytes:
    """*document* as JSON with its seal, for ``unseal``."""
    return json.dumps({**document, "seal": digest("sealed/1", document)}, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")


def unseal(body: bytes, where: str) -> JsonObject:
    """
    The document in *body*.

    Raises:
        Damaged: it is not what was sealed; *where* says which.
    """
    try:
        document = dict(strict_json(body.decode("utf-8", "surrogatepass")))
        if document.pop("seal") == digest("sealed/1", document):
            return document
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise Damaged(f"{where} is damaged: its content does not match its checksum")


def read_document(objects: Objects, key: str, shape: type[Document]) -> Document:
    """
    The sealed document under *key*.

    *shape* is the TypedDict that those who write there declare. What the seal vouches for is
    theirs, so it is not checked again; tests hold what is written against it.

    Raises:
        NotThere: there is none.
        Damaged: it is not what was sealed.
    """
    return cast(Document, unseal(objects.read(key), key))
