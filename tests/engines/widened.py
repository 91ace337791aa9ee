"""The shipped checkpoint with heads of 32 in place of 24, which computes the same.

vLLM's attention on the CPU knows no heads of 24. Nothing is trained: each of the four heads gets eight
channels of zeros, and the language model 32 (a Qwen2.5-VL is as wide as all its heads). Four things would
change with the sizes and are undone:

* the rotary embedding turns channel i by `theta^(-2 i / size)` and pairs it with channel `i + size / 2`:
  another theta keeps the angles, and the second half of each head moves to the new half;
* the sections of the angles (time, height, width) must fill half a head: the last one grows over the zeros;
* attention divides by the root of the head's size: the queries grow by what it takes;
* a norm divides by the root of the mean square, over more channels now: its weights and its epsilon shrink.
"""

import json
import shutil
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HEADS, KEY_HEADS, OLD, NEW = 4, 2, 24, 32
WIDTH, NEW_WIDTH = HEADS * OLD, HEADS * NEW


def _last(weights: torch.Tensor, width: int) -> torch.Tensor:
    """Zeros behind the last axis, up to a width."""
    return torch.nn.functional.pad(weights, (0, width - weights.shape[-1]))


def _first(weights: torch.Tensor, height: int) -> torch.Tensor:
    """Zeros behind the first axis, up to a height."""
    return _last(weights.movedim(0, -1), height).movedim(-1, 0)


def _heads(weights: torch.Tensor, heads: int, *, rotated: bool) -> torch.Tensor:
    """The rows of each head, with zeros behind them, or behind each half of what is rotated."""
    parts = weights.unflatten(0, (heads, 2 if rotated else 1, -1))
    size = NEW // parts.shape[1]
    return (
        _first(parts.flatten(3) if parts.dim() > 4 else parts.movedim(2, 0), size).movedim(0, 2).flatten(0, 2)
    )


def widened(name: str, weights: torch.Tensor) -> torch.Tensor:
    """One tensor of the checkpoint for the wider model.

    Args:
        name: as the file has it.
        weights: the tensor of that name.
    """
    *_, module, kind = name.split(".")
    if name.startswith("visual."):
        return _first(weights, NEW_WIDTH) if name.startswith("visual.merger.mlp.2.") else weights
    if module in ("q_proj", "k_proj", "v_proj"):
        heads = HEADS if module == "q_proj" else KEY_HEADS
        weights = _heads(weights, heads, rotated=module != "v_proj")
        if module == "q_proj":
            weights = weights * (NEW / OLD) ** 0.5
        return _last(weights, NEW_WIDTH) if kind == "weight" else weights
    if module == "o_proj":
        return _first(_heads(weights.T, HEADS, rotated=False).T, NEW_WIDTH)
    if module == "down_proj":
        return _first(weights, NEW_WIDTH)
    if module.endswith("norm"):
        return _last(weights * (WIDTH / NEW_WIDTH) ** 0.5, NEW_WIDTH)
    return _last(weights, NEW_WIDTH)  # embeddings, and what reads the width


def make_widened(folder: Path) -> Path:
    """Write the wider model into an empty folder."""
    with resources.as_file(resources.files("lfpc_trl.demo") / "warm") as shipped:
        for path in shipped.iterdir():
            if path.suffix != ".safetensors":
                shutil.copy(path, folder)
        weights = load_file(shipped / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    text, rope = config["text_config"], config["text_config"]["rope_parameters"]
    text["hidden_size"] = config["vision_config"]["out_hidden_size"] = NEW_WIDTH
    text["rms_norm_eps"] *= WIDTH / NEW_WIDTH
    rope["rope_theta"] **= NEW / OLD
    rope["mrope_section"][-1] += (NEW - OLD) // 2
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    # The demo's model sees no videos. vLLM wants their settings all the same; Qwen's files have them.
    settings = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    settings = {name: settings[name] for name in ("patch_size", "temporal_patch_size", "merge_size", "size")}
    settings["video_processor_type"] = "Qwen2VLVideoProcessor"
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings))
    save_file(
        {name: widened(name, each.float()).contiguous() for name, each in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder
