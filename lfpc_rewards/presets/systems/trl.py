"""TRL's own rewards: mathematics, think format, and penalties for length and repetition.

They read only the first message of a completion. With tools, that is the first turn, so they see nothing else
of a rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Flags, Tags, both
from lfpc_rewards._typing import Message, Scores
from lfpc_rewards.presets._completions import first_texts
from lfpc_rewards.presets._math import MathLibrary, needed
from lfpc_rewards.presets._once import once_each
from lfpc_rewards.presets._shaping import as_lengths, cosine_between, repeated_share, soft_overlong
from lfpc_rewards.presets._strict import last_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

SYSTEM = System(
    name="TRL",
    paper="none",
    code="huggingface/trl@f2cd57710a",
    rewards=(
        "trl_think_format",
        "trl_accuracy",
        "trl_reasoning_accuracy",
        "trl_cosine",
        "trl_repetition",
        "trl_overlong",
    ),
    terms="single terms: accuracy and format (0 or 1), cosine (-1 to 1), repetition and overlong (-1 to 0)",
    gates="none; the cosine depends on the accuracy",
    blind_to=("everything after the first turn", "pictures, boxes and tools"),
    loopholes=(
        Loophole(
            "first turn",
            "A box in the first turn is the answer, regardless of later turns.",
            "The last turn is read.",
        ),
        Loophole(
            "thinking alone",
            "The format needs no answer: closed thinking tags are enough.",
            "Some text must follow the thinking.",
        ),
        Loophole(
            "answer in the thinking",
            "`accuracy_reward` accepts a box in the thinking.",
            "The box must follow the thinking.",
        ),
        Loophole(
            "several boxes",
            "One of several boxes counts, and the others cost nothing.",
            "Two boxes count as no answer.",
        ),
    ),
)


def trl_think_format(completions: Sequence[str | Sequence[Message]], *, mode: Mode = "exact") -> Scores:
    """Score 1 if the first message is one ``<think>..</think>`` followed by any text, else 0.

    Args:
        completions: (B,) responses, or lists of messages, of which only the first is read.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        (B,) 0.0 or 1.0.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.

    Source:
        `think_format_reward` of TRL.

    Example:
        >>> trl_think_format(["<think>so</think>4", "<think>so</think>", "4"])
        array([1., 1., 0.])
        >>> trl_think_format(["<think>so</think>4", "<think>so</think>", "4"], mode="strict")
        array([1., 0., 0.])
    """
    if is_strict(mode):
        turns = last_turns(completions)
        said = np.array([bool(tail.strip()) for tail in turns.tails], np.bool_)
        return (turns.thought & said).astype(np.float64)
    tags = Tags(first_texts(completions), both("think"))
    good: Flags = (tags.first("<think>") == 0) & (tags.count("<think>") == 1) & (tags.count("</think>") > 0)
    return good.astype(np.float64)


def trl_accuracy(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    math: MathLibrary | None = None,
    mode: Mode = "exact",
) -> Scores:
    r"""Score 1 if the math answer in the first message equals the gold answer, else 0.

    Only LaTeX counts as an answer, with ``\boxed{..}`` preferred.

    Args:
        completions: As in `trl_think_format`.
        answers: (B,) right answers.
        math: The module math_verify, in both modes.
        mode: "exact", or "strict", which uses the only box after the thinking of the last turn.

    Returns:
        (B,) 0.0 or 1.0; NaN where the library cannot parse the gold answer.

    Raises:
        TypeError: As in `trl_think_format`.
        ValueError: The lengths differ, or `math` is missing.

    Source:
        `accuracy_reward` of TRL.

    Example:
        >>> import math_verify
        >>> trl_accuracy([r"\boxed{0.5}", "0.5"], [r"\frac{1}{2}"] * 2, math=math_verify)
        array([1., 0.])
    """
    same_length(len(completions), answers=answers)
    texts = _only_boxes(completions) if is_strict(mode) else first_texts(completions)
    return _equal(texts, answers, needed(math))


def trl_reasoning_accuracy(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    math: MathLibrary | None = None,
    delimiters: Sequence[str] = ("</think>",),
    mode: Mode = "exact",
) -> Scores:
    r"""Score the text after the thinking like `trl_accuracy`; 0 if the thinking does not end.

    Args:
        completions: As in `trl_think_format`.
        answers: As in `trl_accuracy`.
        math: As in `trl_accuracy`.
        delimiters: Texts that end the thinking. The first one that is in the text splits it, at its last
            occurrence.
        mode: As in `trl_accuracy`; "strict" is the strict `trl_accuracy`.

    Returns:
        As in `trl_accuracy`; 0.0 if the thinking does not end, even if the gold answer cannot be parsed.

    Raises:
        TypeError: As in `trl_think_format`.
        ValueError: As in `trl_accuracy`.

    Source:
        `reasoning_accuracy_reward` of TRL.

    Example:
        >>> import math_verify
        >>> said = [r"so</think>\boxed{4}", r"\boxed{4}</think>", r"\boxed{4}"]
        >>> trl_reasoning_accuracy(said, ["4"] * 3, math=math_verify)
        array([1., 0., 0.])
    """
    same_length(len(completions), answers=answers)
    if is_strict(mode):
        return trl_accuracy(completions, answers, math=math, mode=mode)
    texts = first_texts(completions)
    tails = [_behind(text, delimiters) for text in texts]
    rows = [row for row, tail in enumerate(tails) if tail is not None]
    out = np.zeros(len(texts))
    out[rows] = _equal([tails[row] or "" for row in rows], [answers[row] for row in rows], needed(math))
    return out


def trl_cosine(
    accuracy: ArrayLike,
    lengths: ArrayLike,
    *,
    longest: int,
    wrong: tuple[float, float] = (-1.0, -0.5),
    right: tuple[float, float] = (1.0, 0.5),
) -> Scores:
    """Scale the accuracy by length: half a cosine wave from length 0 to `longest`.

    Args:
        accuracy: (B,) scores of `trl_accuracy`: right if neither 0 nor NaN.
        lengths: (B,) length of each response in tokens.
        longest: Maximum response length in tokens; longer ones score the same.
        wrong: Scores of a wrong response at length 0 and at `longest`.
        right: Scores of a right response at length 0 and at `longest`.

    Returns:
        (B,) scores; NaN where the accuracy is.

    Raises:
        ValueError: The lengths differ or are not token counts.

    Source:
        `get_cosine_scaled_reward` of TRL; arXiv 2502.03373.

    Example:
        >>> trl_cosine([1, 0, 1], [50, 50, 200], longest=100)
        array([ 0.75, -0.75,  0.5 ])
    """
    scores, counts = np.asarray(accuracy, np.float64), as_lengths(lengths)
    same_length(len(scores), lengths=counts)
    start, end = (np.where(scores != 0, right[k], wrong[k]) for k in range(2))
    scaled = cosine_between(np.minimum(counts / longest, 1.0), start, end)
    return np.where(np.isnan(scores), np.nan, scaled)


def trl_repetition(
    completion_ids: Sequence[Sequence[int]], *, ngram_size: int = 3, max_penalty: float = -1.0
) -> Scores:
    """Return `max_penalty` times the share of repeated token n-grams.

    Args:
        completion_ids: (B,) the tokens of each response.
        ngram_size: Number of tokens in an n-gram.
        max_penalty: Score of a response that consists only of repetitions.

    Returns:
        (B,) scores of at most 0; 0 where there are no n-grams.

    Raises:
        ValueError: `ngram_size` is below 1, or `max_penalty` above 0.

    Source:
        `get_repetition_penalty_reward` of TRL; arXiv 2502.03373.

    Example:
        >>> trl_repetition([[1, 2, 3, 4], [5, 5, 5, 5, 5]], ngram_size=2)
        array([ 0.  , -0.75])
    """
    if max_penalty > 0:
        raise ValueError(f"max_penalty must be at most 0, got {max_penalty}")
    return repeated_share(completion_ids, ngram_size) * max_penalty + 0.0


def trl_overlong(lengths: ArrayLike, *, longest: int, buffer: int) -> Scores:
    """Penalty for length: 0 up to `longest - buffer` tokens, then down to -1 at `longest`; -1 beyond it.

    Args:
        lengths: (B,) length of each response in tokens.
        longest: Maximum response length in tokens.
        buffer: Number of tokens over which the penalty grows.

    Returns:
        (B,) scores in [-1, 0].

    Raises:
        ValueError: The lengths are not token counts.

    Source:
        `get_soft_overlong_punishment` of TRL; arXiv 2503.14476.

    Example:
        >>> trl_overlong([80, 90, 101], longest=100, buffer=20)
        array([ 0. , -0.5, -1. ])
    """
    return soft_overlong(as_lengths(lengths), longest, buffer)


def _behind(text: str, delimiters: Sequence[str]) -> str | None:
    """Return the text after the last occurrence of the first delimiter that is in the text."""
    for mark in delimiters:
        if mark in text:
            return text.rpartition(mark)[2]
    return None


def _only_boxes(completions: Sequence[Any]) -> list[str]:
    """Return the text after the thinking of the last turn, if it has exactly one box."""
    return [tail if tail.count("\\boxed{") == 1 else "" for tail in last_turns(completions).tails]


def _equal(texts: Sequence[str], golds: Sequence[str], math: Any) -> Scores:
    """Return (B,) whether the library finds both equal; NaN where it cannot parse the gold answer."""
    latex = math.LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)
    units = type(latex.normalization_config)(units=True)
    config = [
        math.LatexExtractionConfig(
            boxed_match_priority=0, try_extract_without_anchor=False, normalization_config=units
        )
    ]
    right = {gold: math.parse(gold) for gold in set(golds)}

    def same(text: str, gold: str) -> float:
        if not right[gold]:
            return np.nan
        said = math.parse(text, extraction_config=config, extraction_mode="first_match")
        return float(math.verify(right[gold], said))

    return once_each(same, texts, golds)
