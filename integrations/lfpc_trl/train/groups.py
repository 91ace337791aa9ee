"""Rollouts of a group, kept together: which they are, their pictures once, and the order of learning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, starmap
from typing import Any, NamedTuple

import torch
from trl.trainer.utils import split_tensor_dict

from lfpc_trl.models.shared_prompt import Pixels

_OF_PICTURES = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")


class RolloutPictures(NamedTuple):
    """The pictures of one rollout.

    Attributes:
        prompt: those of its prompt. The rollouts of a group hold the same object: that makes them a group.
        own: those that its tool calls brought.
    """

    prompt: Pixels
    own: Pixels


@dataclass(frozen=True, eq=False)
class GroupedPictures:
    """The pictures of a batch of rollouts, in place of TRL's one tensor.

    Attributes:
        rollouts: one entry per rollout; the rollouts of a group are neighbours.
        goes_on: whether the last group has more rollouts in the next micro batch.
    """

    rollouts: Sequence[RolloutPictures]
    goes_on: bool = False

    def parts(self, most: int) -> Iterator[tuple[slice, bool]]:
        """Neighbours of one group, at most so many, and whether their group goes on after them."""
        start = 0
        while start < len(self.rollouts):
            stop = start + 1
            while stop < len(self.rollouts) and stop - start < most and self._same(stop - 1, stop):
                stop += 1
            at_end = stop == len(self.rollouts)
            yield slice(start, stop), self.goes_on if at_end else self._same(stop - 1, stop)
            start = stop

    def _same(self, one: int, other: int) -> bool:
        return self.rollouts[one].prompt is self.rollouts[other].prompt


def group_pictures(
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    pixel_values: torch.Tensor,
    image_grid_thw: torch.Tensor,
    num_images: Sequence[int],
    *,
    image_token_id: int,
    merge_size: int,
    group_size: int | None = None,
    copy: bool = False,
) -> GroupedPictures:
    """Find the groups in TRL's batch: neighbours whose prompts have the same tokens and the same pixels.

    Args:
        prompt_ids: (rollouts, tokens).
        prompt_mask: (rollouts, tokens), 0 for padding.
        pixel_values: (patches, values of a patch), the pictures of all rollouts.
        image_grid_thw: (pictures, 3).
        num_images: pictures of each rollout.
        image_token_id: the token that stands for a visual token.
        merge_size: patches per side of a visual token.
        group_size: rollouts after which a group ends, even if the next one has an equal prompt.
        copy: whether pixels are copied. TRL's tensor, which holds the prompt's pictures once for every
            rollout, can then be let go.
    """
    patches = image_grid_thw.prod(-1)
    ends = [0, *accumulate(patches.tolist())]
    visual = (prompt_ids == image_token_id).sum(1).tolist()  # tokens of each prompt
    read = prompt_ids.masked_fill(prompt_mask == 0, -1)

    def pixels(start: int, stop: int) -> Pixels:
        values = pixel_values[ends[start] : ends[stop]]
        return Pixels(values.clone() if copy else values, image_grid_thw[start:stop])

    rollouts: list[RolloutPictures] = []
    first = 0
    for place, count in enumerate(num_images):
        last = first + count
        tokens = (patches[first:last] // merge_size**2).cumsum(0)
        split = first + int((tokens <= visual[place]).sum())
        prompt = pixels(first, split)
        begins = place % group_size == 0 if group_size else place == 0
        if not begins and torch.equal(read[place], read[place - 1]) and _equal(prompt, rollouts[-1].prompt):
            prompt = rollouts[-1].prompt
        rollouts.append(RolloutPictures(prompt, pixels(split, last)))
        first = last
    return GroupedPictures(rollouts)


def _equal(one: Pixels, other: Pixels) -> bool:
    return torch.equal(one.grid, other.grid) and torch.equal(one.values, other.values)


def micro_batches(batch: dict[str, Any], pictures: GroupedPictures, count: int) -> list[dict[str, Any]]:
    """Divide a round of rollouts into micro batches of neighbours: group after group, like lengths together.

    Args:
        batch: what TRL holds of the round, one entry per rollout or one for all.
        pictures: those of the round.
        count: micro batches.

    Returns:
        TRL's micro batches, with `GroupedPictures` as their "pixel_values".
    """
    lengths = batch["completion_mask"].sum(1).tolist()
    firsts = [0, *(part.stop for part, goes_on in pictures.parts(len(lengths)) if not goes_on)]
    order: list[int] = []
    for group in starmap(range, pairwise(firsts)):
        order += sorted(group, key=lengths.__getitem__)
    ordered = {name: _taken(value, order) for name, value in batch.items() if name not in _OF_PICTURES}
    size = len(order) // count
    rollouts = [pictures.rollouts[place] for place in order]
    divided = []
    for number, each in enumerate(split_tensor_dict(ordered, count)):
        stop = (number + 1) * size
        goes_on = stop < len(rollouts) and rollouts[stop].prompt is rollouts[stop - 1].prompt
        divided.append(each | {"pixel_values": GroupedPictures(rollouts[stop - size : stop], goes_on)})
    return divided


def _taken(value: Any, order: list[int]) -> Any:
    if isinstance(value, torch.Tensor):
        return value[order] if value.ndim else value
    return None if value is None else [value[place] for place in order]
