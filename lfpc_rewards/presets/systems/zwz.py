"""Zooming without Zooming: a single turn; its answer is compared by rules, then a library, then a judge."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Message, Scores
from lfpc_rewards.presets._completions import first_texts
from lfpc_rewards.presets._final_answer import same_answer_line
from lfpc_rewards.presets._judging import BatchJudge, ask, read_equivalence, strict_accuracy
from lfpc_rewards.presets._math import Grader, grade, require_grader
from lfpc_rewards.presets._once import once_each
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

MAX_ANSWER_LENGTH = 300
"""Answers of this many characters are wrong. Set in the original's code."""

_GOLD_OPTION = re.compile(r"[ (\[]*([A-F])(?:$|[.)\]]|[:-]\s+)")
_OPTIONS = tuple(map(re.compile, (r"\(([A-Z])\)", r"([A-Z])[.)\s]", r"([A-Z])")))
_RESULT = re.compile(r"<最终结果>(.*?)</最终结果>", re.DOTALL)
_BOXED = re.compile(r"boxed\{(.*?)\}", re.DOTALL)

SYSTEM = System(
    name="ZwZ",
    paper="2602.11858",
    code="inclusionAI/Zooming-without-Zooming@fdc0ba1a3d",
    rewards=("zwz",),
    terms="accuracy (rules, library, judge) + format, weighted 1 and 0 as published",
    gates="none",
    blind_to=("where the model looked: there is no tool", "the thinking"),
    loopholes=(
        Loophole(
            "answer without tags",
            "Without an answer on one line between tags, the whole response is the answer.",
            "The answer is the content of the only answer tag, after the thinking.",
        ),
        Loophole(
            "letter in a word",
            'The first capital letter names an option if there is nothing better: "Brown" is B.',
            "An option is named only by its letter alone.",
        ),
        Loophole(
            "two options at once",
            '"(B) or (C)" is B.',
            "An answer that names two options is wrong.",
        ),
        Loophole(
            "verdict in passing",
            'A judge that says "Not Yes", or "Yesterday", counts as Yes.',
            "A reply counts only if it is a single verdict and nothing else; otherwise the score is NaN.",
        ),
    ),
    deviations=(
        "If the judge fails, the original gives 0 and punishes the model; here the row is NaN.",
        "If the library raises, the original stops; here the row is NaN.",
    ),
)


class ZwzParts(NamedTuple):
    """The parts of ZwZ's reward, each (B,) float64.

    Attributes:
        accuracy: 1 where the answer is right, 0 where not; NaN where the judge or the library failed.
        format: 1 where there is an answer between tags, else 0.
        total: ``(1 - format_weight) accuracy + format_weight format``.
    """

    accuracy: Scores
    format: Scores
    total: Scores


def zwz(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    grader: Grader | None = None,
    reasoning: Sequence[bool] | None = None,
    format_weight: float = 0.0,
    mode: Mode = "exact",
) -> ZwzParts:
    r"""ZwZ's reward for perception: accuracy by a cascade of comparisons.

    The answer is the first ``<answer>..</answer>`` on one line, else the whole response. An empty one is
    wrong and badly formed, one of 300 characters or more is wrong. It is right if any of these match, in
    this order:

    1. the last line "Answer: .." and the gold answer, both normalized;
    2. for a gold letter and a question with an "A" and two line breaks, the first named option: "(A)", else
       "A." or "A)" or "A ", else any capital letter;
    3. the library;
    4. the judge.

    Args:
        completions: (B,) responses of one turn, or lists of messages, of which only the first is read.
        answers: (B,) right answers.
        questions: (B,) questions, for the judge and for the second step; None: empty texts.
        judge: Judges a whole batch; a reply is right with "Yes" in its first box.
        grader: The module `mathruler.grader`, or an object with its `grade_answer`. Unused in "strict".
        reasoning: (B,) whether the data source is "reason", whose judge replies true or false as in
            `deepeyes_reasoning`; None: no row is.
        format_weight: 0 as published.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; NaN where the judge or the library failed.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or the judge or the grader is missing in mode "exact".

    Source:
        `perception.compute_score` of ZwZ (arXiv 2602.11858).

    Example:
        >>> class grader:
        ...     grade_answer = staticmethod(lambda answer, gold: answer == gold)
        >>> judge = lambda questions, answers, golds: ["No"] * len(answers)
        >>> asked = {"questions": ["Which?\nA red\nB blue"] * 3, "judge": judge, "grader": grader}
        >>> said = ["<answer>B</answer>", "Blue", "<answer>A</answer>"]
        >>> zwz(said, ["B"] * 3, **asked).total
        array([1., 1., 0.])
        >>> zwz(said, ["B"] * 3, mode="strict").total
        array([1., 0., 0.])
    """
    same_length(len(completions), answers=answers, questions=questions, reasoning=reasoning)
    if is_strict(mode):
        given = parse_strict_turns(completions, "tool_call").answers
        short = [answer if len(answer or "") < MAX_ANSWER_LENGTH else None for answer in given]
        accuracy = strict_accuracy(short, answers, questions, judge)
        return _weigh(accuracy, np.array([bool(answer) for answer in given], np.float64), format_weight)
    texts = first_texts(completions)
    tags = Tags(texts, both("answer"))
    start, stop = tags.line_pair("answer")
    said = tags.stripped(np.maximum(start, 0), stop)  # without an answer: the whole text
    library = require_grader(grader)

    def by_rules(answer: str, gold: str, question: str) -> float:
        if not 0 < len(answer) < MAX_ANSWER_LENGTH:
            return 0.0
        return _by_rules(answer, gold, question) or grade(answer, gold, library, np.nan)

    accuracy = once_each(by_rules, said, answers, questions or [""] * len(said))
    asked = [
        answer if not right and 0 < len(answer) < MAX_ANSWER_LENGTH else None
        for answer, right in zip(said, accuracy, strict=True)
    ]
    kinds = [False] * len(said) if reasoning is None else np.asarray(reasoning, np.bool_).tolist()
    for kind, read in ((False, read_first_yes), (True, read_equivalence)):
        mine = [answer if thinks == kind else None for answer, thinks in zip(asked, kinds, strict=True)]
        accuracy += ask(judge, questions, mine, answers, read, unreadable=0.0)
    layout = np.array([text != "" for text in said], np.bool_) & (tags.pair("answer")[0] >= 0)
    return _weigh(accuracy, layout.astype(np.float64), format_weight)


def read_first_yes(reply: str) -> float:
    """Return 1.0 if "Yes" is in the first box of the result, or anywhere if there is no box; else 0.0."""
    if "<最终结果>" in reply:
        found = _RESULT.search(reply)
        reply = found[1] if found else reply.split("<最终结果>")[-1]
    if "boxed" in reply:
        found = _BOXED.search(reply)
        reply = found[1] if found else reply.split("boxed{")[-1]
    return float("Yes" in reply)


def _by_rules(said: str, gold: str, question: str) -> float:
    if same_answer_line(said, gold):
        return 1.0
    is_choice = "A" in question and question.count("\n") >= 2
    option = _GOLD_OPTION.match(gold.strip()) if is_choice else None
    return float(option is not None and _named_option(said) == option[1])


def _named_option(said: str) -> str | None:
    found = (form.search(said) for form in _OPTIONS)
    return next((each[1] for each in found if each), None)


def _weigh(accuracy: Scores, layout: Scores, weight: float) -> ZwzParts:
    return ZwzParts(accuracy, layout, (1 - weight) * accuracy + weight * layout)
