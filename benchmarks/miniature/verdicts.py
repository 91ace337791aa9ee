"""What the miniature claims, and the rule that decides whether a claim held.

The rule compares two models of the same seed on the same questions, so what the seeds have in common cancels.
It was fixed before the figures were in.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal

from benchmarks.miniature.jobs import HIGH, LOW
from benchmarks.miniature.plan import evaluation_name

HELD, FAILED, NOISY = "held", "did not hold", "too noisy to tell"
Verdict = Literal["held", "did not hold", "too noisy to tell"]

_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Two-sided 95 % points of Student's t, by the number of seeds."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """Mean difference over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(differences: Sequence[float]) -> Interval:
    """The t interval of the mean of one difference per seed; unbounded for a single seed."""
    if not differences:
        raise ValueError("differences must hold at least one value, got none")
    mean = statistics.fmean(differences)
    if len(differences) == 1:
        return Interval(mean, -math.inf, math.inf)
    half = _T.get(len(differences), 2.262) * statistics.stdev(differences) / math.sqrt(len(differences))
    return Interval(mean, mean - half, mean + half)


def decide(
    differences: Sequence[float], direction: Literal["higher", "lower", "not lower"], margin: float
) -> Verdict:
    """Whether the differences bear out a claim.

    Args:
        differences: first model minus second, one per seed.
        direction: what the claim says of the first model.
        margin: a difference within it is nothing.

    Returns:
        For "higher": "held" where the interval lies above 0; "did not hold" where it lies below 0 or within
        the margin on both sides; else "too noisy to tell". "lower" is its mirror. For "not lower": "held"
        where the interval lies above -margin, "did not hold" where it lies below 0, else "too noisy to tell".
    """
    if direction == "lower":
        return decide([-value for value in differences], "higher", margin)
    found = interval(differences)
    if direction == "not lower":
        return HELD if found.low > -margin else FAILED if found.high < 0 else NOISY
    if found.low > 0:
        return HELD
    return FAILED if found.high < 0 or (-margin < found.low and found.high < margin) else NOISY


@dataclasses.dataclass(frozen=True)
class Figure:
    """A metric of an evaluation, or what a metric loses from its plain value when the crops are replaced."""

    model: str
    metric: str
    tokens: int = LOW
    data: str = "test"

    def of(self, evaluations: dict[str, dict[str, float | None]]) -> float:
        """Its value in the evaluations of one seed."""
        metrics = evaluations[evaluation_name(self.model, self.data, self.tokens)]
        if self.metric.startswith("lost_"):
            replaced = metrics["accuracy_" + self.metric.removeprefix("lost_")]
            return float(metrics["accuracy"]) - float(replaced)
        value = metrics[self.metric]
        return math.nan if value is None else float(value)


@dataclasses.dataclass(frozen=True)
class Claim:
    """That a figure of one model is higher, lower or not lower than that of another."""

    text: str
    first: Figure
    second: Figure
    direction: Literal["higher", "lower", "not lower"]
    margin: float
    paper: str

    def differences(self, seeds: Sequence[dict[str, dict[str, float | None]]]) -> list[float]:
        return [self.first.of(one) - self.second.of(one) for one in seeds]

    def verdict(self, seeds: Sequence[dict[str, dict[str, float | None]]]) -> Verdict:
        """The rule's word; what cannot be measured in every seed is too noisy to tell."""
        differences = self.differences(seeds)
        if any(math.isnan(value) for value in differences):
            return NOISY
        return decide(differences, self.direction, self.margin)


def _claim(
    text: str,
    first: str,
    second: str,
    metric: str,
    direction: Literal["higher", "lower", "not lower"],
    paper: str,
    *,
    margin: float = 0.02,
    tokens: int = LOW,
    data: str = "test",
) -> Claim:
    return Claim(
        text,
        Figure(first, metric, tokens, data),
        Figure(second, metric, tokens, data),
        direction,
        margin,
        paper,
    )


_NO_FIGURE = "no figure"
EXPERIMENTS: dict[str, tuple[Claim, ...]] = {
    "Stage 1: with the gap against without": (
        _claim(
            "The gap raises accuracy on unreadable overviews",
            "gap",
            "no-gap",
            "accuracy",
            "higher",
            "+8.9 / +6.5 / +5.7 points (Table 3)",
        ),
        *(
            _claim(
                f"{what} cost more accuracy with the gap, {how} overviews",
                "gap",
                "no-gap",
                f"lost_{condition}",
                "higher",
                paper,
                tokens=tokens,
            )
            for tokens, how in ((LOW, "unreadable"), (HIGH, "readable"))
            for condition, what, paper in (
                ("noise_crop", "Noise crops", "18.5 / 10.5 / 11.0 against 4.5 / 0.5 / 3.2 (Table 5)"),
                ("elsewhere", "Crops from a wrong place", _NO_FIGURE),
            )
        ),
    ),
    "Stage 2: the grounding reward against more of stage 1": (
        _claim("IoU rises", "stage2", "control", "iou", "higher", "5 to 9 points (Table 3, figure 6)"),
        _claim("Crops get smaller", "stage2", "control", "bbox_ratio", "lower", "figure 6", margin=0.005),
        _claim("Crops take fewer tokens", "stage2", "control", "crop_tokens", "lower", "figure 6", margin=1),
        _claim("Overlap does not fall", "stage2", "control", "overlap", "not lower", "figure 6"),
        _claim(
            "Accuracy rises",
            "stage2",
            "control",
            "accuracy",
            "higher",
            "72.1 / 75.3 / 80.6 against 69.9 / 74.4 / 78.0 (Table 3; stage 1 without more steps)",
        ),
    ),
    "Parts of the grounding reward": (
        _claim(
            "The condition on the overlap raises overlap",
            "stage2",
            "no-overlap",
            "overlap",
            "higher",
            _NO_FIGURE,
        ),
        _claim(
            "The condition on the overlap raises accuracy",
            "stage2",
            "no-overlap",
            "accuracy",
            "higher",
            "72.7 against 71.6 (Table 10)",
        ),
        _claim("The IoU part raises IoU", "stage2", "no-iou", "iou", "higher", "higher IoU (Table 10)"),
        _claim(
            "The IoU part raises accuracy",
            "stage2",
            "no-iou",
            "accuracy",
            "higher",
            "72.7 against 71.2 without any (Table 10)",
        ),
        _claim(
            "The distance part raises accuracy", "stage2", "no-l1", "accuracy", "higher", "higher (Table 4)"
        ),
        _claim("The distance part raises IoU", "stage2", "no-l1", "iou", "higher", _NO_FIGURE),
    ),
    "Which resolution stage 1 trains at": (
        _claim(
            "Selection by the answer beats the coarsest",
            "gap",
            "hard",
            "accuracy",
            "higher",
            "62.0 / 63.5 / 75.0 against 60.5 / 63.2 / 71.1 (Table 9)",
        ),
        _claim(
            "Selection by the answer beats a random level",
            "gap",
            "random",
            "accuracy",
            "higher",
            "62.0 / 63.5 / 75.0 against 59.0 / 64.0 / 72.4 (Table 9)",
        ),
    ),
    "Two stages against one on mixed data": (
        _claim(
            "Two stages are more accurate",
            "stage2",
            "mixed",
            "accuracy",
            "higher",
            "72.1 / 75.3 / 80.6 against 68.3 / 73.0 / 79.1 (Table 8)",
        ),
        _claim("Two stages crop more exactly", "stage2", "mixed", "iou", "higher", _NO_FIGURE),
    ),
    "Several crops: which one is scored": tuple(
        _claim(
            f"`best` gives {what} than `{other}`",
            "pairs-best",
            f"pairs-{other}",
            metric,
            "higher",
            "not stated in the paper",
            data="test-pairs",
        )
        for other in ("last", "mean")
        for metric, what in (("iou", "a higher IoU"), ("accuracy", "a higher accuracy"))
    ),
}
