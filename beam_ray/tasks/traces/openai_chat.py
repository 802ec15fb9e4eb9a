"""OpenAI's chat logs and fine-tuning files: one ``{"messages": […]}`` a line, the last assistant turn being the expected answer."""

from collections.abc import Iterable, Iterator, Mapping

from beam_ray.tasks.traces.trace import BadTrace, Json, Trace, conversation, is_messages, made, message, parsed


def traces(documents: Iterable[tuple[int, Json]]) -> Iterator[Trace | BadTrace]:
    """One trace per document; those without an id are numbered."""
    for number, (line, document) in enumerate(documents, start=1):
        yield made(line, _trace, document, f"chat-{number:05d}")


def _trace(document: Json, name: str) -> Trace:
    if not isinstance(document, Mapping) or not is_messages(document.get("messages")):
        raise BadTrace('a line is {"messages": [{"role": "user", "content": "…"}, …]}')
    turns = [message(entry) for entry in document["messages"]]
    answered = turns[-1]["role"] == "assistant"
    asked = document["messages"][:-1] if answered else document["messages"]
    if not any(turn["role"] == "user" for turn in turns):
        raise BadTrace("the messages have no user turn")
    answer = parsed(turns[-1]["content"]) if answered else None
    expected: Mapping[str, Json] = {}
    if answer is not None:
        expected = answer if isinstance(answer, Mapping) else {"text": answer}
    metadata = document.get("metadata")
    tags = {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, Mapping) else {}
    return Trace(str(document.get("id") or document.get("custom_id") or name), conversation(asked), answer, expected=expected, tags=tags)
