"""Thyme: format, accuracy by rules and then a judge, and consistency of the answer with the thinking.

Pictures come from code that runs in a sandbox. A wrong answer costs 1, a missing answer costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._json import json_or_none
from lfpc_rewards._tags import Flags, Tags, both
from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._completions import Transcript, transcripts, written
from lfpc_rewards.presets._judging import BatchJudge, Reader, ask, read_verdict, strict_accuracy
from lfpc_rewards.presets._math import Grader, MathLibrary, graded, math_equal, needed
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

LONGEST_THINKING = 500
"""Number of characters at the end of the thinking that the consistency judge gets."""

_TRIES = 3
_FENCED = re.compile(r"```(.*?)```", re.DOTALL)
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_THEN_ANSWER = re.compile(r"\s<answer>")
_SANDBOX = re.compile(r"<sandbox_output>(.*?)</sandbox_output>", re.DOTALL)
_ASIDE = ("<image>", "</sandbox_output>", "<sandbox_output>")
"""Tags that are removed from the thinking."""

_FAILED = "sandbox for"
"""Part of every error message of the sandbox."""

_PREFIXES = (
    *("The best answer is", "The correct answer is", "The answer is", "The answer: ", "Answer: "),
    *("The best option is", "The correct option is", "Best answer:", "Best option:"),
)

SYSTEM = System(
    name="Thyme",
    paper="2508.11630",
    code="yfzhang114/Thyme@b9285b7a0c",
    rewards=("thyme",),
    terms="0.5 format + accuracy (1, -1; 0 without one) + 0.5 consistency (judge); code if switched on",
    gates="accuracy, consistency and code need an answer",
    blind_to=("where the crops are", "the effect of the code, if it runs"),
    loopholes=(
        Loophole(
            "no answer",
            "A missing answer scores 0, a wrong one -1: if unsure, a model gains by not answering.",
            "A missing answer is wrong.",
        ),
        Loophole(
            "answer in the thinking",
            "The first answer tag counts, even inside the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "typed sandbox",
            "A <sandbox_output> that the model typed counts as code that ran.",
            "Code counts as run only if a tool message delivered its output.",
        ),
        Loophole(
            "any number",
            'A judge\'s {"Correctness": 9} scores 17.',
            "A reply counts only if it is a single verdict and nothing else; otherwise the score is NaN.",
        ),
    ),
    deviations=(
        "If a judge fails, the original gives 0; here the row is NaN.",
        "The first rule of the original is its own grader; here any grader can be passed instead.",
    ),
)


class ThymeParts(NamedTuple):
    """The parts of Thyme's reward, each (B,) float64.

    Attributes:
        accuracy: 1 where the answer is right, -1 where not, 0 without one; NaN where the judge failed.
        format: `format_weight` where the response is well formed, else 0.
        consistency: `consistency_weight` times the verdict of the consistency judge; 0 without an answer.
        code: `code_weight` times the share of sandbox outputs without an error.
        total: The sum.
    """

    accuracy: Scores
    format: Scores
    consistency: Scores
    code: Scores
    total: Scores


def thyme(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    consistency_judge: BatchJudge | None = None,
    math: MathLibrary | None = None,
    grader: Grader | None = None,
    format_weight: float = 0.5,
    consistency_weight: float = 0.5,
    code_weight: float = 0.0,
    mode: Mode = "exact",
) -> ThymeParts:
    """Thyme's reward: ``format + accuracy + consistency``, plus code if it has a weight.

    * The format is one ``<think>``, ``</think>``, exactly one white-space character, ``<answer>..</answer>``.
    * The answer is the first ``<answer>..</answer>``, with phrases such as "The answer is" removed. It is
      right if the grader or the library accepts it; else the judge is asked, and its 0 becomes -1.
    * Consistency is the verdict of a second judge on the answer and the end of the thinking.

    Args:
        completions: (B,) decoded responses with the sandbox's outputs, or lists of messages.
        answers: (B,) right answers.
        questions: (B,) questions for the judges; None passes empty texts.
        judge: Judges a whole batch, with JSON such as ``{"Correctness": 1}``; without JSON it is asked again,
            up to three times in all, and then the answer scores 0.
        consistency_judge: The same for consistency, ``{"Consistency": 1}``; it gets the last 500 characters
            of the thinking as gold answer. Needed if its weight is not 0.
        math: The module math_verify. Unused in "strict".
        grader: Used before `math`; None skips it.
        format_weight: Weight of the format.
        consistency_weight: Weight of the consistency; 0 skips its judge.
        code_weight: Weight of code that ran; 0.3 in the original's code where it is used.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; NaN where a judge failed.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or a judge or `math` is missing in mode "exact".

    Source:
        `agent_rm.py` of Thyme (arXiv 2508.11630): FMTORM, VQAORM, CSTORM, CODEORM.

    Example:
        >>> class plain:
        ...     parse = staticmethod(lambda text: [text])
        ...     verify = staticmethod(lambda answer, gold: gold == answer)
        >>> def judge(questions, answers, golds):
        ...     return ['{"Correctness": 0, "Consistency": 1}'] * len(answers)
        >>> said = [f"<think>so</think> <answer>{word}</answer>" for word in ("red", "blue")] + ["red"]
        >>> thyme(said, ["red"] * 3, judge=judge, consistency_judge=judge, math=plain).total
        array([2., 0., 0.])
        >>> thyme(said, ["red"] * 3, consistency_weight=0, mode="strict").total
        array([ 1.5, -0.5, -1. ])
    """
    same_length(len(completions), answers=answers, questions=questions)
    tags = Tags(transcripts(completions), both("think", "answer"))
    reader: Reader
    if is_strict(mode):
        read = parse_strict_turns(completions, "code")
        given = read.answers
        accuracy = 2.0 * strict_accuracy(given, answers, questions, judge) - 1.0
        layout, code = read.well_formed, [_delivered_share(each) for each in completions]
        reader, tries, unreadable = read_verdict, 1, np.nan
    else:
        given = [answer or None for answer in tags.stripped(*tags.pair("answer"))]
        accuracy = _accuracy(given, answers, questions, judge, needed(math), grader)
        layout, code = _format(tags), list(map(share_of_outputs, tags.texts))
        reader, tries, unreadable = read_json("Consistency"), _TRIES, 0.0
    answered = np.array([answer is not None for answer in given], np.bool_)
    consistency = np.zeros(len(given))
    if consistency_weight:
        ends = [thinking_of(text)[-LONGEST_THINKING:] for text in tags.texts]
        consistency = ask(
            consistency_judge, questions, given, ends, reader, tries=tries, unreadable=unreadable
        )
    parts = (
        accuracy,
        format_weight * layout,
        consistency_weight * consistency,
        code_weight * np.where(answered, np.array(code, np.float64), 0.0),
    )
    return ThymeParts(*parts, np.sum(parts, axis=0))


def read_json(name: str) -> Reader:
    """Return a parser of the integer `name` in the first braces of a reply, or in its only code fence."""

    def read(reply: str) -> float:
        fenced = _FENCED.findall(reply)
        reply = fenced[0] if len(fenced) == 1 else reply
        start = reply.find("{")
        found: Any = json_or_none(reply[start : reply.find("}", start + 1) + 1].replace("\\", "\\\\"))
        try:
            return float(int(found[name]))
        except (TypeError, ValueError, KeyError, OverflowError):
            return np.nan

    return read


def thinking_of(text: str) -> str:
    """Return the first thinking, else the text before ``</think>``, without image and sandbox tags."""
    found = _THOUGHT.search(text)
    thinking = found[1] if found and found[1] else text.split("</think>")[0].replace("<think>", "")
    for tag in _ASIDE:
        thinking = thinking.replace(tag, "")
    return thinking


def bare_answer(text: str) -> str:
    """Remove introductions such as "The answer is" from an answer."""
    text = text.strip()
    for prefix in _PREFIXES:
        text = text.replace(prefix, "")
    return text


def share_of_outputs(text: str) -> float:
    """Return the share of sandbox outputs without an error; 0.0 without any output."""
    outputs = _SANDBOX.findall(text)
    return sum(_FAILED not in output.lower() for output in outputs) / len(outputs) if outputs else 0.0


def _format(tags: Tags) -> Scores:
    once = np.all([tags.count(tag) == 1 for tag in both("think", "answer")], axis=0)
    good: Flags = once & (tags.after_first("</answer>") == tags.lengths)
    place = tags.after_first("</think>").tolist()
    for row in np.flatnonzero(good).tolist():
        good[row] = _THEN_ANSWER.match(tags.texts[row], place[row]) is not None
    return good.astype(np.float64)


def _accuracy(
    given: Sequence[str | None],
    golds: Sequence[str],
    questions: Sequence[str] | None,
    judge: BatchJudge | None,
    math: MathLibrary,
    grader: Grader | None,
) -> Scores:
    known = {answer: bare_answer(answer or "") for answer in set(given)}
    bare = [known[answer] for answer in given]
    right = np.zeros(len(bare)) if grader is None else graded(golds, bare, grader, failed=0.0)
    # The original swaps the arguments: it passes the answer as gold and the gold answer as answer.
    right = np.maximum(right, math_equal(bare, golds, math))
    doubtful = [None if equal else answer for answer, equal in zip(given, right, strict=True)]
    reader = read_json("Correctness")
    right += ask(judge, questions, doubtful, golds, reader, tries=_TRIES, unreadable=0.5)
    return np.where([answer is None for answer in given], 0.0, 2.0 * right - 1.0)


def _delivered_share(completion: Any) -> float:
    """Return `share_of_outputs` for the contents of tool messages."""
    if isinstance(completion, str) or not all(isinstance(message, Mapping) for message in completion):
        return 0.0
    outputs = [written(m.get("content")) for m in completion if m.get("role") == "tool"]
    return share_of_outputs("".join(f"<sandbox_output>{output}</sandbox_output>" for output in outputs))
