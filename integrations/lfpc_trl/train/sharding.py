"""Models in parts: what DeepSpeed, FSDP and the libraries around them leave open.

Under ZeRO-3 and FSDP each process holds a part of every weight, and a forward pass is a meeting of all
processes. Who stays away lets the others wait, or read the wrong parts.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import DistributedType

from lfpc_trl.errors import UserError

_ASKED = {
    "ACCELERATE_USE_FSDP": (DistributedType.FSDP, "FSDP"),
    "ACCELERATE_USE_DEEPSPEED": (DistributedType.DEEPSPEED, "DeepSpeed"),
}
"""How `accelerate launch` asks each process for an engine, and what accelerate calls it."""


def check_engine(accelerator: Any) -> None:
    """Refuse a training whose engine is not the one that was asked for, or could not save what it trains.

    accelerate (1.10 to 1.15) leaves FSDP out on a CPU, and both engines where it was told to stay there or
    nothing launched the process: it trains with whole weights and says nothing.

    Args:
        accelerator: of the trainer that is about to train.

    Raises:
        UserError: naming the engine and the rule.
    """
    state = accelerator.state
    for variable, (wanted, name) in _ASKED.items():
        if os.environ.get(variable, "false").lower() == "true" and accelerator.distributed_type != wanted:
            raise UserError(
                f"{variable} asks for {name}, but accelerate would train without it here (on a CPU, or "
                "without its launcher); train on GPUs, or unset it"
            )
    plugin = getattr(state, "fsdp_plugin", None)
    if plugin is not None and "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise UserError("fsdp_state_dict_type must be FULL_STATE_DICT: nothing else can be saved as a model")
    plugin = getattr(state, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3 and not plugin.zero3_save_16bit_model:
        raise UserError("zero3_save_16bit_model must be true: nothing else can be saved as a model")


def is_sharded(accelerator: Any) -> bool:
    """Whether processes hold parts of each weight, so that every forward pass needs all of them."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    in_parts = accelerator.distributed_type == DistributedType.FSDP or (
        plugin is not None and plugin.zero_stage == 3
    )
    return bool(in_parts and accelerator.num_processes > 1)


def most(count: int, device: torch.device) -> int:
    """The largest of the counts of all processes, each of which must call this."""
    counted = torch.tensor(count, device=device)
    torch.distributed.all_reduce(counted, op=torch.distributed.ReduceOp.MAX)
    return int(counted.item())


@functools.cache  # torch cannot order two that are registered alike
def accept_numbered_cpus() -> None:
    """Let `torch.load` put weights on "cpu:1": accelerate calls the CPUs of a process so, torch does not.

    transformers (5.17) asks for it where several processes on CPUs go on from a checkpoint; 5.23 does not.
    """
    torch.serialization.register_package(
        100, lambda _: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )


@contextlib.contextmanager
def whole_models() -> Iterator[None]:
    """Models that are loaded in here are whole, also while DeepSpeed is configured.

    transformers (5.17 to 5.24) shards every model that a process with ZeRO-3 loads, and waits for the other
    processes, as long as its module holds the configuration.
    """
    from transformers.integrations import deepspeed

    held = deepspeed._hf_deepspeed_config_weak_ref  # noqa: SLF001
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = held  # noqa: SLF001
