"""The Embeddings API, which only programs call: what a reply says of its tokens."""

from collections.abc import Mapping

from beam_ray.define.fingerprint import Json
from beam_ray.llm.chat_api import count
from beam_ray.llm.request import Answer

PATH = "/embeddings"


def read_reply(reply: Json, sent: Mapping[str, Json]) -> Answer:
    """
    The tokens of a reply with embeddings, as an answer without text.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is not one.
    """
    if not isinstance(reply["data"], list):
        raise TypeError("no list of embeddings")
    used = reply.get("usage")
    tokens = count(used, "prompt_tokens")
    return Answer("", tokens or 0, 0, reported=tokens is not None)
