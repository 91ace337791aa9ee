"""Generation that reads nothing twice.

A prompt is read once for all the rollouts of its group, and each turn once for its rollout: the keys and
values of what was read are kept until the next turn. A turn is written by transformers' own `generate`, which
is handed the kept states and finds but the last token of each conversation unread.

What a turn goes on from is looked up by the tokens and pictures of the conversation. So the caller says
nothing of groups and turns: it asks for the next turn of whole conversations.
"""

import inspect
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig
from transformers.cache_utils import Cache, DynamicLayer

from lfpc_trl.models import shared_prompt
from lfpc_trl.models.shared_prompt import CACHE, Pixels


class Shown(NamedTuple):
    """A picture of a conversation.

    Attributes:
        key: pictures with equal keys have equal pixels. It is kept as long as states that depend on it.
        values: (patches, values of a patch), as the model reads it.
        grid: (3,), its patches in time, height and width.
    """

    key: Hashable
    values: torch.Tensor
    grid: torch.Tensor


class Conversation(NamedTuple):
    """What a turn follows.

    Attributes:
        ids: the tokens, each placeholder as often as its picture has visual tokens.
        pictures: in the order of their placeholders.
    """

    ids: Sequence[int]
    pictures: Sequence[Shown]


@dataclass(frozen=True, eq=False)
class _States:
    """Keys and values of a batch: for each layer two tensors of (rows, heads, columns, values)."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]


_Key = tuple[int, tuple[Hashable, ...]]
"""Of a conversation's beginning: the hash of its tokens, and its pictures."""


class _Read(NamedTuple):
    """Where the states of a conversation, or of its beginning, are kept."""

    ids: tuple[int, ...]
    states: _States
    row: int
    columns: torch.Tensor


class ContinuedGeneration:
    """Writes the next turns of conversations, and keeps what was read for the turns after them.

    Only what the last call has read is kept.

    Args:
        model: a model with its language head; an adapter (LoRA) may be in it.
        placeholder: the id of a visual token.
        padding: the id of padding.
        merge_size: patches per side of a visual token.
    """

    def __init__(self, model: Any, *, placeholder: int, padding: int, merge_size: int) -> None:
        self._model, self._base = model, shared_prompt.without_adapter(model)
        self._placeholder, self._padding = placeholder, padding
        self._keeps = shared_prompt.why_not(self._base) is None
        # Qwen's models place pictures in space and ask which tokens are theirs; LFM3-VL does not.
        self._asks_for_types = "mm_token_type_ids" in inspect.signature(self._base.forward).parameters
        self._merged = merge_size**2
        self._read: dict[_Key, _Read] = {}
        self._hashes: set[int] = set()

    def forget(self) -> None:
        """Let go of all that is kept; needed where the weights change."""
        self._read, self._hashes = {}, set()

    @torch.no_grad()
    def generate(
        self,
        conversations: Sequence[Conversation],
        config: GenerationConfig,
        ends: Sequence[int],
        generate: Callable[..., Any] | None = None,
        **options: Any,
    ) -> list[list[int]]:
        """The next turn of each conversation.

        Args:
            conversations: at least one.
            config: transformers' settings.
            ends: ids that end a turn.
            generate: the model's method of this name, where something else goes by that name.
            **options: for it, such as `logits_processor`.

        Returns:
            The tokens of each turn, up to and including its end.
        """
        generate = self._model.generate if generate is None else generate
        if not self._keeps:
            return self._from_nothing(conversations, config, ends, generate, options)
        found = self._known(conversations)
        split = [
            min(len(read.ids), len(each.ids) - 1) for read, each in zip(found, conversations, strict=True)
        ]
        ids, mask, start = self._padded(conversations, split)
        self.forget()
        layers = _gathered(found, split, start)
        self._read_rest(conversations, split, ids, mask, start, layers)
        cache = Cache(layers=layers)
        written = generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            **{CACHE: cache},
            **options,
        )
        turns = [up_to_end(turn, ends) for turn in written[:, ids.shape[1] :].tolist()]
        self._keep(conversations, turns, mask, cache)
        return turns

    def _from_nothing(
        self,
        conversations: Sequence[Conversation],
        config: GenerationConfig,
        ends: Sequence[int],
        generate: Callable[..., Any],
        options: dict[str, Any],
    ) -> list[list[int]]:
        """For models whose states cannot be kept: each conversation is read from its start."""
        ids, mask, _ = self._padded(conversations, [0] * len(conversations))
        types = {"mm_token_type_ids": (ids == self._placeholder).long()} if self._asks_for_types else {}
        written = generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            **types,
            **self._pixels(conversations).arguments(),
            **options,
        )
        return [up_to_end(turn, ends) for turn in written[:, ids.shape[1] :].tolist()]

    # --- what is known ---

    def _known(self, conversations: Sequence[Conversation]) -> list[_Read]:
        """For each conversation the longest beginning of it that was read; what is new is read now."""
        found = [self._longest(each) for each in conversations]
        new: dict[tuple[Any, ...], Conversation] = {}
        for each, read in zip(conversations, found, strict=True):
            if read is None:
                new.setdefault(_identity(each), each)
        if new:
            fresh = dict(zip(new, self._begin(list(new.values())), strict=True))
        return [
            fresh[_identity(each)] if read is None else read
            for each, read in zip(conversations, found, strict=True)
        ]

    def _longest(self, conversation: Conversation) -> _Read | None:
        best = None
        for length, value in enumerate(_hashes(conversation.ids), start=1):
            if value in self._hashes:
                pictures = self._pictures_within(conversation, length)
                read = self._read.get((value, tuple(picture.key for picture in pictures)))
                if read is not None and read.ids == tuple(conversation.ids[:length]):
                    best = read
        return best

    def _pictures_within(self, conversation: Conversation, length: int) -> Sequence[Shown]:
        """The pictures among the first tokens; a turn never begins within one."""
        visual = sum(token == self._placeholder for token in conversation.ids[:length])
        tokens = accumulate(int(picture.grid.prod()) // self._merged for picture in conversation.pictures)
        return conversation.pictures[: sum(end <= visual for end in tokens)]

    def _begin(self, conversations: Sequence[Conversation]) -> list[_Read]:
        """Read new conversations, all but the last token of each."""
        before = [Conversation(each.ids[:-1], each.pictures) for each in conversations]
        ids, mask, _ = self._padded(before, [0] * len(before))
        cache = Cache(layers=[DynamicLayer() for _ in range(self._layers())])
        self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=self._positions(ids, mask, before),
            use_cache=True,
            logits_to_keep=1,
            **{CACHE: cache},
            **self._pixels(before).arguments(),
        )
        states = _States([(layer.keys, layer.values) for layer in cache.layers])
        return [
            _Read(tuple(each.ids), states, row, columns)
            for row, (each, columns) in enumerate(zip(before, _columns(mask), strict=True))
        ]

    def _keep(
        self,
        conversations: Sequence[Conversation],
        turns: Sequence[Sequence[int]],
        mask: torch.Tensor,
        cache: Any,
    ) -> None:
        """Remember each conversation with its turn, and as it was before it."""
        states = _States([(layer.keys, layer.values) for layer in cache.layers])
        width = states.layers[0][0].shape[-2]
        for row, (each, turn, before) in enumerate(zip(conversations, turns, _columns(mask), strict=True)):
            # The last token that was drawn has not been read.
            after = torch.arange(mask.shape[1], min(mask.shape[1] + len(turn), width), device=before.device)
            keys = tuple(shown.key for shown in each.pictures)
            for ids, columns in (
                (tuple(each.ids[:-1]), before[:-1]),
                ((*each.ids, *turn)[: len(before) + len(after)], torch.cat([before, after])),
            ):
                *_, value = _hashes(ids)
                self._read[value, keys] = _Read(ids, states, row, columns)
                self._hashes.add(value)

    # --- tensors ---

    def _padded(
        self, conversations: Sequence[Conversation], split: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """(ids, mask, start): what was read and what was not, each padded on the left; the latter's start."""
        start = max(split)
        rest = max(len(each.ids) - known for each, known in zip(conversations, split, strict=True))
        ids = torch.full((len(conversations), start + rest), self._padding)
        mask = torch.zeros_like(ids)
        for row, (each, known) in enumerate(zip(conversations, split, strict=True)):
            for tokens, end in ((each.ids[:known], start), (each.ids[known:], start + rest)):
                ids[row, end - len(tokens) : end] = torch.tensor(tokens, dtype=torch.long)
                mask[row, end - len(tokens) : end] = 1
        return ids.to(self._base.device), mask.to(self._base.device), start

    def _read_rest(
        self,
        conversations: Sequence[Conversation],
        split: Sequence[int],
        ids: torch.Tensor,
        mask: torch.Tensor,
        start: int,
        layers: list[Any],
    ) -> None:
        """Read what was not, all but the last token of each conversation, into `layers`."""
        positions = self._positions(ids, mask, conversations)
        # From here on `generate` counts: it adds this to the number of tokens before.
        last = positions[:, :, -1].amax(0)
        self._base.model.rope_deltas = (last + 1 - mask.sum(1))[:, None]
        if ids.shape[1] - start == 1:
            return
        new = [
            Conversation((), each.pictures[len(self._pictures_within(each, known)) :])
            for each, known in zip(conversations, split, strict=True)
        ]
        self._model(
            input_ids=ids[:, start:-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :, start:-1],
            use_cache=True,
            logits_to_keep=1,
            **{CACHE: Cache(layers=layers)},
            **self._pixels(new).arguments(),
        )

    def _positions(self, ids: torch.Tensor, mask: torch.Tensor, conversations: Sequence[Conversation]) -> Any:
        """(3, rows, tokens): the positions that the model gives whole conversations."""
        grid = self._pixels(conversations).grid
        pictures = (ids == self._placeholder).int()
        return self._base.model.get_rope_index(ids, pictures, image_grid_thw=grid, attention_mask=mask)[0]

    def _pixels(self, conversations: Sequence[Conversation]) -> Pixels:
        shown = [picture for each in conversations for picture in each.pictures]
        device = self._base.device
        if not shown:
            return Pixels(torch.empty(0, device=device), torch.empty(0, 3, dtype=torch.long, device=device))
        values = torch.cat([picture.values for picture in shown]).to(device, self._base.dtype)
        return Pixels(values, torch.stack([picture.grid for picture in shown]).to(device))

    def _layers(self) -> int:
        return int(self._base.config.get_text_config().num_hidden_layers)


def _gathered(found: Sequence[_Read], split: Sequence[int], start: int) -> list[Any]:
    """The states of each conversation's beginning, padded on the left to one length.

    What they are taken from is let go of layer by layer: both at once might not fit.
    """
    device = found[0].columns.device
    sources: dict[_States, tuple[list[int], torch.Tensor, torch.Tensor]] = {}
    for states in {read.states: None for read in found}:
        places = [place for place, read in enumerate(found) if read.states is states]
        rows = torch.tensor([found[place].row for place in places], device=device)[:, None]
        columns = torch.zeros(len(places), start, dtype=torch.long, device=device)
        for row, place in enumerate(places):
            columns[row, start - split[place] :] = found[place].columns[: split[place]]
        sources[states] = places, rows, columns
    layers = []
    for number in range(len(found[0].states.layers)):
        pair = []
        for which in (0, 1):
            first = found[0].states.layers[number][which]
            whole = first.new_zeros(len(found), first.shape[1], start, first.shape[3])
            for states, (places, rows, columns) in sources.items():
                source = states.layers[number][which].transpose(1, 2)
                whole[places] = source[rows, columns].transpose(1, 2)
            pair.append(whole)
        for states in sources:
            states.layers[number] = (first.new_empty(0), first.new_empty(0))
        layer = DynamicLayer()
        layer.update(*pair)
        layers.append(layer)
    return layers


def _columns(mask: torch.Tensor) -> Iterator[torch.Tensor]:
    """Which columns of each row hold tokens."""
    for row in mask:
        yield row.nonzero()[:, 0]


def _identity(conversation: Conversation) -> tuple[Any, ...]:
    return tuple(conversation.ids), tuple(picture.key for picture in conversation.pictures)


def _hashes(ids: Sequence[int]) -> Iterator[int]:
    """The hash of each beginning of `ids`."""
    value = 0
    for token in ids:
        value = hash((value, token))
        yield value


def up_to_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Up to and including the first end of turn."""
    end = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[: end + 1])
