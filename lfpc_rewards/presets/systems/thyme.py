"""Thyme: a well-formed response, an answer by rules and then a judge, and one that agrees with the thinking.

Pictures come from code that a sandbox runs. A wrong answer costs 1, no answer costs nothing.
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
from lfpc_rewards.presets._strict import read_strictly
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

LONGEST_THINKING = 500
"""Characters at the end of the thinking that the judge of consistency reads."""

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
    blind_to=("where the crops looked", "what the code does, if it runs"),
    loopholes=(
        Loophole(
            "no answer",
            "No answer scores 0, a wrong one -1: where a model is unsure, silence pays.",
            "No answer is as wrong as a wrong one.",
        ),
        Loophole(
            "answer in the thinking",
            "The first answer tag counts, also inside the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "typed sandbox",
            "A <sandbox_output> that the model typed is code that ran.",
            "Code ran when a tool message delivered its output.",
        ),
        Loophole(
            "any number",
            'A judge\'s {"Correctness": 9} is worth 17.',
            "A reply counts when it is one verdict and nothing else; any other makes the score NaN.",
        ),
    ),
    deviations=(
        "Where a judge fails, the original gives 0; here the row is NaN.",
        "The first rule of the original is a grader of its own; here any grader can be given for it.",
    ),
)


class ThymeParts(NamedTuple):
    """The parts of Thyme's reward, each (B,) float64.

    Attributes:
        accuracy: 1 where the answer is right, -1 where not, 0 without one; NaN where the judge failed.
        format: `format_weight` where the response is well formed, else 0.
        consistency: `consistency_weight` times what the judge of consistency says; 0 without an answer.
        code: `code_weight` times the share of outputs of the sandbox that are no errors.
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
    """Thyme's reward: ``format + accuracy + consistency``, and code if it has a weight.

    * The format is one ``<think>``, ``</think>``, exactly one white-space character, ``<answer>..</answer>``.
    * The answer is the first ``<answer>..</answer>``. Without "The answer is" and the like it is right if the
      grader or the library says so; else the judge is asked, and 0 means -1.
    * Consistency is what a second judge says about the answer and the end of the thinking.

    Args:
        completions: (B,) decoded responses with the sandbox's outputs, or lists of messages.
        answers: (B,) right answers.
        questions: (B,) questions for the judges; None gives them empty texts.
        judge: Answers a whole batch, with JSON such as ``{"Correctness": 1}``; if it gives none it is asked
            again, three times in all, and then the answer scores 0.
        consistency_judge: The same for consistency, ``{"Consistency": 1}``; as gold answer it is given the
            last 500 characters of the thinking. Needed if its weight is not 0.
        math: The module math_verify. Unused in "strict".
        grader: Asked before `math`; None skips that rule.
        format_weight: Weight of the format.
        consistency_weight: Weight of the consistency; 0 does not ask.
        code_weight: Weight of code that ran; 0.3 in the code of the original where it is used.
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
        read = read_strictly(completions, "code")
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
    """Reads the whole number under `name` in the first braces of a reply, in its only fence if it has one."""

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
    """The first thinking, else all before ``</think>``; without the tags of images and of the sandbox."""
    found = _THOUGHT.search(text)
    thinking = found[1] if found and found[1] else text.split("</think>")[0].replace("<think>", "")
    for tag in _ASIDE:
        thinking = thinking.replace(tag, "")
    return thinking


def bare_answer(text: str) -> str:
    """An answer without introductions such as "The answer is"."""
    text = text.strip()
    for prefix in _PREFIXES:
        text = text.replace(prefix, "")
    return text


def share_of_outputs(text: str) -> float:
    """The share of the sandbox's outputs that are no errors; 0.0 without any."""
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
    # The original hands the library the answer as the gold one, and the gold answer as the answer.
    right = np.maximum(right, math_equal(bare, golds, math))
    doubtful = [None if equal else answer for answer, equal in zip(given, right, strict=True)]
    reader = read_json("Correctness")
    right += ask(judge, questions, doubtful, golds, reader, tries=_TRIES, unreadable=0.5)
    return np.where([answer is None for answer in given], 0.0, 2.0 * right - 1.0)


def _delivered_share(completion: Any) -> float:
    """As `share_of_outputs`, of what tool messages hold."""
    if isinstance(completion, str) or not all(isinstance(message, Mapping) for message in completion):
        return 0.0
    outputs = [written(m.get("content")) for m in completion if m.get("role") == "tool"]
    return share_of_outputs("".join(f"<sandbox_output>{output}</sandbox_output>" for output in outputs))
