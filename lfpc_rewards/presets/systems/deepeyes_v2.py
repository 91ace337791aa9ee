"""DeepEyesV2: judged accuracy and format; code and search are tools and earn nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Flags, Places, Tags, both, lengths_of
from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._completions import Transcript, transcripts
from lfpc_rewards.presets._final_answer import normalize_final_answer
from lfpc_rewards.presets._judging import BatchJudge, ask, read_equivalence, strict_accuracy
from lfpc_rewards.presets._strict import StrictTurns, parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

MAX_ANSWER_LENGTH = 300
"""Answers of this many characters are wrong. Set in the original's code."""

_NO_ANSWER = "None"
"""The text that the original sends to its judge if there is no answer."""

_BOXED = re.compile(r"boxed\{")

SYSTEM = System(
    name="DeepEyesV2",
    paper="2511.05271",
    code="Visual-Agent/DeepEyesV2@0373e6e0c9",
    rewards=("deepeyes_v2", "deepeyes_v2_search", "deepeyes_v2_math"),
    terms="0.8 accuracy (judge) + 0.2 format (0 or 1); a search costs a tenth of the accuracy",
    gates="none: tools earn nothing",
    blind_to=(
        "whether the code ran, and its output",
        "how often the model searched: one search costs as much as ten",
    ),
    loopholes=(
        Loophole(
            "several answers",
            "The first of several answers counts, and the others cost nothing.",
            "A turn with two answers has no answer.",
        ),
        Loophole(
            "no answer",
            'Without an answer the judge gets "None", which is right if that is the gold answer.',
            "A missing answer is wrong.",
        ),
        Loophole(
            "tags in any order",
            "The format only counts tags: text may surround them, and thinking may lack its opening tag.",
            "Each turn is its thinking followed by one call or, in the last turn, one answer.",
        ),
        Loophole(
            "verdict in passing",
            'A judge that says "Not Yes", or "Yesterday", counts as Yes.',
            "A reply counts only if it is a single verdict and nothing else; otherwise the score is NaN.",
        ),
    ),
    deviations=("If the judge fails, the original stops; here the row is NaN.",),
)


class DeepEyesV2Parts(NamedTuple):
    """The parts of a DeepEyesV2 reward, each (B,) float64.

    Attributes:
        accuracy: 1 where the answer is right, 0 where not; NaN where the judge failed.
        format: 1 where the response is well formed, else 0.
        total: ``0.8 accuracy + 0.2 format``; for `deepeyes_v2_search` 0.72 instead of 0.8 after a search.
    """

    accuracy: Scores
    format: Scores
    total: Scores


def deepeyes_v2(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> DeepEyesV2Parts:
    """DeepEyesV2's reward for perception: ``0.8 accuracy + 0.2 format``.

    * ``<think>`` is prepended to a response that does not begin with it.
    * The answer is the first ``<answer>..</answer>`` after the last ``</think>``.
    * The format needs balanced think and ``<code>`` tags, and a non-empty answer with balanced tags. An
      answer of 300 characters or more is wrong, badly formed and not judged.

    Args:
        completions: (B,) decoded responses, or lists of messages.
        answers: (B,) right answers.
        questions: (B,) questions for the judge; None passes empty texts.
        judge: Judges a whole batch. A reply is right if its last "boxed{..}" contains "Yes".
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; total in {0, 0.2, 0.8, 1}, NaN where the judge failed.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or the judge is missing in mode "exact".

    Source:
        `compute_score` of DeepEyesV2 (arXiv 2511.05271), data source perception.

    Example:
        >>> def judge(questions, answers, golds):
        ...     return ["Yes" if a == g else "No" for a, g in zip(answers, golds)]
        >>> said = ["<think>so</think><answer>red</answer><answer>blue</answer>", "red"]
        >>> deepeyes_v2(said, ["red"] * 2, judge=judge).total
        array([1., 0.])
        >>> deepeyes_v2(said, ["red"] * 2, mode="strict").total
        array([0., 0.])
    """
    same_length(len(completions), answers=answers, questions=questions)
    if is_strict(mode):
        read = parse_strict_turns(completions, "code")
        return _weigh(_strict_accuracy(read, answers, questions, judge), read.well_formed)
    response = _Response(completions, "code")
    return _weigh(response.judged(answers, questions, judge), response.format())


def deepeyes_v2_search(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> DeepEyesV2Parts:
    """DeepEyesV2's reward for search: like `deepeyes_v2`, but a ``<tool_call>`` costs 10 % of the accuracy.

    Args:
        completions: As in `deepeyes_v2`.
        answers: As in `deepeyes_v2`.
        questions: As in `deepeyes_v2`.
        judge: As in `deepeyes_v2`.
        mode: As in `deepeyes_v2`.

    Returns:
        As in `deepeyes_v2`; total ``0.8 * 0.9 accuracy + 0.2 format`` after a search.

    Raises:
        TypeError: As in `deepeyes_v2`.
        ValueError: As in `deepeyes_v2`.

    Source:
        `compute_score_search` of DeepEyesV2 (arXiv 2511.05271).

    Example:
        >>> judge = lambda questions, answers, golds: ["Yes"] * len(answers)
        >>> call = "<think>who</think><tool_call>{}</tool_call>"
        >>> said = "<think>so</think><answer>red</answer>"
        >>> deepeyes_v2_search([call + said, said], ["red"] * 2, judge=judge).total
        array([0.92, 1.  ])
    """
    same_length(len(completions), answers=answers, questions=questions)
    if is_strict(mode):
        read = parse_strict_turns(completions, "code", "tool_call")
        searched = np.array(["<tool_call>" in text for text in transcripts(completions)], np.bool_)
        return _weigh(_strict_accuracy(read, answers, questions, judge), read.well_formed, searched)
    response = _Response(completions, "code", "tool_call")
    accuracy = response.judged(answers, questions, judge)
    return _weigh(accuracy, response.format(), response.tags.count("<tool_call>") > 0)


def deepeyes_v2_math(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> DeepEyesV2Parts:
    """DeepEyesV2's reward for mathematics: like `deepeyes_v2`, but the judge gets a normalized answer.

    Units, wrappers and anything before the last "=" are removed; answers may have any length. Without an
    answer the judge is not asked. A reply is parsed as in `deepeyes_reasoning`; one without a verdict is
    wrong.

    Args:
        completions: As in `deepeyes_v2`.
        answers: As in `deepeyes_v2`.
        questions: As in `deepeyes_v2`.
        judge: As in `deepeyes_v2`.
        mode: As in `deepeyes_v2`.

    Returns:
        As in `deepeyes_v2`.

    Raises:
        TypeError: As in `deepeyes_v2`.
        ValueError: As in `deepeyes_v2`.

    Source:
        `compute_score_math` of DeepEyesV2 (arXiv 2511.05271).

    Example:
        >>> def judge(questions, answers, golds):
        ...     return ["TRUE" if a == g else "FALSE" for a, g in zip(answers, golds)]
        >>> deepeyes_v2_math(["<think>so</think><answer>x = 4 cm</answer>"], ["4"], judge=judge).total
        array([1.])
    """
    same_length(len(completions), answers=answers, questions=questions)
    if is_strict(mode):
        return deepeyes_v2(completions, answers, questions=questions, judge=judge, mode=mode)
    response = _Response(completions, "code")
    given = map(normalize_final_answer, response.given)
    asked = [answer if answer and gold else None for answer, gold in zip(given, answers, strict=True)]
    accuracy = ask(judge, questions, asked, answers, read_equivalence, unreadable=0.0)
    return _weigh(accuracy, response.format(longest=None))


def read_yes(reply: str) -> float:
    """Return 1.0 if "Yes" is in the last box of the result, or anywhere if there is no box; else 0.0."""
    reply = reply.strip()
    if "<最终结果>" in reply:
        reply = reply.split("<最终结果>")[-1].strip().split("<\\最终结果>")[0].strip()
    if "boxed" in reply:
        reply = _BOXED.split(reply)[-1].strip().split("}")[0]
    return float("Yes" in reply)


class _Response:
    """A batch, parsed for all three rewards."""

    def __init__(self, completions: Sequence[Transcript], *calls: str) -> None:
        texts = transcripts(completions)
        self.calls = calls
        self.tags = Tags(texts, both("think", "answer", *calls))
        self.tail: Places = np.maximum(self.tags.after_last("</think>"), 0)
        start, stop = self.tags.pair("answer", self.tail)
        self.found: Flags = start >= 0
        self.given = self.tags.stripped(start, stop)
        self.lengths = lengths_of(self.given)

    def judged(
        self, answers: Sequence[str], questions: Sequence[str] | None, judge: BatchJudge | None
    ) -> Scores:
        asked = [
            (answer if found else _NO_ANSWER) if len(answer) < MAX_ANSWER_LENGTH else None
            for answer, found in zip(self.given, self.found.tolist(), strict=True)
        ]
        return ask(judge, questions, asked, answers, read_yes)

    def format(self, longest: int | None = MAX_ANSWER_LENGTH) -> Scores:
        tags = self.tags
        opened = tags.count("<think>") + (tags.first("<think>") != 0)
        good: Flags = (self.lengths > 0) & (opened == tags.count("</think>"))
        good &= ~tags.unbalanced("answer", self.tail)
        for call in self.calls:
            good &= ~tags.unbalanced(call)
        if longest is not None:
            good &= self.lengths < longest
        return good.astype(np.float64)


def _strict_accuracy(
    read: StrictTurns, answers: Sequence[str], questions: Sequence[str] | None, judge: BatchJudge | None
) -> Scores:
    given = [answer if len(answer or "") < MAX_ANSWER_LENGTH else None for answer in read.answers]
    return strict_accuracy(given, answers, questions, judge)


def _weigh(accuracy: Scores, layout: Scores, searched: Flags | None = None) -> DeepEyesV2Parts:
    share = 1.0 if searched is None else np.where(searched, 0.9, 1.0)
    return DeepEyesV2Parts(accuracy, layout, 0.8 * accuracy * share + 0.2 * layout)
