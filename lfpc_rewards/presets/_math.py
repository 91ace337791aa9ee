"""Comparing mathematics: the library for it is injected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._once import once_each


class MathLibrary(Protocol):
    """The module `math_verify`, or anything with its two functions."""

    @property
    def parse(self) -> Callable[[str], list[Any]]:
        """What a text says, as a list of readings; empty if it says nothing."""

    @property
    def verify(self) -> Callable[[list[Any], list[Any]], bool]:
        """``verify(gold, answer)``: whether two readings are equal."""


def needed(math: MathLibrary | None) -> MathLibrary:
    """The library, or an error that says how to get one."""
    if math is None:
        raise ValueError(
            'math must be given in mode "exact": pass the module math_verify (pip install math-verify)'
        )
    return math


def math_equal(golds: Sequence[str], answers: Sequence[str | None], math: MathLibrary) -> Scores:
    """(B,) 1.0 where both texts, parsed as they stand, are equal, else 0.0; no answer is 0.0."""

    def equal(gold: str, answer: str | None) -> bool:
        return answer is not None and math.verify(math.parse(gold), math.parse(answer))

    return once_each(equal, golds, answers)


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


def graded(golds: Sequence[str], answers: Sequence[str], grader: Grader, *, failed: float) -> Scores:
    """(B,) 1.0 where the grader sees the same answer, else 0.0; `failed` where it raised."""

    def grade(answer: str, gold: str) -> float:
        try:
            return grader.grade_answer(answer, gold)
        except Exception:  # whatever a text does to a library: the original raises here, or catches it
            return failed

    return once_each(grade, answers, golds)


def last_box(text: str) -> str | None:
    r"""What stands in the last ``\boxed{..}``, its braces balanced; None if nothing does."""
    start = text.rfind("\\boxed{")
    depth = 0
    for place in range(start + len("\\boxed"), len(text) if start >= 0 else 0):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start + len("\\boxed{") : place].strip()
    return None
