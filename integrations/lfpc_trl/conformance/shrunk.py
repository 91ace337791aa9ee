"""A model's architecture without its weights: shrunk, or at full size on the meta device."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import logging as transformers_logging

_TEXT = {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "mlp_only_layers": [],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "hc_lowrank": 16,
    "indexer_n_heads": 2,
    "ple_layer_ids": [],
}
_VISION = {
    "depth": 2,
    "hidden_size": 64,
    "num_heads": 2,
    "intermediate_size": 64,
    "fullatt_block_indexes": [1],
    "deepstack_visual_indexes": [0],
}


def shrunk_config(model_dir: str | Path) -> Any:
    """The config of a model directory, reduced to narrow layers: two, or one of each type if there are more.

    Whatever tokenizer, positions and pictures depend on is unchanged: the vocabulary, the head size and its
    rotary embedding, patches and their merging.
    """
    config = AutoConfig.from_pretrained(model_dir)
    settings = config.to_dict()
    text, vision = settings["text_config"], settings["vision_config"]
    # In families without their own head size it follows from the width.
    has_own = hasattr(type(config.get_text_config()), "head_dim")
    width = 128 if has_own else 2 * (text["hidden_size"] // text["num_attention_heads"])
    kinds = list(dict.fromkeys(text.get("layer_types") or []))
    layers = max(2, len(kinds))
    _set(text, _TEXT | {"hidden_size": width, "num_hidden_layers": layers})
    if kinds:
        text["layer_types"] = (kinds * layers)[:layers]
    _set(vision, _VISION | {"out_hidden_size": width})
    return type(config).from_dict(settings)


def _set(settings: dict[str, Any], values: dict[str, Any]) -> None:
    """Set the values that exist in `settings`."""
    settings |= {name: value for name, value in values.items() if settings.get(name) is not None}


def shrunk_model(model_dir: str | Path) -> PreTrainedModel:
    """A model of `shrunk_config` with random but reproducible weights, in float32."""
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(shrunk_config(model_dir), dtype=torch.float32)


def weight_differences(model_dir: str | Path) -> tuple[list[str], list[str]]:
    """Compare names and shapes of a directory's weights with its config, without reading weights.

    transformers loads meta tensors of the same names and shapes, so whatever it renames or merges on loading
    is renamed and merged here as well.

    Returns:
        Weights that are missing or have a different shape, and unexpected weights.
    """
    headers: dict[str, torch.Tensor] = {}
    for path in sorted(Path(model_dir).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no dict
                headers[name] = torch.empty(file.get_slice(name).get_shape(), device="meta")
    config = AutoConfig.from_pretrained(model_dir)
    with _silent():
        _, report = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=headers,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    wrong = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    wrong += [
        f"{name} has shape {tuple(stored)}, but the config requires {tuple(required)}"
        for name, stored, required in sorted(report["mismatched_keys"])
    ]
    return wrong, [f"{name} is unexpected" for name in sorted(report["unexpected_keys"])]


@contextmanager
def _silent() -> Iterator[None]:
    """Silence transformers' own report of these differences."""
    before, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()
