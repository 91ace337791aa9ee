"""The model's turns verbatim.

Response parsers lose the order of a turn: text after a call replaces the text before it, and thinking after a
call looks like thinking before it. So the parser only decides which calls to run. The message that is scored,
saved and shown is the text of the sampled tokens themselves, calls included.
"""

import itertools
import re
from collections.abc import Collection, Sequence
from typing import Any

from lfpc_trl.rollouts.prompts import Message

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


class TurnWriter:
    """Turns the tokens of model turns into messages.

    Args:
        processor: from `load_processor`.
        ends: token ids that end a turn; None: the processor's.
    """

    def __init__(self, processor: Any, ends: Collection[int] | None = None) -> None:
        self._tokenizer = processor.tokenizer
        self._ends = frozenset(processor.turn_ends if ends is None else ends)
        question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        prompt = processor.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        self._opening = prompt.rpartition(processor.family.calls.response_template["start_anchor"])[2]

    def is_ended(self, ids: Sequence[int]) -> bool:
        """Whether the model itself ended the turn, or the rollout, with these tokens."""
        return bool(ids) and ids[-1] in self._ends

    def message(self, ids: Sequence[int]) -> Message:
        """The message of one turn: `content` is its decoded tokens, without the end token.

        Text that the template writes at the start of a turn, such as <think>, comes first. There are no
        `tool_calls`: the calls stay in the text, verbatim.
        """
        content = list(ids[:-1] if self.is_ended(ids) else ids)
        return {"role": "assistant", "content": self._opening + self._tokenizer.decode(content)}

    def as_written(
        self, messages: Sequence[Message], ids: Sequence[int], mask: Sequence[int]
    ) -> list[Message]:
        """The messages of a rollout, with the model's turns verbatim.

        Args:
            messages: parsed model turns, and tool messages.
            ids: (tokens,) of the rollout after its prompt.
            mask: (tokens,) 1 for the model's tokens, 0 for those of tool messages. Between two model turns
                there is always a tool message.
        """
        turns = iter(turns_of(ids, mask))
        return [
            self.message(next(turns)) if message["role"] == "assistant" else message for message in messages
        ]


def turns_of(ids: Sequence[int], mask: Sequence[int]) -> list[list[int]]:
    """The tokens of each model turn; arguments as for `TurnWriter.as_written`."""
    pieces = itertools.groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    return [[token for token, _ in piece] for is_model, piece in pieces if is_model]


def parts_of(text: str) -> list[tuple[str, bool]]:
    """Split the text of a turn into pieces, in order, each with whether it is the inside of a call."""
    pieces = _CALL.split(text)  # even indexes: text between calls; odd ones: inside calls
    return [(piece, index % 2 == 1) for index, piece in enumerate(pieces) if piece.strip()]
