"""Comparing mathematics: the library for it is injected."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._judging import BatchJudge, ask, read_equivalence
from lfpc_rewards.presets._once import once_each


class MathLibrary(Protocol):
    """The module `math_verify`, or anything with its two functions."""

    @property
    def parse(self) -> Callable[..., list[Any]]:
        """What a text says, as a list of readings; empty if it says nothing."""

    @property
    def verify(self) -> Callable[..., bool]:
        """``verify(gold, answer)``: whether two readings are equal."""


def needed(math: MathLibrary | None) -> MathLibrary:
    """The library for this thread, or an error that says how to get one."""
    if math is None:
        raise ValueError(
            'math must be given in mode "exact": pass the module math_verify (pip install math-verify)'
        )
    return math if threading.current_thread() is threading.main_thread() else _WithoutAlarm(math)


class _WithoutAlarm:
    """The library outside the main thread, where verl scores: its time limit needs an alarm of the main one.

    As in TRL, its own arguments for "no time limit" are passed, where it has them.
    """

    def __init__(self, math: MathLibrary) -> None:
        self._math = math
        self._parsing = _without_limit(math.parse, "parsing_timeout")
        self._comparing = _without_limit(math.verify, "timeout_seconds")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._math, name)

    def parse(self, text: str, **options: Any) -> list[Any]:
        return self._math.parse(text, **options, **self._parsing)

    def verify(self, gold: list[Any], answer: list[Any]) -> bool:
        return self._math.verify(gold, answer, **self._comparing)


def _without_limit(function: Callable[..., Any], argument: str) -> dict[str, None]:
    try:
        known = inspect.signature(function).parameters
    except ValueError:  # a type such as `list` has none
        return {}
    return {argument: None} if argument in known else {}


def math_equal(golds: Sequence[str], answers: Sequence[str | None], math: MathLibrary) -> Scores:
    """(B,) 1.0 where both texts, parsed as they stand, are equal, else 0.0; no answer is 0.0."""

    def equal(gold: str, answer: str | None) -> bool:
        return answer is not None and math.verify(math.parse(gold), math.parse(answer))

    return once_each(equal, golds, answers)


def math_or_judge(
    golds: Sequence[str],
    answers: Sequence[str | None],
    math: MathLibrary,
    questions: Sequence[str] | None,
    judge: BatchJudge | None,
) -> Scores:
    """(B,) as `math_equal`, and as the judge says about answers that the library does not find equal."""
    scores = math_equal(golds, answers, math)
    doubtful = [None if right else answer for answer, right in zip(answers, scores, strict=True)]
    if judge is None:
        return scores
    return scores + ask(judge, questions, doubtful, golds, read_equivalence, unreadable=0.0)


class Grader(Protocol):
    """The module `mathruler.grader`, or anything with its `grade_answer`.

    It hands what it is given to sympy, which evaluates it as code: that is the caller's decision.
    """

    @property
    def grade_answer(self) -> Callable[[str, str], bool]:
        """``grade_answer(answer, gold)``: whether both say the same."""


def grader_needed(grader: Grader | None) -> Grader:
    """The grader, or an error that says how to get one."""
    if grader is None:
        raise ValueError(
            'grader must be given in mode "exact": pass the module mathruler.grader (pip install mathruler)'
        )
    return grader


def grade(answer: str, gold: str, grader: Grader, failed: float) -> float:
    """1.0 where the grader sees the same answer, else 0.0; `failed` where it raised."""
    try:
        return float(grader.grade_answer(answer, gold))
    except Exception:  # whatever a text does to a library: the original raises here, or catches it
        return failed


def graded(golds: Sequence[str], answers: Sequence[str], grader: Grader, *, failed: float) -> Scores:
    """(B,) `grade` of each answer."""
    return once_each(lambda answer, gold: grade(answer, gold, grader, failed), answers, golds)


def last_box(text: str) -> str | None:
    r"""What stands in the last ``\boxed{..}``, its braces balanced; None if nothing does."""
    start = text.rfind("\\boxed{")
    depth = 0
    for place in range(start + len("\\boxed"), len(text) if start >= 0 else 0):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start + len("\\boxed{") : place].strip()
    return None
