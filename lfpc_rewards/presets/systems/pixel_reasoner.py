"""Pixel-Reasoner: accuracy by a math library, and a curiosity bonus for using the tool.

Curiosity rewards rollouts that use the tool while few others of the prompt do. The code and the paper compute
it differently; both versions are here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from math import isnan
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lfpc_rewards._checks import same_length
from lfpc_rewards._typing import Scores
from lfpc_rewards.parsing import has_image
from lfpc_rewards.presets._completions import TURN_END, Transcript, last_texts, transcripts, words
from lfpc_rewards.presets._groups import group_mean, index_in_group, number_groups
from lfpc_rewards.presets._judging import BatchJudge, strict_accuracy
from lfpc_rewards.presets._math import MathLibrary, needed
from lfpc_rewards.presets._strict import delivered_images
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

Formula: TypeAlias = Literal["code", "paper"]
"""How curiosity is computed; see `pixel_reasoner_shaping`."""

_CALL_END = "</tool_call>"
_ASSISTANT = "<|im_start|>assistant\n"
_TAGGED = re.compile("<answer>(.*?)</answer>")
_OPTION_LETTERS = "ABCDEFGHIJK"

SYSTEM = System(
    name="Pixel-Reasoner",
    paper="2505.15966",
    code="TIGER-AI-Lab/Pixel-Reasoner@a3a6c3a557",
    rewards=("pixel_reasoner", "pixel_reasoner_accuracy", "pixel_reasoner_shaping"),
    terms="accuracy (-1, 0 or 1) + curiosity in the group - 0.05 for each call after the first",
    gates="an answer after an unrepaired tool error is wrong; curiosity needs a call, not a right answer",
    blind_to=(
        "where the crops are and whether they helped",
        "the answer, for the curiosity bonus: wrong answers get it as well",
    ),
    loopholes=(
        Loophole(
            "failed calls",
            "A turn that ends in </tool_call> is a call, regardless of its content and of whether it ran.",
            "A call counts only if a tool message delivered an image.",
        ),
        Loophole(
            "curiosity without bound",
            "The bonus is divided by the share of rollouts with a call: a single one of 16 earns 0.475.",
            "The formula of the paper, at most 0.15.",
        ),
        Loophole(
            "answer without a box",
            "Without a box or answer tag the whole text is parsed, and anything in it may be the answer.",
            "The answer is the only box or answer tag of the last turn, after its thinking.",
        ),
        Loophole(
            "list of words",
            "A gold answer with commas is matched if each part occurs anywhere after the last box.",
            "Such an answer is compared as one text.",
        ),
    ),
    deviations=("None: all groups use the tool failures of the first, so the order of the batch matters.",),
)


class PixelReasonerParts(NamedTuple):
    """The parts of Pixel-Reasoner's reward, each (B,) float64.

    Attributes:
        accuracy: 1, 0, or -1 for an answer that cannot be parsed; 0 also for a right answer after a
            tool error that was not repaired.
        curiosity: The bonus for calling the tool while few others do.
        penalty: At most 0: the penalty for calls after the first.
        total: Their sum.
    """

    accuracy: Scores
    curiosity: Scores
    penalty: Scores
    total: Scores


def pixel_reasoner(
    completions: Sequence[Transcript],
    answers: Sequence[str | Sequence[str]],
    *,
    groups: Sequence[Any],
    math: MathLibrary | None = None,
    judge: BatchJudge | None = None,
    questions: Sequence[str] | None = None,
    videos: Sequence[bool] | None = None,
    formula: Formula = "code",
    mode: Mode = "exact",
) -> PixelReasonerParts:
    r"""Pixel-Reasoner's reward: accuracy, shaped by curiosity in the group of each prompt.

    Args:
        completions: (B,) decoded responses with special tokens and observations, or lists of messages.
        answers: (B,) right answers, or lists of them, as ``\boxed{..}`` or plain.
        groups: (B,) the prompt of each rollout.
        math: As in `pixel_reasoner_accuracy`.
        judge: Mode "strict": asked where the rules of `answers_match` are undecided.
        questions: (B,) questions for the judge.
        videos: (B,) whether the question is about a video; None: none is.
        formula: As in `pixel_reasoner_shaping`; "strict" always uses the paper's.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, an option is unknown, or `math` is missing in mode "exact".

    Source:
        `rule_reward` and the shaping after it in `experience_maker.py` of Pixel-Reasoner (arXiv 2505.15966).

    Example:
        >>> call = {"role": "assistant", "content": "<tool_call>{}</tool_call>"}
        >>> crop = {"role": "tool", "content": [{"type": "image"}]}
        >>> error = {"role": "tool", "content": "no such image"}
        >>> end = {"role": "assistant", "content": "\\boxed{A}"}
        >>> said = [[call, crop, end], [call, error, end], [end], [end], [end], [end], [end], [end]]
        >>> pixel_reasoner(said, ["A"] * 8, groups=[0] * 8, mode="strict").total
        array([1.0875, 0.    , 1.    , 1.    , 1.    , 1.    , 1.    , 1.    ])
    """
    same_length(len(completions), answers=answers, groups=groups, videos=videos, questions=questions)
    if is_strict(mode):
        given = [_boxed_or_tagged(each) for each in last_texts(completions)]
        accuracy = strict_accuracy(given, [_unboxed(gold) for gold in answers], questions, judge)
        unrepaired = np.array([_calls(each)[1] for each in completions], np.bool_)
        accuracy = np.where(unrepaired & (accuracy > 0.5), 0.0, accuracy)
        looked = [delivered_images(each, ["<tool_call>"]) for each in completions]
        return pixel_reasoner_shaping(accuracy, looked, groups=groups, videos=videos, formula="paper")
    texts = transcripts(completions)
    accuracy = pixel_reasoner_accuracy([text.replace(_ASSISTANT, "") for text in texts], answers, math=math)
    calls, failed = np.zeros(len(texts)), np.zeros(len(texts), np.bool_)
    for row in [row for row, text in enumerate(texts) if _CALL_END in text]:
        calls[row], failed[row] = _calls(completions[row])
    return pixel_reasoner_shaping(
        accuracy, calls, groups=groups, videos=videos, failed=failed, formula=formula
    )


def pixel_reasoner_accuracy(
    texts: Sequence[str],
    answers: Sequence[str | Sequence[str]],
    *,
    math: MathLibrary | None,
    requires_box: bool = False,
) -> Scores:
    r"""Compute the accuracy of Pixel-Reasoner's code: 1, 0, or -1 for an answer that cannot be parsed.

    Both sides are lowercased. The answer is taken from the last ``\boxed``, then from the first ``<answer>``
    on one line; if neither is right, the whole text is parsed and scored. A gold answer with commas is also
    matched if each part occurs after the last "boxed".

    Args:
        texts: (B,) responses.
        answers: (B,) right answers, or lists of them, of which any is right.
        math: The module math_verify, or an object with its `parse` and `verify`.
        requires_box: Take the answer from the last "boxed" only; the published code intends this
            but does not do it, because of a misplaced argument.

    Returns:
        (B,) 1.0, 0.0 or -1.0; NaN where the original raises: without "boxed" although it is required.

    Raises:
        ValueError: The lengths differ, or `math` is missing.

    Source:
        `rule_reward` of Pixel-Reasoner.

    Example:
        >>> class plain:
        ...     parse = staticmethod(lambda text: [text])
        ...     verify = staticmethod(lambda gold, answer: gold == answer)
        >>> pixel_reasoner_accuracy([r"so \boxed{A}", r"\boxed{B}"], [r"\boxed{a}"] * 2, math=plain)
        array([1., 0.])
    """
    same_length(len(texts), answers=answers)
    rule, accepted = _Rule(needed(math), requires_box), lru_cache(None, typed=True)(_accepted)
    golds = [accepted(tuple(gold) if isinstance(gold, list) else gold) for gold in answers]
    rows = zip(texts, golds, strict=True)
    return np.array([rule.reward(text.lower(), gold) for text, gold in rows], np.float64)


def pixel_reasoner_shaping(
    accuracy: ArrayLike,
    calls: ArrayLike,
    *,
    groups: Sequence[Any],
    videos: ArrayLike | None = None,
    failed: ArrayLike | None = None,
    formula: Formula = "code",
) -> PixelReasonerParts:
    """Add curiosity and penalty: ``accuracy + curiosity + penalty`` for rollouts that called the tool.

    With p the share of rollouts of a prompt that called the tool:

    * "code": curiosity is ``max(0.3 - p, 0) / k / p * 0.25``, k = 2 for pictures and 1.5 for videos
    * "paper": curiosity is ``0.5 * max(0.3 - p, 0)``
    * both: the penalty is -0.05 for each call after the first

    Args:
        accuracy: (B,) scores of `pixel_reasoner_accuracy` or of another rule.
        calls: (B,) number of tool calls of each rollout.
        groups: (B,) the prompt of each rollout.
        videos: (B,) whether the question is about a video; None: none is.
        failed: (B,) whether the last call failed and was not repaired; a right answer is then wrong. As in
            the code, a rollout uses the entry at its index within its group, not at its row; with a single
            group these are the same.
        formula: "code" or "paper".

    Returns:
        The parts; the accuracy is NaN where it was.

    Raises:
        ValueError: The lengths differ, or the formula is unknown.

    Source:
        `experience_maker.py` of Pixel-Reasoner; arXiv 2505.15966, with H = 0.3, N = 1, alpha = 0.5,
        beta = 0.05.

    Example:
        >>> parts = pixel_reasoner_shaping([1, 1, 0, 1], [3, 0, 0, 0], groups=[7] * 4)
        >>> parts.curiosity.round(3), parts.penalty.round(3)
        (array([0.025, 0.   , 0.   , 0.   ]), array([-0.1,  0. ,  0. ,  0. ]))
        >>> pixel_reasoner_shaping([1, 1, 0, 1], [3, 0, 0, 0], groups=[7] * 4, formula="paper").total
        array([0.925, 1.   , 0.   , 1.   ])
    """
    if formula not in ("code", "paper"):
        raise ValueError(f'formula must be "code" or "paper", got {formula!r}')
    accuracy, calls = np.asarray(accuracy, np.float64), np.asarray(calls, np.float64)
    same_length(len(accuracy), calls=calls, groups=groups, videos=videos, failed=failed)
    numbers, count = number_groups(groups)
    called = calls > 0
    share = group_mean(called.astype(np.float64), numbers, count)[numbers]
    wanted = np.maximum(0.3 - share, 0.0)
    if formula == "paper":
        bonus = 0.5 * wanted
    else:
        factor = np.full(len(calls), 2.0) if videos is None else np.where(videos, 1.5, 2.0)
        bonus = wanted / factor / np.where(called, share, 1.0) * 0.25
    curiosity = np.where(called, bonus, 0.0)
    penalty = np.where(called, -0.05 * (calls - 1), 0.0)
    if failed is not None:
        unrepaired = np.asarray(failed, np.bool_)[index_in_group(numbers, count)]
        accuracy = np.where(unrepaired & (accuracy > 0.5), 0.0, accuracy)
    return PixelReasonerParts(accuracy, curiosity, penalty, accuracy + (curiosity + penalty))


def _accepted(gold: Any) -> tuple[str, ...]:
    """Return the gold answers in lower case; one with a percent sign is preceded by itself without it."""
    if not isinstance(gold, list | tuple):
        return (str(gold).lower(),)
    accepted = [text.lower() for text in gold]
    bare = next((text.replace("%", "") for text in accepted if "%" in text), None)
    if bare is not None and bare not in accepted:
        accepted.insert(0, bare)
    return tuple(accepted)


def _candidates(text: str) -> Iterator[str]:
    """Return the text from the last box on, then the first answer tag on one line as a box."""
    _, found, tail = text.rpartition("\\boxed")
    if found:
        yield ("\\boxed" + tail).strip()
    if tagged := _TAGGED.search(text):
        yield f"\\boxed{{{tagged[1]}}}"


class _Rule:
    """Compares the answers of a batch; gold answers and comparisons are cached."""

    def __init__(self, math: MathLibrary, requires_box: bool) -> None:
        self._math, self._requires_box = math, requires_box
        self._truth, self._known, self._tidy = cache(self._read), cache(self._compare), cache(_normalise)

    def reward(self, text: str, golds: Sequence[str]) -> float:
        """Of a text in lower case."""
        score = 0.0
        for gold in golds:
            score = self._score(text, self._tidy(gold))
            if score > 0.5 or isnan(score):
                break
            if "," in gold and "boxed" in text:
                tail = "\\" + text[text.rindex("boxed") :]
                if all(part.strip() in tail for part in gold[len("\\boxed{") : -1].split(",")):
                    return 1.0
        return score

    def _score(self, text: str, gold: str) -> float:
        if not self._truth(gold):
            return -1.0
        if self._requires_box:
            _, found, tail = text.rpartition("boxed")
            return self._known(_normalise("\\boxed" + tail), gold) if found else np.nan
        if any(self._known(_normalise(part), gold) > 0.99 for part in _candidates(text)):
            return 1.0
        return self._compare(_normalise(text), gold)

    def _read(self, gold: str) -> list[Any]:
        try:
            return self._math.parse(gold if "\\boxed" in gold else f"\\boxed{{{gold}}}")
        except Exception:  # as in the original: any exception means that the text cannot be parsed
            return []

    def _compare(self, text: str, gold: str) -> float:
        truth = self._truth(gold)
        try:
            said = self._math.parse(text)
            if len(truth) > 1 and truth[1] in _OPTION_LETTERS:
                return float(text[len("\\boxed{") :].startswith(truth[1]))
            return float(self._math.verify(said, truth)) if said else -1.0
        except Exception:  # as above
            return -1.0


def _normalise(text: str) -> str:
    text = text.replace("dfrac", "frac").replace("\\text", "")
    return text.replace("\\varnothing", "\\emptyset").replace("minutes", "").replace("cm", "")


def _calls(completion: Any) -> tuple[int, bool]:
    """Count the turns that end in a call, and check whether the last answered call failed."""
    if isinstance(completion, str):
        turns = [turn.split(TURN_END)[0] for turn in completion.split(_ASSISTANT)]
        return sum(turn.endswith(_CALL_END) for turn in turns), False
    calls, failed, waiting = 0, False, False
    for message in completion:
        if message.get("role") == "assistant":
            waiting = words(message).endswith(_CALL_END)
            calls += waiting
        elif waiting:
            failed, waiting = not has_image(message.get("content")), False
    return calls, failed


def _boxed_or_tagged(text: str) -> str | None:
    """Return the only box, else the only answer tag, after the thinking of a turn without a tool call."""
    text = text.rpartition("</think>")[2]
    if "<tool_call>" in text:
        return None
    if "\\boxed{" in text:
        boxes = _boxes(text)
        return boxes[0] if len(boxes) == 1 else None
    tagged = re.findall("<answer>(.*?)</answer>", text, re.DOTALL)
    return tagged[0].strip() if len(tagged) == 1 else None


def _boxes(text: str) -> list[str]:
    """Return the content of each box with balanced braces."""
    boxes = []
    for piece in text.split("\\boxed{")[1:]:
        depth = 1
        for place, character in enumerate(piece):
            depth += (character == "{") - (character == "}")
            if depth == 0:
                boxes.append(piece[:place])
                break
    return boxes


def _unboxed(gold: Any) -> list[str]:
    texts = [str(gold)] if not isinstance(gold, list | tuple) else [str(text) for text in gold]
    return [boxes[0] if (boxes := _boxes(text)) else text for text in texts]
