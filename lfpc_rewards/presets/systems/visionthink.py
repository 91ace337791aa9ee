"""VisionThink: an answer that a judge accepts, well formed; asking for the larger image costs a tenth.

So that models do not guess at the small image, the right direct answers of a group lose as much where they
are rare among its right answers.
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
from lfpc_rewards.presets._strict import read_strictly
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

SYSTEM = System(
    name="VisionThink",
    paper="2507.13348",
    code="dvlab-research/VisionThink@42afd8c34a",
    rewards=("visionthink", "visionthink_shaping"),
    terms="accuracy (judge) * 0.9 if the tool was called + 0.5 format; - 0.1 for rare direct answers",
    gates="the price of a call and that of guessing only touch right answers",
    blind_to=(
        "whether the larger image was needed in this rollout: only the group tells",
        "what the tool was asked for",
    ),
    loopholes=(
        Loophole(
            "early answer",
            "The first answer in any turn can count, also one given before the tool replied. "
            "The last may say anything.",
            "The answer is the one answer tag of the last turn.",
        ),
        Loophole(
            "typed tool call",
            "Any text between <tool_call> tags counts as a call, whether or not an image came back.",
            "A call counts when a tool message delivered an image.",
        ),
        Loophole(
            "half a call",
            "A turn may hold two calls if one of their tags is missing: the check has an `and` for an `or`.",
            "A turn is its thinking and then exactly one call, with nothing around them.",
        ),
        Loophole(
            "verdict in passing",
            'A judge has said 1 if there is a 1 anywhere in its reply, as in "Score: 0, by rule 1".',
            "A reply counts when it is one verdict and nothing else; any other makes the score NaN.",
        ),
    ),
    deviations=(
        "Without a verdict the original drops the group; here the row is NaN, with `groups` all its group.",
        "A rollout without turns raises in the original; here it is NaN.",
    ),
)


class VisionThinkParts(NamedTuple):
    """The parts of VisionThink's reward, each (B,) float64; NaN in all where the original gives no number.

    Attributes:
        accuracy: Weighted accuracy, before the price of a call.
        format: Weighted format.
        calls: The number of turns that called the tool, as the original counts them.
        total: ``accuracy``, less the price of a call, ``+ format + (tool_weight if calls)``.
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
    """VisionThink's reward of a rollout; `visionthink_shaping` is that of its group.

    Args:
        completions: (B,) lists of the texts of the assistant turns, or lists of messages.
        answers: (B,) right answers.
        questions: (B,) questions for the judge; None gives it empty texts.
        judge: Answers a whole batch. A reply with a 1 in it is right, one with a 0 only is wrong; one with
            neither is asked for again, three times in all.
        groups: (B,) what prompt each rollout belongs to. Where the judge gave no verdict, all rollouts of
            the prompt are NaN, as the original drops them.
        answer_from: "strict" is the first answer pair in the turns, joined by a blank; "split" what
            follows the last ``<answer>``; None judges the whole text. Without a pair, "strict" is wrong and
            not judged. Unused in mode "strict".
        accuracy_weight: Weight of the accuracy.
        format_weight: Weight of the format, that of `mini_o3_format` with ``<tool_call>``; 1.0 in the code,
            0.5 in the published recipe.
        tool_penalty: Share of the accuracy that a call costs.
        tool_weight: What a call earns.
        wanted: (B,) whether the question needs the tool: then the penalty is for calling it without need
            and for not calling it when needed. None: for calling it.
        subtract: With `wanted`: the penalty is subtracted, also from wrong answers.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; NaN where the judge gave no verdict and for a rollout without turns.

    Raises:
        TypeError: A completion is no list of texts or messages.
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
        read = read_strictly(completions, "tool_call")
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
    """Right direct answers lose `direct_penalty` where they are rare among the right answers of their group.

    What is left of a total without its format is above 0 for right answers, and all of `accuracy_weight`
    for those that called no tool. Rare is a share of them, of the right answers plus 0.0001, above 0 and
    below `ratio`: because of that addition a share of exactly `ratio` is rare. The original computes in
    float32 and compares floats with ``==``; weights of which the difference is not exact never match.

    Args:
        totals: (B,) totals of `visionthink`.
        formats: (B,) its formats, with what a call earned.
        groups: (B,) what prompt each rollout belongs to.
        ratio: The share below which direct answers are guesses.
        direct_penalty: What a guess loses.
        accuracy_weight: As in `visionthink`.
        filtered: Fine the groups that have a wrong answer, whatever the share, and the rare ones.

    Returns:
        (B,) the totals after the fine, in float32's precision; NaN where they were, which counts as wrong.

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
    """1.0 if there is a 1 anywhere in the reply, 0.0 if there is a 0 only, NaN without either."""
    return 1.0 if "1" in reply else 0.0 if "0" in reply else np.nan
