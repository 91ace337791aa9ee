"""TRL's trainer, extended for rollouts with pictures.

It keeps the model's turns verbatim, records how each rollout ended, can mask endings out of the loss, saves a
sample of the rollouts, compares the generation engine with the trained model, and raises where TRL 1.16 would
continue with a damaged batch.
"""

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from lfpc_trl.errors import not_some_of
from lfpc_trl.models.engines import image_token_id
from lfpc_trl.models.processors import vision_token_ids
from lfpc_trl.models.shared_prompt import without_adapter
from lfpc_trl.rollouts.crop_tool import CropSettings, EnvironmentFactory
from lfpc_trl.rollouts.judge import VERDICTS, Judge
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
from lfpc_trl.train import group_step
from lfpc_trl.train.agreement import (
    DIFFERENCE,
    RATIO_MAX,
    RATIO_MIN,
    Agreement,
    Comparison,
    LogprobRecorder,
    preserve_training_state,
)
from lfpc_trl.train.colocated import ColocatedEngine
from lfpc_trl.train.continued_turns import ContinuedTurns
from lfpc_trl.train.groups import GroupedPictures, group_pictures, micro_batches
from lfpc_trl.train.lockstep import LockstepTrainer

_WRITTEN = "written_logps"
"""Key in a batch: the engine's log-probabilities of the generated tokens; NaN where it returned none."""


class RolloutTrainer(LockstepTrainer):
    """GRPO on rollouts with the crop tool.

    Args:
        *args: passed to TRL.
        crops: how crops are cut.
        grounding: how crops are compared with targets. The rollouts of a batch are scored once, and each
            reward function gets the column `scored` (`transcript.ScoredRollout`). None for tasks with
            their own scores, which get no such column.
        judge: decides the answers that the rules leave open. If it cannot decide, the rollout has no
            reward at all, and TRL leaves it out of its group.
        environment_factory: of the crop tool, or one per number of pictures in a row
            (`crop_tool.environment_factories`); None for rollouts of one turn without a tool.
        mask_endings: endings (`transcript.ENDINGS`) whose rollouts get no loss. Their reward still counts in
            the mean and the deviation of their group, as in the code of Mini-o3 (arXiv 2509.07969), which
            masks what we call "over_turn" and "over_long".
        trajectories: saves a sample of the rollouts; None saves none.
        share_prompts: whether to compute the prompt of a group once, see `lfpc_trl.train.group_step`. If that
            is not possible, one line on stderr says why, and every rollout is computed separately.
        **kwargs: passed to TRL.

    Raises:
        ValueError: `mask_endings` holds an unknown ending, or TRL's `mask_truncated_completions` is set.
    """

    _buffered_inputs: list[dict[str, Any]] | None  # TRL's: the micro-batches of a round

    def __init__(
        self,
        *args: Any,
        crops: CropSettings,
        grounding: GroundingSettings | None = GroundingSettings(),  # noqa: B008 - frozen
        judge: Judge | None = None,
        environment_factory: EnvironmentFactory | dict[str, EnvironmentFactory] | None = None,
        mask_endings: Collection[str] = (),
        trajectories: TrajectoryLog | None = None,
        share_prompts: bool = True,
        **kwargs: Any,
    ) -> None:
        if set(mask_endings) - set(ENDINGS):
            raise ValueError(not_some_of("mask_endings", mask_endings, ENDINGS))
        # TRL warns on every start that environments are experimental; our version range accounts for that.
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        super().__init__(*args, environment_factory=environment_factory, **kwargs)
        if self.mask_truncated_completions:
            # TRL 1.16 also zeroes the attention mask of the crops' tokens, and the model then fails.
            raise ValueError('mask_truncated_completions must be False, use mask_endings=("cut",)')
        self.mask_endings = frozenset(mask_endings)
        self.trajectories = trajectories
        self._never_sampled = torch.tensor(vision_token_ids(self.processing_class))
        self._turns = TurnWriter(self.processing_class, self.eos_token_ids)
        self._endings: list[str] = []
        self._crops, self._grounding, self._judge = crops, grounding, judge
        self._kept: Round | None = None
        self._placeholder = image_token_id(self.processing_class)
        self._comparison = Comparison()
        self._own_logps: torch.Tensor | None = None
        self._written_at = -1  # optimizer step at which the batch was generated
        if self.use_vllm and self.vllm_mode == "colocate":
            self.vllm_generation.llm = ColocatedEngine(self.vllm_generation.llm, self._placeholder)
            if self.args.learning_rate == 0 and not self.args.vllm_enable_sleep_mode:
                # It already loaded these weights from the directory, and its CPU build cannot take new ones.
                self.vllm_generation.sync_weights = lambda: None
        reason = group_step.prepare(self) if share_prompts else None
        if reason is not None and self.accelerator.is_main_process:
            print(f"lfpc: every rollout is computed separately: {reason}", file=sys.stderr, flush=True)
        can_share = share_prompts and reason is None
        self._group_step = group_step.GroupStep(self.accelerator) if can_share else None
        # Only transformers' default cache can be passed from turn to turn.
        other_cache = self.use_transformers_continuous_batching or self.args.cache_implementation is not None
        self._continued = (
            ContinuedTurns(
                self.accelerator.unwrap_model(self.model), self.processing_class, self.eos_token_ids
            )
            if self._group_step and not (self._group_step.in_step or other_cache or self.use_vllm)
            else None
        )

    @property
    def shares_prompts(self) -> bool:
        """Whether the prompt of a group is computed once."""
        return self._group_step is not None

    # --- a turn ---

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: list[list[Any] | None] | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if self.use_vllm:
            turns = super()._generate_single_turn(prompt_ids, images, *args, **kwargs)
            if self.vllm_mode == "colocate":
                self.vllm_generation.llm.check_read(prompt_ids)
            return turns
        recorder = LogprobRecorder(self._bare_model(), self.temperature)
        if self._continued is None or images is None:
            turn: contextlib.AbstractContextManager[Any] = recorder
        else:
            turn = self._continued.of(prompt_ids, images, recorder)
        with turn:
            ids, _ = super()._generate_single_turn(prompt_ids, images, *args, **kwargs)
        return ids, recorder.logps(ids)

    def _bare_model(self) -> Any:
        """The module whose `generate` TRL calls."""
        return without_adapter(self.accelerator.unwrap_model(self.model_wrapped))

    # --- after the rollouts, before the rewards ---

    def _generate(self, prompts: list[list[Message]]) -> Any:
        try:
            output = super()._generate(prompts)
        finally:
            if self._continued is not None:
                self._continued.forget()
        prompt_ids, ids, tool_mask, parsed, *rest = output
        if tool_mask is None:  # without a tool the model generated every token
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
                # Only the loss mask: the attention mask must keep the pictures' tokens. TRL builds the
                # tensors and counts the loss tokens after this.
                mask[:] = [0] * len(mask)
        return prompt_ids, ids, output[2], completions, *rest

    def _check_tokens(self, ids: Sequence[list[int]], tool_mask: Sequence[list[int]]) -> None:
        """Raise if the model generated a vision token: TRL 1.16 would drop all pictures or crash later."""
        for index, (tokens, mask) in enumerate(zip(ids, tool_mask, strict=True)):
            generated = torch.tensor(tokens)[torch.tensor(mask, dtype=torch.bool)]
            stray = generated[torch.isin(generated, self._never_sampled)]
            if len(stray):
                token = self._tokenizer.convert_ids_to_tokens(int(stray[0]))
                raise RuntimeError(
                    f"rollout {index} of this batch sampled {token}, for which there is no picture; "
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
            scored = score_transcripts(completions, rows, self._crops, self._grounding, self._judge)
            inputs = [
                columns | {"scored": each, "ending": end}
                for columns, each, end in zip(inputs, scored, self._endings, strict=True)
            ]
            if self._judge is not None:
                self._log_verdicts(scored)
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._judge is not None:
            # Otherwise a rollout whose answer was not judged would get the sum of its other terms: less than
            # it earned, for a failure that is not the model's.
            unjudged = scores[:, self.reward_func_names.index("accuracy")].isnan()
            scores[unjudged] = torch.nan
        log = self.trajectories
        if log is not None and self._is_logged() and log.wants(self._round()):
            kept = slice(min(log.groups * self.num_generations, len(inputs)))
            self._kept = Round(
                rows=[columns["row"] for columns in inputs[kept]],
                prompts=prompts[kept],
                completions=completions[kept],
                scored=None if scored is None else scored[kept],
                endings=self._endings[kept],
                # The scores of all processes; those of the main process, which writes, come first.
                scores=scores[kept].tolist(),
            )
        return scores

    def _log_verdicts(self, scored: Sequence[ScoredRollout]) -> None:
        for each in scored:
            verdict = None if each.verdict is None else each.verdict.said
            for name in VERDICTS:
                self._log_metric(f"judge/{name}", float(verdict == name))
            self._log_metric("judge/cost", 0.0 if each.verdict is None else each.verdict.cost)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        shares = self._group_step is not None
        with self.processing_class.image_processor.each_once() if shares else contextlib.nullcontext():
            output = super()._generate_and_score_completions(inputs)
        if output.get("pixel_values") is None:
            raise RuntimeError(
                "TRL dropped all pictures of this batch: picture tokens and picture features differ in number"
            )
        logps = (
            output.get("sampling_per_token_logps")
            if self.use_vllm
            else output.pop("sampling_per_token_logps", None)
        )
        if logps is not None:
            output[_WRITTEN] = logps
        self._written_at = self.state.global_step
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
            # TRL keeps the last batch, pixels included, for a table that is never printed.
            self._logs["prompt"].clear()
            self._logs["completion"].clear()
        return output

    # --- the update ---

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The next micro-batch. TRL shuffles the rollouts of a round; here groups stay together."""
        if self._group_step is None or not self.model.training:
            return super()._prepare_inputs(generation_batch)
        micro_steps: int = self.args.steps_per_generation
        if self._step % (micro_steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            pictures = self._pictures(scored["prompt_ids"], scored["prompt_mask"], scored, copy=True)
            self._buffered_inputs = micro_batches(scored, pictures, micro_steps)
        return self._buffered_inputs[self._step % micro_steps]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        pictures = kwargs.get("pixel_values")
        if self._group_step is None or pictures is None:
            output = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size, **kwargs
            )
            self._own_logps = output[0].detach()
            return output
        if not isinstance(pictures, GroupedPictures):
            ids, mask = (each[:, :-logits_to_keep] for each in (input_ids, attention_mask))
            pictures = self._pictures(ids, mask, kwargs)
        log_probs, entropies = self._group_step.log_probs(
            model,
            input_ids,
            attention_mask,
            logits_to_keep,
            pictures,
            at_once=batch_size or len(input_ids),
            weights_change=self.accelerator.sync_gradients,
        )
        self._own_logps = log_probs.detach()
        return log_probs, entropies, None

    def _pictures(
        self, ids: torch.Tensor, mask: torch.Tensor, batch: dict[str, Any], *, copy: bool = False
    ) -> GroupedPictures:
        """The groups in TRL's batch; `ids` and `mask` are those of its prompts."""
        return group_pictures(
            ids,
            mask,
            *(batch[name] for name in ("pixel_values", "image_grid_thw", "num_images")),
            image_token_id=self._placeholder,
            merge_size=self.processing_class.image_processor.merge_size,
            group_size=self.num_generations if self._group_step and self._group_step.in_step else None,
            copy=copy,
        )

    # --- agreement of engine and model ---

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        # After the first update of a round the model differs from the one that generated it.
        if self.state.global_step == self._written_at:
            self._compare(inputs)
        return loss

    def _compare(self, batch: dict[str, Any]) -> None:
        if _WRITTEN in batch and self._own_logps is not None:
            mask = batch["completion_mask"] * batch.get("tool_mask", 1)
            self._comparison.add(self._own_logps, batch[_WRITTEN], mask)

    def compare_engines(self) -> Agreement | None:
        """Compare engine and model on one group of rollouts per process; the training state does not change.

        Raises:
            UserError: the engine read other prompts.
        """
        row = self.accelerator.process_index % len(self.train_dataset)
        with preserve_training_state(self), self._full_distribution():
            batch = self._generate_and_score_completions(
                [self.train_dataset[row] for _ in range(self.num_generations)]
            )
            ids, mask = (
                torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], 1)
                for kind in ("ids", "mask")
            )
            pictures = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
            with torch.no_grad():
                self._get_per_token_logps_and_entropies(
                    self.model,
                    ids,
                    mask,
                    batch["completion_ids"].shape[1],
                    batch_size=self.args.per_device_train_batch_size,
                    **{name: batch[name] for name in pictures if name in batch},
                )
            self._compare(batch)
        return self._comparison.result(self.accelerator)

    @contextlib.contextmanager
    def _full_distribution(self) -> Iterator[None]:
        """Turn off top_p and the like: vLLM applies them to its log-probabilities, the trainer does not."""
        plain = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0} if self.use_vllm else {}
        before = {name: getattr(self.vllm_generation, name) for name in plain}
        for name, value in plain.items():
            setattr(self.vllm_generation, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self.vllm_generation, name, value)

    def computes_in_float32(self) -> bool:
        """Whether the trainer and its engine both compute in float32."""
        dtypes = {self.model.dtype}
        if self.use_vllm and self.vllm_mode == "colocate":
            dtypes.add(self.vllm_generation.llm.llm_engine.model_config.dtype)
        return dtypes == {torch.float32} and self.accelerator.mixed_precision == "no"

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as TRL does, with the agreement since the last call."""
        agreement = self._comparison.result(self.accelerator) if self.model.training else None
        if agreement is not None:
            logs |= {
                DIFFERENCE: agreement.difference,
                RATIO_MIN: agreement.ratio_min,
                RATIO_MAX: agreement.ratio_max,
            }
        super().log(logs, *args, **kwargs)

    # --- rounds ---

    def _is_logged(self) -> bool:
        return bool(self.model.training and self.accelerator.is_main_process)

    def _round(self) -> int:
        """The number of this round of rollouts, from 1: the step in our logs."""
        micro_steps: int = self.args.steps_per_generation * self.num_iterations
        updates = max(1, micro_steps // self.args.gradient_accumulation_steps)
        return int(self.state.global_step // updates) + 1
