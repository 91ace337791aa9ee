"""Multi-process launch: accelerate on GPUs, torchrun on CPUs; each process runs the same command again.

torchrun, because `accelerate launch --cpu --num_processes 2` silently starts one process.
"""

import os
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from lfpc_trl.errors import UserError, did_you_mean, first_line, one_line
from lfpc_trl.results import hand_over
from lfpc_trl.train.recipe import LaunchSettings


def is_launched() -> bool:
    """Whether this process was started by a launcher."""
    return "LOCAL_RANK" in os.environ


def processes_of(launch: LaunchSettings) -> int:
    """Total number of processes of a launch.

    Raises:
        UserError: unknown configuration, or invalid numbers.
    """
    for name in ("num_processes", "num_machines"):
        value = getattr(launch, name)
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if not 0 <= launch.machine_rank < launch.num_machines:
        raise UserError(
            f"machine_rank must be from 0 to {launch.num_machines - 1} (num_machines less 1), "
            f"got {launch.machine_rank}"
        )
    if launch.num_machines > 1 and not (launch.main_process_ip and launch.main_process_port):
        raise UserError("num_machines above 1 needs main_process_ip and main_process_port of machine 0")
    processes = launch.num_processes
    if processes is None:
        processes = 1 if launch.accelerate_config is None else _processes_in(_configuration(launch))
    if processes % launch.num_machines:
        raise UserError(
            f"num_processes ({processes}) must be a multiple of num_machines ({launch.num_machines}), "
            "it counts the processes of all machines"
        )
    return processes


def launch_command(launch: LaunchSettings, arguments: Sequence[str], *, cpu: bool) -> list[str] | None:
    """The command line that starts the processes of a run.

    Args:
        launch: the launch settings.
        arguments: arguments of `lfpc`, such as ["train", "--config", ...], for every process.
        cpu: whether to run on the CPU only.

    Returns:
        The command line; None if this process can run alone (one process, no configuration).

    Raises:
        UserError: this machine cannot run it.
    """
    processes = processes_of(launch)
    if launch.accelerate_config is None and processes == 1:
        return None
    here = processes // launch.num_machines
    program = ["-m", "lfpc_trl.cli", *arguments]
    if cpu:
        if launch.accelerate_config is not None:
            raise UserError(
                f"accelerate_config {launch.accelerate_config} needs GPUs; on a CPU give "
                "--accelerate_config none"
            )
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(here)]
        if launch.num_machines == 1:
            return [*command, "--standalone", *program]
        return [
            *command,
            *("--nnodes", str(launch.num_machines), "--node_rank", str(launch.machine_rank)),
            *("--master_addr", str(launch.main_process_ip), "--master_port", str(launch.main_process_port)),
            *program,
        ]
    _check_gpus(here)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    if launch.accelerate_config is not None:
        command += ["--config_file", str(_configuration(launch))]
    else:
        command += ["--multi_gpu", "--mixed_precision", "bf16"]
    command += ["--num_machines", str(launch.num_machines), "--machine_rank", str(launch.machine_rank)]
    for name in ("main_process_ip", "main_process_port"):
        if getattr(launch, name) is not None:
            command += [f"--{name}", str(getattr(launch, name))]
    return [*command, *program]


def replace_process(command: Sequence[str]) -> None:
    """Replace this process with the launcher, so that it receives a scheduler's signals."""
    hand_over()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], list(command))


def _configuration(launch: LaunchSettings) -> Path:
    """The path of an accelerate configuration; a user's file is checked."""
    name = launch.accelerate_config or ""
    if Path(name).is_file():
        _read_configuration(Path(name))
        return Path(name)
    folder = resources.files("trl") / "accelerate_configs"
    names = sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )
    if name not in names:
        raise UserError(
            f"unknown accelerate_config {name!r}; give a file or one of {', '.join(names)}"
            f"{did_you_mean(name, names)}"
        )
    return Path(str(folder / f"{name}.yaml"))


_KEYS = (
    *("compute_environment", "debug", "distributed_type", "downcast_bf16", "dynamo_config"),
    *("enable_cpu_affinity", "fp8_config", "fsdp_config", "deepspeed_config", "gpu_ids", "machine_rank"),
    *("main_process_ip", "main_process_port", "main_training_function", "mixed_precision", "num_machines"),
    *("num_processes", "parallelism_config", "rdzv_backend", "same_network", "use_cpu"),
)
"""Allowed keys of an accelerate configuration: how processes of this machine train together."""
_MUST_BE_EMPTY = ("tpu_env", "tpu_use_cluster", "tpu_use_sudo", "mpirun_config", "megatron_lm_config")
"""Other keys that `accelerate config` writes. They start programs or set variables, so they must be empty."""
_ONE_VALUE = {"compute_environment": "LOCAL_MACHINE", "main_training_function": "main"}
_ONE_VALUE_OF_DEEPSPEED = {"deepspeed_multinode_launcher": "standard"}


def _read_configuration(configuration: Path) -> dict[str, Any]:
    """Read an accelerate configuration, with only known keys, as accelerate acts on every key.

    Raises:
        UserError: not a configuration, or a key that could start other programs.
    """
    import yaml

    try:
        content = yaml.safe_load(configuration.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise UserError(f"{configuration}: not an accelerate configuration ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{configuration}: not an accelerate configuration, it must map settings to values")
    for key, value in content.items():
        if key not in (*_KEYS, *_MUST_BE_EMPTY):
            raise UserError(f"{configuration}: {key!r} is not allowed in an accelerate configuration here")
        if key in _MUST_BE_EMPTY and value:
            raise UserError(f"{configuration}: {key} must be empty or false, got {str(value)[:60]!r}")
    deepspeed = content.get("deepspeed_config") or {}
    if not isinstance(deepspeed, dict) or "deepspeed_hostfile" in deepspeed:
        raise UserError(f"{configuration}: deepspeed_config must hold settings, without deepspeed_hostfile")
    for settings, rules in ((content, _ONE_VALUE), (deepspeed, _ONE_VALUE_OF_DEEPSPEED)):
        for key, only in rules.items():
            if settings.get(key, only) != only:
                raise UserError(f"{configuration}: {key} must be {only}, got {settings[key]!r}")
    return content


def _processes_in(configuration: Path) -> int:
    try:
        return int(_read_configuration(configuration)["num_processes"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{configuration}: not an accelerate configuration ({one_line(error)})") from None


def _check_gpus(processes: int) -> None:
    import torch

    available = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if available < processes:
        raise UserError(
            f"num_processes asks for {processes} GPUs on this machine, it has {available}; "
            "give --num_processes, or --use_cpu true"
        )
