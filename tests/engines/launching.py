"""Starts the two processes of a training with an engine, on the CPUs of this machine."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

PROCESSES = 2
ENGINES = {"ddp": None, "fsdp2": "fsdp2", "zero2": "zero2", "zero3": "zero3"}
"""Engine: the configuration of accelerate that TRL ships for it, and that `lfpc train` names."""
ROOT = Path(__file__).parents[2]


def variables_of(engine: str) -> dict[str, str]:
    """What `accelerate launch` tells each process of a training with an engine, in float32."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    if ENGINES[engine] is None:
        return {}
    file = Path(str(resources.files("trl") / "accelerate_configs" / f"{ENGINES[engine]}.yaml"))
    options = ["--num_processes", str(PROCESSES), "--mixed_precision", "no", "--main_process_port", "0"]
    arguments = launch.launch_command_parser().parse_args(["--config_file", str(file), *options, "program"])
    arguments, read, _ = launch._validate_launch_command(arguments)
    before = dict(os.environ)
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(read.deepspeed_config)
        _, variables = prepare_deepspeed_cmd_env(arguments)
    else:
        variables = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in variables.items() if before.get(name) != value}


def start(engine: str, jobs: Sequence[Mapping[str, Any]], folder: Path, *, seconds: float) -> tuple[int, str]:
    """Run jobs (`tests.engines.rank`) with an engine.

    Args:
        engine: one of `ENGINES`.
        jobs: calls of `lfpc train`, one after another.
        folder: where the files of the two processes go.
        seconds: after these the processes are ended: they wait for each other.

    Returns:
        The worst exit code (124 where they were ended), and the ends of what the processes said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(list(jobs)), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | variables_of(engine)
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(PROCESSES)}
    common |= {"LOCAL_WORLD_SIZE": str(PROCESSES), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    paths = [str(ROOT), str(ROOT / "integrations"), *filter(None, [os.environ.get("PYTHONPATH")])]
    common |= {"PYTHONPATH": os.pathsep.join(paths), "DUMP": str(seconds)}
    command = [sys.executable, "-m", "tests.engines.rank", str(folder / "jobs.json")]
    processes, logs = [], [folder / f"rank{rank}.log" for rank in range(PROCESSES)]
    for rank, log in enumerate(logs):
        with log.open("w", encoding="utf-8") as file:
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(
                subprocess.Popen(command, env=common | own, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
            )
    code = _wait(processes, seconds)
    return code, "\n".join(log.read_text(encoding="utf-8", errors="replace")[-3000:] for log in logs)


def _wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> int:
    """The worst exit code; where one process fails, the other, which waits for it, is ended."""
    import time

    end = time.monotonic() + seconds
    try:
        while True:
            codes = [process.poll() for process in processes]
            failed = [code for code in codes if code]
            if failed or None not in codes:
                return max(failed, key=abs, default=0)
            if time.monotonic() > end:
                return 124
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """By hand: `python -m tests.engines.launching ENGINE JOBS.json FOLDER SECONDS`."""
    engine, jobs, folder, seconds = sys.argv[1:]
    content = json.loads(Path(jobs).read_text(encoding="utf-8"))
    code, said = start(engine, content, Path(folder), seconds=float(seconds))
    print(said)
    sys.exit(code)


if __name__ == "__main__":
    main()
