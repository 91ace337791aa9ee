"""Mini-o3: judged accuracy, after any number of zooms.

The reward sees the texts of the assistant turns. The published recipe turns off format, penalty and tool
reward, so that only the answer counts; the code has all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._completions import TurnList, turns_of
from lfpc_rewards.presets._groups import drop_groups
from lfpc_rewards.presets._judging import BatchJudge, ask, strict_accuracy
from lfpc_rewards.presets._layout import AnswerFrom, answers_in, layout_and_calls
from lfpc_rewards.presets._once import once_each
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

_LETTER_FORMS = (re.compile(r"\(([A-Z])\)"), re.compile(r"([A-Z])\."))

SYSTEM = System(
    name="Mini-o3",
    paper="2509.07969",
    code="Mini-o3/Mini-o3@8654dbf42d",
    rewards=("mini_o3", "mini_o3_choice", "mini_o3_format"),
    terms="accuracy (judge), times 1 - penalty if a tool was called, + format + tool; as published: accuracy",
    gates="none as published; with a penalty, calling a tool costs a share of the accuracy",
    blind_to=(
        "where the zooms are and whether they helped",
        "the number of turns",
    ),
    loopholes=(
        Loophole(
            "early answer",
            "The first answer in any turn counts, even one given before the tool replied; the last may say "
            "anything.",
            "The answer is the only answer tag in the last turn.",
        ),
        Loophole(
            "typed tool call",
            "Any text between <grounding> tags counts as a call, whether or not a crop came back.",
            "A call counts only if a tool message delivered an image.",
        ),
        Loophole(
            "half a call",
            "A turn may hold two calls if one of their tags is missing: the check uses `and` for `or`.",
            "A turn is its thinking followed by exactly one call, with nothing around them.",
        ),
        Loophole(
            "two options at once",
            '"(A) and (B)" and "A. or B." are right for A.',
            "An answer that names two options is wrong.",
        ),
    ),
    deviations=(
        "Without a verdict the original drops the group; here the row is NaN, with `groups` the whole group.",
        "The original raises for a rollout without turns; here it is NaN.",
    ),
)


class MiniO3Parts(NamedTuple):
    """The parts of Mini-o3's reward, each (B,) float64; all NaN where the original gives no number.

    Attributes:
        accuracy: Weighted accuracy.
        format: Weighted format.
        calls: The number of turns that called a tool, as the original counts them.
        total: ``accuracy * (1 - penalty if calls) + format + (tool_weight if calls)``.
    """

    accuracy: Scores
    format: Scores
    calls: Scores
    total: Scores


def mini_o3(
    completions: Sequence[TurnList],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    groups: Sequence[Any] | None = None,
    answer_from: AnswerFrom | None = "strict",
    accuracy_weight: float = 1.0,
    format_weight: float = 0.0,
    tool_penalty: float = 0.0,
    tool_weight: float = 0.0,
    mode: Mode = "exact",
) -> MiniO3Parts:
    """Mini-o3's reward for short answers; with the published weights, the accuracy alone.

    Args:
        completions: (B,) lists of the texts of the assistant turns, or lists of messages.
        answers: (B,) right answers.
        questions: (B,) questions for the judge; None passes empty texts.
        judge: Judges a whole batch. The first word after the last "score:" of a reply counts: right if it
            has a 1. If it has neither 0 nor 1, the judge is asked again, up to five times in all.
        groups: (B,) the prompt of each rollout. If the judge gave no verdict, all rollouts of
            the prompt are NaN, as the original drops them.
        answer_from: "strict" is the first answer pair in the turns, joined by a space; "split" the text after
            the last ``<answer>``; "strict_v2" from the first opening tag to a closing tag that ends the
            text; None judges the whole text. Without such an answer the accuracy is 0 and the judge is not
            asked ("split" and None always find one). Unused in mode "strict".
        accuracy_weight: Weight of the accuracy.
        format_weight: Weight of `mini_o3_format`; 1.0 in the code, 0.0 in the published recipe.
        tool_penalty: Share of the accuracy subtracted for a call; 0.1 in the code, 0.0 as published.
        tool_weight: Reward of calling a tool.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; NaN where the judge gave no verdict and for a rollout without turns.

    Raises:
        TypeError: A completion is not a list of texts or messages.
        ValueError: The lengths differ, an option is unknown, or the judge is missing in mode "exact".

    Source:
        `general_qa_tool.compute_score` of Mini-o3 (arXiv 2509.07969).

    Example:
        >>> def judge(questions, answers, golds):
        ...     return [f"Score: {int(a == g)}" for a, g in zip(answers, golds)]
        >>> early = ["<think>a</think><answer>red</answer><grounding>x</grounding>", "I give up"]
        >>> mini_o3([early], ["red"], judge=judge).total
        array([1.])
        >>> mini_o3([early], ["red"], mode="strict").total
        array([0.])
    """
    same_length(len(completions), answers=answers, questions=questions, groups=groups)
    weights = _Weights(accuracy_weight, format_weight, tool_penalty, tool_weight)
    if is_strict(mode):
        read = parse_strict_turns(completions, "grounding")
        accuracy = strict_accuracy(read.answers, answers, questions, judge)
        return weights.combine(accuracy, read.well_formed, read.images)
    turns = turns_of(completions)
    accuracy = ask(judge, questions, answers_in(turns, answer_from), answers, read_score, tries=5)
    accuracy[[not each for each in turns]] = np.nan
    accuracy = drop_groups(accuracy, groups)
    return weights.combine(accuracy, *layout_and_calls(turns, "grounding"))


def mini_o3_choice(
    completions: Sequence[TurnList],
    answers: Sequence[str],
    *,
    accuracy_weight: float = 1.0,
    format_weight: float = 0.0,
    tool_penalty: float = 0.0,
    tool_weight: float = 0.0,
    mode: Mode = "exact",
) -> MiniO3Parts:
    """Mini-o3's reward for multiple choice: like `mini_o3`, with a rule instead of the judge.

    The last answer pair of the last turn is right if it is the gold text, or begins with the gold letter
    as ``(A)`` or ``A.``.

    Args:
        completions: As in `mini_o3`.
        answers: (B,) letters of the right options.
        accuracy_weight: As in `mini_o3`.
        format_weight: As in `mini_o3`.
        tool_penalty: As in `mini_o3`.
        tool_weight: As in `mini_o3`.
        mode: As in `mini_o3`; "strict" compares with the rules of `answers_match`.

    Returns:
        As in `mini_o3`.

    Raises:
        TypeError: As in `mini_o3`.
        ValueError: The lengths differ.

    Source:
        `general_qa_tool_mc.compute_score` of Mini-o3 (arXiv 2509.07969).

    Example:
        >>> said = [[f"<think>so</think><answer>{word}</answer>"] for word in ("(A) and (B)", "A)", "A")]
        >>> mini_o3_choice(said, ["A"] * 3).total
        array([1., 0., 1.])
        >>> mini_o3_choice(said, ["A"] * 3, mode="strict").total
        array([0., 1., 1.])
    """
    same_length(len(completions), answers=answers)
    weights = _Weights(accuracy_weight, format_weight, tool_penalty, tool_weight)
    if is_strict(mode):
        read = parse_strict_turns(completions, "grounding")
        accuracy = strict_accuracy(read.answers, answers, None, None)
        return weights.combine(accuracy, read.well_formed, read.images)
    turns = turns_of(completions)
    tags = Tags([each[-1] if each else "" for each in turns], both("answer"))
    start, stop = tags.last_pair("answer")
    accuracy = np.where(start >= 0, once_each(_is_option, tags.cut(start, stop), answers), 0.0)
    return weights.combine(accuracy, *layout_and_calls(turns, "grounding"))


class MiniO3Format(NamedTuple):
    """The result of `mini_o3_format`, each (B,) float64; NaN for a rollout without turns.

    Attributes:
        format: 1 where the turns are well formed, else 0.
        calls: The number of turns that called a tool.
    """

    format: Scores
    calls: Scores


def mini_o3_format(
    completions: Sequence[TurnList], *, call: Literal["grounding", "tool_call"] = "grounding"
) -> MiniO3Format:
    """Check whether the turns are well formed and count tool calls, as Mini-o3 does.

    The last turn is thinking and then an answer; all turns before it are thinking and then a call. Text is
    allowed between the parts, but not around them. Calls are counted up to the first malformed turn, at most
    one per turn.

    Args:
        completions: As in `mini_o3`.
        call: The tag of a call.

    Returns:
        The format and the number of calls.

    Raises:
        TypeError: As in `mini_o3`.

    Source:
        `grounding_format_reward` and `format_reward` of Mini-o3.

    Example:
        >>> turns = ["<think>a</think><grounding>b</grounding>", "<think>c</think><answer>d</answer>"]
        >>> mini_o3_format([turns])
        MiniO3Format(format=array([1.]), calls=array([1.]))
    """
    return MiniO3Format(*layout_and_calls(turns_of(completions), call))


class _Weights(NamedTuple):
    accuracy: float
    format: float
    penalty: float
    tool: float

    def combine(self, accuracy: Scores, layout: Scores, calls: Scores) -> MiniO3Parts:
        called = calls > 0
        accuracy, layout = self.accuracy * accuracy, self.format * layout
        total = np.where(called, 1 - self.penalty, 1.0) * accuracy + layout + np.where(called, self.tool, 0.0)
        nothing = np.isnan(total)
        return MiniO3Parts(*(np.where(nothing, np.nan, part) for part in (accuracy, layout, calls, total)))


def read_score(reply: str) -> float:
    """Parse 1.0 or 0.0 from the first word after the last "score:"; NaN if it has neither a 1 nor a 0."""
    _, marker, rest = reply.lower().rpartition("score:")
    word = rest.strip().split("\n")[0].strip().split(" ")[0]
    if not marker or ("1" not in word and "0" not in word):
        return np.nan
    return float("1" in word)


def _is_option(given: str, gold: str) -> bool:
    letter = gold.strip()
    matches = (form.match(given) for form in _LETTER_FORMS)
    return given.strip() == letter or any(match and match[1] == letter for match in matches)
