"""DeepEyes: judged accuracy, format, and a bonus for right answers with a zoom.

The whole response is scored, observations included, because an image in it shows that a zoom worked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Flags, Places, Tags, both, lengths_of
from lfpc_rewards._typing import Scores
from lfpc_rewards.parsing import read_columns
from lfpc_rewards.presets._completions import Transcript, transcripts
from lfpc_rewards.presets._judging import (
    BatchJudge,
    ask,
    read_equivalence,
    read_judgement,
    strict_accuracy,
)
from lfpc_rewards.presets._math import MathLibrary, math_or_judge, needed
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

MAX_ANSWER_LENGTH = 1000
"""Answers of this many characters are wrong: long answers fool judges. Set in the original's code."""

_IMAGE_START, _IMAGE_END = "<|vision_start|><|image_pad|>", "<|image_pad|><|vision_end|>"
_TAGS = (*both("think", "answer"), _IMAGE_START, _IMAGE_END)
_BOXED = re.compile(r"\\boxed{([^}]+)}")

SYSTEM = System(
    name="DeepEyes",
    paper="2505.14362",
    code="Visual-Agent/DeepEyes@6c5e79671d",
    rewards=("deepeyes", "deepeyes_reasoning", "deepeyes_math"),
    terms="0.8 accuracy (judge) + 0.2 format (0 or -1) + 1.2 tool; mathematics: 1.2 accuracy + 0.4 format",
    gates="the tool bonus needs a right answer",
    blind_to=(
        "where the zoom is: any zoom earns the bonus, even one that misses the object",
        "whether the zoom was needed for the answer",
    ),
    loopholes=(
        Loophole(
            "typed vision tokens",
            "The model types the tokens of an image and earns the tool bonus without a zoom.",
            "A zoom counts only if a tool message delivered an image.",
        ),
        Loophole(
            "answer without tags",
            "A response without any tag is judged whole and keeps its format score: tags need only balance.",
            "The answer is the content of the only answer tag in the last turn; otherwise there is none.",
        ),
        Loophole(
            "answer in the thinking",
            "An answer tag inside the thinking is taken when none follows it.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "verdict in passing",
            'A judge whose reply ends with "Judgement: 0 or 1" or "Judgement: not 1" counts as 1.',
            "A reply counts only if it is a single verdict and nothing else; otherwise the score is NaN.",
        ),
        Loophole(
            "judged in the face of the rules",
            "An answer that names two options, or another number, is right if it persuades the judge.",
            "Rules decide first; the judge is asked only if they are undecided.",
        ),
    ),
    deviations=(
        "If the judge fails, the original stops or gives 0; here the row is NaN.",
        "The original's judge samples with random seeds; here the replies come from the injected judge.",
    ),
)


class DeepEyesParts(NamedTuple):
    """The parts of a DeepEyes reward, each (B,) float64.

    Attributes:
        accuracy: 1 where the answer is right, 0 where not; NaN where the judge failed.
        format: 0 where the response is well formed, -1 where not.
        tool: 1 where the answer is right and a zoom was seen, else 0; all 0 for mathematics.
        total: The weighted sum.
    """

    accuracy: Scores
    format: Scores
    tool: Scores
    total: Scores


def deepeyes(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> DeepEyesParts:
    """DeepEyes' reward for questions about pictures: ``0.8 accuracy + 0.2 format + 1.2 tool``.

    * The answer follows the last ``<answer>``, up to the next ``</answer>``; without tags it is the whole
      response.
    * The format is wrong if think or image tags do not balance, if answer tags do not balance after
      the last ``</think>``, or if the answer has 1000 characters or more; such an answer is wrong, too.
    * The bonus goes to right answers with an image in the response.

    Args:
        completions: (B,) decoded responses with special tokens and observations, or lists of messages.
        answers: (B,) right answers.
        questions: (B,) questions for the judge; None passes empty texts.
        judge: Judges a whole batch (`BatchJudge`). Its texts are parsed as in the original: right if there is
            a 1 anywhere after the last "Judgement:"; without that word only "1" is right.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; total in {-0.2, 0, 0.6, 0.8, 1.8, 2}, NaN where the judge failed.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or the judge is missing in mode "exact".

    Source:
        `compute_score` of DeepEyes (arXiv 2505.14362), data sources vstar, vl_agent and chart.

    Example:
        >>> def judge(questions, answers, golds):
        ...     return ["1" if a == g else "0" for a, g in zip(answers, golds)]
        >>> looked = "<think>near</think><|vision_start|><|image_pad|><|vision_end|><answer>red</answer>"
        >>> deepeyes([looked, "red", "<answer>blue"], ["red"] * 3, judge=judge).total
        array([ 2. ,  0.8, -0.2])
        >>> deepeyes([looked, "red", "<answer>blue"], ["red"] * 3, mode="strict").total
        array([ 0.6, -0.2, -0.2])
    """
    same_length(len(completions), answers=answers, questions=questions)
    if is_strict(mode):
        return _strict(completions, answers, questions, judge)
    response = _Response(completions)
    tags = response.tags
    start = tags.after_last("<answer>")
    given = tags.stripped(np.maximum(start, 0), tags.first("</answer>", start))
    accuracy = ask(judge, questions, given, answers, read_judgement)
    return response.score(given, accuracy)


def deepeyes_reasoning(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> DeepEyesParts:
    """DeepEyes' reward for common reasoning: like `deepeyes`, but the answer needs its tags.

    The answer is the first ``<answer>..</answer>`` after the last ``</think>``. Without it, or if it is
    empty or too long, the format is wrong and the judge is not asked. Exactly one of "true" and "false" must
    follow "## Equivalence Judgement" in a reply; if not, the judge is asked again, up to eight times in all,
    and then the answer is wrong.

    Args:
        completions: As in `deepeyes`.
        answers: As in `deepeyes`.
        questions: As in `deepeyes`.
        judge: As in `deepeyes`.
        mode: As in `deepeyes`; in "strict" both functions are the same.

    Returns:
        As in `deepeyes`.

    Raises:
        TypeError: As in `deepeyes`.
        ValueError: As in `deepeyes`.

    Source:
        `compute_common_reasoning` of DeepEyes (arXiv 2505.14362).

    Example:
        >>> judge = lambda questions, answers, golds: ["TRUE"] * len(answers)
        >>> deepeyes_reasoning(["<answer>red</answer>", "red"], ["red"] * 2, judge=judge).total
        array([ 0.8, -0.2])
    """
    same_length(len(completions), answers=answers, questions=questions)
    if is_strict(mode):
        return _strict(completions, answers, questions, judge)
    response = _Response(completions)
    given = response.tags.stripped(*response.tags.pair("answer", response.tail))
    asked = [answer if 0 < len(answer) < MAX_ANSWER_LENGTH else None for answer in given]
    accuracy = ask(judge, questions, asked, answers, read_equivalence, tries=8, unreadable=0.0)
    return response.score(given, accuracy, answer_needed=True)


def deepeyes_math(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    math: MathLibrary | None = None,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> DeepEyesParts:
    r"""DeepEyes' reward for mathematics: ``1.2 accuracy + 0.4 format``, no tool.

    The answer is the last ``\boxed{..}`` after the last ``</think>``, cut at the first closing brace; there
    should be exactly one. A library for mathematics compares it with the gold answer; where it finds no
    equality, a judge is asked.

    Args:
        completions: As in `deepeyes`.
        answers: As in `deepeyes`.
        math: The module math_verify, or an object with its `parse` and `verify`. Not needed in "strict",
            where numbers are compared by value and the judge decides the rest.
        questions: As in `deepeyes`.
        judge: As in `deepeyes`, parsed as in `deepeyes_reasoning`, but asked once. None: answers that the
            library does not find equal are wrong.
        mode: "exact" or "strict", which needs exactly one box in the last turn, after its thinking.

    Returns:
        The parts; total in {-0.4, 0, 0.8, 1.2}, NaN where the judge failed.

    Raises:
        TypeError: As in `deepeyes`.
        ValueError: The lengths differ, or `math` is missing in mode "exact".

    Source:
        `compute_score_math` of DeepEyes (arXiv 2505.14362).

    Example:
        >>> class plain:
        ...     parse = staticmethod(lambda text: [text])
        ...     verify = staticmethod(lambda gold, answer: gold == answer)
        >>> said = [r"<think>so</think>\boxed{4}", r"\boxed{5} or \boxed{4}", "4"]
        >>> deepeyes_math(said, ["4"] * 3, math=plain).total
        array([ 1.2,  0.8, -0.4])
    """
    same_length(len(completions), answers=answers, questions=questions)
    strict = is_strict(mode)
    tags = Tags(transcripts(completions), both("think"))
    boxes = [
        _BOXED.findall(text) for text in tags.cut(np.maximum(tags.after_last("</think>"), 0), tags.lengths)
    ]
    given, count = [each[-1] if each else None for each in boxes], lengths_of(boxes)
    if strict:
        given = [answer if one else None for answer, one in zip(given, count == 1, strict=True)]
        accuracy = strict_accuracy(given, answers, questions, judge)
    else:
        accuracy = math_or_judge(answers, given, needed(math), questions, judge)
    layout = -((count != 1) | tags.unbalanced("think")).astype(np.float64)
    return DeepEyesParts(accuracy, layout, np.zeros(len(given)), 1.2 * accuracy + 0.4 * layout)


class _Response:
    """A batch, parsed for the two rewards for questions."""

    def __init__(self, completions: Sequence[Transcript]) -> None:
        self.tags = Tags(transcripts(completions), _TAGS)
        self.tail: Places = np.maximum(self.tags.after_last("</think>"), 0)

    def score(self, given: Sequence[str], accuracy: Scores, *, answer_needed: bool = False) -> DeepEyesParts:
        tags, lengths = self.tags, lengths_of(given)
        long = lengths >= MAX_ANSWER_LENGTH
        images = tags.count(_IMAGE_START)
        wrong: Flags = long | tags.unbalanced("think") | tags.unbalanced("answer", self.tail)
        wrong |= images != tags.count(_IMAGE_END)
        if answer_needed:
            wrong |= lengths == 0
        return weigh(np.where(long & ~np.isnan(accuracy), 0.0, accuracy), wrong, images > 0)


def weigh(accuracy: Scores, wrong: Flags, looked: Flags) -> DeepEyesParts:
    """Combine the parts with the weights that DeepEyes and its ports share."""
    layout = -wrong.astype(np.float64)
    tool = np.where(np.isnan(accuracy), np.nan, (looked & (accuracy > 0.5)).astype(np.float64))
    return DeepEyesParts(accuracy, layout, tool, 0.8 * accuracy + 0.2 * layout + 1.2 * tool)


def _strict(
    completions: Sequence[Any],
    answers: Sequence[str],
    questions: Sequence[str] | None,
    judge: BatchJudge | None,
) -> DeepEyesParts:
    columns = read_columns(completions)
    answered = columns.answer_texts()
    long = np.array([len(answer or "") >= MAX_ANSWER_LENGTH for answer in answered], np.bool_)
    given = [None if skip else answer for answer, skip in zip(answered, long, strict=True)]
    accuracy = strict_accuracy(given, answers, questions, judge)
    return weigh(accuracy, long | ~columns.well_formed, columns.looked())
