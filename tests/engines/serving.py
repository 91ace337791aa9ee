"""Starts the real `vllm serve` with the command that `lfpc export` prints, on the CPUs of this machine."""

import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lfpc_trl.models.families import family_of
from lfpc_trl.runs.export import serve_command
from tests.engines.vllm_on_cpu import LONGEST

ON_CPU = ["--max-model-len", str(LONGEST), "--enforce-eager", "--dtype", "float32", "--max-num-seqs", "8"]
ON_CPU += ["--limit-mm-per-prompt", '{"image": 6, "video": 0}', "--max-num-batched-tokens", "4096"]
"""What makes it start here in minutes, in the precision of the others; nothing of it is tested."""


@contextmanager
def served(model_dir: Path, log: Path, *, seconds: float = 900) -> Iterator[str]:
    """The address of a server for a prepared directory.

    Args:
        model_dir: the model.
        log: what the server says.
        seconds: how long it may take to start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = shlex.split(serve_command(str(model_dir), family_of(model_dir)))
    assert words.pop(0) == "vllm"
    command = [sys.executable, "-m", "tests.engines.vllm_cli", *words, *ON_CPU]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "signs"]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log, seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    said = log.read_text(errors="replace")[-3000:]
    raise RuntimeError(f"vllm serve did not start, exit code {process.poll()}: {said}")
