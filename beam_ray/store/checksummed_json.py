"""
JSON documents that carry a digest of themselves, so that a changed bit is noticed and never believed.

The digest is over what the document says and not over its bytes: whoever sets it out
anew has not changed it.
"""

import json
from collections.abc import Mapping
from typing import Any

from beam_ray.define.fingerprint import digest, strict_json
from beam_ray.errors import Damaged


def seal(document: Mapping[str, Any]) -> bytes:
    """*document* as JSON with its seal, for ``unseal``."""
    return json.dumps({**document, "seal": digest("sealed/1", document)}, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")


def unseal(body: bytes, where: str) -> dict[str, Any]:
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
