"""A copy of a model directory with which every tool behaves like our trainer.

The trainer lifts the pixel limits and sets a chat template with tools on the processor in memory
(`processors.load_processor`). vLLM, TRL's own scripts and evaluation harnesses read files instead, so the
copy has these changes in its files.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image
from transformers import AutoProcessor, AutoTokenizer
from transformers.utils import is_torchvision_available

from lfpc_trl.errors import UserError
from lfpc_trl.files import clear_scratch, scratch_prefix
from lfpc_trl.json_values import read_json
from lfpc_trl.models.processors import factor, load_processor, vision_token_ids
from lfpc_trl.models.weights import PICKLED, check_weights, is_kernel_of_the_hub

Weights = Literal["link", "copy"]

TEMPLATE_FILE = "chat_template.jinja"
_OLD_TEMPLATE_FILE = "chat_template.json"
_WEIGHTS = (".safetensors", ".gguf")
_CODE_KEYS = ("auto_map", "custom_pipelines")
"""Keys that name Python files which a tool may execute."""
_ATTENTION_KEYS = ("attn_implementation", "_attn_implementation")
"""Keys that may name a kernel on the Hub."""
_PLAIN_SAMPLING = {
    "do_sample": True,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "repetition_penalty": 1.0,
}
"""All values are given, because transformers fills missing ones with its own defaults, such as top_k 50."""
_OTHER_SAMPLING = (
    *("min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "no_repeat_ngram_size"),
    *("encoder_repetition_penalty", "presence_penalty", "frequency_penalty"),
)


class Change(NamedTuple):
    """One difference between a model directory and its prepared copy.

    Attributes:
        file: name of the file.
        what: the change in words.
        content: its new text; None for a file that is not copied.
    """

    file: str
    what: str
    content: str | None


def planned_changes(model_dir: str | Path) -> list[Change]:
    """The changes that `prepare_model` would make; none for a directory that is already prepared.

    Raises:
        UserError: as in `processors.load_processor`.
    """
    model_dir = Path(model_dir)
    return _planned(model_dir, load_processor(model_dir))


def _planned(model_dir: Path, processor: Any) -> list[Change]:
    changes = _code_changes(model_dir) + _template_changes(model_dir, processor.chat_template)
    changes += _limit_changes(model_dir, processor)
    before = _read_object(model_dir / "tokenizer_config.json")
    after = _without_template(before) | {"response_template": processor.tokenizer.response_template}
    changes += _json_change(model_dir / "tokenizer_config.json", before, after)
    before = _read_object(model_dir / "generation_config.json")
    after = {key: value for key, value in _without_code(before).items() if key not in _OTHER_SAMPLING}
    after |= _PLAIN_SAMPLING | {"suppress_tokens": vision_token_ids(processor)}
    return changes + _json_change(model_dir / "generation_config.json", before, after)


def _limit_changes(model_dir: Path, processor: Any) -> list[Change]:
    """Change the limits in the image processor's file and, since transformers 5, in the processor's."""
    flat, whole = (model_dir / name for name in ("preprocessor_config.json", "processor_config.json"))
    before, outer = _read_object(flat), _read_object(whole)
    after = _without_template(outer)
    nested = after.get("image_processor")
    changes = _json_change(flat, before, _settings_of(processor, _without_code(before)))
    if isinstance(nested, dict):
        after["image_processor"] = _settings_of(processor, _without_code(nested))
        if not before:  # the stock processor reads its video settings from there
            changes.append(Change(flat.name, "added", _json_text(after["image_processor"])))
    return changes + _json_change(whole, outer, after)


def _code_changes(model_dir: Path) -> list[Change]:
    """Leave out code that could run when the copy is loaded; ours does not need it."""
    changes = [
        Change(
            path.name,
            "left out, code in the checkpoint"
            if path.suffix == ".py"
            else "left out, loading a pickle can execute code",
            None,
        )
        for path in sorted(model_dir.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.suffix in (".py", *PICKLED)
    ]
    before = _read_object(model_dir / "config.json")
    return changes + _json_change(model_dir / "config.json", before, _without_code(before))


def _without_code(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without keys that name code, also in nested configs."""
    return {
        key: _without_code(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in _CODE_KEYS and not (key in _ATTENTION_KEYS and is_kernel_of_the_hub(value))
    }


def _without_template(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in _without_code(settings).items() if key != "chat_template"}


def _template_changes(model_dir: Path, template: str) -> list[Change]:
    path = model_dir / TEMPLATE_FILE
    if path.is_file() and path.read_text(encoding="utf-8") == template:
        changes = []
    else:
        old = _read_object(model_dir / _OLD_TEMPLATE_FILE).get("chat_template")
        own = template in (old, _read_object(model_dir / "tokenizer_config.json").get("chat_template"))
        what = "the checkpoint's own template, moved here" if own else "our template, which supports tools"
        changes = [Change(TEMPLATE_FILE, what, template)]
    if (model_dir / _OLD_TEMPLATE_FILE).exists():
        changes.append(Change(_OLD_TEMPLATE_FILE, f"left out, {TEMPLATE_FILE} holds the template", None))
    return changes


def _settings_of(processor: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Image processor settings with a processor's limits, also under the old names if those are present.

    A class name from outside the family is replaced, since standard tools pick the class by it.
    """
    size = dict(processor.image_processor.size)
    name = processor.family.image_processor.__name__.removesuffix("Pil")
    if settings.get("image_processor_type", name) not in (name, f"{name}Fast", f"{name}Pil"):
        settings = settings | {"image_processor_type": name}
    old_names = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    return settings | {"size": size} | {name: old_names[name] for name in old_names if name in settings}


def _json_change(path: Path, before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """The change from `before` to `after`; none if the file does not exist."""
    if not before or before == after:
        return []
    names = [name for name in (before | after) if before.get(name) != after.get(name)]
    what = ", ".join(_difference(name, before.get(name), after.get(name)) for name in names)
    return [Change(path.name, what, _json_text(after))]


def _json_text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _difference(name: str, before: Any, after: Any) -> str:
    if name == "image_processor":  # nested in processor_config.json: its limits or its class change
        changed = [key for key in ("size", "image_processor_type") if before.get(key) != after.get(key)]
        return ", ".join(_difference(key, before.get(key), after[key]) for key in changed)
    if name in _CODE_KEYS:
        return f"{name} left out, it names code in the checkpoint"
    if name in _ATTENTION_KEYS:
        return f"{name} left out, {before!r} is code on the Hub"
    if name.endswith("_config"):  # of a submodel: only keys that name code change there
        changed = [key for key in before if before[key] != after.get(key)]
        return ", ".join(_difference(key, before[key], after.get(key)) for key in changed)
    if after is None:
        return f"{name} left out" if name == "chat_template" else f"{name} {before!r} left out"
    if before is None or name == "response_template":
        return f"{name} set"
    return f"{name} {before!r} -> {after!r}"


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: not readable ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return content


def prepare_model(
    model_dir: str | Path,
    output_dir: str | Path,
    *,
    weights: Weights = "link",
    keep: Callable[[str], bool] = lambda _: True,
    more: Mapping[str, str] | None = None,
) -> list[Change]:
    """Write a copy of a model directory with which every tool behaves like our trainer.

    Subfolders and hidden files are not copied. The copy is loaded with transformers' stock classes as a check
    before it is renamed to `output_dir`.

    Args:
        model_dir: a Hugging Face directory of a supported family.
        output_dir: a new or empty directory.
        weights: `link` hard-links the weight files (symbolic links across file systems) and needs no space;
            `copy` copies them.
        keep: takes a file name; whether to copy an unchanged file.
        more: further files, name to text.

    Returns:
        The changes; none for a directory that was already prepared.

    Raises:
        UserError: not a supported model, weights missing, or an output directory that is not empty.
    """
    model_dir, output_dir = Path(model_dir), Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise UserError(f"{output_dir}: the output directory must be new or empty")
    processor = load_processor(model_dir)
    check_weights(model_dir)
    changes = _planned(model_dir, processor)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    clear_scratch(output_dir.parent, output_dir.name)
    folder = Path(tempfile.mkdtemp(prefix=scratch_prefix(output_dir.name), dir=output_dir.parent))
    try:
        folder.chmod(0o755)
        contents = {change.file: change.content for change in changes} | dict(more or {})
        _write(model_dir, folder, contents, weights, keep)
        _verify(folder, processor)
        folder.replace(output_dir)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return changes


def _write(
    model_dir: Path,
    folder: Path,
    contents: Mapping[str, str | None],
    weights: Weights,
    keep: Callable[[str], bool],
) -> None:
    for path in sorted(model_dir.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name in contents or not keep(path.name):
            continue
        if weights == "link" and path.suffix in _WEIGHTS:
            _link(path.resolve(), folder / path.name)
        else:
            shutil.copy2(path, folder)
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_text(content, encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        target.symlink_to(source)


def _verify(folder: Path, processor: Any) -> None:
    """Load the copy with transformers' stock classes and compare it with the processor of the trainer."""
    if is_torchvision_available():
        stock = AutoProcessor.from_pretrained(folder)
        tokenizer, pictures, templates = stock.tokenizer, stock.image_processor, {stock.chat_template}
    else:  # the stock processor needs torchvision; its tokenizer and image processor do not
        tokenizer = AutoTokenizer.from_pretrained(folder)
        pictures, templates = processor.family.image_processor.from_pretrained(folder), set()
    templates |= {tokenizer.chat_template, load_processor(folder).chat_template}
    side = factor(processor)
    grid = pictures(images=[Image.new("RGB", (side, side))], return_tensors="pt")["image_grid_thw"]
    wrong = {
        "chat template": templates != {processor.chat_template},
        "response template": tokenizer.response_template != processor.tokenizer.response_template,
        "pixel limits": dict(pictures.size) != dict(processor.image_processor.size),
        "picture of one token": int(grid.prod()) != pictures.merge_size**2,
        "prepared copy": bool(_planned(folder, load_processor(folder))),
    }
    if any(wrong.values()):
        names = ", ".join(name for name, is_wrong in wrong.items() if is_wrong)
        raise RuntimeError(f"{folder}: the prepared copy does not load as written: {names}")
