"""The weights of a model directory."""

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
"""Suffixes of files that can execute code when loaded."""
_MODEL_FILES = (
    *("config.json", "*.safetensors", "chat_template*", "*preprocessor_config.json", "processor_config.json"),
    *("tokenizer*", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
)
_SAMPLES, _SAMPLE_BYTES = 1024, 4096


def fingerprint(model_dir: str | Path) -> str:
    """A digest that differs between models, and between trainings of the same model.

    Small files are read whole, large ones at 1024 evenly spaced places (4 MiB in all): training changes
    weights everywhere, and reading 15 GB takes minutes.
    """
    folder, digest = Path(model_dir), hashlib.sha256()
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        places = range(0, size, max(_SAMPLE_BYTES, size // _SAMPLES))
        with path.open("rb") as file:
            for place in places:
                file.seek(place)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Disable transformers' progress bars for file loading."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


def context_length(model_dir: str | Path) -> int:
    """The model's context length in tokens: prompt, turns, crops and answer together.

    Raises:
        UserError: not a supported model, or an unreadable config.
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
    """Refuse a directory whose weights cannot be read, or only by executing code in a pickle.

    Only the headers of the files are read.

    Raises:
        UserError: no weights, some are missing or damaged, or they are pickled.
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
            raise UserError(f"{index}: its files must be in the same folder, got {names[0]!r}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and index.is_file():
        raise UserError(f"{folder}: its weights are incomplete, {missing[0]} is missing")
    if missing:
        pickled = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLED)
        if pickled:
            raise UserError(
                f"{folder}: holds only pickled weights ({pickled[0]}), and loading a pickle can execute "
                "code; save the model with safetensors"
            )
        if (folder / "adapter_config.json").is_file():
            raise UserError(f"{folder}: holds only an adapter; merge it into its model first")
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
    """Whether an `attn_implementation` names code on the Hub (owner/name), which transformers would run."""
    if isinstance(attention, dict):  # one per submodel
        return any(map(is_kernel_of_the_hub, attention.values()))
    return "/" in str(attention)


def _refuse_kernels(model_dir: str | Path, config: Any) -> None:
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in parts:
        attention = getattr(part, "_attn_implementation", None)
        if is_kernel_of_the_hub(attention):
            raise UserError(
                f"{Path(model_dir) / 'config.json'}: attn_implementation must not name a kernel on the Hub, "
                f"whose code would be executed, got {attention!r}; remove it"
            )


def load_model(
    model_dir: str | Path,
    *,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    device: str | None = "cpu",
    attention: str | None = None,
) -> PreTrainedModel:
    """Load the model of a directory.

    Args:
        model_dir: a Hugging Face directory of a supported family.
        dtype: dtype of the weights; "auto" as they are stored. Full training keeps float32 and computes in
            bfloat16 if the device can.
        device: torch device; None leaves the weights where a sharding framework has put them.
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
    """Make a model save its weights under the names with which they were loaded.

    transformers reverses the renamings of loading when it saves. When DeepSpeed loads (ZeRO-3), 5.17 to 5.24
    also reverse renamings that were not needed: "model.layers" becomes "model.model.layers", which
    transformers can load but vLLM cannot. Otherwise the model keeps only renamings that were used, and this
    function changes nothing.
    """
    renamings = getattr(model, "_weight_conversions", None)
    if renamings is not None:
        model._weight_conversions = [each for each in renamings if each.was_used()]  # noqa: SLF001


def merge_adapter(model_dir: str | Path, adapter_dir: str | Path) -> Any:
    """Load a model, in its stored dtype, with an adapter (LoRA) merged into its weights."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(model_dir, dtype="auto"), adapter_dir).merge_and_unload()
