"""Answers TRL's calls of `generate` from a cache kept between the turns of a round."""

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from lfpc_trl.models.continued import ContinuedGeneration, Conversation, Shown
from lfpc_trl.models.engines import image_token_id
from lfpc_trl.pictures.lazy import LazyImage
from lfpc_trl.train.agreement import LogprobRecorder


class ContinuedTurns:
    """Replaces the model's `generate` while TRL generates a turn.

    TRL still sets up adapters and precision before the call and reads the returned tokens.

    Args:
        model: the model whose `generate` TRL calls.
        processor: the model's processor.
        ends: token ids that end a turn.
    """

    def __init__(self, model: Any, processor: Any, ends: Sequence[int]) -> None:
        self._model, self._ends = model, ends
        self._padding = processor.tokenizer.pad_token_id
        self._generation = ContinuedGeneration(
            model,
            placeholder=image_token_id(processor),
            padding=self._padding,
            merge_size=processor.image_processor.merge_size,
        )

    def forget(self) -> None:
        """Clear the cache of the round."""
        self._generation.forget()

    @contextlib.contextmanager
    def of(
        self,
        prompts: Sequence[Sequence[int]],
        images: Sequence[Sequence[Any] | None],
        recorder: LogprobRecorder,
    ) -> Iterator[None]:
        """Inside this context, `generate` returns the next turns of these conversations.

        Args:
            prompts: token ids, each placeholder repeated once per visual token of its picture.
            images: the pictures of each prompt.
            recorder: records the log-probabilities of the turns.
        """
        generate = self._model.generate

        def recorded_generate(**options: Any) -> Any:
            with recorder:
                return generate(**options)

        def answer(
            *,
            input_ids: torch.Tensor,
            pixel_values: torch.Tensor,
            image_grid_thw: torch.Tensor,
            generation_config: Any,
            **_: Any,
        ) -> torch.Tensor:
            pixels = iter(torch.split(pixel_values, image_grid_thw.prod(1).tolist()))
            grids = iter(image_grid_thw)
            conversations = [
                Conversation(ids, [Shown(_key(each), next(pixels), next(grids)) for each in pictures or ()])
                for ids, pictures in zip(prompts, images, strict=True)
            ]
            turns = self._generation.generate(conversations, generation_config, self._ends, recorded_generate)
            new = [torch.tensor(turn, device=input_ids.device) for turn in turns]
            return torch.cat([input_ids, pad_sequence(new, batch_first=True, padding_value=self._padding)], 1)

        self._model.generate = answer
        try:
            yield
        finally:
            del self._model.generate


def _key(image: Any) -> Hashable:
    """A key that is equal for pictures known to have equal pixels, while they are alive."""
    return image.recipe if isinstance(image, LazyImage) else id(image)
