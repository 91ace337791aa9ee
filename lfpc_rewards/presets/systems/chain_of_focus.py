"""Chain-of-Focus: judged accuracy and format; its repository has three optional bonuses for tool calls.

The whole response is scored, observations included. Each observation repeats an instruction that contains
tags, so the original removes that sentence first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Flags, Tags, both
from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._completions import Transcript, transcripts
from lfpc_rewards.presets._judging import BatchJudge, ask, read_judgement, strict_accuracy
from lfpc_rewards.presets._math import MathLibrary, math_or_judge, needed
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

Bonus: TypeAlias = Literal["none", "right", "right_half", "wrong"]
"""Bonus of a tool call: none; 1 or 0.5 with a right answer; or 0.5 with a wrong one."""

INSTRUCTION = (
    "Think in the mind first, and then decide whether to call tools one or more times OR provide final "
    "answer. Format strictly as: <think>...</think> <tool_call>...</tool_call> <tool_call>...</tool_call> "
    "(if any tools needed) OR <answer>...</answer> (if no tools needed)."
)
"""The last sentence of every question and observation; the reward depends on its exact wording."""

_TAGS = both("think", "answer", "tool_call")
_MOST_WORDS = 1000
_WEIGHT: dict[str, float] = {"none": 0.0, "right": 1.0, "right_half": 0.5, "wrong": 0.5}

SYSTEM = System(
    name="Chain-of-Focus",
    paper="2505.15436",
    code="xtong-zhang/Chain-of-Focus@431ff0dd70",
    rewards=("chain_of_focus", "chain_of_focus_math"),
    terms="0.9 accuracy (judge) + 0.1 format (0 or 1); with a bonus + 1 or 0.5 for a tool call",
    gates="the bonus needs a right answer, or in one variant a wrong one",
    blind_to=(
        "where the zoom is and whether it helped",
        "the group-aware reward of the paper, which is not in the code",
    ),
    loopholes=(
        Loophole(
            "typed tool call",
            "A <tool_call> that the model typed earns the bonus, whether or not a crop came back.",
            "A zoom counts only if a tool message delivered an image.",
        ),
        Loophole(
            "the instruction is a tool call",
            "Two of the bonuses search the text including the instruction, whose example contains a call: "
            "any response that repeats it earns the bonus.",
            "A zoom counts only if a tool message delivered an image.",
        ),
        Loophole(
            "answer in the thinking",
            "An answer tag counts anywhere, even inside or before the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "several answers",
            "The last of several answers counts, and the others cost nothing.",
            "A turn with two answers has no answer.",
        ),
        Loophole(
            "verdict in passing",
            'A judge whose reply ends with "Judgement: 0 or 1" counts as 1.',
            "A reply counts only if it is a single verdict and nothing else; otherwise the score is NaN.",
        ),
    ),
    deviations=(
        "If the judge fails, the original stops; here the row is NaN.",
        "The original selects the function by data source and fails on unknown ones; here you select it.",
        "The original's bonuses fail for mathematics; here `chain_of_focus_math` has none.",
    ),
)


class ChainOfFocusParts(NamedTuple):
    """The parts of a Chain-of-Focus reward, each (B,) float64.

    Attributes:
        accuracy: 1 where the answer is right, 0 where not; NaN where the judge failed.
        format: 1 where the response is well formed, else 0.
        tool: The bonus; all 0 without one.
        total: ``0.9 accuracy + 0.1 format + tool``.
    """

    accuracy: Scores
    format: Scores
    tool: Scores
    total: Scores


def chain_of_focus(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    bonus: Bonus = "none",
    mode: Mode = "exact",
) -> ChainOfFocusParts:
    """Chain-of-Focus' reward for questions about pictures: ``0.9 accuracy + 0.1 format + tool``.

    * The answer is the last ``<answer>..</answer>`` of the response, after `INSTRUCTION` is removed; without
      tags it is empty, and still judged.
    * The format needs balanced thinking and answer tags, and at most 1000 words in the answer.
    * The published run has no bonus. "right" and "right_half" reward a call with a right answer, "wrong" one
      with a wrong answer; the last two search the text including the instruction, which contains a call.

    Args:
        completions: (B,) decoded responses with observations, or lists of messages.
        answers: (B,) right answers.
        questions: (B,) questions for the judge; None passes empty texts.
        judge: Judges a whole batch; replies are parsed as in `deepeyes`.
        bonus: Bonus of a tool call.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; NaN where the judge failed.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, `bonus` is unknown, or the judge is missing in mode "exact".

    Source:
        `zoomin_reward3` of Chain-of-Focus (arXiv 2505.15436); the bonuses of `zoomin_reward4`, 5 and 6.

    Example:
        >>> def judge(questions, answers, golds):
        ...     return ["1" if a == g else "0" for a, g in zip(answers, golds)]
        >>> typed = "<think><tool_call></tool_call></think><answer>red</answer>"
        >>> chain_of_focus([typed, "red"], ["red"] * 2, judge=judge, bonus="right").total
        array([2., 0.])
        >>> chain_of_focus([typed, "red"], ["red"] * 2, bonus="right", mode="strict").total
        array([0.9, 0. ])
    """
    same_length(len(completions), answers=answers, questions=questions)
    if bonus not in _WEIGHT:
        raise ValueError(f'bonus must be "none", "right", "right_half" or "wrong", got {bonus!r}')
    if is_strict(mode):
        read = parse_strict_turns(completions, "tool_call")
        accuracy = strict_accuracy(read.answers, answers, questions, judge)
        return _weigh(accuracy, read.well_formed, read.images > 0, bonus)
    texts = transcripts(completions)
    tags = Tags([text.replace(INSTRUCTION, "") for text in texts], _TAGS)
    given = tags.stripped(*tags.last_pair("answer"))
    accuracy = ask(judge, questions, given, answers, read_judgement)
    searched = Tags(texts, _TAGS) if bonus in ("right_half", "wrong") else tags
    return _weigh(accuracy, _format(tags, given), searched.pair("tool_call")[0] >= 0, bonus)


def chain_of_focus_math(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    math: MathLibrary | None = None,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> ChainOfFocusParts:
    """Chain-of-Focus' reward for mathematics: as `chain_of_focus`, with a library before the judge.

    The instruction is not removed here. A missing answer is wrong and not judged.

    Args:
        completions: As in `chain_of_focus`.
        answers: As in `chain_of_focus`.
        math: As in `deepeyes_math`.
        questions: As in `chain_of_focus`.
        judge: Used where the library finds no equality; replies are parsed as in `deepeyes_math`. None: such
            answers are wrong.
        mode: As in `chain_of_focus`, the same in "strict".

    Returns:
        As in `chain_of_focus`, without a bonus.

    Raises:
        TypeError: As in `chain_of_focus`.
        ValueError: The lengths differ, or `math` is missing in mode "exact".

    Source:
        `compute_score_math` of `zoomin_reward3`, Chain-of-Focus (arXiv 2505.15436).

    Example:
        >>> class plain:
        ...     parse = staticmethod(lambda text: [text])
        ...     verify = staticmethod(lambda gold, answer: gold == answer)
        >>> said = ["<think>so</think><answer>4</answer>", "<think>so</think><answer></answer>"]
        >>> chain_of_focus_math(said, ["4"] * 2, math=plain).total
        array([1. , 0.1])
    """
    same_length(len(completions), answers=answers, questions=questions)
    if is_strict(mode):
        return chain_of_focus(completions, answers, questions=questions, judge=judge, mode=mode)
    tags = Tags(transcripts(completions), both("think", "answer"))
    given = tags.stripped(*tags.last_pair("answer"))
    nonempty = [answer or None for answer in given]
    accuracy = math_or_judge(answers, nonempty, needed(math), questions, judge)
    return _weigh(accuracy, _format(tags, given), np.zeros(len(given), np.bool_), "none")


def _format(tags: Tags, given: Sequence[str]) -> Scores:
    good: Flags = (tags.count("<think>") > 0) & (tags.count("<answer>") > 0)
    good &= ~tags.unbalanced("think") & ~tags.unbalanced("answer")
    # A text cannot have more words than characters.
    short = [len(text) <= _MOST_WORDS or len(text.split()) <= _MOST_WORDS for text in given]
    good &= np.array(short, np.bool_)
    return good.astype(np.float64)


def _weigh(accuracy: Scores, layout: Scores, called: Flags, bonus: Bonus) -> ChainOfFocusParts:
    right = accuracy > 0.5
    earned = called & (~right if bonus == "wrong" else right)
    tool = np.where(np.isnan(accuracy), np.nan, _WEIGHT[bonus] * earned)
    return ChainOfFocusParts(accuracy, layout, tool, 0.9 * accuracy + 0.1 * layout + tool)
