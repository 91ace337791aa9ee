"""Parsing for mode "strict": tags in order, the answer of the last turn, images delivered by a tool."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lfpc_rewards._tags import Flags, both
from lfpc_rewards._typing import Scores
from lfpc_rewards.parsing import has_image
from lfpc_rewards.presets._completions import TurnList, last_texts, turns_of


class StrictTurns(NamedTuple):
    """A batch of rollouts, parsed strictly.

    Attributes:
        answers: (B,) the text of the only answer tag after the thinking of the last turn; None if that
            turn has none, has two, or calls a tool.
        well_formed: (B,) 1 where every turn is ``<think>..</think>`` followed by exactly one call, or in the
            last turn exactly one answer, with only white space around and no other such tag; else 0.
        images: (B,) the number of calls answered by a tool message with an image.
    """

    answers: list[str | None]
    well_formed: Scores
    images: Scores

    def texts(self) -> list[str]:
        """Return the (B,) answers, with "" for None."""
        return [answer or "" for answer in self.answers]


def parse_strict_turns(completions: Sequence[TurnList], *calls: str) -> StrictTurns:
    """Parse rollouts whose calls are in the tags `calls`; see `lfpc_rewards.parse_completions` for others."""
    rollouts = turns_of(completions)
    answers = [_only_answer(turns[-1], calls) if turns else None for turns in rollouts]
    good = [
        bool(turns)
        and _is_turn(turns[-1], ["answer"], calls)
        and all(_is_turn(turn, calls, calls) for turn in turns[:-1])
        for turns in rollouts
    ]
    images = [delivered_images(each, [f"<{call}>" for call in calls]) for each in completions]
    return StrictTurns(answers, np.array(good, np.float64), np.array(images, np.float64))


def _only_answer(turn: str, calls: Sequence[str]) -> str | None:
    reply = turn.rpartition("</think>")[2]
    if any(f"<{call}>" in reply for call in calls) or reply.count("<answer>") != 1:
        return None
    inside, closed, _ = reply.partition("<answer>")[2].partition("</answer>")
    return inside.strip() if closed and reply.count("</answer>") == 1 else None


def _is_turn(text: str, names: Sequence[str], calls: Sequence[str]) -> bool:
    """Whether a turn is ``<think>..</think><name>..</name>`` for one of the names, without other tags."""
    for name in names:
        own = both("think", name)
        if all(text.count(tag) == (tag in own) for tag in both("think", "answer", *calls)):
            shape = rf"\s*<think>.*</think>\s*<{name}>.*</{name}>\s*"
            return re.fullmatch(shape, text, re.DOTALL) is not None
    return False


def delivered_images(completion: Any, tags: Sequence[str]) -> int:
    """Count the tool messages with an image that answer a tool call; 0 for texts."""
    if isinstance(completion, str):
        return 0
    images, waiting = 0, 0
    for message in completion:
        if not isinstance(message, Mapping):
            return 0
        if message.get("role") == "assistant":
            entries = message.get("tool_calls")
            waiting = len(entries) if isinstance(entries, list | tuple) else 0
            content = str(message.get("content"))
            waiting += sum(map(content.count, tags))
        elif message.get("role") == "tool" and waiting:
            waiting -= 1
            images += has_image(message.get("content"))
    return images


class LastTurns(NamedTuple):
    """The last turns of a batch, parsed strictly.

    Attributes:
        thought: (B,) whether the turn begins with its thinking, and has no other.
        tails: (B,) the text after the thinking, or the whole turn if it has no think tags; "" if the tags are
            out of order.
    """

    thought: Flags
    tails: list[str]


def last_turns(completions: Sequence[TurnList]) -> LastTurns:
    """Parse the last turns of rollouts whose answers have no answer tag."""
    pairs = [_thought_and_tail(text) for text in last_texts(completions)]
    return LastTurns(np.array([thought for thought, _ in pairs], np.bool_), [tail for _, tail in pairs])


def _thought_and_tail(text: str) -> tuple[bool, str]:
    opened, closed = text.count("<think>"), text.count("</think>")
    if opened == closed == 0:
        return False, text
    _, thought, tail = text.partition("</think>")
    good = opened == closed == 1 and text.lstrip().startswith("<think>") and bool(thought)
    return good, tail if good else ""
