"""TRL's trainer, with what it lacks for rollouts that hold pictures.

It keeps what the model wrote as it was written, knows how each rollout ended, can leave kinds of endings out
of the loss, keeps a sample of the rollouts, and stops where TRL 1.16 would go on with a damaged batch.
"""

import copy
import os
from collections.abc import Collection, Sequence
from typing import Any

import torch
from trl import GRPOTrainer

from lfpc_trl.models.engines import collapsed, image_token_id
from lfpc_trl.models.processors import vision_token_ids
from lfpc_trl.rollouts.crop_tool import CropSettings, EnvironmentFactory
from lfpc_trl.rollouts.prompts import Message
from lfpc_trl.rollouts.transcript import (
    ENDINGS,
    GroundingSettings,
    ScoredRollout,
    ending,
    score_transcripts,
)
from lfpc_trl.rollouts.turns import TurnWriter
from lfpc_trl.runs.trajectories import Round, TrajectoryLog
from lfpc_trl.train.sharding import is_sharded, most


class RolloutTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO on rollouts of the crop tool.

    Args:
        *args: TRL's.
        crops: how crops are cut.
        grounding: how crops are compared with targets. The rollouts of a batch are scored once, and each
            reward function gets the column `scored` (`transcript.ScoredRollout`). None for tasks with
            scores of their own: there is no such column then.
        environment_factory: of the crop tool; None for rollouts of one turn without a tool.
        mask_endings: rollouts that ended so (`transcript.ENDINGS`) get no loss. Their reward still counts in
            the mean and the deviation of their group, as in the code of Mini-o3 (arXiv 2509.07969), which
            masks what we call "over_turn" and "over_long".
        trajectories: where a sample of the rollouts is kept; None keeps none.
        **kwargs: TRL's.

    Raises:
        ValueError: `mask_endings` holds another word, or TRL's `mask_truncated_completions` is set.
    """

    generation_config: Any

    def __init__(
        self,
        *args: Any,
        crops: CropSettings,
        grounding: GroundingSettings | None = GroundingSettings(),  # noqa: B008 - frozen
        environment_factory: EnvironmentFactory | None = None,
        mask_endings: Collection[str] = (),
        trajectories: TrajectoryLog | None = None,
        **kwargs: Any,
    ) -> None:
        unknown = sorted(set(mask_endings) - set(ENDINGS))
        if unknown:
            raise ValueError(f"mask_endings must be some of {', '.join(ENDINGS)}, got {', '.join(unknown)}")
        # TRL announces on every start that environments are experimental; our version range says so once.
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        super().__init__(*args, environment_factory=environment_factory, **kwargs)
        if self.mask_truncated_completions:
            # TRL 1.16 takes the attention from the tokens of crops, and the model then fails on them.
            raise ValueError('mask_truncated_completions must be False, use mask_endings=("cut",)')
        self.mask_endings = frozenset(mask_endings)
        self.trajectories = trajectories
        self._placeholder = image_token_id(self.processing_class)
        self._never_sampled = torch.tensor(vision_token_ids(self.processing_class))
        self._turns = TurnWriter(self.processing_class, self.eos_token_ids)
        self._endings: list[str] = []
        self._crops, self._grounding = crops, grounding
        self._kept: Round | None = None
        self._is_sharded = is_sharded(self.accelerator)
        # A prompt and its pictures that may be read aside, while processes need each other for their turns.
        self._company: tuple[list[int], list[Any]] | None = None

    # --- a turn ---

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: list[list[Any] | None] | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        share = len(prompt_ids)
        if self._company is not None:
            share = most(share, self.accelerator.device)
        return self._turn(share, prompt_ids, images, *args, **kwargs)

    def _turn(
        self, share: int, prompt_ids: list[list[int]], images: list[Any] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """A turn of this process; `share` is the most prompts that one has, where they share an engine."""
        own = len(prompt_ids)
        if self.use_vllm and self._company is not None:
            # TRL 1.16 deals out what a shared engine has written as if all had handed over as many prompts as
            # each itself has: with other counts, a process would train on rollouts of others.
            spare, picture = self._company
            prompt_ids = [*prompt_ids, *[spare] * (share - own)]
            images = [*(images or []), *[picture] * (share - own)]
        if self.use_vllm and self.vllm_mode == "colocate" and images is not None:
            # TRL 1.16 hands vLLM as many placeholders as a picture has visual tokens, and vLLM 0.22 to 0.32
            # puts in as many for each of them: the model would read another prompt than the one it is
            # trained on. In server mode TRL tells vLLM where the pictures are, and nothing is put in.
            prompt_ids = [
                collapsed(ids, len(pictures or ()), self._placeholder)
                for ids, pictures in zip(prompt_ids, images, strict=True)
            ]
        turns, logprobs = super()._generate_single_turn(prompt_ids, images, *args, **kwargs)
        return turns[:own], None if logprobs is None else logprobs[:own]

    # --- turns of several processes ---

    def _meets_in_turns(self) -> bool:
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
        # go on with, and who has none accompanies the others, until nobody has any.
        loop = super()._tool_call_loop
        if not self._meets_in_turns():
            return loop(prompts, prompt_ids, completion_ids, completions, logprobs, images, *args)
        self._company = prompt_ids[0], images[0]
        try:
            output = loop(prompts, prompt_ids, completion_ids, completions, logprobs, images, *args)
            while share := most(0, self.accelerator.device):
                self._accompany(share)
        finally:
            self._company = None
        return output

    def _accompany(self, share: int) -> None:
        """Take part in a turn of other processes and keep nothing of it."""
        if self.use_vllm:
            self._turn(share, [], [], {}, num_generations=1)
            return
        assert self._company is not None
        ids, pictures = self._company
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

    # --- after the rollouts, before the rewards ---

    def _generate(self, prompts: list[list[Message]]) -> Any:
        output = super()._generate(prompts)
        prompt_ids, ids, tool_mask, parsed, *rest = output
        if tool_mask is None:  # without a tool every token is the model's
            tool_mask = [[1] * len(tokens) for tokens in ids]
        self._check_tokens(ids, tool_mask)
        completions = [
            self._turns.as_written(messages, tokens, mask)
            for messages, tokens, mask in zip(parsed, ids, tool_mask, strict=True)
        ]
        self._endings = [
            ending(
                messages,
                max_turns=self.max_tool_calling_iterations + 1,
                complete=self._turns.is_ended(tokens),
                calls=bool(last.get("tool_calls")),
            )
            for messages, (*_, last), tokens in zip(completions, parsed, ids, strict=True)
        ]
        for end, mask in zip(self._endings, tool_mask, strict=True):
            for name in ENDINGS:
                self._log_metric(f"endings/{name}", float(end == name))
            if end in self.mask_endings:
                # The loss mask alone: the tokens keep their attention, so the pictures stay in place. TRL
                # makes the tensors, and counts the tokens of the loss, after this.
                mask[:] = [0] * len(mask)
        return prompt_ids, ids, output[2], completions, *rest

    def _check_tokens(self, ids: Sequence[list[int]], tool_mask: Sequence[list[int]]) -> None:
        """No model writes a picture. TRL 1.16 would drop all pictures of the batch, or crash later."""
        for index, (tokens, mask) in enumerate(zip(ids, tool_mask, strict=True)):
            written = torch.tensor(tokens)[torch.tensor(mask, dtype=torch.bool)]
            stray = written[torch.isin(written, self._never_sampled)]
            if len(stray):
                token = self._tokenizer.convert_ids_to_tokens(int(stray[0]))
                raise RuntimeError(
                    f"rollout {index} of this batch sampled {token}, which stands for no picture; "
                    "vision tokens must be suppressed, see processors.never_sampled"
                )

    # --- after the rewards ---

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[list[Message]],
        completions: list[list[Message]],
        completion_ids_list: list[list[int]],
    ) -> Any:
        scored: list[ScoredRollout] | None = None
        if self._grounding is not None:
            rows = [columns["row"] for columns in inputs]
            scored = score_transcripts(completions, rows, self._crops, self._grounding)
            inputs = [columns | {"scored": each} for columns, each in zip(inputs, scored, strict=True)]
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        log = self.trajectories
        if log is not None and self._is_logged() and log.wants(self._round()):
            kept = slice(min(log.groups * self.num_generations, len(inputs)))
            self._kept = Round(
                rows=[columns["row"] for columns in inputs[kept]],
                prompts=prompts[kept],
                completions=completions[kept],
                scored=None if scored is None else scored[kept],
                endings=self._endings[kept],
                # Those of all processes; the main process, which writes, comes first.
                scores=scores[kept].tolist(),
            )
        return scores

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        output = super()._generate_and_score_completions(inputs)
        if output.get("pixel_values") is None:
            raise RuntimeError(
                "TRL dropped all pictures of this batch: picture tokens and picture features differ in number"
            )
        if self.trajectories is not None and self._kept is not None:
            trajectories = self._kept.trajectories(
                self._round(),
                group_size=self.num_generations,
                weights=dict(zip(self.reward_func_names, self.reward_weights.tolist(), strict=True)),
                advantages=output["advantages"].tolist(),
                masked=self.mask_endings,
            )
            self.trajectories.write(self._round(), trajectories)
            self._kept = None
        if not self.log_completions:
            # TRL holds the last batch for a table that is not printed, pictures with their pixels.
            self._logs["prompt"].clear()
            self._logs["completion"].clear()
        return output

    def _is_logged(self) -> bool:
        return bool(self.model.training and self.accelerator.is_main_process)

    def _round(self) -> int:
        """The number of this round of rollouts, from 1: the step of our logs."""
        micro_steps: int = self.args.steps_per_generation * self.num_iterations
        updates = max(1, micro_steps // self.args.gradient_accumulation_steps)
        return int(self.state.global_step // updates) + 1
