"""Weights: what a model directory holds beside its processor."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from lfpc_trl.errors import UserError, first_line
from lfpc_trl.models.families import family_of

_WHAT_A_MODEL_IS = (
    *("config.json", "*.safetensors", "chat_template*", "*preprocessor_config.json", "processor_config.json"),
    *("tokenizer*", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
)
_SAMPLES, _SAMPLE_BYTES = 1024, 4096


def fingerprint(model_dir: str | Path) -> str:
    """A digest that differs for another model, also for another training of the same one.

    Small files are read whole, large ones at 1024 evenly spaced places (4 MiB in all): a training changes
    weights everywhere, and reading 15 GB takes minutes.
    """
    folder, digest = Path(model_dir), hashlib.sha256()
    for path in sorted({path for pattern in _WHAT_A_MODEL_IS for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        places = range(0, size, max(_SAMPLE_BYTES, size // _SAMPLES))
        with path.open("rb") as file:
            for place in places:
                file.seek(place)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def context_length(model_dir: str | Path) -> int:
    """Tokens that the model can read at once: prompt, turns, crops and answer together.

    Raises:
        UserError: not a supported model, or a config that cannot be read.
    """
    family_of(model_dir)
    try:
        config = AutoConfig.from_pretrained(model_dir)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{model_dir}: its config cannot be loaded ({first_line(error)})") from error
    return int(config.get_text_config().max_position_embeddings)


def default_device() -> str:
    """The accelerator that torch finds, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def load_model(
    model_dir: str | Path,
    *,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    device: str | None = "cpu",
    attention: str | None = None,
) -> PreTrainedModel:
    """The model of a directory.

    Args:
        model_dir: a Hugging Face directory of a supported family.
        dtype: of the weights; "auto" as they are stored. Training of all weights keeps float32 and computes
            in bfloat16 where the device can.
        device: as torch names it; None leaves the weights where an engine that shards them has put them.
        attention: transformers' `attn_implementation`; None for its default.

    Raises:
        UserError: not a supported model, or weights that cannot be loaded.
    """
    family_of(model_dir)
    try:
        config = AutoConfig.from_pretrained(model_dir)
        model = AutoModelForImageTextToText.from_pretrained(
            model_dir, config=config, dtype=dtype, attn_implementation=attention
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{model_dir}: its weights cannot be loaded ({first_line(error)})") from error
    return model if device is None else model.to(device)


def merge_adapter(model_dir: str | Path, adapter_dir: str | Path) -> Any:
    """The model of a directory with an adapter (LoRA) added to its weights, as they are stored."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(model_dir, dtype="auto"), adapter_dir).merge_and_unload()
