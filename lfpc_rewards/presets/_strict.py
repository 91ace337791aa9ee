"""What `strict` believes: tags in their places, the answer of the last turn, images that a tool delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lfpc_rewards._typing import Scores
from lfpc_rewards.parsing import has_image
from lfpc_rewards.presets._completions import TurnList, turns_of
from lfpc_rewards.presets._tags import Flags, Tags, both
from lfpc_rewards.presets._texts import lengths_of


class StrictTurns(NamedTuple):
    """A batch of rollouts, read strictly.

    Attributes:
        answers: (B,) the text of the only answer tag after the thinking of the last turn; None if that
            turn has none, has two, or calls a tool.
        well_formed: (B,) 1 where every turn is ``<think>..</think>`` and then exactly one call, in the last
            turn exactly one answer, with only white space around and no further tag of these; else 0.
        images: (B,) how many calls were answered by a tool message with an image.
    """

    answers: list[str | None]
    well_formed: Scores
    images: Scores


def read_strictly(completions: Sequence[TurnList], *calls: str) -> StrictTurns:
    """Read rollouts whose calls stand in the tags `calls`; `lfpc_rewards.parse_completions` for others."""
    turns = turns_of(completions)
    counts = lengths_of(turns)
    texts = [turn for each in turns for turn in each]
    tags = Tags(texts, both("think", "answer", *calls))
    is_last = np.zeros(len(texts), np.bool_)
    is_last[np.cumsum(counts)[counts > 0] - 1] = True
    since = np.maximum(tags.after_last("</think>"), 0)
    start, stop = tags.pair("answer", since)
    one = (tags.count("<answer>", since) == 1) & (tags.count("</answer>", since) == 1)
    one &= start >= 0
    for call in calls:
        one &= tags.count(f"<{call}>", since) == 0
    cuts = tags.cut(np.where(one, start, 0), np.where(one, stop, 0))
    last = np.cumsum(counts) - 1
    answers = [
        cuts[turn].strip() if count and one[turn] else None
        for turn, count in zip(last.tolist(), counts.tolist(), strict=True)
    ]
    is_call = np.any([_is_turn(tags, call) for call in calls], axis=0)
    good = np.where(is_last, _is_turn(tags, "answer"), is_call)
    row_of = np.repeat(np.arange(len(turns)), counts)
    well_formed = (np.bincount(row_of, ~good, len(turns)) == 0) & (counts > 0)
    images = [delivered_images(each, [f"<{call}>" for call in calls]) for each in completions]
    return StrictTurns(answers, well_formed.astype(np.float64), np.array(images, np.float64))


def _is_turn(tags: Tags, name: str) -> Flags:
    """Whether each text is ``<think>..</think><name>..</name>`` and white space, without another tag."""
    good = np.ones(len(tags.texts), np.bool_)
    for tag in tags.names:
        good &= tags.count(tag) == (tag in both("think", name))
    places = [tags.first(tag) for tag in both("think", name)]
    good &= (places[0] < places[1]) & (places[1] < places[2]) & (places[2] < places[3])
    # Only white space before the thinking, between the two parts, and behind the second.
    for tag in ("<think>", f"<{name}>"):
        good &= tags.follows(tag)
    behind = tags.cut(np.maximum(tags.after_last(f"</{name}>"), 0), tags.lengths)
    return good & np.array([not text.strip() for text in behind], np.bool_)


def delivered_images(completion: Any, tags: Sequence[str]) -> int:
    """How many tool messages carry an image and follow a turn that calls a tool; 0 for texts."""
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
    """The last turns of a batch, read strictly.

    Attributes:
        thought: (B,) whether the turn begins with its thinking, and has just that.
        tails: (B,) what follows the thinking, all of a turn without think tags; "" if the tags are astray.
    """

    thought: Flags
    tails: list[str]


def last_turns(completions: Sequence[TurnList]) -> LastTurns:
    """Read the last turns of rollouts whose answers have no tag of their own."""
    tags = Tags([turns[-1] if turns else "" for turns in turns_of(completions)], both("think"))
    thought = (tags.count("<think>") == 1) & (tags.count("</think>") == 1)
    thought &= tags.follows("<think>") & (tags.first("<think>") < tags.first("</think>"))
    none = (tags.count("<think>") == 0) & (tags.count("</think>") == 0)
    start = np.where(none, 0, np.where(thought, tags.after_last("</think>"), tags.lengths))
    return LastTurns(thought, tags.cut(start, tags.lengths))
