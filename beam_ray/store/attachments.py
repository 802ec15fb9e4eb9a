"""
Attachments: files that a task brings, kept by their sha256.

Text and PDF reach prompts as text, images as image parts.
"""

import base64
import hashlib
import io
import mimetypes
from pathlib import Path
from typing import TypedDict

from beam_ray.errors import Damaged, StepFailed
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.tables import AttachmentRow

MAX_BYTES = 50_000_000
FRESH_S = 3_600.0
"""Seconds after which an attachment that is used anew is written anew."""
MAX_TEXT = 500_000
"""Characters of an attachment's text."""

_TEXT = ("application/json", "application/xml", "application/csv", "application/x-yaml", "message/rfc822")


class AttachmentContent(TypedDict):
    """What prompts may use of an attachment."""

    name: str
    media_type: str
    sha256: str
    text: str
    image: str
    """A data URL; empty where it is no image."""


def keep_attachment(path: Path, objects: Objects) -> AttachmentRow:
    """
    The file's entry in a task; its bytes are kept under their sha256.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large.
    """
    _require_size(path.stat().st_size)
    return keep_bytes(path.name, path.read_bytes(), objects)


def keep_bytes(name: str, body: bytes, objects: Objects) -> AttachmentRow:
    """
    The entry of a file with that name and content in a task; the content is kept under its sha256.

    Raises:
        ValueError: it is too large.
    """
    _require_size(len(body))
    sha = hashlib.sha256(body).hexdigest()
    key = f"attachments/{sha}"
    if not objects.create(key, body) and _aged(key, objects):
        # gc deletes what is old and unused: this one is about to be used
        objects.put(key, body)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return {"name": name, "sha256": sha, "media_type": kind, "bytes": len(body)}


def _require_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes; at most {MAX_BYTES:,} are allowed")


def _aged(key: str, objects: Objects) -> bool:
    try:
        return objects.age(key) > FRESH_S
    except NotThere:
        return True


def read_attachment(entry: AttachmentRow, objects: Objects) -> AttachmentContent:
    """
    What prompts may use of an attachment.

    Raises:
        Damaged: its bytes are gone, or are not those that were kept.
        StepFailed: it is neither text, PDF nor image, or cannot be read as what it says it is.
    """
    body = read_bytes(entry["sha256"], objects, f" ({entry['name']})")
    kind = entry["media_type"]
    found: AttachmentContent = {"name": entry["name"], "media_type": kind, "sha256": entry["sha256"], "text": "", "image": ""}
    if kind.startswith("image/"):
        return {**found, "image": f"data:{kind};base64,{base64.b64encode(body).decode()}"}
    if kind == "application/pdf":
        return {**found, "text": _pdf(body, entry["name"])}
    if kind.startswith("text/") or kind in _TEXT:
        return {**found, "text": body.decode("utf-8", "replace")[:MAX_TEXT]}
    raise StepFailed(f"the attachment {entry['name']!r} is {kind}; text, PDF and images reach a model")


def read_bytes(sha256: str, objects: Objects, name: str = "") -> bytes:
    """
    The content that is kept under *sha256*; *name* is for messages.

    Raises:
        Damaged: it is gone, or is not what was kept.
    """
    try:
        body = objects.read(f"attachments/{sha256}")
    except NotThere:
        raise Damaged(f"attachments/{sha256}{name} is missing") from None
    if hashlib.sha256(body).hexdigest() != sha256:
        raise Damaged(f"attachments/{sha256}{name} is damaged")
    return body


def _pdf(body: bytes, name: str) -> str:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    pieces, length = [], 0
    try:
        for page in PdfReader(io.BytesIO(body)).pages:
            page.get_contents()  # a limit that is met in here raises; while text is extracted it would only be logged
            text = page.extract_text()
            pieces.append(text)
            length += len(text)
            if length > MAX_TEXT:
                break
    except (PyPdfError, ValueError, KeyError, RecursionError, TypeError, AttributeError, IndexError) as error:
        raise StepFailed(f"the attachment {name!r} cannot be read as PDF: {error}") from None
    return "\n".join(pieces)[:MAX_TEXT]
