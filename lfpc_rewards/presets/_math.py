"""Comparison of math answers with an injected library."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._judging import BatchJudge, ask, read_equivalence
from lfpc_rewards.presets._once import once_each


class MathLibrary(Protocol):
    """The module `math_verify`, or an object with its two functions."""

    @property
    def parse(self) -> Callable[..., list[Any]]:
        """Parse a text into a list of possible interpretations; empty if there is none."""

    @property
    def verify(self) -> Callable[..., bool]:
        """``verify(gold, answer)``: whether two interpretations are equal."""


def needed(math: MathLibrary | None) -> MathLibrary:
    """Return the library for use in this thread; raise if there is none."""
    if math is None:
        raise ValueError(
            'math must be given in mode "exact": pass the module math_verify (pip install math-verify)'
        )
    return math if threading.current_thread() is threading.main_thread() else _WithoutAlarm(math)


class _WithoutAlarm:
    """The library without its time limit, which needs a signal and so fails outside the main thread.

    verl scores outside the main thread. As in TRL, "no time limit" is passed if the library has that option.
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
        parameters = inspect.signature(function).parameters
    except ValueError:  # some built-in types, such as `list`, have no signature
        return {}
    return {argument: None} if argument in parameters else {}


def math_equal(golds: Sequence[str], answers: Sequence[str | None], math: MathLibrary) -> Scores:
    """Return (B,) 1.0 where both texts, parsed unchanged, are equal, else 0.0; no answer is 0.0."""

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
    """Score (B,) like `math_equal`; the judge decides on answers that the library does not find equal."""
    scores = math_equal(golds, answers, math)
    undecided = [None if right else answer for answer, right in zip(answers, scores, strict=True)]
    if judge is None:
        return scores
    return scores + ask(judge, questions, undecided, golds, read_equivalence, unreadable=0.0)


class Grader(Protocol):
    """The module `mathruler.grader`, or an object with its `grade_answer`.

    It passes texts to sympy, which evaluates them as code: the caller decides whether that is safe.
    """

    @property
    def grade_answer(self) -> Callable[[str, str], bool]:
        """``grade_answer(answer, gold)``: whether both are the same answer."""


def require_grader(grader: Grader | None) -> Grader:
    """Return the grader; raise if there is none."""
    if grader is None:
        raise ValueError(
            'grader must be given in mode "exact": pass the module mathruler.grader (pip install mathruler)'
        )
    return grader


def grade(answer: str, gold: str, grader: Grader, failed: float) -> float:
    """Return 1.0 if the grader accepts the answer, else 0.0; `failed` if it raised."""
    try:
        return float(grader.grade_answer(answer, gold))
    except Exception:  # a library may raise anything on model output; the originals raise too, or catch it
        return failed


def graded(golds: Sequence[str], answers: Sequence[str], grader: Grader, *, failed: float) -> Scores:
    """Return the (B,) `grade` of each answer."""
    return once_each(lambda answer, gold: grade(answer, gold, grader, failed), answers, golds)


def last_box(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{..}`` with balanced braces; None if there is none."""
    start = text.rfind("\\boxed{")
    depth = 0
    for index in range(start + len("\\boxed"), len(text) if start >= 0 else 0):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[start + len("\\boxed{") : index].strip()
    return None
