"""Two ports of DeepEyes that silently differ from it: verl's recipe and the plug-in of ms-swift."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._tags import Tags, both, lengths_of
from lfpc_rewards._typing import Message
from lfpc_rewards.presets._completions import Transcript, transcripts
from lfpc_rewards.presets._judging import BatchJudge, ask, read_judgement
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict
from lfpc_rewards.presets.systems.deepeyes import (
    MAX_ANSWER_LENGTH,
    DeepEyesParts,
    deepeyes,
    weigh,
)
from lfpc_rewards.presets.systems.deepeyes import SYSTEM as DEEPEYES

_AFTER_TOOL = re.compile(r"</tool_response>\s*assistant\s*\n(.*?)$", re.DOTALL | re.MULTILINE)
_CALL = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>.*?</tool_response>", re.DOTALL)
_ROLE = re.compile(r"\b(user|assistant)\b")
_CORRECT = re.compile(r"\bCORRECT\b", re.IGNORECASE)

_SHARED = {hole.name: hole for hole in DEEPEYES.loopholes}

VERL = System(
    name="DeepEyes in verl",
    paper="2505.14362",
    code="xtong-zhang/Chain-of-Focus@431ff0dd70:verl/recipe/deepeyes",
    rewards=("verl_deepeyes",),
    terms=DEEPEYES.terms.partition(";")[0],
    gates=DEEPEYES.gates,
    blind_to=DEEPEYES.blind_to,
    loopholes=(
        Loophole(
            "typed tool call",
            "A <tool_call> or <tool_response> that the model typed counts as a zoom, whether or not one ran.",
            "A zoom counts only if a tool message delivered an image.",
        ),
        Loophole(
            "answer without tags",
            "Without answer tags, the text after the thinking or the whole response is judged.",
            _SHARED["answer without tags"].closed,
        ),
        Loophole(
            "several answers",
            "The first of several answers counts, and the others cost nothing.",
            "A turn with two answers has no answer.",
        ),
        Loophole(
            "verdict in passing",
            'A judge that says "not correct" counts as CORRECT.',
            _SHARED["verdict in passing"].closed,
        ),
    ),
    deviations=("If the judge failed, the original gives 0 and punishes the model; here the row is NaN.",),
)

MS_SWIFT = System(
    name="DeepEyes in ms-swift",
    paper="2505.14362",
    code="modelscope/ms-swift@3602360a56:examples/train/grpo/plugin/deepeyes",
    rewards=("ms_swift_deepeyes",),
    terms=DEEPEYES.terms.partition(";")[0],
    gates=DEEPEYES.gates,
    blind_to=DEEPEYES.blind_to,
    loopholes=(
        _SHARED["answer without tags"],
        _SHARED["answer in the thinking"],
        _SHARED["verdict in passing"],
        Loophole(
            "several images in the question",
            "Images count in all user messages: a question with images in two messages counts as a zoom.",
            "A zoom counts only if a tool message delivered an image.",
        ),
    ),
    deviations=DEEPEYES.deviations[:1],
)


def verl_deepeyes(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> DeepEyesParts:
    """DeepEyes in verl: like `deepeyes`, but tool text counts as a tool, and answer tags are required.

    The answer is the first ``<answer>..</answer>`` after the last ``</think>``. Without one it is the text
    after the last observation, else after the thinking, else the whole response.

    Args:
        completions: As in `deepeyes`.
        answers: As in `deepeyes`.
        questions: As in `deepeyes`.
        judge: As in `deepeyes`; a reply with the word "CORRECT" (case-insensitive) is right.
        mode: As in `deepeyes`; "strict" is the strict `deepeyes`.

    Returns:
        As in `deepeyes`.

    Raises:
        TypeError: As in `deepeyes`.
        ValueError: As in `deepeyes`.

    Source:
        `recipe/deepeyes` of verl.

    Example:
        >>> judge = lambda questions, answers, golds: ["CORRECT"] * len(answers)
        >>> typed = "<think>so</think><tool_call></tool_call><answer>red</answer>"
        >>> verl_deepeyes([typed, "red"], ["red"] * 2, judge=judge).total
        array([2. , 0.6])
    """
    if is_strict(mode):
        return deepeyes(completions, answers, questions=questions, judge=judge, mode=mode)
    same_length(len(completions), answers=answers, questions=questions)
    tags = Tags(transcripts(completions), both("think", "answer", "tool_call", "tool_response"))
    tail = np.maximum(tags.after_last("</think>"), 0)
    start, stop = tags.pair("answer", tail)
    missing = start < 0
    given = tags.stripped(start, stop)
    for row in np.flatnonzero(missing).tolist():
        given[row] = _without_tags(tags.texts[row], int(tail[row]))
    empty = lengths_of(given) == 0
    given = [answer or text.strip() for answer, text in zip(given, tags.texts, strict=True)]
    accuracy = ask(judge, questions, given, answers, read_correct)
    long = lengths_of(given) >= MAX_ANSWER_LENGTH
    wrong = missing | empty | long | tags.unbalanced("think") | tags.unbalanced("answer", tail)
    looked = (tags.pair("tool_call")[0] >= 0) | (tags.pair("tool_response")[0] >= 0)
    return weigh(np.where(long & ~np.isnan(accuracy), 0.0, accuracy), wrong, looked)


def ms_swift_deepeyes(
    completions: Sequence[Transcript],
    answers: Sequence[str],
    *,
    messages: Sequence[Sequence[Message]] | None = None,
    questions: Sequence[str] | None = None,
    judge: BatchJudge | None = None,
    mode: Mode = "exact",
) -> DeepEyesParts:
    """DeepEyes in ms-swift: like `deepeyes`, but a second user message with an image counts as a zoom.

    Args:
        completions: As in `deepeyes`.
        answers: As in `deepeyes`.
        messages: (B,) the whole conversations, prompt included; "<image>" in a user message is an image.
            Needed in mode "exact", unused in "strict".
        questions: As in `deepeyes`.
        judge: As in `deepeyes`.
        mode: As in `deepeyes`; "strict" is the strict `deepeyes`.

    Returns:
        As in `deepeyes`.

    Raises:
        TypeError: As in `deepeyes`.
        ValueError: As in `deepeyes`, or `messages` are missing.

    Source:
        The plug-in `deepeyes` of ms-swift.

    Example:
        >>> judge = lambda questions, answers, golds: ["1"] * len(answers)
        >>> user = {"role": "user", "content": "<image>Which colour?"}
        >>> said = ["<answer>red</answer>"] * 2
        >>> ms_swift_deepeyes(said, ["red"] * 2, messages=[[user], [user, user]], judge=judge).total
        array([0.8, 2. ])
    """
    if is_strict(mode):
        return deepeyes(completions, answers, questions=questions, judge=judge, mode=mode)
    if messages is None:
        raise ValueError('messages must be given in mode "exact": their images show whether there was a zoom')
    same_length(len(completions), answers=answers, questions=questions, messages=messages)
    tags = Tags(transcripts(completions), both("think", "answer", "tool_call"))
    start = tags.after_last("<answer>")
    given = tags.stripped(np.maximum(start, 0), tags.first("</answer>", start))
    accuracy = ask(judge, questions, given, answers, read_judgement)
    long = lengths_of(given) >= MAX_ANSWER_LENGTH
    tail = np.maximum(tags.after_last("</think>"), 0)
    wrong = long | tags.unbalanced("think") | tags.unbalanced("tool_call") | tags.unbalanced("answer", tail)
    lengths = lengths_of(messages)
    several = np.flatnonzero(lengths > 1)
    images = [
        m["role"] == "user" and "<image>" in m["content"] for row in several.tolist() for m in messages[row]
    ]
    looked = np.bincount(np.repeat(several, lengths[several]), images, len(messages)) > 1
    return weigh(np.where(long & ~np.isnan(accuracy), 0.0, accuracy), wrong, looked)


def read_correct(reply: str) -> float:
    """Return 1.0 if the reply contains the word "correct", even after "not"; else 0.0."""
    return float(_CORRECT.search(reply) is not None)


def _without_tags(text: str, tail_start: int) -> str:
    """Return what verl sends to its judge for a response without answer tags; "": the whole response."""
    tail = text[tail_start:].strip()
    if match := _AFTER_TOOL.search(tail):
        return match[1].strip()
    if "</think>" not in text:
        return text.strip()
    return _ROLE.sub("", _RESPONSE.sub("", _CALL.sub("", tail))).strip()
