"""Turns of the model, as it wrote them.

Response parsers lose the order of a turn: text after a call takes the place of the text before it, and
thinking after a call looks like thinking before it. So the library only says which calls to run. The
message that is scored, kept and shown is the text of the sampled tokens themselves, calls inside it.
"""

import itertools
import re
from collections.abc import Collection, Sequence
from typing import Any

from lfpc_trl.rollouts.prompts import Message

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


class TurnWriter:
    """Makes messages of the tokens of turns.

    Args:
        processor: of `load_processor`.
        ends: ids that end a turn; None for the processor's.
    """

    def __init__(self, processor: Any, ends: Collection[int] | None = None) -> None:
        self._tokenizer = processor.tokenizer
        self._ends = frozenset(processor.turn_ends if ends is None else ends)
        question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        prompt = processor.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        self._opening = prompt.rpartition(processor.family.calls.response_template["start_anchor"])[2]

    def is_ended(self, ids: Sequence[int]) -> bool:
        """Whether the model ended the turn, or the rollout, of these tokens itself."""
        return bool(ids) and ids[-1] in self._ends

    def message(self, ids: Sequence[int]) -> Message:
        """One turn: `content` is what its tokens say, in their order, without its end.

        What the template itself writes at the start of a turn, such as an open <think>, stands before it.
        There are no `tool_calls`: the calls are in the text, as they were written.
        """
        said = list(ids[:-1] if self.is_ended(ids) else ids)
        return {"role": "assistant", "content": self._opening + self._tokenizer.decode(said)}

    def as_written(
        self, messages: Sequence[Message], ids: Sequence[int], mask: Sequence[int]
    ) -> list[Message]:
        """The messages of a rollout, each turn of the model as it was written.

        Args:
            messages: turns of the model, as a parser took them apart, and tool messages.
            ids: (tokens,) of the rollout after its prompt.
            mask: (tokens,) 1 where the model wrote the token, 0 where a tool answered. Between two turns
                there is always an answer.
        """
        turns = iter(turns_of(ids, mask))
        return [
            self.message(next(turns)) if message["role"] == "assistant" else message for message in messages
        ]


def turns_of(ids: Sequence[int], mask: Sequence[int]) -> list[list[int]]:
    """The tokens of each turn of the model; arguments as for `TurnWriter.as_written`."""
    pieces = itertools.groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    return [[token for token, _ in piece] for is_model, piece in pieces if is_model]


def parts_of(text: str) -> list[tuple[str, bool]]:
    """The text of a turn in pieces, in order, each with whether it is the inside of a call."""
    pieces = _CALL.split(text)  # what stands between calls, and at odd places what is inside them
    return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece.strip()]
