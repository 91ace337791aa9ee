"""Sharded models: gaps left by DeepSpeed, FSDP and the libraries around them.

Under ZeRO-3 and FSDP each process holds a shard of every weight, and a forward pass is a collective
operation. A process that skips one makes the others hang or gather the wrong shards.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import DistributedType

from lfpc_trl.errors import UserError

_REQUESTED_BY = {
    "ACCELERATE_USE_FSDP": (DistributedType.FSDP, "FSDP"),
    "ACCELERATE_USE_DEEPSPEED": (DistributedType.DEEPSPEED, "DeepSpeed"),
}
"""How `accelerate launch` requests an engine: variable, accelerate's type, and name for errors."""


def check_engine(accelerator: Any) -> None:
    """Reject a training run whose engine is not the requested one, or that could not save its model.

    accelerate (1.10 to 1.15) silently drops FSDP on a CPU, and both engines with `cpu=True` or without a
    launcher: it then trains with unsharded weights.

    Args:
        accelerator: the trainer's.

    Raises:
        UserError: naming the engine and the rule.
    """
    state = accelerator.state
    for variable, (engine, name) in _REQUESTED_BY.items():
        if os.environ.get(variable, "false").lower() == "true" and accelerator.distributed_type != engine:
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
    """Whether each weight is split across processes, so that every forward pass needs all of them."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    sharded = accelerator.distributed_type == DistributedType.FSDP or (
        plugin is not None and plugin.zero_stage == 3
    )
    return bool(sharded and accelerator.num_processes > 1)


def most(count: int, device: torch.device) -> int:
    """The largest count of any process. Collective: every process must call it."""
    largest = torch.tensor(count, device=device)
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return int(largest.item())


@functools.cache  # registering it twice makes torch compare two functions, which raises
def allow_numbered_cpus() -> None:
    """Let `torch.load` map weights to "cpu:1": accelerate's name for the CPU of process 1, unknown to torch.

    transformers 5.17 uses it when several CPU processes resume from a checkpoint; 5.23 does not.
    """
    torch.serialization.register_package(
        100, lambda _: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )


@contextlib.contextmanager
def unsharded_models() -> Iterator[None]:
    """Load models unsharded inside this context, even while DeepSpeed is configured.

    While its module holds a ZeRO-3 configuration, transformers (5.17 to 5.24) shards every loaded model and
    waits for the other processes.
    """
    from transformers.integrations import deepspeed

    config = deepspeed._hf_deepspeed_config_weak_ref  # noqa: SLF001
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = config  # noqa: SLF001
