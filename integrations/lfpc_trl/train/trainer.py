"""TRL's trainer, with what it lacks for rollouts that hold pictures.

It keeps what the model wrote as it was written, knows how each rollout ended, can leave kinds of endings out
of the loss, keeps a sample of the rollouts, compares the engine that writes with the model that is trained,
and stops where TRL 1.16 would go on with a damaged batch.
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
    leaves_no_trace,
)
from lfpc_trl.train.colocated import ColocatedEngine
from lfpc_trl.train.continued_turns import ContinuedTurns
from lfpc_trl.train.groups import GroupedPictures, group_pictures, micro_batches
from lfpc_trl.train.lockstep import LockstepTrainer

_WRITTEN = "written_logps"
"""In a batch: the log-probabilities with which the engine has written its tokens; NaN where it told none."""


class RolloutTrainer(LockstepTrainer):
    """GRPO on rollouts of the crop tool.

    Args:
        *args: TRL's.
        crops: how crops are cut.
        grounding: how crops are compared with targets. The rollouts of a batch are scored once, and each
            reward function gets the column `scored` (`transcript.ScoredRollout`). None for tasks with
            scores of their own: there is no such column then.
        judge: asked for the answers that the rules leave open. A rollout for which it does not know has no
            reward at all: TRL then leaves it out of its group.
        environment_factory: of the crop tool, or one for each number of pictures that rows have
            (`crop_tool.environment_factories`); None for rollouts of one turn without a tool.
        mask_endings: rollouts that ended so (`transcript.ENDINGS`) get no loss. Their reward still counts in
            the mean and the deviation of their group, as in the code of Mini-o3 (arXiv 2509.07969), which
            masks what we call "over_turn" and "over_long".
        trajectories: where a sample of the rollouts is kept; None keeps none.
        share_prompts: whether the prompt of a group is computed once, see `lfpc_trl.train.group_step`. Where
            that cannot be, one line on stderr says why, and every rollout is computed by itself.
        **kwargs: TRL's.

    Raises:
        ValueError: `mask_endings` holds another word, or TRL's `mask_truncated_completions` is set.
    """

    _buffered_inputs: list[dict[str, Any]] | None  # TRL's: the micro batches of a round

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
        # TRL announces on every start that environments are experimental; our version range says so once.
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        super().__init__(*args, environment_factory=environment_factory, **kwargs)
        if self.mask_truncated_completions:
            # TRL 1.16 takes the attention from the tokens of crops, and the model then fails on them.
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
        self._written_at = -1  # the update before which the batch was written
        if self.use_vllm and self.vllm_mode == "colocate":
            self.vllm_generation.llm = ColocatedEngine(self.vllm_generation.llm, self._placeholder)
            if self.args.learning_rate == 0 and not self.args.vllm_enable_sleep_mode:
                # It has read these very weights from the directory, and its build for CPUs takes no others.
                self.vllm_generation.sync_weights = lambda: None
        reason = group_step.prepare(self) if share_prompts else None
        if reason is not None and self.accelerator.is_main_process:
            print(f"lfpc: every rollout is computed by itself: {reason}", file=sys.stderr, flush=True)
        can = share_prompts and reason is None
        self._group_step = group_step.GroupStep(self.accelerator) if can else None
        # Another cache than transformers' usual one cannot be handed from turn to turn.
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
        """The module whose `generate` TRL calls in the end."""
        return without_adapter(self.accelerator.unwrap_model(self.model_wrapped))

    # --- after the rollouts, before the rewards ---

    def _generate(self, prompts: list[list[Message]]) -> Any:
        try:
            output = super()._generate(prompts)
        finally:
            if self._continued is not None:
                self._continued.forget()
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
            scored = score_transcripts(completions, rows, self._crops, self._grounding, self._judge)
            inputs = [
                columns | {"scored": each, "ending": end}
                for columns, each, end in zip(inputs, scored, self._endings, strict=True)
            ]
            if self._judge is not None:
                self._log_verdicts(scored)
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._judge is not None:
            # Without this, a rollout whose answer is not judged would have the sum of its other terms: less
            # than it earned, for a failure that is not the model's.
            unknown = scores[:, self.reward_func_names.index("accuracy")].isnan()
            scores[unknown] = torch.nan
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

    def _log_verdicts(self, scored: Sequence[ScoredRollout]) -> None:
        for each in scored:
            said = None if each.verdict is None else each.verdict.said
            for name in VERDICTS:
                self._log_metric(f"judge/{name}", float(said == name))
            self._log_metric("judge/cost", 0.0 if each.verdict is None else each.verdict.cost)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        once = self._group_step is not None
        with self.processing_class.image_processor.each_once() if once else contextlib.nullcontext():
            output = super()._generate_and_score_completions(inputs)
        if output.get("pixel_values") is None:
            raise RuntimeError(
                "TRL dropped all pictures of this batch: picture tokens and picture features differ in number"
            )
        written = (
            output.get("sampling_per_token_logps")
            if self.use_vllm
            else output.pop("sampling_per_token_logps", None)
        )
        if written is not None:
            output[_WRITTEN] = written
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
            # TRL holds the last batch for a table that is not printed, pictures with their pixels.
            self._logs["prompt"].clear()
            self._logs["completion"].clear()
        return output

    # --- the update ---

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The next micro batch. TRL shuffles the rollouts of a round; here groups stay together."""
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
            found = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size, **kwargs
            )
            self._own_logps = found[0].detach()
            return found
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
        """The groups in a batch of TRL's; `ids` and `mask` are those of its prompts."""
        return group_pictures(
            ids,
            mask,
            *(batch[name] for name in ("pixel_values", "image_grid_thw", "num_images")),
            image_token_id=self._placeholder,
            merge_size=self.processing_class.image_processor.merge_size,
            group_size=self.num_generations if self._group_step and self._group_step.in_step else None,
            copy=copy,
        )

    # --- do the engine and the model agree? ---

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        # After the first update of a round the model is another one than that which has written.
        if self.state.global_step == self._written_at:
            self._compare(inputs)
        return loss

    def _compare(self, batch: dict[str, Any]) -> None:
        if _WRITTEN in batch and self._own_logps is not None:
            mask = batch["completion_mask"] * batch.get("tool_mask", 1)
            self._comparison.add(self._own_logps, batch[_WRITTEN], mask)

    def compare_engines(self) -> Agreement | None:
        """The agreement over a group of rollouts per process, of rows of the run; it leaves no trace.

        Raises:
            UserError: the engine read other prompts.
        """
        row = self.accelerator.process_index % len(self.train_dataset)
        with leaves_no_trace(self), self._whole_distribution():
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
    def _whole_distribution(self) -> Iterator[None]:
        """The log-probabilities of vLLM are those after top_p and its like, unknown to the trainer."""
        whole = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0} if self.use_vllm else {}
        before = {name: getattr(self.vllm_generation, name) for name in whole}
        for name, value in whole.items():
            setattr(self.vllm_generation, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self.vllm_generation, name, value)

    def computes_in_float32(self) -> bool:
        """Whether the trainer and its engine both do."""
        kinds = {self.model.dtype}
        if self.use_vllm and self.vllm_mode == "colocate":
            kinds.add(self.vllm_generation.llm.llm_engine.model_config.dtype)
        return kinds == {torch.float32} and self.accelerator.mixed_precision == "no"

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As TRL's, with the agreement since the last call."""
        found = self._comparison.result(self.accelerator) if self.model.training else None
        if found is not None:
            logs |= {DIFFERENCE: found.difference, RATIO_MIN: found.ratio_min, RATIO_MAX: found.ratio_max}
        super().log(logs, *args, **kwargs)

    # --- rounds ---

    def _is_logged(self) -> bool:
        return bool(self.model.training and self.accelerator.is_main_process)

    def _round(self) -> int:
        """The number of this round of rollouts, from 1: the step of our logs."""
        micro_steps: int = self.args.steps_per_generation * self.num_iterations
        updates = max(1, micro_steps // self.args.gradient_accumulation_steps)
        return int(self.state.global_step // updates) + 1
