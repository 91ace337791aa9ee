"""VisionThink: judged accuracy and format; requesting the larger image costs 10 %.

To discourage guessing from the small image, right direct answers lose the same amount if they are rare among
the right answers of their group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lfpc_rewards._checks import same_length
from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._completions import TurnList, turns_of
from lfpc_rewards.presets._groups import drop_groups, number_groups
from lfpc_rewards.presets._judging import BatchJudge, ask, strict_accuracy
from lfpc_rewards.presets._layout import answers_in, layout_and_calls
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

SYSTEM = System(
    name="VisionThink",
    paper="2507.13348",
    code="dvlab-research/VisionThink@42afd8c34a",
    rewards=("visionthink", "visionthink_shaping"),
    terms="accuracy (judge) * 0.9 if the tool was called + 0.5 format; - 0.1 for rare direct answers",
    gates="the penalties for a call and for guessing only apply to right answers",
    blind_to=(
        "whether the larger image was needed in this rollout: only the group shows it",
        "the arguments of the tool call",
    ),
    loopholes=(
        Loophole(
            "early answer",
            "The first answer in any turn can count, even one given before the tool replied. "
            "The last may say anything.",
            "The answer is the only answer tag in the last turn.",
        ),
        Loophole(
            "typed tool call",
            "Any text between <tool_call> tags counts as a call, whether or not an image came back.",
            "A call counts only if a tool message delivered an image.",
        ),
        Loophole(
            "half a call",
            "A turn may hold two calls if one of their tags is missing: the check uses `and` for `or`.",
            "A turn is its thinking followed by exactly one call, with nothing around them.",
        ),
        Loophole(
            "verdict in passing",
            'A reply counts as 1 if it contains a 1 anywhere, as in "Score: 0, by rule 1".',
            "A reply counts only if it is a single verdict and nothing else; otherwise the score is NaN.",
        ),
    ),
    deviations=(
        "Without a verdict the original drops the group; here the row is NaN, with `groups` the whole group.",
        "The original raises for a rollout without turns; here it is NaN.",
    ),
)


class VisionThinkParts(NamedTuple):
    """The parts of VisionThink's reward, each (B,) float64; all NaN where the original gives no number.

    Attributes:
        accuracy: Weighted accuracy, before the penalty for a call.
        format: Weighted format.
        calls: The number of turns that called the tool, as the original counts them.
        total: ``accuracy``, minus the penalty for a call, ``+ format + (tool_weight if calls)``.
    """

    accuracy: Scores
    format: Scores
    calls: Scores
    total: Scores


def visionthink(
    completions: Sequence[TurnList],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    groups: Sequence[Any] | None = None,
    answer_from: Literal["strict", "split"] | None = "strict",
    accuracy_weight: float = 1.0,
    format_weight: float = 0.5,
    tool_penalty: float = 0.1,
    tool_weight: float = 0.0,
    wanted: ArrayLike | None = None,
    subtract: bool = False,
    mode: Mode = "exact",
) -> VisionThinkParts:
    """VisionThink's reward for a rollout; `visionthink_shaping` adds the group-level part.

    Args:
        completions: (B,) lists of the texts of the assistant turns, or lists of messages.
        answers: (B,) right answers.
        questions: (B,) questions for the judge; None passes empty texts.
        judge: Judges a whole batch. A reply that contains a 1 is right, one with only a 0 is wrong; with
            neither, the judge is asked again, up to three times in all.
        groups: (B,) the prompt of each rollout. If the judge gave no verdict, all rollouts of
            the prompt are NaN, as the original drops them.
        answer_from: "strict" is the first answer pair in the turns, joined by a space; "split" the text
            after the last ``<answer>``; None judges the whole text. Without a pair, "strict" is wrong and
            not judged. Unused in mode "strict".
        accuracy_weight: Weight of the accuracy.
        format_weight: Weight of the format (`mini_o3_format` with ``<tool_call>``); 1.0 in the code, 0.5 in
            the published recipe.
        tool_penalty: Share of the accuracy subtracted for a call.
        tool_weight: Reward of a call.
        wanted: (B,) whether the question needs the tool; the penalty is then for calling it without need and
            for not calling it when needed. None: the penalty is for any call.
        subtract: With `wanted`: subtract the penalty from wrong answers as well.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; NaN where the judge gave no verdict and for a rollout without turns.

    Raises:
        TypeError: A completion is not a list of texts or messages.
        ValueError: The lengths differ, an option is unknown, or the judge is missing in mode "exact".

    Source:
        `general_qa_tool.compute_score` of VisionThink (arXiv 2507.13348).

    Example:
        >>> def judge(questions, answers, golds):
        ...     return [f"Score: {int(a == g)}" for a, g in zip(answers, golds)]
        >>> direct = ["<think>so</think><answer>red</answer>"]
        >>> asked = ["<think>small</think><tool_call>{}</tool_call>", *direct]
        >>> visionthink([direct, asked], ["red"] * 2, judge=judge).total
        array([1.5, 1.4])
        >>> visionthink([direct, asked], ["red"] * 2, mode="strict").total
        array([1.5, 1.5])
    """
    same_length(len(completions), answers=answers, questions=questions, groups=groups, wanted=wanted)
    if answer_from not in ("strict", "split", None):
        raise ValueError(f'answer_from must be "strict", "split" or None, got {answer_from!r}')
    if is_strict(mode):
        read = parse_strict_turns(completions, "tool_call")
        right = strict_accuracy(read.answers, answers, questions, judge)
        layout, calls = read.well_formed, read.images
    else:
        turns = turns_of(completions)
        right = ask(judge, questions, answers_in(turns, answer_from), answers, read_digit, tries=3)
        layout, calls = layout_and_calls(turns, "tool_call")
    right = drop_groups(right, groups)
    called = calls > 0
    fined = called if wanted is None else called != np.asarray(wanted, np.bool_)
    accuracy, layout = accuracy_weight * right, format_weight * layout
    if wanted is not None and subtract:
        paid = accuracy - np.where(fined, tool_penalty, 0.0)
    else:
        paid = accuracy * np.where(fined, 1 - tool_penalty, 1.0)
    total = paid + layout + np.where(called, tool_weight, 0.0)
    nothing = np.isnan(total)
    return VisionThinkParts(*(np.where(nothing, np.nan, each) for each in (accuracy, layout, calls, total)))


def visionthink_shaping(
    totals: ArrayLike,
    formats: ArrayLike,
    *,
    groups: Sequence[Any],
    ratio: float = 0.2,
    direct_penalty: float = 0.1,
    accuracy_weight: float = 1.0,
    filtered: bool = False,
) -> Scores:
    """Penalize right direct answers that are rare among the right answers of their group.

    The total minus the format is above 0 for right answers, and equal to `accuracy_weight` for those without
    a tool call. Direct answers are rare if their number over the number of right answers plus 0.0001 is above
    0 and below `ratio`; because of that addition, a share of exactly `ratio` is rare. The original computes
    in float32 and compares floats with ``==``; weights whose difference is not exact never match.

    Args:
        totals: (B,) totals of `visionthink`.
        formats: (B,) its formats, plus the reward of a call.
        groups: (B,) the prompt of each rollout.
        ratio: The share below which direct answers count as guesses.
        direct_penalty: Penalty of a guess.
        accuracy_weight: As in `visionthink`.
        filtered: Penalize groups with a wrong answer, regardless of the share, as well as rare ones.

    Returns:
        (B,) totals after the penalty, in float32 precision; NaN where they were NaN, which counts as wrong.

    Raises:
        ValueError: The lengths differ.

    Source:
        `ray_trainer.py` of VisionThink (arXiv 2507.13348).

    Example:
        >>> visionthink_shaping([1.5, 1.4, 1.4, 1.4, 1.4, 1.4], [0.5] * 6, groups=[0] * 6).round(3)
        array([1.4, 1.4, 1.4, 1.4, 1.4, 1.4])
        >>> visionthink_shaping([1.5, 1.5, 1.4, 1.4], [0.5] * 4, groups=[0] * 4).round(3)
        array([1.5, 1.5, 1.4, 1.4])
    """
    total, layout = (np.asarray(column, np.float64).astype(np.float32) for column in (totals, formats))
    same_length(len(total), formats=layout, groups=groups)
    numbers, count = number_groups(groups)
    paid = total - layout
    right, direct = paid > 0, paid == np.float32(accuracy_weight)
    right_count = np.bincount(numbers, right, count).astype(np.float32)
    share = np.bincount(numbers, direct, count).astype(np.float32) / (right_count + np.float32(1e-4))
    fined = (share > 0) & (share < np.float32(ratio))
    if filtered:
        fined |= np.bincount(numbers, ~right, count) > 0
    guessed = fined[numbers] & direct & (direct_penalty > 0)
    left = np.where(guessed, np.float32(accuracy_weight - direct_penalty), paid)
    return (left + layout).astype(np.float64)


def read_digit(reply: str) -> float:
    """Return 1.0 if the reply contains a 1, 0.0 if only a 0, NaN if neither."""
    return 1.0 if "1" in reply else 0.0 if "0" in reply else np.nan
