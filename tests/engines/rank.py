"""One of two processes that train with an engine on a CPU: `python -m tests.engines.rank JOBS.json`.

A job is a call of `lfpc train`; all jobs of a file run one after another, so that the libraries are imported
once. `kill_at` names the update behind whose checkpoint both processes are killed, `stop_at` the one behind
whose checkpoint the job ends with an error, and the next job follows. Each job leaves `NAME.seenRANK.json`
beside its output: how much of the weights this process held, and which turns it wrote in each round.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import state
from accelerate.utils import DistributedType


def shard_on_cpus() -> None:
    """Let FSDP shard on CPUs.

    accelerate (1.15) shards on the accelerators that it lists and takes plain DDP on CPUs, without a word.
    torch's FSDP2 itself runs on gloo.
    """
    original = state.AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        first = not self._shared_state or not self.initialized
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if first and fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    state.AcceleratorState.__init__ = init


def without_compiler() -> None:
    """Keep DeepSpeed from compiling a communication of its own between CPUs; gloo does the same."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        # `deepspeed.comm.torch` is torch itself for whoever asks the package.
        vars(importlib.import_module("deepspeed.comm.torch"))["build_shm_op"] = lambda: None


def stay_connected() -> None:
    """One connection for all jobs: a process that is early would meet the last one of the other."""
    state.PartialState.destroy_process_group = lambda *_: None


def held(model: torch.nn.Module) -> tuple[int, int]:
    """Numbers of the model's weights that this process holds, and how many there are."""
    here = everywhere = 0
    for weight in model.parameters():
        if hasattr(weight, "ds_tensor"):  # ZeRO-3
            here, everywhere = here + weight.ds_tensor.numel(), everywhere + weight.ds_numel
        elif hasattr(weight, "to_local"):  # FSDP2
            here, everywhere = here + weight.to_local().numel(), everywhere + weight.numel()
        else:
            here, everywhere = here + weight.numel(), everywhere + weight.numel()
    return here, everywhere


class StoppedError(Exception):
    """Ends a job behind a checkpoint."""


def main() -> None:
    """Run the jobs."""
    if "DUMP" in os.environ:  # where the two wait for each other, say where
        import faulthandler

        faulthandler.dump_traceback_later(float(os.environ["DUMP"]) - 5)
    shard_on_cpus()
    without_compiler()
    stay_connected()
    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rank = os.environ["RANK"]

    import trl
    from transformers import Trainer

    from lfpc_trl import cli

    seen: dict[str, Any] = {}
    save_model, save_checkpoint = Trainer.save_model, Trainer._save_checkpoint
    turn, whole_round = trl.GRPOTrainer._generate_single_turn, trl.GRPOTrainer._generate

    def watched_save(self: Any, *args: Any, **kwargs: Any) -> None:
        seen["type"] = str(self.accelerator.distributed_type.value)
        seen["held"] = held(self.model_wrapped)
        moments = self.optimizer.state if hasattr(self.optimizer, "state") else {}
        seen["moments"] = sum(
            value.to_local().numel() if hasattr(value, "to_local") else value.numel()
            for entry in moments.values()
            for value in entry.values()
            if isinstance(value, torch.Tensor)
        )
        save_model(self, *args, **kwargs)

    def watched_checkpoint(self: Any, *args: Any, **kwargs: Any) -> None:
        save_checkpoint(self, *args, **kwargs)
        torch.distributed.barrier()
        if self.state.global_step == job.get("kill_at"):
            os._exit(9)
        if self.state.global_step == job.get("stop_at"):
            raise StoppedError

    def watched_turn(self: Any, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        # Who only accompanies the turn of another process writes one token.
        own = self.generation_config.max_new_tokens > 1
        seen["rounds"][-1].append(len(prompt_ids) if own else 0)
        return turn(self, prompt_ids, *args, **kwargs)

    def watched_round(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.setdefault("rounds", []).append([])
        return whole_round(self, *args, **kwargs)

    Trainer.save_model, Trainer._save_checkpoint = watched_save, watched_checkpoint
    trl.GRPOTrainer._generate_single_turn, trl.GRPOTrainer._generate = watched_turn, watched_round
    for job in jobs:
        seen.clear()
        try:
            status = cli.main(job["arguments"])
        except StoppedError:
            status = 0
        if status:
            sys.exit(status)
        output = Path(job["arguments"][job["arguments"].index("--output") + 1])
        name = output.with_name(f"{job.get('name', output.name)}.seen{rank}.json")
        name.write_text(json.dumps(seen), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
