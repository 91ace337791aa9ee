"""EasyR1's rewards: r1v for pictures, math for boxed answers, dapo with a penalty for long responses.

None of them uses bounding boxes or tools. The library that compares answers is injected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Message, Scores
from lfpc_rewards.presets._completions import first_texts
from lfpc_rewards.presets._final_answer import same_answer_line
from lfpc_rewards.presets._judging import strict_accuracy
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._math import Grader, graded, last_box, require_grader
from lfpc_rewards.presets._shaping import as_lengths, soft_overlong
from lfpc_rewards.presets._strict import last_turns, parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

_AROUND_SIGNS = re.compile(r"\s*([<>/])\s*")
_THINK = re.compile(r"\s*<\s*think\s*>")
_THOUGHT = re.compile(r"<\s*/\s*think\s*>")
_DAPO_READS = 300
"""Number of characters at the end of a response that dapo reads."""

SYSTEM = System(
    name="EasyR1",
    paper="none",
    code="hiyouga/EasyR1@b44b311b66",
    rewards=("easyr1_r1v", "easyr1_math", "easyr1_dapo"),
    terms="r1v: 0.5 accuracy + 0.5 format; math: 0.9 and 0.1; dapo: accuracy (1 or -1) + overlong (-1 to 0)",
    gates="none",
    blind_to=("boxes and tools", "the thinking"),
    loopholes=(
        Loophole(
            "answer without tags",
            "r1v: without an answer on one line between tags, the whole response is the answer.",
            "The answer is the content of the only answer tag in the last turn.",
        ),
        Loophole(
            "several answers",
            "r1v: the first of several answers counts, and the format is still right; math: the last box.",
            "Two answers, or two boxes after the thinking, count as no answer.",
        ),
        Loophole(
            "answer in the thinking",
            "math: a box inside the thinking counts if none follows it, for the format as well.",
            "The box must follow the thinking.",
        ),
        Loophole(
            "several answer lines",
            'dapo: the last of several lines "Answer: .." counts, and the others cost nothing.',
            "The last turn may have only one such line.",
        ),
    ),
    deviations=("math: if the library raises, the original stops; here the row is NaN.",),
)


class EasyR1Parts(NamedTuple):
    """The parts of `easyr1_r1v` and `easyr1_math`, each (B,) float64.

    Attributes:
        accuracy: 1 where the answer is right, else 0.
        format: 1 where the response is well formed, else 0.
        total: ``(1 - format_weight) accuracy + format_weight format``.
    """

    accuracy: Scores
    format: Scores
    total: Scores


class EasyR1DapoParts(NamedTuple):
    """The parts of `easyr1_dapo`, each (B,) float64.

    Attributes:
        accuracy: 1 where the answer is right, -1 where not.
        overlong: 0, falling to -1 for long responses.
        total: ``accuracy + overlong_factor overlong``.
    """

    accuracy: Scores
    overlong: Scores
    total: Scores


def easyr1_r1v(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    grader: Grader | None = None,
    format_weight: float = 0.5,
    mode: Mode = "exact",
) -> EasyR1Parts:
    """EasyR1's reward for pictures: ``0.5 accuracy + 0.5 format``.

    The format is ``<think>..</think>``, optional white space, ``<answer>..</answer>`` and nothing else. The
    answer is the first ``<answer>..</answer>`` on one line, else the whole response.

    Args:
        completions: (B,) responses of one turn, or lists of messages, of which only the first is read.
        answers: (B,) right answers.
        grader: The module `mathruler.grader`, or an object with its `grade_answer`; if it raises, the answer
            is wrong. Not needed in "strict", which uses the rules of `answers_match`.
        format_weight: Weight of the format; the accuracy has weight 1 - format_weight.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or the grader is missing in mode "exact".

    Source:
        `r1v.compute_score` of EasyR1.

    Example:
        >>> class grader:
        ...     grade_answer = staticmethod(lambda answer, gold: answer == gold)
        >>> said = ["<think>so</think> <answer>4</answer>", "4"]
        >>> easyr1_r1v(said, ["4"] * 2, grader=grader).total
        array([1. , 0.5])
        >>> easyr1_r1v(said, ["4"] * 2, mode="strict").total
        array([1., 0.])
    """
    same_length(len(completions), answers=answers)
    if is_strict(mode):
        read = parse_strict_turns(completions, "tool_call")
        return _weigh(strict_accuracy(read.answers, answers, None, None), read.well_formed, format_weight)
    texts = first_texts(completions)
    tags = Tags(texts, both("think", "answer"))
    start, stop = tags.line_pair("answer")
    given = tags.stripped(np.maximum(start, 0), stop)  # without an answer: the whole text
    golds = [gold.strip() for gold in answers]
    accuracy = graded(golds, given, require_grader(grader), failed=0.0)
    return _weigh(accuracy, thought_and_answer(tags), format_weight)


def easyr1_math(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    grader: Grader | None = None,
    format_weight: float = 0.1,
    mode: Mode = "exact",
) -> EasyR1Parts:
    r"""EasyR1's reward for mathematics: ``0.9 accuracy + 0.1 format``.

    White space around "<", ">" and "/" is removed first. The format is ``<think>``, later ``</think>``, later
    a closed box. The answer is the last ``\boxed{..}`` with balanced braces.

    Args:
        completions: As in `easyr1_r1v`.
        answers: As in `easyr1_r1v`.
        grader: As in `easyr1_r1v`, but if it raises the row is NaN.
        format_weight: As in `easyr1_r1v`.
        mode: "exact", or "strict", which needs exactly one box, after the thinking of the last turn.

    Returns:
        As in `easyr1_r1v`.

    Raises:
        TypeError: As in `easyr1_r1v`.
        ValueError: As in `easyr1_r1v`.

    Source:
        `math.compute_score` of EasyR1.

    Example:
        >>> class grader:
        ...     grade_answer = staticmethod(lambda answer, gold: answer == gold)
        >>> easyr1_math([r"<think>so</think>\boxed{4}", r"\boxed{4}"], ["4"] * 2, grader=grader).total
        array([1. , 0.9])
    """
    same_length(len(completions), answers=answers)
    if is_strict(mode):
        turns = last_turns(completions)
        boxes = [last_box(tail) if tail.count("\\boxed{") == 1 else None for tail in turns.tails]
        layout = turns.thought & np.array([box is not None for box in boxes], np.bool_)
        return _weigh(strict_accuracy(boxes, answers, None, None), layout.astype(np.float64), format_weight)
    texts = first_texts(completions)
    given = ["None" if (box := last_box(text)) is None else _AROUND_SIGNS.sub(r"\1", box) for text in texts]
    accuracy = graded(answers, given, require_grader(grader), failed=np.nan)
    return _weigh(accuracy, np.array([_is_boxed(text) for text in texts], np.float64), format_weight)


def easyr1_dapo(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    lengths: ArrayLike,
    longest: int,
    overlong_buffer: int,
    overlong_factor: float = 1.0,
    mode: Mode = "exact",
) -> EasyR1DapoParts:
    """EasyR1's DAPO reward: 1 or -1 for the answer, and a penalty for long responses.

    The last line "Answer: .." in the last 300 characters is the answer. It is normalized, like the gold
    answer, and compared with it.

    Args:
        completions: As in `easyr1_r1v`.
        answers: As in `easyr1_r1v`.
        lengths: (B,) length of each response in tokens.
        longest: Maximum response length in tokens.
        overlong_buffer: The penalty starts this many tokens before `longest`.
        overlong_factor: Weight of the penalty.
        mode: "exact", or "strict", which needs exactly one such line in the last turn.

    Returns:
        The parts.

    Raises:
        TypeError: As in `easyr1_r1v`.
        ValueError: The lengths differ or are not token counts.

    Source:
        `dapo.compute_score` of EasyR1; arXiv 2503.14476.

    Example:
        >>> said = ["so Answer: 4 cm", "4"]
        >>> easyr1_dapo(said, ["4"] * 2, lengths=[10, 95], longest=100, overlong_buffer=20).total
        array([ 1.  , -1.75])
    """
    counts = as_lengths(lengths)
    same_length(len(completions), answers=answers, lengths=counts)
    if is_strict(mode):
        tails = [tail if _answer_lines(tail) == 1 else "" for tail in last_turns(completions).tails]
    else:
        tails = [text[-_DAPO_READS:] for text in first_texts(completions)]
    right = [same_answer_line(tail, gold) for tail, gold in zip(tails, answers, strict=True)]
    accuracy = 2.0 * np.array(right, np.float64) - 1.0
    overlong = soft_overlong(counts, longest, overlong_buffer)
    return EasyR1DapoParts(accuracy, overlong, accuracy + overlong * overlong_factor)


def _is_boxed(text: str) -> bool:
    r"""Match ``<think>.*</think>.*\boxed{.*}.*``, ignoring white space around "<", ">" and "/"."""
    began = _THINK.match(text)
    thought = _THOUGHT.search(text, began.end()) if began else None
    box = text.find("\\boxed{", thought.end()) if thought else -1
    return box >= 0 and text.find("}", box) >= 0


def _answer_lines(text: str) -> int:
    return len(re.findall(r"answer\s*:", text, re.IGNORECASE))


def _weigh(accuracy: Scores, layout: Scores, weight: float) -> EasyR1Parts:
    return EasyR1Parts(accuracy, layout, (1 - weight) * accuracy + weight * layout)
