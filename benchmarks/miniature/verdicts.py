"""What the miniature claims, and the rule that decides whether a claim held.

The rule compares two models of the same seed on the same questions, so what the seeds have in common cancels.
Claims, rule and stopping were fixed before the first run; `claims.md` says them in words.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal

from scipy import stats

from benchmarks.miniature.jobs import HIGH, LOW
from benchmarks.miniature.plan import RUN, evaluation_name

HELD, FAILED, NOISY = "held", "did not hold", "too noisy to tell"
Verdict = Literal["held", "did not hold", "too noisy to tell"]
Direction = Literal["higher", "lower", "not lower"]
Seed = dict[str, dict[str, float | None]]
"""The evaluations of a seed, by `evaluation_name`."""

LEVEL = 0.05
"""Two-sided chance of any wrong verdict in the family."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """Mean difference over seeds with its interval."""

    mean: float
    low: float
    high: float


def interval(differences: Sequence[float], level: float = LEVEL) -> Interval:
    """The t interval of the mean of one difference per seed; unbounded for a single seed."""
    if not differences:
        raise ValueError("differences must hold at least one value, got none")
    mean = statistics.fmean(differences)
    if len(differences) == 1:
        return Interval(mean, -math.inf, math.inf)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stats.t.ppf(1 - level / 2, len(differences) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def p_value(differences: Sequence[float], null: float = 0.0) -> float:
    """Two-sided p of Student's t that the mean over seeds is `null`; 1 for a single seed."""
    if len(differences) < 2:
        return 1.0
    distance = statistics.fmean(differences) - null
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    if error == 0:
        return 1.0 if distance == 0 else 0.0
    return float(2 * stats.t.sf(abs(distance) / error, len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down: every p times the number of those not smaller, never below a smaller one's."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - place)))
        adjusted[index] = highest
    return adjusted


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the rule says of one claim.

    Attributes:
        differences: first model minus second, one per seed.
        interval: their mean and its 95 % interval, for this claim alone.
        p: two-sided, corrected for the family.
        verdict: by `p` and, for a difference that is nothing, by an interval at the family's level.
    """

    differences: tuple[float, ...]
    interval: Interval
    p: float
    verdict: Verdict


def decide_family(family: Sequence[tuple[Sequence[float], Direction, float]]) -> list[Decision]:
    """Which claims of a family the differences bear out.

    Args:
        family: for every claim the differences, first model minus second, one per seed; what the claim says
            of the first model; the margin within which a difference is nothing.

    Returns:
        For "higher": "held" where the corrected p is below 5 % and the mean above 0; "did not hold" where it
        is below 5 % and the mean below 0, or where an interval that allows for all claims at once lies within
        the margin on both sides of 0; else "too noisy to tell". "lower" is its mirror. For "not lower" the
        test is against minus the margin; "did not hold" where the mean is below that. What could not be
        measured in every seed is too noisy to tell.
    """
    known = [not any(math.isnan(value) for value in differences) for differences, _, _ in family]
    tests = [
        p_value(differences, -margin if direction == "not lower" else 0.0) if measured else 1.0
        for (differences, direction, margin), measured in zip(family, known, strict=True)
    ]
    found = []
    for (differences, direction, margin), p, measured in zip(family, holm(tests), known, strict=True):
        if not measured:
            nothing = Interval(math.nan, math.nan, math.nan)
            found.append(Decision(tuple(differences), nothing, 1.0, NOISY))
            continue
        mean = statistics.fmean(differences)
        wide = interval(differences, LEVEL / len(family))
        verdict: Verdict = NOISY
        if p < LEVEL:
            gain = {"higher": mean, "lower": -mean, "not lower": mean + margin}[direction]
            verdict = HELD if gain > 0 else FAILED
        elif direction != "not lower" and -margin < wide.low and wide.high < margin:
            verdict = FAILED
        found.append(Decision(tuple(differences), interval(differences), p, verdict))
    return found


def decide(differences: Sequence[float], direction: Direction, margin: float) -> Verdict:
    """The verdict on a claim that is alone in its family; see `decide_family`."""
    [found] = decide_family([(differences, direction, margin)])
    return found.verdict


@dataclasses.dataclass(frozen=True)
class Figure:
    """A metric of an evaluation, or what a metric loses from its plain value when the crops are replaced."""

    model: str
    metric: str
    tokens: int = LOW
    data: str = "test"

    def of(self, evaluations: Seed, *, sampled: bool = False) -> float:
        """Its value in the evaluations of one seed, decoded greedily or sampled; NaN without one."""
        metrics = evaluations[evaluation_name(self.model, self.data, self.tokens, sampled=sampled)]
        if self.metric.startswith("lost_"):
            replaced = metrics.get("accuracy_" + self.metric.removeprefix("lost_"))
            accuracy = metrics["accuracy"]
            return math.nan if accuracy is None or replaced is None else accuracy - replaced
        value = metrics.get(self.metric) if self.metric.startswith("format_") else metrics[self.metric]
        return math.nan if value is None else float(value)


@dataclasses.dataclass(frozen=True)
class Claim:
    """That a figure of one model is higher, lower or not lower than that of another.

    Attributes:
        text: unique.
        first: the figure that the claim is about.
        second: what it is compared with.
        direction: what the claim says of the first.
        margin: a difference within it is nothing.
        paper: the paper's figures, for the reader.
        predicted: the paper's difference in the unit of the figure, where ours may be as large.
        like: text of the claim of the first run whose spread stands for this one's, which is new.
    """

    text: str
    first: Figure
    second: Figure
    direction: Direction
    margin: float
    paper: str
    predicted: float | None = None
    like: str | None = None

    @property
    def models(self) -> tuple[str, str]:
        return self.first.model, self.second.model

    def differences(self, seeds: Sequence[Seed], *, sampled: bool = False) -> list[float]:
        return [self.first.of(one, sampled=sampled) - self.second.of(one, sampled=sampled) for one in seeds]


def decisions(
    claims: Sequence[Claim], seeds: Sequence[Seed], *, sampled: bool = False
) -> dict[Claim, Decision]:
    """The rule's word on a family of claims."""
    family = [(claim.differences(seeds, sampled=sampled), claim.direction, claim.margin) for claim in claims]
    return dict(zip(claims, decide_family(family), strict=True))


def _claim(
    text: str,
    first: str,
    second: str,
    metric: str,
    direction: Direction,
    paper: str,
    *,
    margin: float = 0.02,
    tokens: int = LOW,
    data: str = "test",
    predicted: float | None = None,
    like: str | None = None,
) -> Claim:
    return Claim(
        text,
        Figure(first, metric, tokens, data),
        Figure(second, metric, tokens, data),
        direction,
        margin,
        paper,
        predicted,
        like,
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
    "Answering before looking": (
        *(
            _claim(
                f"Fewer answers are fixed before the crop with the gap, {how} overviews",
                "gap",
                "no-gap",
                "fixed",
                "lower",
                "section 3, no figure",
                tokens=tokens,
                like=f"Noise crops cost more accuracy with the gap, {how} overviews",
            )
            for tokens, how in ((LOW, "unreadable"), (HIGH, "readable"))
        ),
        _claim(
            "Stage 1 with the gap leaves fewer answers fixed than before it, unreadable overviews",
            "gap",
            "warm",
            "fixed",
            "lower",
            "section 3, no figure",
            like="Noise crops cost more accuracy with the gap, unreadable overviews",
        ),
        _claim(
            "Stage 1 without the gap leaves more answers fixed than before it, readable overviews",
            "no-gap",
            "warm",
            "fixed",
            "higher",
            "section 3, no figure",
            tokens=HIGH,
            like="Noise crops cost more accuracy with the gap, readable overviews",
        ),
    ),
    "Stage 2: the grounding reward against more of stage 1": (
        _claim(
            "IoU rises",
            "stage2",
            "control",
            "iou",
            "higher",
            "5 to 9 points (Table 3, figure 6)",
            predicted=0.07,
        ),
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
            predicted=0.019,
        ),
        _claim(
            "Accuracy rises over stage 1",
            "stage2",
            "gap",
            "accuracy",
            "higher",
            "72.1 / 75.3 / 80.6 against 69.9 / 74.4 / 78.0 (Table 3)",
            predicted=0.019,
            like="Accuracy rises",
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
            predicted=0.011,
        ),
        _claim("The IoU part raises IoU", "stage2", "no-iou", "iou", "higher", "higher IoU (Table 10)"),
        _claim(
            "The IoU part raises accuracy",
            "stage2",
            "no-iou",
            "accuracy",
            "higher",
            "72.7 against 71.2 without any (Table 10)",
            predicted=0.015,
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
            predicted=0.019,
        ),
        _claim(
            "Selection by the answer beats a random level",
            "gap",
            "random",
            "accuracy",
            "higher",
            "62.0 / 63.5 / 75.0 against 59.0 / 64.0 / 72.4 (Table 9)",
            predicted=0.017,
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
            predicted=0.025,
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

FAMILY: tuple[Claim, ...] = tuple(
    claim for claims in EXPERIMENTS.values() for claim in claims if set(claim.models) <= set(RUN)
)
"""The claims that the run decides, all corrected together; the arms of the others are not run."""
LEFT_OUT: tuple[Claim, ...] = tuple(
    claim for claims in EXPERIMENTS.values() for claim in claims if claim not in FAMILY
)
