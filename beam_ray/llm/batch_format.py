"""The lines of batch files: requests in an input file, replies in output and error files."""

import json
from collections.abc import Mapping

from beam_ray.define.fingerprint import Json
from beam_ray.llm.families import Api

MAX_REPLY = 4_000_000
"""Characters of a reply; a longer one counts as none."""

URLS: Mapping[Api, str] = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
"""API to the address that every line of a batch names."""


def input_line(custom_id: str, body: str, api: Api) -> bytes:
    """The line of a request whose *body* is JSON text. The custom id comes first."""
    head = json.dumps({"custom_id": custom_id, "method": "POST", "url": URLS[api]}, separators=(",", ":"))
    return f'{head[:-1]},"body":{body}}}\n'.encode("utf-8", "replace")


def custom_id_of(line: bytes) -> str:
    """The custom id of a line that ``input_line`` made."""
    return line.split(b'"', 4)[3].decode()


def read_line(line: Mapping[str, Json], ended_as: str) -> tuple[int, Json]:
    """
    Status and body of a line of an output or error file; status 0 and a word where the request was not answered.

    *ended_as* is the state in which the batch ended.
    """
    response, error = line.get("response"), line.get("error")
    if isinstance(response, Mapping) and isinstance(response.get("status_code"), int):
        body = response.get("body")
        return (0, "reply too long") if len(json.dumps(body)) > MAX_REPLY else (response["status_code"], body)
    code = str(error.get("code") or "") if isinstance(error, Mapping) else ""
    return 0, code.removeprefix("batch_") or ended_as
