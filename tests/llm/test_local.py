"""The embedded model is real: it starts, answers by a schema, and goes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import openai
import pytest

from beam_ray.errors import Unusable
from beam_ray.llm.local import MODEL, running

pytest.importorskip("xllamacpp")

ORDER = {
    "type": "object",
    "properties": {"po_number": {"type": "string", "pattern": "^PO-[0-9]{5}$", "maxLength": 12}, "pieces": {"type": "integer"}},
    "required": ["po_number", "pieces"],
    "additionalProperties": False,
}


def test_running():
    """A schema-constrained question gets the same fitting answer twice, and nothing is left afterwards."""
    with running() as url, openai.OpenAI(base_url=url, api_key="none") as client:
        first, second = (_ask(client) for _ in range(2))

    assert {"po_number": "PO-48213", "pieces": 25} == json.loads(first)
    assert first == second
    assert not _listening(url)


def test_taken_port():
    """A port that is served already is refused in one sentence that names the address."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(Unusable, match=f"http://127.0.0.1:{port}/v1"), running(port):
            pass


def test_dead_parent():
    """The server ends with the process that started it, even when that is killed."""
    program = "import time\nfrom beam_ray.llm.local import running\nwith running() as url:\n    print(url, flush=True)\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        url = parent.stdout.readline().strip()
        was_there = _listening(url)
        os.kill(parent.pid, signal.SIGKILL)

    ends = time.monotonic() + 10
    while _listening(url) and time.monotonic() < ends:
        time.sleep(0.05)

    assert was_there
    assert not _listening(url)


def _ask(client: openai.OpenAI) -> str:
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Order PO-48213: 25 pieces of copy paper.\n\nWhich order is it, and how many pieces? Answer with JSON."}],
        temperature=0,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "order", "strict": True, "schema": ORDER}},
    )
    return reply.choices[0].message.content or ""


def _listening(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((str(address.hostname), int(address.port or 0))) == 0
