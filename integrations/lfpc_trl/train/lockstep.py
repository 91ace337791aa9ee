"""Lockstep generation: processes that share a model or an engine all make the same calls."""

import copy
from typing import Any

import torch
from trl import GRPOTrainer

from lfpc_trl.train.sharding import is_sharded, most


class LockstepTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer; processes that share a model or an engine leave its tool loop together."""

    generation_config: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_sharded = is_sharded(self.accelerator)
        # A prompt and its pictures, for calls made only because other processes need them.
        self._filler: tuple[list[int], list[Any]] | None = None

    # --- a turn ---

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: list[list[Any] | None] | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        largest = len(prompt_ids)
        if self._filler is not None:
            largest = most(largest, self.accelerator.device)
        return self._turn(largest, prompt_ids, images, *args, **kwargs)

    def _turn(
        self, largest: int, prompt_ids: list[list[int]], images: list[Any] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Generate a turn; with a shared engine, `largest` is the most prompts that any process has."""
        own = len(prompt_ids)
        if self.use_vllm and self._filler is not None:
            # TRL 1.16 splits the output of a shared engine as if all processes had sent as many prompts as
            # this one: with unequal counts, a process would train on the rollouts of others.
            spare, picture = self._filler
            prompt_ids = [*prompt_ids, *[spare] * (largest - own)]
            images = [*(images or []), *[picture] * (largest - own)]
        turns, logprobs = super()._generate_single_turn(prompt_ids, images, *args, **kwargs)
        return turns[:own], None if logprobs is None else logprobs[:own]

    # --- lockstep ---

    def _needs_lockstep(self) -> bool:
        """Whether a turn needs all processes: they share the model or the generation engine."""
        if self.use_vllm:
            shared = self.vllm_mode == "server" or self.vllm_tensor_parallel_size > 1
            return bool(shared and self.accelerator.num_processes > 1)
        return self._is_sharded

    def _tool_call_loop(
        self,
        prompts: Any,
        prompt_ids: list[list[int]],
        completion_ids: Any,
        completions: Any,
        logprobs: Any,
        images: Any,
        *args: Any,
    ) -> Any:
        # In TRL 1.16 each process leaves this loop when its own rollouts have ended. If a turn needs all
        # processes, the others would then hang. So before each further turn all exchange how many rollouts
        # are left, and processes with none join in with a filler until no process has any.
        loop = super()._tool_call_loop
        if not self._needs_lockstep():
            return loop(prompts, prompt_ids, completion_ids, completions, logprobs, images, *args)
        self._filler = prompt_ids[0], images[0]
        try:
            output = loop(prompts, prompt_ids, completion_ids, completions, logprobs, images, *args)
            while largest := most(0, self.accelerator.device):
                self._join_turn(largest)
        finally:
            self._filler = None
        return output

    def _join_turn(self, largest: int) -> None:
        """Make the calls that other processes need for a turn, and discard the result."""
        if self.use_vllm:
            self._turn(largest, [], [], {}, num_generations=1)
            return
        assert self._filler is not None
        ids, pictures = self._filler
        # With a picture, as the others have one: the vision encoder is sharded too.
        inputs = self.processing_class.image_processor(images=pictures, return_tensors="pt")
        original_config = self.generation_config
        self.generation_config = copy.copy(original_config)
        self.generation_config.max_new_tokens = 1
        device = self.accelerator.device
        try:
            # Sampling here must not change the random state of this process.
            with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
                self._turn(1, [ids], [pictures], dict(inputs), num_generations=1, has_tool_images=True)
        finally:
            self.generation_config = original_config
