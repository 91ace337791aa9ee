"""ms-swift's own rewards: response format, and penalties for length and repetition.

Its math accuracy comes from a library; its box rewards are plug-ins, such as `ms_swift_deepeyes`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Message, Scores
from lfpc_rewards.presets._completions import Transcript, last_contents
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._shaping import as_lengths, cosine_between, repeated_word_share
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

SYSTEM = System(
    name="ms-swift",
    paper="2408.05517",
    code="modelscope/ms-swift@3602360a56",
    rewards=("ms_swift_format", "ms_swift_cosine", "ms_swift_repetition", "ms_swift_overlong"),
    terms="single terms: format (0 or 1), cosine, repetition (-1 to 0), overlong (at most 0, unbounded)",
    gates="none; the cosine depends on the accuracy",
    blind_to=("pictures, boxes and tools", "the answer"),
    loopholes=(
        Loophole(
            "format around anything",
            "Turns, observations and answers between the first think and the last answer tag are ignored.",
            "Each turn is its thinking followed by one call or, in the last turn, one answer.",
        ),
        Loophole(
            "longer than the longest",
            "The cosine rises again beyond the maximum length: at twice that length it scores as at 0.",
            "Longer responses score as at the maximum length.",
        ),
    ),
)


def ms_swift_format(completions: Sequence[Transcript], *, mode: Mode = "exact") -> Scores:
    """Score 1 if the response begins with thinking and ends with an answer that follows a thinking, else 0.

    Args:
        completions: (B,) decoded responses, or lists of messages, of which only the content of the last is
            read.
        mode: "exact", or "strict", where all turns must be well formed.

    Returns:
        (B,) 0.0 or 1.0.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.

    Source:
        `Format` of ms-swift.

    Example:
        >>> said = ["<think>so</think><answer>4</answer>", "<think>so</think><answer>4</answer>!"]
        >>> ms_swift_format([*said, [{"role": "assistant", "content": said[0]}]])
        array([1., 0., 1.])
    """
    if is_strict(mode):
        return parse_strict_turns(completions, "tool_call").well_formed
    return thought_and_answer(Tags(last_contents(completions), both("think", "answer")))


def ms_swift_cosine(
    accuracy: ArrayLike,
    lengths: ArrayLike,
    *,
    longest: int,
    wrong: tuple[float, float] = (-0.5, 0.0),
    right: tuple[float, float] = (1.0, 0.5),
    mode: Mode = "exact",
) -> Scores:
    """Scale the accuracy by length: half a cosine wave from length 0 to `longest`.

    Args:
        accuracy: (B,) scores; right is 1 and above.
        lengths: (B,) length of each response in tokens.
        longest: Maximum response length in tokens.
        wrong: Scores of a wrong response at length 0 and at `longest`.
        right: Scores of a right response at length 0 and at `longest`.
        mode: "exact", where the wave continues beyond `longest`; in "strict" the score stays constant there.

    Returns:
        (B,) scores; NaN where the accuracy is.

    Raises:
        ValueError: The lengths differ or are not token counts.

    Source:
        `CosineReward` of ms-swift; arXiv 2502.03373.

    Example:
        >>> ms_swift_cosine([1, 1, 0], [50, 200, 0], longest=100)
        array([ 0.75,  1.  , -0.5 ])
        >>> ms_swift_cosine([1, 1, 0], [50, 200, 0], longest=100, mode="strict")
        array([ 0.75,  0.5 , -0.5 ])
    """
    scores, progress = np.asarray(accuracy, np.float64), as_lengths(lengths) / longest
    same_length(len(scores), lengths=progress)
    if is_strict(mode):
        progress = np.minimum(progress, 1.0)
    start, end = (np.where(scores >= 1, right[k], wrong[k]) for k in range(2))
    return np.where(np.isnan(scores), np.nan, cosine_between(progress, start, end))


def ms_swift_repetition(
    completions: Sequence[str | Sequence[Message]], *, ngram_size: int = 3, max_penalty: float = -1.0
) -> Scores:
    """Return `max_penalty` times the share of repeated word n-grams; case-insensitive.

    Args:
        completions: (B,) decoded responses, or lists of messages, of which only the content of the last is
            read.
        ngram_size: Number of words in an n-gram.
        max_penalty: Score of a response that consists only of repetitions.

    Returns:
        (B,) scores; 0 where there are no n-grams.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: `ngram_size` is below 1.

    Source:
        `RepetitionPenalty` of ms-swift; arXiv 2502.03373.

    Example:
        >>> ms_swift_repetition(["a b c d", "a A a a a"], ngram_size=2)
        array([-0.  , -0.75])
    """
    return repeated_word_share(last_contents(completions), ngram_size) * max_penalty


def ms_swift_overlong(lengths: ArrayLike, *, longest: int, buffer: int) -> Scores:
    """Penalty for length: 0 up to `longest - buffer` tokens, -1 at `longest`, decreasing further beyond it.

    Args:
        lengths: (B,) length of each response in tokens.
        longest: Maximum response length in tokens.
        buffer: Number of tokens over which the penalty grows by 1.

    Returns:
        (B,) scores of at most 0.

    Raises:
        ValueError: The lengths are not token counts, or the buffer is not between 0 and the longest.

    Source:
        `SoftOverlong` of ms-swift; arXiv 2503.14476.

    Example:
        >>> ms_swift_overlong([80, 90, 120], longest=100, buffer=20)
        array([ 0. , -0.5, -2. ])
    """
    if not 0 < buffer < longest:
        raise ValueError(f"buffer must be between 0 and longest ({longest}), got {buffer}")
    return np.minimum((longest - buffer - as_lengths(lengths)) / buffer, 0.0)
