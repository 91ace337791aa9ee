"""Injected judges: one call per batch, with the replies parsed as in each original."""

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
"""A judge's reply about one answer: its raw text, a verdict, or None if it failed."""

BatchJudge: TypeAlias = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[Reply]]
"""``judge(questions, answers, golds)`` returns one `Reply` per answer, in order. The judge itself handles
prompting, networking, retries after errors and caching."""

Reader: TypeAlias = Callable[[str], float]
"""Converts the raw text of a reply to 1.0 or 0.0; NaN if it has no verdict."""

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
    """Judge a batch and return (B,) scores, parsed by `read`; 0.0 where the answer is None.

    An answer whose reply cannot be parsed is judged again, up to `tries` times in all; then it scores
    `unreadable`. If the judge failed (None), the score is NaN.
    """
    if judge is None:
        raise ValueError('judge must be given in mode "exact": the original uses one')
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
        parsed = {reply: _verdict(reply, read) for reply in set(replies)}
        scores[todo] = [parsed[reply] for reply in replies]
        again = {reply for reply, score in parsed.items() if reply is not None and math.isnan(score)}
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
    """Parse "Judgement: 1" or a bare "1" as 1.0, as in DeepEyes; anything else is 0.0."""
    _, found, verdict = reply.rpartition(_JUDGEMENT)
    return float("1" in verdict if found else reply.strip() == "1")


def read_equivalence(reply: str) -> float:
    """Parse 1.0 or 0.0 if exactly one of "true" and "false" follows "## Equivalence Judgement", else NaN."""
    verdict = reply.rpartition(_EQUIVALENCE)[2].lower()
    right, wrong = "true" in verdict, "false" in verdict
    return math.nan if right == wrong else float(right)


def read_verdict(reply: str) -> float:
    """Parse 1.0 or 0.0 if the reply is a single verdict and nothing else, such as "Score: 1"; else NaN."""
    boxed = _BOXED.findall(reply)
    match = _VERDICT.fullmatch(boxed[0] if len(boxed) == 1 else reply.strip())
    word = match[1].casefold() if match else ""
    return 1.0 if word in _YES else 0.0 if word in _NO else math.nan


def strict_accuracy(
    given: Sequence[str | None],
    golds: Sequence[str | Sequence[str]],
    questions: Sequence[str] | None,
    judge: BatchJudge | None,
) -> Scores:
    """Return (B,) scores by the rules of `answers_match` and, where they are undecided, by the judge.

    A missing answer is wrong. If the judge fails or gives no clear verdict, the score is NaN, because that is
    not the model's fault. Without a judge, answers on which the rules are undecided are wrong.
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
    """Convert a judge of `lfpc_rewards.judged_accuracy_reward` to one for presets.

    Args:
        judge: ``await judge(question, answer, accepted)`` returns "yes", "no" or "unknown".

    Returns:
        A judge for a whole batch; it runs all calls concurrently and blocks until they finish. It cannot be
        used inside a running event loop.

    Raises:
        ValueError: The judge returned anything but its three verdicts.

    Source:
        Ours.

    Example:
        >>> async def same(question, answer, accepted):
        ...     return "yes" if answer in accepted else "no"
        >>> batch_judge(same)(["Which?", "Which?"], ["red", "blue"], ["red", "red"])
        [True, False]
    """
    replies: dict[str, bool | None] = {"yes": True, "no": False, "unknown": None}

    def judge_batch(questions: Sequence[str], answers: Sequence[str], golds: Sequence[str]) -> list[Reply]:
        async def all_at_once() -> list[str]:
            return await asyncio.gather(
                *(judge(*case) for case in zip(questions, answers, ([gold] for gold in golds), strict=True))
            )

        verdicts = asyncio.run(all_at_once())
        for verdict in verdicts:
            if verdict not in replies:
                raise ValueError(f'judge must return "yes", "no" or "unknown", got {verdict!r}')
        return [replies[verdict] for verdict in verdicts]

    return judge_batch
