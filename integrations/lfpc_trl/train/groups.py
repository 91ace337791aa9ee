"""Keeps the rollouts of a group together: finds groups, stores their pictures once, orders micro-batches."""

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
        prompt: those of its prompt. Rollouts that hold the same object form a group.
        own: those returned by its tool calls.
    """

    prompt: Pixels
    own: Pixels


@dataclass(frozen=True, eq=False)
class GroupedPictures:
    """The pictures of a batch of rollouts, replacing TRL's single tensor.

    Attributes:
        rollouts: one entry per rollout; the rollouts of a group are adjacent.
        goes_on: whether the last group continues in the next micro-batch.
    """

    rollouts: Sequence[RolloutPictures]
    goes_on: bool = False

    def parts(self, most: int) -> Iterator[tuple[slice, bool]]:
        """Slices of at most `most` rollouts of one group, and whether the group continues after the slice."""
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
    """Find the groups in TRL's batch: adjacent rollouts whose prompts have the same tokens and pixels.

    Args:
        prompt_ids: (rollouts, tokens).
        prompt_mask: (rollouts, tokens), 0 for padding.
        pixel_values: (patches, values of a patch), the pictures of all rollouts.
        image_grid_thw: (pictures, 3).
        num_images: pictures of each rollout.
        image_token_id: the id of the image placeholder token.
        merge_size: patches per side of a visual token.
        group_size: number of rollouts after which a group ends, even if the next prompt is equal.
        copy: whether to copy pixels, so that TRL's tensor, which holds the prompt's pictures once per
            rollout, can be freed.
    """
    patches = image_grid_thw.prod(-1)
    ends = [0, *accumulate(patches.tolist())]
    visual = (prompt_ids == image_token_id).sum(1).tolist()  # visual tokens of each prompt
    unpadded = prompt_ids.masked_fill(prompt_mask == 0, -1)

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
        same_ids = not begins and torch.equal(unpadded[place], unpadded[place - 1])
        if same_ids and _equal(prompt, rollouts[-1].prompt):
            prompt = rollouts[-1].prompt
        rollouts.append(RolloutPictures(prompt, pixels(split, last)))
        first = last
    return GroupedPictures(rollouts)


def _equal(one: Pixels, other: Pixels) -> bool:
    return torch.equal(one.grid, other.grid) and torch.equal(one.values, other.values)


def micro_batches(batch: dict[str, Any], pictures: GroupedPictures, count: int) -> list[dict[str, Any]]:
    """Split a round of rollouts into micro-batches, group after group, sorted by length within a group.

    Args:
        batch: TRL's batch of the round, with one value per rollout or one for all.
        pictures: the pictures of the round.
        count: number of micro-batches.

    Returns:
        TRL's micro-batches, with `GroupedPictures` as their "pixel_values".
    """
    lengths = batch["completion_mask"].sum(1).tolist()
    firsts = [0, *(part.stop for part, goes_on in pictures.parts(len(lengths)) if not goes_on)]
    order: list[int] = []
    for group in starmap(range, pairwise(firsts)):
        order += sorted(group, key=lengths.__getitem__)
    ordered = {name: _reordered(value, order) for name, value in batch.items() if name not in _OF_PICTURES}
    size = len(order) // count
    rollouts = [pictures.rollouts[place] for place in order]
    divided = []
    for number, each in enumerate(split_tensor_dict(ordered, count)):
        stop = (number + 1) * size
        goes_on = stop < len(rollouts) and rollouts[stop].prompt is rollouts[stop - 1].prompt
        divided.append(each | {"pixel_values": GroupedPictures(rollouts[stop - size : stop], goes_on)})
    return divided


def _reordered(value: Any, order: list[int]) -> Any:
    if isinstance(value, torch.Tensor):
        return value[order] if value.ndim else value
    return None if value is None else [value[place] for place in order]
