"""The goals of the demo, checked against its results.

All models are evaluated with greedy decoding on the same questions. Differences between two models are
paired, and intervals use the picture as the unit, because its three questions are not independent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, TypeGuard

import numpy as np

from lfpc_trl.evaluate.in_process import EvaluatedRollout
from lfpc_trl.evaluate.statistics import Estimate, difference_of, group_means, mean_of

Results = Mapping[str, Mapping[str, Any]]
"""Model (`warm`, `stage1`, `stage2`, `control`) to its metrics, as `evaluate` returns them; `differences` to
those of `differences_between`."""

MARGIN = 0.03
""""Not lower" means lower by at most this, the chance difference between two runs of one recipe."""

QUANTITIES = ("accuracy", "iou", "overlap", "bbox_ratio")
PAIRS = (("stage1", "warm"), ("stage2", "stage1"), ("stage2", "control"))


@dataclass(frozen=True)
class Goal:
    """One goal of the training, and whether it was met.

    Attributes:
        text: the goal in words.
        met: whether the results meet it.
        numbers: the results as text, with 95 % intervals where known.
    """

    text: str
    met: bool
    numbers: str


# --- intervals ---------------------------------------------------------------------------------------


def intervals_of(trajectories: Sequence[EvaluatedRollout]) -> dict[str, dict[str, Any]]:
    """Each of `QUANTITIES` with its interval, by name; crop quantities cover only pictures with a crop."""
    means = _by_picture(trajectories)
    return {name: asdict(mean_of(means[name])) for name in QUANTITIES}


def differences_between(
    trajectories: Mapping[str, Sequence[EvaluatedRollout]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """The differences of `PAIRS`, such as "stage1 - warm": each of `QUANTITIES` with its interval.

    Args:
        trajectories: by model, on the same rows in the same order.
    """
    means = {model: _by_picture(some) for model, some in trajectories.items()}
    return {
        f"{one} - {other}": {
            name: asdict(difference_of(means[one][name], means[other][name])) for name in QUANTITIES
        }
        for one, other in PAIRS
        if one in means and other in means
    }


def _by_picture(trajectories: Sequence[EvaluatedRollout]) -> dict[str, Any]:
    numbers: dict[str, int] = {}
    pictures = [numbers.setdefault(str(each.row.image), len(numbers)) for each in trajectories]
    return {
        name: group_means(
            np.array([getattr(each.scored, name) for each in trajectories], dtype=np.float64),
            np.array(pictures, dtype=np.int64),
            len(numbers),
        )
        for name in QUANTITIES
    }


# --- goals -------------------------------------------------------------------------------------------


def is_known(value: object) -> TypeGuard[float]:
    """Whether a metric is a number; None and NaN are not."""
    return isinstance(value, (int, float)) and isfinite(value)


def check_goals(results: Results) -> list[Goal]:
    """Compare the results, unrounded, with what LFPC promises.

    Args:
        results: Metrics by model. Goals whose models or numbers are missing are left out.

    Returns:
        The goals of both stages, met or not.
    """
    warm, first, second, control = (results.get(name, {}) for name in ("warm", "stage1", "stage2", "control"))
    goals: list[Goal] = []

    def goal(text: str, values: Sequence[Any], met: Any, numbers: str, intervals: str = "") -> None:
        if all(is_known(value) for value in values):
            goals.append(Goal(text, bool(met(*values)), numbers.format(*values) + intervals))

    goal(
        "Stage 1 lifts accuracy by 25 points or more",
        (warm.get("accuracy"), first.get("accuracy")),
        lambda before, after: after - before >= 0.25,
        "from {0:.0%} to {1:.0%}",
        _interval(results, "accuracy", ".0%", "stage1 - warm"),
    )
    goal(
        "Stage 1 reaches an accuracy of 80 % or more",
        (first.get("accuracy"),),
        lambda after: after >= 0.8,
        "{0:.0%}",
        _own_interval(first, "accuracy", ".0%"),
    )
    goal(
        "After stage 1 the answers depend on the crops: replacing them with noise costs 30 points or more",
        (first.get("accuracy"), first.get("accuracy_noise_crop")),
        lambda after, noise: after - noise >= 0.3,
        "from {0:.0%} to {1:.0%}",
    )
    goal(
        "Noise crops leave the format of the replies intact (at most 10 points lost)",
        (first.get("format"), first.get("format_noise_crop")),
        lambda kept, noise: kept - noise <= 0.1,
        "well-formed {0:.0%}, with noise {1:.0%}",
    )
    for key, text, sign, pattern in (
        ("iou", "Stage 2 matches the region better than stage 1 and the control (IoU higher)", 1, ".2f"),
        ("bbox_ratio", "Stage 2 crops less of the picture than stage 1 and the control", -1, ".1%"),
    ):
        goal(
            text,
            (second.get(key), first.get(key), control.get(key)),
            lambda this, one, other, sign=sign: sign * this > max(sign * one, sign * other),
            f"{{0:{pattern}}} against {{1:{pattern}}} and {{2:{pattern}}}",
            _interval(results, key, pattern, "stage2 - stage1", "stage2 - control"),
        )
    for key, text, pattern in (
        (
            "overlap",
            "Stage 2's smaller crops still cover the needed region (overlap lower by at most 0.03)",
            ".2f",
        ),
        ("accuracy", "Stage 2 keeps the accuracy (at most 3 points below both)", ".0%"),
    ):
        goal(
            text,
            (second.get(key), first.get(key), control.get(key)),
            lambda this, one, other: this - max(one, other) >= -MARGIN - 1e-12,
            f"{{0:{pattern}}} against {{1:{pattern}}} and {{2:{pattern}}}",
            _interval(results, key, pattern, "stage2 - stage1", "stage2 - control"),
        )
    return goals


def _interval(results: Results, key: str, pattern: str, *pairs: str) -> str:
    """The end of a sentence with the difference and interval of each pair; empty if one is unknown."""
    differences = [results.get("differences", {}).get(pair, {}).get(key) for pair in pairs]
    if not all(each is not None and each["low"] is not None for each in differences):
        return ""
    texts = " and ".join(
        f"{each['value']:+{pattern}} ({each['low']:+{pattern}} to {each['high']:+{pattern}})"
        for each in differences
    )
    return f"; difference{'s' * (len(differences) > 1)} {texts}"


def _own_interval(metrics: Mapping[str, Any], key: str, pattern: str) -> str:
    interval = metrics.get("intervals", {}).get(key)
    if interval is None or interval["low"] is None:
        return ""
    return f" ({interval['low']:{pattern}} to {interval['high']:{pattern}})"


def told(estimate: Estimate | Mapping[str, Any] | None, pattern: str) -> str:
    """An estimate as text: "0.50 (0.47 to 0.53)"; "-" if there is none."""
    if estimate is None:
        return "-"
    fields = asdict(estimate) if isinstance(estimate, Estimate) else estimate
    if fields["value"] is None:
        return "-"
    text = f"{fields['value']:{pattern}}"
    return (
        text if fields["low"] is None else f"{text} ({fields['low']:{pattern}} to {fields['high']:{pattern}})"
    )
