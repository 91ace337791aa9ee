"""TRL's calls of `generate`, answered from states that are kept between the turns of a round."""

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
    """Stands in for the model's `generate` while TRL writes a turn.

    TRL makes the model ready for it, with its adapters and precision, and reads its tokens as ever.

    Args:
        model: whose `generate` TRL calls.
        processor: of the model.
        ends: ids that end a turn.
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
        """Let go of what a round has kept."""
        self._generation.forget()

    @contextlib.contextmanager
    def of(
        self,
        prompts: Sequence[Sequence[int]],
        images: Sequence[Sequence[Any] | None],
        recorder: LogprobRecorder,
    ) -> Iterator[None]:
        """While this is open, the next turns of these conversations are written.

        Args:
            prompts: tokens, each placeholder as often as its picture has visual tokens.
            images: the pictures of each.
            recorder: records their log-probabilities.
        """
        generate = self._model.generate

        def written(**options: Any) -> Any:
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
            turns = self._generation.generate(conversations, generation_config, self._ends, written)
            new = [torch.tensor(turn, device=input_ids.device) for turn in turns]
            return torch.cat([input_ids, pad_sequence(new, batch_first=True, padding_value=self._padding)], 1)

        self._model.generate = answer
        try:
            yield
        finally:
            del self._model.generate


def _key(image: Any) -> Hashable:
    """Equal for pictures that are known to have equal pixels, as long as they live."""
    return image.recipe if isinstance(image, LazyImage) else id(image)
