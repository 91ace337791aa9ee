"""Processes that generate in lockstep: where they share a model or an engine, all make the same calls."""

import copy
from typing import Any

import torch
from trl import GRPOTrainer

from lfpc_trl.train.sharding import is_sharded, most


class LockstepTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, whose processes leave the tool loop together while they share a model or an engine."""

    generation_config: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_sharded = is_sharded(self.accelerator)
        # A prompt and its pictures, for calls that a process makes only because others need it.
        self._filler: tuple[list[int], list[Any]] | None = None

    # --- a turn ---

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: list[list[Any] | None] | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        share = len(prompt_ids)
        if self._filler is not None:
            share = most(share, self.accelerator.device)
        return self._turn(share, prompt_ids, images, *args, **kwargs)

    def _turn(
        self, share: int, prompt_ids: list[list[int]], images: list[Any] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """A turn of this process; `share` is the most prompts that one has, where they share an engine."""
        own = len(prompt_ids)
        if self.use_vllm and self._filler is not None:
            # TRL 1.16 deals out what a shared engine has written as if all had handed over as many prompts as
            # each itself has: with other counts, a process would train on rollouts of others.
            spare, picture = self._filler
            prompt_ids = [*prompt_ids, *[spare] * (share - own)]
            images = [*(images or []), *[picture] * (share - own)]
        turns, logprobs = super()._generate_single_turn(prompt_ids, images, *args, **kwargs)
        return turns[:own], None if logprobs is None else logprobs[:own]

    # --- lockstep ---

    def _needs_lockstep(self) -> bool:
        """Whether a turn of one process needs the others: they share the model, or the engine that writes."""
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
        # TRL 1.16 lets each process leave this loop when its own rollouts have ended. Where a turn needs all
        # processes, the others would wait for it. So before each further turn all say how many rollouts they
        # go on with, and those that have none join in with a filler, until nobody has any.
        loop = super()._tool_call_loop
        if not self._needs_lockstep():
            return loop(prompts, prompt_ids, completion_ids, completions, logprobs, images, *args)
        self._filler = prompt_ids[0], images[0]
        try:
            output = loop(prompts, prompt_ids, completion_ids, completions, logprobs, images, *args)
            while share := most(0, self.accelerator.device):
                self._join_turn(share)
        finally:
            self._filler = None
        return output

    def _join_turn(self, share: int) -> None:
        """Make the calls of a turn that other processes need, and discard the result."""
        if self.use_vllm:
            self._turn(share, [], [], {}, num_generations=1)
            return
        assert self._filler is not None
        ids, pictures = self._filler
        # With a picture, as the others have one: its encoder is in parts, too.
        inputs = self.processing_class.image_processor(images=pictures, return_tensors="pt")
        whole = self.generation_config
        self.generation_config = copy.copy(whole)
        self.generation_config.max_new_tokens = 1
        device = self.accelerator.device
        try:
            # What is drawn here must not change what this process draws next.
            with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
                self._turn(1, [ids], [pictures], dict(inputs), num_generations=1, has_tool_images=True)
        finally:
            self.generation_config = whole
