"""LFPC's reward terms as TRL reward functions.

TRL calls each with the completions and every column of the data set. The trainer parses and scores the
rollouts of a batch once and adds the column `scored`; each term picks its score from it. Each term is logged
and has its own weight (see `train/settings.py`). Frozen classes with a `__name__`, because TRL logs by name
and closures do not pickle. A term that does not apply to a row is None, which TRL leaves out of the sum.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lfpc_trl.rollouts.transcript import FAILURES, SEVERAL_FAILURES, ScoredRollout

_MEASURES = ("iou", "overlap", "bbox_ratio", "crop_tokens")
METRICS = (
    "tool_use",
    "tool_calls",
    "failed_calls",
    *(f"failed_calls/{reason}" for reason in FAILURES),
    *_MEASURES,
)
"""What `ToolBonus` logs, besides the terms themselves; see `docs/reference/metrics.md`."""
SEVERAL_METRICS = tuple(f"failed_calls/{reason}" for reason in SEVERAL_FAILURES)
"""What it also logs for rollouts about several pictures."""


def _or_none(scores: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(score) else score for score in scores]


@dataclass(frozen=True)
class AccuracyReward:
    """1 for a right final answer, else 0. Only the last turn is read."""

    __name__: ClassVar[str] = "accuracy"

    def __call__(self, scored: Sequence[ScoredRollout], **columns: Any) -> list[float | None]:  # noqa: ARG002
        """One score per completion."""
        return _or_none([rollout.accuracy for rollout in scored])


@dataclass(frozen=True)
class FormatReward:
    """0 for a well-formed rollout, -1 for any other."""

    __name__: ClassVar[str] = "format"

    def __call__(self, scored: Sequence[ScoredRollout], **columns: Any) -> list[float | None]:  # noqa: ARG002
        """One score per completion."""
        return _or_none([rollout.format for rollout in scored])


@dataclass(frozen=True)
class ToolBonus:
    """1 for a right answer after at least one delivered crop, else 0.

    The one term about crops that both stages have, so it also logs the crop metrics (`METRICS`).
    """

    __name__: ClassVar[str] = "tool_bonus"

    def __call__(
        self,
        scored: Sequence[ScoredRollout],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,  # noqa: ARG002
    ) -> list[float | None]:
        """One score per completion."""
        if log_metric is not None:
            # One value per rollout: TRL averages over those of all processes. Averaging per process first
            # would weight rollouts unequally, and a single NaN would erase the metric of the step.
            for name, values in _by_rollout(scored).items():
                for value in values:
                    log_metric(name, value)
        return _or_none([rollout.tool_bonus for rollout in scored])


@dataclass(frozen=True)
class GroundingReward:
    """r_geo of stage 2: how well the crops fit the nested targets; None for a row without targets."""

    __name__: ClassVar[str] = "grounding"

    def __call__(self, scored: Sequence[ScoredRollout], **columns: Any) -> list[float | None]:  # noqa: ARG002
        """One score per completion."""
        return _or_none([rollout.grounding for rollout in scored])


def _by_rollout(scored: Sequence[ScoredRollout]) -> dict[str, list[float]]:
    """The values of each metric, one for each rollout to which it applies."""
    values = {
        "tool_use": [float(bool(rollout.crops)) for rollout in scored],
        "tool_calls": [float(len(rollout.crops)) for rollout in scored],
        "failed_calls": [float(rollout.failed_calls) for rollout in scored],
    }
    for reason in FAILURES:
        values[f"failed_calls/{reason}"] = [float(rollout.failures.count(reason)) for rollout in scored]
    for reason, name in zip(SEVERAL_FAILURES, SEVERAL_METRICS, strict=True):
        values[name] = [float(each.failures.count(reason)) for each in scored if each.pictures > 1]
    for name in _MEASURES:
        values[name] = [value for rollout in scored if not math.isnan(value := getattr(rollout, name))]
    return values


def crop_metrics(scored: Sequence[ScoredRollout]) -> dict[str, float]:
    """Means over rollouts: calls over all, the rest over those with crops; NaN if there are none."""
    values = _by_rollout(scored)
    names = ("tool_calls", "failed_calls", *_MEASURES)
    return {name: sum(each) / len(each) if (each := values[name]) else math.nan for name in names}
