"""A prompt that is computed once for all its completions.

A prompt token attends to earlier tokens, never to a completion. So one forward pass over the prompt (pictures
through the vision tower, tokens through the layers) serves every completion, which needs only the keys and
values of each attention layer.

Completions are computed in batches on a detached copy of these, so that the activations of one batch are
freed before the next. Their gradients for the prompt accumulate in that copy. The last batch uses the keys
and values themselves: its backward pass propagates the whole gradient through the prompt, once.
"""

from typing import Any, NamedTuple

import torch
import transformers
from transformers.cache_utils import Cache, DynamicLayer

from lfpc_trl.versions import is_in

CACHE = "cache" if is_in(transformers.__version__, ">=5.24") else "past_key_values"
"""The cache argument of models and of `generate`, which transformers 5.24 renamed."""


class Pixels(NamedTuple):
    """Pictures as inputs of a Qwen-VL model.

    Attributes:
        values: (patches, values per patch), the patches of all pictures concatenated.
        grid: (pictures, 3), number of patches of each picture in time, height and width.
    """

    values: torch.Tensor
    grid: torch.Tensor

    def arguments(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model; empty without pictures."""
        return {"pixel_values": self.values, "image_grid_thw": self.grid} if len(self.grid) else {}


class _Recorded(DynamicLayer):  # type: ignore[misc]
    """Passes keys and values through and records the first ones; checkpointing runs a layer twice."""

    keys: Any
    values: Any

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        if self.keys is None:
            self.keys, self.values = key_states, value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        return 0


class _Shared(DynamicLayer):  # type: ignore[misc]
    """Prepends the prompt's keys and values to every row; stores nothing, so a layer may run twice."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        return _after(self.keys, key_states), _after(self.values, value_states)


def _after(shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    rows = shared.to(own.dtype).expand(len(own), -1, -1, -1)
    return torch.cat([rows, own], dim=-2)


class SharedPrompt:
    """A prompt with the keys and values that its completions need.

    The completions' gradients reach the prompt's weights and pictures in the backward pass of the completions
    that were prepared with `last`.

    Args:
        backbone: the model without its language head, such as `Qwen2_5_VLModel`.
        ids: (tokens,), without padding. The last one is text: it is computed with each completion, since its
            output predicts the completion's first token.
        pictures: pictures of the prompt.
        whole_model: the model with its language head, if its parts must not be called by themselves (see
            `train/sharding.py`).

    Attributes:
        zero: 0; with `whole_model` a tensor that depends on the prompt's forward pass. Added to a loss, it
            makes the prompt's backward pass start at the model's output, where FSDP and DeepSpeed gather
            weights.
    """

    zero: torch.Tensor | float = 0

    def __init__(
        self, backbone: Any, ids: torch.Tensor, pictures: Pixels, whole_model: Any | None = None
    ) -> None:
        self._backbone, self._ids, self._pictures = backbone, ids, pictures
        layers = [_Recorded() for _ in range(backbone.config.get_text_config().num_hidden_layers)]
        everything = torch.ones_like(ids[None])
        inputs = {
            "input_ids": ids[None, :-1],
            "attention_mask": everything[:, :-1],
            "position_ids": self._positions(ids[None], everything, pictures.grid)[:, :, :-1],
            "use_cache": False,
            CACHE: Cache(layers=layers),
            **pictures.arguments(),
        }
        if whole_model is None:
            backbone(**inputs)
        else:
            self.zero = 0 * whole_model(**inputs, logits_to_keep=1).logits.sum()
        self._states = [(layer.keys, layer.values) for layer in layers]
        self._copies = [(_copy(keys), _copy(values)) for keys, values in self._states]

    def inputs(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        pictures: list[Pixels],
        *,
        last: bool,
        always_a_picture: bool = False,
    ) -> dict[str, Any]:
        """The model's inputs for completions of this prompt.

        Args:
            ids: (rows, tokens), right-padded.
            mask: (rows, tokens), 1 for tokens and 0 for padding.
            pictures: the pictures in each row.
            last: whether these are the last completions before the weights change.
            always_a_picture: append a padding token to all rows; in the last row it stands for a blank
                picture. The vision tower is then called even if no row has pictures, as it is in other
                processes.

        Returns:
            Keyword arguments of the model; its input is the last token of the prompt and the completions.
        """
        rows = len(ids)
        whole = torch.cat([self._ids.expand(rows, -1), ids], dim=1)
        attention = torch.cat([mask.new_ones(rows, len(self._ids)), mask], dim=1)
        grids = [grid for own in pictures for grid in (self._pictures.grid, own.grid)]
        values, grid = (torch.cat(each) for each in zip(*pictures, strict=True))
        start = len(self._ids) - 1
        if always_a_picture:
            config = self._backbone.config
            side = config.vision_config.spatial_merge_size
            padding = torch.zeros_like(mask[:, :1])
            token = padding.clone()
            token[-1] = config.image_token_id
            whole, attention = torch.cat([whole, token], dim=1), torch.cat([attention, padding], dim=1)
            values = torch.cat([values, values.new_zeros(side**2, values.shape[1])])
            grid = torch.cat([grid, grid.new_tensor([[1, side, side]])])
        return {
            "input_ids": whole[:, start:],
            "attention_mask": attention,
            "position_ids": self._positions(whole, attention, torch.cat(grids))[:, :, start:],
            CACHE: Cache(layers=[_Shared(*each) for each in (self._states if last else self._copies)]),
            **Pixels(values, grid).arguments(),
        }

    def _positions(self, ids: torch.Tensor, mask: torch.Tensor, grid: torch.Tensor) -> Any:
        """(3, rows, tokens): the positions that the model assigns in whole sequences."""
        pictures = (ids == self._backbone.config.image_token_id).int()
        return self._backbone.get_rope_index(ids, pictures, image_grid_thw=grid, attention_mask=mask)[0]


def _copy(states: torch.Tensor) -> torch.Tensor:
    """Detached keys or values that accumulate a gradient in float32 and pass it on to `states`."""
    if not states.requires_grad:
        return states
    copy = states.detach().float().requires_grad_()

    def add_accumulated(own: torch.Tensor) -> torch.Tensor:
        return own if copy.grad is None else own + copy.grad.to(own.dtype)

    states.register_hook(add_accumulated)  # type: ignore[no-untyped-call]
    return copy


def without_adapter(model: Any) -> Any:
    """The base model of an adapter (LoRA), or the model itself; the adapter stays active inside it."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def why_not(model: Any) -> str | None:
    """Why prompts of a model cannot be shared; None if they can.

    Args:
        model: a model with its language head, without wrappers.
    """
    text = model.config.get_text_config()
    others = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if others:
        return f"the model has layers of {', '.join(sorted(others))}"
    if not hasattr(model.model, "get_rope_index"):
        return f"model type {model.config.model_type} does not support it"
    return None


def allow_checkpointing(model: Any) -> None:
    """Allow gradient checkpointing with the caches of a `SharedPrompt`, which a second run only reads."""
    for layer in model.model.language_model.layers:
        layer._can_checkpoint_with_cache = True  # noqa: SLF001 - transformers has no other way to say so
