"""Compares the log-probabilities of the generation engine with those of the trained model.

Both assign a probability to every generated token. If they differ, the policy gradient is computed for a
different model than the one that acted, and nothing else reveals it: rewards and losses stay plausible. So
they are compared before the first step, on one group of rollouts of this run, and in every step after.
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
"""Largest mean |difference| at which a run may start. Our choice: far above rounding."""
STOP, PATIENCE = 0.2, 3
"""A run stops after `PATIENCE` steps in a row with a mean |difference| above `STOP`. Our choice."""


@dataclass(frozen=True)
class Agreement:
    """Differences between the trainer's and the engine's log-probabilities of the generated tokens.

    Attributes:
        tokens: number of tokens compared.
        difference: mean |difference|, in nats.
        ratio_min: smallest ratio of the trainer's probability to the engine's.
        ratio_max: largest such ratio.
    """

    tokens: int
    difference: float
    ratio_min: float
    ratio_max: float


class Comparison:
    """Collects the tokens of this process; `result` covers all processes."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, own: torch.Tensor, written: torch.Tensor, mask: torch.Tensor) -> None:
        """Add a batch.

        Args:
            own: the trainer's log-probabilities, float[batch, tokens].
            written: the engine's, same shape; NaN where it has none.
            mask: nonzero where the model generated the token.
        """
        differences = (own.detach() - written)[(mask != 0) & ~written.isnan()].double().cpu()
        if len(differences):
            self._parts.append(
                torch.stack(
                    [
                        differences.abs().sum(),
                        torch.tensor(len(differences)),
                        differences.min(),
                        differences.max(),
                    ]
                )
            )

    def result(self, accelerator: Any) -> Agreement | None:
        """Return the agreement over all processes and reset; None if no token was compared.

        Collective: every process must call it.
        """
        parts = torch.stack(self._parts) if self._parts else torch.tensor([[0.0, 0.0, math.inf, -math.inf]])
        self._parts = []
        mine = torch.stack([parts[:, 0].sum(), parts[:, 1].sum(), parts[:, 2].min(), parts[:, 3].max()])
        total, count, low, high = accelerator.gather(mine.float()[None].to(accelerator.device)).T
        if not count.sum():
            return None
        mean = float(total.sum() / count.sum())
        return Agreement(int(count.sum()), mean, float(low.min().exp()), float(high.max().exp()))


class LogprobRecorder:
    """Records the log-probabilities of sampled tokens, which transformers' `generate` does not return.

    Uses the trainer's distribution: with the temperature, over all tokens, suppressed ones included.

    Args:
        model: the module whose `generate` is called.
        temperature: the sampling temperature.
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
        if self._next is not None:  # this input was sampled from the last logits
            self._recorded.append(self._next.gather(1, given["input_ids"][:, -1:])[:, 0])
        self._next = (output.logits[:, -1].float() / self._temperature).log_softmax(-1)

    def logps(self, turns: Sequence[Sequence[int]]) -> list[list[float]]:
        """The log-probability of each token of the turns; NaN for a token sampled in the very last call."""
        rows = torch.stack(self._recorded, 1).tolist() if self._recorded else [[] for _ in turns]
        return [[*row, math.nan][: len(turn)] for row, turn in zip(rows, turns, strict=True)]


# --- before the first step -----------------------------------------------------------------------------


class EngineCheck(TrainerCallback):  # type: ignore[misc]
    """Compares engine and model on one group of rollouts per process, before the first step.

    Args:
        trainer: a `RolloutTrainer`.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.agreement: Agreement | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Generate and compare, unless a resumed run has no steps left.

        Raises:
            UserError: they differ by more than `LIMITS` allows, or the engine returned nothing to compare.
        """
        if state.global_step >= state.max_steps:
            return
        self.agreement = self.trainer.compare_engines()
        if self.agreement is None:
            raise UserError(
                "the engine must return the log-probability of every generated token, got none: its "
                "agreement with the trainer cannot be checked"
            )
        limit = LIMITS["float32" if self.trainer.computes_in_float32() else "bfloat16"]
        if not self.agreement.difference <= limit:  # NaN is no agreement
            engine = "vLLM" if self.trainer.use_vllm else "transformers"
            ratios = f"ratios {self.agreement.ratio_min:.2g} to {self.agreement.ratio_max:.2g}"
            raise UserError(
                f"{engine} and the trainer must give the tokens of a rollout the same log-probabilities: "
                f"mean |difference| at most {limit:g}, got {self.agreement.difference:.2g} over "
                f"{self.agreement.tokens} tokens ({ratios})"
            )


@contextlib.contextmanager
def preserve_training_state(trainer: Any) -> Iterator[None]:
    """Keep generation inside from affecting the random state, token counts and logs of the training.

    Dropout is off: an adapter's dropout would be sampled again when the log-probabilities are recomputed.
    """
    tokens_seen = trainer.state.num_input_tokens_seen
    python_state, numpy_state = random.getstate(), np.random.get_state()
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
        trainer.state.num_input_tokens_seen = tokens_seen
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for metrics in trainer._metrics.values():  # noqa: SLF001
            metrics.clear()


# --- during the training -------------------------------------------------------------------------------


class AgreementWatch(TrainerCallback):  # type: ignore[misc]
    """Stops a run whose engine has drifted from the model, after saving a checkpoint.

    Attributes:
        reason: why the run was stopped; empty if it was not.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._above = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Check the difference logged for a step."""
        difference = (logs or {}).get(DIFFERENCE)
        if difference is None:
            return
        self._above = 0 if difference <= STOP else self._above + 1
        if self._above == PATIENCE:
            self.reason = (
                f"the generation engine and the trained model have differed by more than {STOP:g} "
                f"nats per token for {PATIENCE} steps, most recently by {difference:.2g}; see {DIFFERENCE}"
            )
            control.should_save = control.should_training_stop = True
