"""Weights: what a model directory holds beside its processor."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.utils import logging as transformers_logging

from lfpc_trl.errors import UserError, first_line
from lfpc_trl.json_values import read_json
from lfpc_trl.models.families import family_of

INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Suffixes of files whose reading can run programs."""
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


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Without transformers' progress bars for every file."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


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


def check_weights(model_dir: str | Path) -> None:
    """Refuse a directory whose weights cannot be read, or only by running what a pickle holds.

    The headers of the files are read, no weight is.

    Raises:
        UserError: no weights, some of them are missing or damaged, or they are pickled.
    """
    folder = Path(model_dir)
    names = ["model.safetensors"]
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index}: not readable ({first_line(error)})") from None
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise UserError(f"{index}: its files must stand beside it, got {names[0]!r}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and index.is_file():
        raise UserError(f"{folder}: its weights are incomplete, {missing[0]} is missing")
    if missing:
        pickled = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLED)
        if pickled:
            raise UserError(
                f"{folder}: holds pickled weights alone ({pickled[0]}), and reading a pickle can run "
                "programs; save the model with safetensors"
            )
        if (folder / "adapter_config.json").is_file():
            raise UserError(f"{folder}: holds an adapter alone; merge it into its model first")
        raise UserError(f"{folder}: holds no weights, neither model.safetensors nor {INDEX}")
    tensors = 0
    for name in names:
        try:
            with safe_open(folder / name, "pt") as file:
                tensors += len(file.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / name}: not readable ({first_line(error)})") from None
    if not tensors:
        raise UserError(f"{folder}: holds no weights, its files are empty")


def is_kernel_of_the_hub(attention: object) -> bool:
    """Whether an `attn_implementation` names code of the Hub (owner/name), which transformers would run."""
    if isinstance(attention, dict):  # one for each part of a model
        return any(map(is_kernel_of_the_hub, attention.values()))
    return "/" in str(attention)


def _refuse_kernels(model_dir: str | Path, config: Any) -> None:
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in parts:
        attention = getattr(part, "_attn_implementation", None)
        if is_kernel_of_the_hub(attention):
            raise UserError(
                f"{Path(model_dir) / 'config.json'}: attn_implementation names a kernel of the Hub, which is "
                f"code that would be run, got {attention!r}; take it out"
            )


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
        UserError: not a supported model, weights that cannot be loaded, or a config that names code.
    """
    family_of(model_dir)
    check_weights(model_dir)
    try:
        config = AutoConfig.from_pretrained(model_dir)
        _refuse_kernels(model_dir, config)
        model = AutoModelForImageTextToText.from_pretrained(
            model_dir, config=config, dtype=dtype, attn_implementation=attention, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(f"{model_dir}: its weights cannot be loaded ({first_line(error)})") from error
    _forget_unused_renamings(model)
    return model if device is None else model.to(device)


def _forget_unused_renamings(model: Any) -> None:
    """Let a model be saved with the names that it was read with.

    What transformers renames while it reads is renamed back when it saves. Where DeepSpeed reads (ZeRO-3),
    5.17 to 5.24 also rename back what had its name already: "model.layers" becomes "model.model.layers",
    which transformers reads again and vLLM does not know. Elsewhere only renamings that were used are left,
    and nothing changes here.
    """
    renamings = getattr(model, "_weight_conversions", None)
    if renamings is not None:
        model._weight_conversions = [each for each in renamings if each.was_used()]  # noqa: SLF001


def merge_adapter(model_dir: str | Path, adapter_dir: str | Path) -> Any:
    """The model of a directory with an adapter (LoRA) added to its weights, as they are stored."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(model_dir, dtype="auto"), adapter_dir).merge_and_unload()
