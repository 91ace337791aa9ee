"""A model's architecture without its weights: small, or whole but without memory."""

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
    """The config of a model directory with two layers, or one of each kind, and narrow ones.

    What the tokenizer, the positions and the pictures depend on stays as it is: the vocabulary, the size of a
    head and its rotation, patches and their merging.
    """
    config = AutoConfig.from_pretrained(model_dir)
    settings = config.to_dict()
    text, vision = settings["text_config"], settings["vision_config"]
    # Where a family has no size of a head of its own, it follows from the width.
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
    """Set those that are there."""
    settings |= {name: value for name, value in values.items() if settings.get(name) is not None}


def shrunk_model(model_dir: str | Path) -> PreTrainedModel:
    """A model of `shrunk_config` with random weights, the same ones every time, in float32."""
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(shrunk_config(model_dir), dtype=torch.float32)


def weight_differences(model_dir: str | Path) -> tuple[list[str], list[str]]:
    """How the weights of a directory differ from those that its config asks for; no weight is read.

    transformers loads weights of the same names and shapes that have no memory, so whatever it renames or
    joins on loading is renamed and joined here as well.

    Returns:
        What is missing or has another shape, and what is left over.
    """
    headers: dict[str, torch.Tensor] = {}
    for path in sorted(Path(model_dir).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no dict
                headers[name] = torch.empty(file.get_slice(name).get_shape(), device="meta")
    config = AutoConfig.from_pretrained(model_dir)
    with _silent():
        _, found = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=headers,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    wrong = [f"{name} is missing" for name in sorted(found["missing_keys"])]
    wrong += [
        f"{name} has the shape {tuple(stored)}, the config asks for {tuple(asked)}"
        for name, stored, asked in sorted(found["mismatched_keys"])
    ]
    return wrong, [f"{name} is left over" for name in sorted(found["unexpected_keys"])]


@contextmanager
def _silent() -> Iterator[None]:
    """Without the report that transformers logs of what is told here."""
    before, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()
