"""Asking a judge: injected, one call for a whole batch, its replies read as each original reads them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from lfpc_rewards._typing import Judge, Scores
from lfpc_rewards.answers import answer_verdict

Reply: TypeAlias = str | bool | None
"""What a judge says about one answer: its raw text, a verdict, or None if it failed."""

BatchJudge: TypeAlias = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[Reply]]
"""``judge(questions, answers, golds)``: one `Reply` for each, in order. The judge itself does prompting,
networking, retries after errors and caching."""

Reader: TypeAlias = Callable[[str], float]
"""From the raw text of a reply to 1.0 or 0.0; NaN if it gives no verdict."""

_JUDGEMENT = "Judgement:"
_EQUIVALENCE = "## Equivalence Judgement"
_YES = frozenset({"1", "yes", "true", "correct"})
_NO = frozenset({"0", "no", "false", "incorrect"})
_VERDICT = re.compile(
    r"\W*(?:[\w ]*(?:score|judge?ment|verdict|answer|correctness|consistency)\W+)?(\w+)\W*", re.IGNORECASE
)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def ask(
    judge: BatchJudge | None,
    questions: Sequence[str] | None,
    answers: Sequence[str | None],
    golds: Sequence[str],
    read: Reader,
    *,
    tries: int = 1,
    unreadable: float = math.nan,
) -> Scores:
    """(B,) what the judge says about each answer, read by `read`; 0.0 where the answer is None.

    An answer whose reply cannot be read is judged again, up to `tries` times; then it scores `unreadable`.
    Where the judge failed (None) the score is NaN.
    """
    if judge is None:
        raise ValueError('judge must be given in mode "exact": the original asks one')
    columns: list[Sequence[Any]] = [[""] * len(answers) if questions is None else questions, answers, golds]
    scores = np.zeros(len(answers))
    todo = np.array([row for row, answer in enumerate(answers) if answer is not None], np.int64)
    for _ in range(tries):
        if not todo.size:
            break
        if todo.size < len(answers):
            replies = judge(*(list(map(column.__getitem__, todo.tolist())) for column in columns))
        else:
            replies = judge(*columns)
        if len(replies) != todo.size:
            raise ValueError(f"judge must give one reply per answer, got {len(replies)} for {todo.size}")
        known = {reply: _verdict(reply, read) for reply in set(replies)}
        scores[todo] = [known[reply] for reply in replies]
        again = {reply for reply, score in known.items() if reply is not None and math.isnan(score)}
        if not again:
            return scores
        todo = todo[[reply in again for reply in replies]]
    scores[todo] = unreadable
    return scores


def _verdict(reply: Reply, read: Reader) -> float:
    if isinstance(reply, str):
        return read(reply)
    if reply is None or isinstance(reply, bool):
        return math.nan if reply is None else float(reply)
    raise TypeError(f"judge must reply with a text, True, False or None, got {reply!r}")


def read_judgement(reply: str) -> float:
    """1.0 or 0.0 as DeepEyes reads "Judgement: 1" or a bare "1"; anything else is 0."""
    _, found, verdict = reply.rpartition(_JUDGEMENT)
    return float("1" in verdict if found else reply.strip() == "1")


def read_equivalence(reply: str) -> float:
    """1.0 or 0.0 if exactly one of "true" and "false" stands after "## Equivalence Judgement", else NaN."""
    verdict = reply.rpartition(_EQUIVALENCE)[2].lower()
    right, wrong = "true" in verdict, "false" in verdict
    return math.nan if right == wrong else float(right)


def read_verdict(reply: str) -> float:
    """1.0 or 0.0 if the reply is one verdict and nothing else, such as "Score: 1"; else NaN."""
    boxed = _BOXED.findall(reply)
    found = _VERDICT.fullmatch(boxed[0] if len(boxed) == 1 else reply.strip())
    word = found[1].casefold() if found else ""
    return 1.0 if word in _YES else 0.0 if word in _NO else math.nan


def strict_accuracy(
    given: Sequence[str | None],
    golds: Sequence[str | Sequence[str]],
    questions: Sequence[str] | None,
    judge: BatchJudge | None,
) -> Scores:
    """(B,) the rules of `answers_match` and, where they do not decide, the judge.

    A missing answer is wrong. Where the judge fails or gives no clear verdict the score is NaN, as that is
    not the model's fault. Without a judge, answers that the rules do not decide are wrong.
    """
    verdicts = []
    for row, (answer, gold) in enumerate(zip(given, golds, strict=True)):
        try:
            verdicts.append(answer_verdict(answer, gold))
        except (TypeError, ValueError) as error:
            raise type(error)(f"answers[{row}]: {error}") from None
    scores = np.array([verdict is True for verdict in verdicts], np.float64)
    if judge is None:
        return scores
    undecided = [a or "" if verdict is None else None for a, verdict in zip(given, verdicts, strict=True)]
    texts = [gold if isinstance(gold, str) else " or ".join(gold) for gold in golds]
    return scores + ask(judge, questions, undecided, texts, read_verdict)


def batch_judge(judge: Judge) -> BatchJudge:
    """Turn a judge of `lfpc_rewards.judged_accuracy_reward` into one for presets.

    Args:
        judge: ``await judge(question, answer, accepted)`` gives "yes", "no" or "unknown".

    Returns:
        A judge for a whole batch; it runs all the calls at once and waits. Not for use inside a running
        event loop.

    Raises:
        ValueError: The judge gave anything but its three verdicts.

    Source:
        Ours.

    Example:
        >>> async def same(question, answer, accepted):
        ...     return "yes" if answer in accepted else "no"
        >>> batch_judge(same)(["Which?", "Which?"], ["red", "blue"], ["red", "red"])
        [True, False]
    """
    replies: dict[str, bool | None] = {"yes": True, "no": False, "unknown": None}

    def asked(questions: Sequence[str], answers: Sequence[str], golds: Sequence[str]) -> list[Reply]:
        async def all_at_once() -> list[str]:
            return await asyncio.gather(
                *(judge(*case) for case in zip(questions, answers, ([gold] for gold in golds), strict=True))
            )

        verdicts = asyncio.run(all_at_once())
        for said in verdicts:
            if said not in replies:
                raise ValueError(f'judge must say "yes", "no" or "unknown", got {said!r}')
        return [replies[said] for said in verdicts]

    return asked
