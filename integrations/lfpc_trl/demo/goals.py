"""What the demo is meant to reach, and whether it did.

The figures are those of greedy decoding, on one set of questions for all models. Differences of two models
are paired, and intervals take the picture as the unit: its three questions are not independent.
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
""""Not lower" means: by no more than this. So far may two runs of one recipe lie apart by chance."""

QUANTITIES = ("accuracy", "iou", "overlap", "bbox_ratio")
PAIRS = (("stage1", "warm"), ("stage2", "stage1"), ("stage2", "control"))


@dataclass(frozen=True)
class Goal:
    """One thing the training was meant to reach, and whether it did.

    Attributes:
        text: what was asked for, in words.
        met: whether the numbers say so.
        numbers: the numbers, in words, with 95 % intervals where they are known.
    """

    text: str
    met: bool
    numbers: str


# --- intervals ---------------------------------------------------------------------------------------


def intervals_of(trajectories: Sequence[EvaluatedRollout]) -> dict[str, dict[str, Any]]:
    """Each of `QUANTITIES` with its interval, by its name; those of crops are over the pictures with one."""
    means = _by_picture(trajectories)
    return {name: asdict(mean_of(means[name])) for name in QUANTITIES}


def differences_between(
    trajectories: Mapping[str, Sequence[EvaluatedRollout]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """The differences of `PAIRS`, such as "stage1 - warm": each of `QUANTITIES` with its interval.

    Args:
        trajectories: of each model, on the same rows in the same order.
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
    """Hold the results against what LFPC promises; the verdict is taken from the numbers as they are.

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
        "After stage 1 the answers hang on the crops: noise in their place costs 30 points or more",
        (first.get("accuracy"), first.get("accuracy_noise_crop")),
        lambda after, noise: after - noise >= 0.3,
        "from {0:.0%} to {1:.0%}",
    )
    goal(
        "Noise crops leave the form of the replies intact (at most 10 points lost)",
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
            "Stage 2's smaller crops still hold what is needed (overlap lower by at most 0.03)",
            ".2f",
        ),
        ("accuracy", "Stage 2 keeps the accuracy (lower by at most 3 points than both)", ".0%"),
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
    """The end of a sentence: the difference of each pair with its interval; nothing where it is not known."""
    found = [results.get("differences", {}).get(pair, {}).get(key) for pair in pairs]
    if not all(each is not None and each["low"] is not None for each in found):
        return ""
    told = " and ".join(
        f"{each['value']:+{pattern}} ({each['low']:+{pattern}} to {each['high']:+{pattern}})"
        for each in found
    )
    return f"; difference{'s' * (len(found) > 1)} {told}"


def _own_interval(metrics: Mapping[str, Any], key: str, pattern: str) -> str:
    found = metrics.get("intervals", {}).get(key)
    if found is None or found["low"] is None:
        return ""
    return f" ({found['low']:{pattern}} to {found['high']:{pattern}})"


def told(estimate: Estimate | Mapping[str, Any] | None, pattern: str) -> str:
    """An estimate as text: "0.50 (0.47 to 0.53)"; "-" where there is none."""
    if estimate is None:
        return "-"
    held = asdict(estimate) if isinstance(estimate, Estimate) else estimate
    if held["value"] is None:
        return "-"
    text = f"{held['value']:{pattern}}"
    return text if held["low"] is None else f"{text} ({held['low']:{pattern}} to {held['high']:{pattern}})"
