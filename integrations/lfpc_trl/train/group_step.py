"""Log-probabilities of rollouts, with the prompt of a group computed once.

A group may span several micro-batches: its prompt is kept from the first to the last of them.

With DeepSpeed and FSDP every forward and backward pass is a collective operation: all processes must run the
same ones in the same order. There, groups have the same boundaries in every process, a prompt is kept for one
micro-batch only, and the vision tower also runs for completions without crops.
"""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.nn.functional import pad

from lfpc_trl.models import shared_prompt
from lfpc_trl.models.shared_prompt import Pixels, SharedPrompt
from lfpc_trl.train.groups import GroupedPictures


class GroupStep:
    """Computes what TRL's `_get_per_token_logps_and_entropies` does, group by group.

    Args:
        accelerator: the trainer's.

    Attributes:
        in_step: whether all processes must run the same passes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.in_step = _in_step(accelerator)
        self._kept: tuple[Pixels, SharedPrompt] | None = None

    def log_probs(
        self,
        model: Any,
        ids: torch.Tensor,
        mask: torch.Tensor,
        completion: int,
        pictures: GroupedPictures,
        *,
        at_once: int,
        weights_change: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the log-probabilities of the completion tokens.

        Args:
            model: with TRL's language head.
            ids: (rollouts, tokens), prompts padded on the left and completions padded on the right.
            mask: (rollouts, tokens), 1 for tokens and 0 for padding.
            completion: number of completion tokens, padding included.
            pictures: the pictures of the rollouts.
            at_once: number of completions computed together.
            weights_change: whether the weights change after this batch, which makes kept prompts stale.

        Returns:
            Log-probabilities and, if the language head returns them, entropies: (rollouts, `completion`)
            each, 0 at padding.
        """
        unwrapped = self._accelerator.unwrap_model(model)
        outputs = []
        for part, goes_on in pictures.parts(at_once):
            at_end = part.stop == len(ids)
            last = not goes_on or (at_end and (weights_change or self.in_step))
            rollouts = pictures.rollouts[part]
            unpadded = mask[part.start, :-completion].bool()
            prompt = self._prompt(model, ids[part.start, :-completion][unpadded], rollouts[0].prompt)
            longest = int(mask[part, -completion:].sum(1).max())
            own, own_mask = (each[part, -completion:][:, :longest] for each in (ids, mask))
            # Each label is predicted from the token before it, the first from the end of the prompt.
            labels = pad(own.masked_fill(own_mask == 0, -100), (1, int(self.in_step)), value=-100)
            inputs = prompt.inputs(
                own,
                own_mask,
                [each.own for each in rollouts],
                last=last,
                always_a_picture=self.in_step,
            )
            # DDP expects one call per micro-batch, whose output depends on all weights.
            with self._accelerator.autocast():
                called = model if at_end or self.in_step else unwrapped
                output = called(**inputs, labels=labels, fused_lm_head=True)
            outputs.append(
                [
                    None if each is None else pad(each[:, :longest], (0, completion - longest))
                    for each in (output.log_probs + prompt.zero, output.entropy)
                ]
            )
            if last:
                self._kept = None
        log_probs, entropies = zip(*outputs, strict=True)
        return torch.cat(log_probs), None if entropies[0] is None else torch.cat(entropies)

    def _prompt(self, model: Any, ids: torch.Tensor, pictures: Pixels) -> SharedPrompt:
        """The kept prompt if it is this one, else a new one that replaces it."""
        if self._kept is None or self._kept[0] is not pictures:
            backbone = shared_prompt.without_adapter(self._accelerator.unwrap_model(model)).model
            with self._accelerator.autocast():
                prompt = SharedPrompt(backbone, ids, pictures, model if self.in_step else None)
            self._kept = pictures, prompt
        return self._kept[1]


def _in_step(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP)


def prepare(trainer: Any) -> str | None:
    """Prepare a trainer's model for a `GroupStep`, if it supports one.

    Args:
        trainer: TRL's trainer.

    Returns:
        The reason why it does not; None if it does.
    """
    model = shared_prompt.without_adapter(trainer.model)
    checkpointing = trainer.args.gradient_checkpointing_kwargs or {}
    accelerator, group = trainer.accelerator, trainer.num_generations
    own = trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation
    reasons = {
        "FSDP 1 has not been tried with it; set fsdp_version: 2": trainer.is_fsdp_enabled
        and not accelerator.is_fsdp2,
        "group boundaries differ between the processes": _in_step(accelerator)
        and own % group
        and group % own,
        "DataParallel has not been tried with it": trainer.args.n_gpu > 1,
        "reentrant gradient checkpointing hides the prompt's gradient": checkpointing.get("use_reentrant"),
        "the load-balancing loss of experts needs whole sequences": trainer.aux_loss_enabled,
    }
    reason = shared_prompt.why_not(model) or next((why for why, applies in reasons.items() if applies), None)
    if reason is None:
        shared_prompt.allow_checkpointing(model)
    return reason
