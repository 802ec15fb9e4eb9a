"""What ``models check`` found about endpoints: one document per address and model."""

from collections.abc import Mapping

from beam_ray.errors import Damaged
from beam_ray.store.checksummed_json import Document, read_document, seal
from beam_ray.store.objects import NotThere, Objects


def write_findings(objects: Objects, endpoint: str, document: Mapping[str, object]) -> None:
    """Keep *document* for *endpoint*, instead of an earlier one."""
    objects.put(_key(endpoint), seal(document))


def read_findings(objects: Objects, endpoint: str, shape: type[Document]) -> Document | None:
    """The document for *endpoint*, of the shape that was written; None where it was never checked, or its document is damaged and must be made anew."""
    try:
        return read_document(objects, _key(endpoint), shape)
    except (NotThere, Damaged):
        return None


def _key(endpoint: str) -> str:
    return f"models/{endpoint}.json"
