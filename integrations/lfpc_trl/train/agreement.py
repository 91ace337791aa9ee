"""Do the engine that writes rollouts and the model that is trained mean the same?

Both give a probability to every token that was written. Where these differ, the policy gradient is that of
another model than the one that has acted, and nothing else shows it: rewards and losses stay plausible. So
the two are compared before the first step, on a group of rollouts of this run, and in every step after.
"""

import contextlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from transformers import TrainerCallback

from lfpc_trl.errors import UserError

DIFFERENCE, RATIO_MIN, RATIO_MAX = "logp_difference", "ratio_min", "ratio_max"
"""The curves of `metrics.jsonl`; see `docs/reference/metrics.md`."""
LIMITS = {"float32": 1e-3, "bfloat16": 0.05}
"""Largest mean |difference| with which a run may start. Our choice: far above rounding."""
STOP, PATIENCE = 0.2, 3
"""A run stops after so many steps in a row with a larger mean |difference|. Our choice."""


@dataclass(frozen=True)
class Agreement:
    """How the trainer's log-probabilities of written tokens differ from those of the engine that wrote them.

    Attributes:
        tokens: how many were compared.
        difference: mean |difference|, in nats.
        ratio_min: least probability with the trainer over that with the engine.
        ratio_max: largest.
    """

    tokens: int
    difference: float
    ratio_min: float
    ratio_max: float


class Comparison:
    """Collects tokens of this process; `result` is over all processes."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, own: torch.Tensor, written: torch.Tensor, mask: torch.Tensor) -> None:
        """Take in a batch.

        Args:
            own: log-probabilities of the trainer, float[batch, tokens].
            written: those of the engine, of the same shape; NaN where it has none.
            mask: not 0 where the model has written a token.
        """
        found = (own.detach() - written)[(mask != 0) & ~written.isnan()].double().cpu()
        if len(found):
            self._parts.append(
                torch.stack([found.abs().sum(), torch.tensor(len(found)), found.min(), found.max()])
            )

    def result(self, accelerator: Any) -> Agreement | None:
        """Of all processes, each of which must ask; None where no token was compared. Starts anew."""
        parts = torch.stack(self._parts) if self._parts else torch.tensor([[0.0, 0.0, math.inf, -math.inf]])
        self._parts = []
        mine = torch.stack([parts[:, 0].sum(), parts[:, 1].sum(), parts[:, 2].min(), parts[:, 3].max()])
        total, count, low, high = accelerator.gather(mine.float()[None].to(accelerator.device)).T
        if not count.sum():
            return None
        mean = float(total.sum() / count.sum())
        return Agreement(int(count.sum()), mean, float(low.min().exp()), float(high.max().exp()))


class LogprobRecorder:
    """Records the log-probabilities of what transformers' `generate` samples, which it does not return.

    With the distribution that the trainer computes: at the temperature, of all tokens, whatever is barred.

    Args:
        model: the module whose `generate` is called.
        temperature: of the sampling.
    """

    def __init__(self, model: Any, temperature: float) -> None:
        self._model, self._temperature = model, temperature
        self._next: torch.Tensor | None = None
        self._recorded: list[torch.Tensor] = []

    def __enter__(self) -> Self:
        self._hook = self._model.register_forward_hook(self._listen, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        self._next = None

    def _listen(self, _module: Any, _args: Any, given: dict[str, Any], output: Any) -> None:
        if self._next is not None:  # what is read now is what was drawn from the last logits
            self._recorded.append(self._next.gather(1, given["input_ids"][:, -1:])[:, 0])
        self._next = (output.logits[:, -1].float() / self._temperature).log_softmax(-1)

    def logps(self, turns: Sequence[Sequence[int]]) -> list[list[float]]:
        """The log-probability of each token of the turns; NaN where a turn ends with the very last call."""
        rows = torch.stack(self._recorded, 1).tolist() if self._recorded else [[] for _ in turns]
        return [[*row, math.nan][: len(turn)] for row, turn in zip(rows, turns, strict=True)]


# --- before the first step -----------------------------------------------------------------------------


class EngineCheck(TrainerCallback):  # type: ignore[misc]
    """Compares both on one group of rollouts per process, before the first step.

    Args:
        trainer: a `RolloutTrainer`.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.found: Agreement | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Generate and compare; not where a resumed run has no step left to make.

        Raises:
            UserError: they differ by more than `LIMITS` allows, or the engine gives nothing to compare.
        """
        if state.global_step >= state.max_steps:
            return
        self.found = self.trainer.compare_engines()
        if self.found is None:
            raise UserError(
                "the engine must return the log-probability of every token that it writes, got none: its "
                "agreement with the trainer cannot be checked"
            )
        limit = LIMITS["float32" if self.trainer.computes_in_float32() else "bfloat16"]
        if not self.found.difference <= limit:  # NaN is no agreement
            engine = "vLLM" if self.trainer.use_vllm else "transformers"
            ratios = f"ratios {self.found.ratio_min:.2g} to {self.found.ratio_max:.2g}"
            raise UserError(
                f"{engine} and the trainer must give the tokens of a rollout the same log-probabilities: "
                f"mean |difference| at most {limit:g}, got {self.found.difference:.2g} over "
                f"{self.found.tokens} tokens ({ratios})"
            )


@contextlib.contextmanager
def leaves_no_trace(trainer: Any) -> Iterator[None]:
    """What is generated inside changes nothing of what the training draws, counts and logs.

    Without dropout: an adapter's would be drawn anew by whom the tokens are compared with.
    """
    state, words, numbers = trainer.state.num_input_tokens_seen, random.getstate(), np.random.get_state()
    trajectories, was_training = trainer.trajectories, trainer.model.training
    trainer.trajectories = None
    trainer.model.train()
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        trainer.model.train(was_training)
        trainer.trajectories = trajectories
        trainer.state.num_input_tokens_seen = state
        random.setstate(words)
        np.random.set_state(numbers)
        for metrics in trainer._metrics.values():  # noqa: SLF001
            metrics.clear()


# --- during the training -------------------------------------------------------------------------------


class AgreementWatch(TrainerCallback):  # type: ignore[misc]
    """Stops a run whose engine has drifted away from the model, after saving a checkpoint.

    Attributes:
        reason: why the run was stopped; empty while it was not.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._above = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Take in a step."""
        found = (logs or {}).get(DIFFERENCE)
        if found is None:
            return
        self._above = 0 if found <= STOP else self._above + 1
        if self._above == PATIENCE:
            self.reason = (
                f"the engine that writes rollouts and the trained model have differed by more than {STOP:g} "
                f"nats per token for {PATIENCE} steps, at last by {found:.2g}; see {DIFFERENCE}"
            )
            control.should_save = control.should_training_stop = True
