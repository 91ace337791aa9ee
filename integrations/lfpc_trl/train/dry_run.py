"""The dry run: prints what a run would do: settings, amounts, memory, the first prompt.

Memory is estimated from the sizes in the model's config, for the worst case in which every rollout uses all
its tokens and crops; the formulas are in the code, one line each.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc_rewards.parsing import is_image
from lfpc_trl.data.frames import warning_of
from lfpc_trl.data.rows import Problem, Row
from lfpc_trl.errors import UserError
from lfpc_trl.json_values import read_json
from lfpc_trl.locus.task import CuePrompt
from lfpc_trl.models import processors
from lfpc_trl.models.families import LoraTargets
from lfpc_trl.models.families.family import ATTENTION_AND_MLP
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.rollouts.crop_tool import CropSettings, environment_for
from lfpc_trl.rollouts.prompts import Message, build_prompt
from lfpc_trl.train.preflight import PreflightReport
from lfpc_trl.train.recipe import Recipe
from lfpc_trl.train.run import preflight_of

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a model that determine its memory use.

    Attributes:
        tensors: (rows, columns) of every weight matrix by name, and (n,) of the others.
        dtype_bytes: bytes of one stored value.
        hidden, layers, vocabulary, kv_width, intermediate: of the language model; `kv_width` is the number of
            key-value heads times their size.
        caching_layers: layers with a key-value cache; linear-attention layers have none.
        patch_values: values per image patch.
    """

    tensors: Mapping[str, tuple[int, ...]]
    dtype_bytes: int
    hidden: int
    layers: int
    caching_layers: int
    vocabulary: int
    kv_width: int
    intermediate: int
    patch_values: int

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(_product(shape) for shape in self.tensors.values())


def model_size(model_dir: Path) -> ModelSize:
    """Read the sizes from the config and the headers of the weight files, without loading weights.

    Raises:
        UserError: the directory has no weights in safetensors.
    """
    tensors: dict[str, tuple[int, ...]] = {}
    kinds: list[str] = []
    for path in sorted(model_dir.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                tensors[name] = tuple(entry["shape"])
                kinds.append(entry["dtype"])
    if not tensors:
        raise UserError(f"{model_dir}: no weights, it has no .safetensors file")
    return _size(read_json(model_dir / "config.json"), tensors, 2 if kinds[0] in ("BF16", "F16") else 4)


def planned_size(model_dir: Path) -> ModelSize:
    """The sizes of a model that exists only as a config, stored in bfloat16."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(model_dir))
    tensors = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    return _size(read_json(model_dir / "config.json"), tensors, 2)


def _size(config: dict[str, Any], tensors: Mapping[str, tuple[int, ...]], dtype_bytes: int) -> ModelSize:
    text, vision = config.get("text_config", config), config["vision_config"]
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    kinds = text.get("layer_types") or ["full_attention"] * text["num_hidden_layers"]
    # Mixture of experts: only the experts active for one token count.
    active = text.get("num_experts_per_tok", 1) * text.get("moe_intermediate_size", 0)
    return ModelSize(
        tensors=tensors,
        dtype_bytes=dtype_bytes,
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        caching_layers=sum(kind != "linear_attention" for kind in kinds),
        vocabulary=text["vocab_size"],
        kv_width=text["num_key_value_heads"] * head,
        intermediate=max(
            active + text.get("shared_expert_intermediate_size", 0), text.get("intermediate_size") or 0
        ),
        patch_values=3 * vision.get("temporal_patch_size", 2) * vision["patch_size"] ** 2,
    )


def _product(shape: Sequence[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


@dataclass(frozen=True)
class Need:
    """One line of the memory estimate.

    Attributes:
        what: description to print.
        where: "device" or "host".
        nbytes: per process; NaN if it depends on the device.
    """

    what: str
    where: str
    nbytes: float


def memory(
    recipe: Recipe,
    size: ModelSize,
    longest_prompt: int,
    picture: int,
    processes: int,
    lora: LoraTargets | None = None,
) -> list[Need]:
    """Estimate the memory that one process needs.

    Args:
        recipe: the recipe.
        size: of `model_size`.
        longest_prompt: tokens of the longest prompt.
        picture: visual tokens of the overviews of one row, the largest such sum.
        processes: how many processes train.
        lora: target modules of the adapter if the recipe sets none; None for the usual seven projections.
    """
    stage, option = recipe.stage, recipe.option
    shards = processes if re.search("zero3|fsdp", recipe.launch.accelerate_config or "") else 1
    weight = _BYTES.get(option("dtype"), size.dtype_bytes)
    trained = _adapter(recipe, size, lora or ATTENTION_AND_MLP) if option("use_peft") else size.parameters
    length = longest_prompt + stage.trajectory_tokens
    micro = option("per_device_train_batch_size")
    # One activation checkpoint per layer plus one layer recomputed in full, two bytes per value.
    hidden = 2 * micro * length * (size.layers * size.hidden + 8 * size.hidden + 3 * size.intermediate)
    # Logits and their gradient, four bytes per value.
    logits = 2 * 4 * micro * stage.trajectory_tokens * size.vocabulary
    rollouts = stage.prompts_per_step * option("num_generations") / processes
    pictures = picture + stage.max_crops * stage.crop_tokens
    patches_per_token = 4
    needs = [
        Need("weights", "device", weight * size.parameters / shards),
        # Gradient and two moments; an adapter also stores its own float32 weights.
        Need("gradients and AdamW", "device", (16 if option("use_peft") else 12) * trained / shards),
        Need(f"activations of {micro} rollouts of {length:,} tokens", "device", hidden),
        Need("logits and their gradient", "device", logits),
        Need(
            f"patches of {rollouts:,.0f} rollouts with {pictures:,} visual tokens",
            "device",
            4 * rollouts * pictures * patches_per_token * size.patch_values,
        ),
    ]
    if option("use_vllm") and option("vllm_mode") == "colocate":
        asleep = ", asleep while training" if option("vllm_enable_sleep_mode") else ""
        share = option("vllm_gpu_memory_utilization")
        needs.append(Need(f"vLLM: {share:.0%} of the GPU{asleep}", "device", math.nan))
    elif not option("use_vllm"):
        cache = 2 * weight * rollouts * length * size.caching_layers * size.kv_width
        needs.append(Need(f"key-value cache of {rollouts:,.0f} rollouts", "device", cache))
    pixels = 3 * rollouts * pictures * patches_per_token * size.patch_values / 6
    needs += [
        Need("overviews and crops of a step", "host", pixels),
        Need("cache of decoded originals", "host", float(1 << 30)),
    ]
    return needs


def _adapter(recipe: Recipe, size: ModelSize, lora: LoraTargets) -> int:
    """Number of LoRA parameters: the rank times the sum of rows and columns of every adapted matrix."""
    modules, parameters = recipe.lora_targets(lora)
    modules = [modules] if isinstance(modules, str) else modules
    total = 0
    for name, shape in size.tensors.items():
        module = name.removesuffix(".weight")
        # Stored names lack "language_model", which the model adds on loading.
        full = module if "visual" in module else module.replace("model.layers", "model.language_model.layers")
        hit = any(re.fullmatch(each, full) or full.endswith(f".{each}") for each in modules)
        if hit and len(shape) == 2:
            total += recipe.option("lora_r") * sum(shape)
        elif len(shape) == 3 and any(name.endswith(each) for each in parameters or ()):
            total += recipe.option("lora_r") * shape[0] * sum(shape[1:])  # one adapter per expert
    return total


# --- the text ----------------------------------------------------------------------------------------


def describe(recipe: Recipe, model_dir: Path, rows: Sequence[Row], processes: int) -> dict[str, str]:
    """Everything that `lfpc train --dry-run` prints: title to text.

    Args:
        recipe: a checked recipe.
        model_dir: the model it would start from.
        rows: checked rows.
        processes: how many processes would train.
    """
    processor = processors.load_processor(model_dir)
    factor = processors.factor(processor)
    crops = recipe.stage.crop_settings(processor.family.resolve_frame(recipe.stage.frame), factor)
    report = preflight_of(recipe, model_dir, processor, rows)
    report.check()
    method = recipe.stage.method
    picture = max(sum(tokens_of(size, factor) for size in row.shown_sizes or ()) for row in rows)
    size, lora = model_size(model_dir), processor.family.lora
    needs = memory(recipe, size, report.longest_prompt, picture, processes, lora)
    return {
        "settings": _yaml(recipe),
        "amounts": _amounts(recipe, len(rows), processes),
        "memory per process (worst-case estimate)": "\n".join(map(_line, needs)),
        "preflight": _preflight(report, method, warning_of(rows)),
        "first prompt": first_prompt(processor, rows[0], crops, method),
    }


def _yaml(recipe: Recipe) -> str:
    import yaml

    launch = {
        name: value
        for name, value in vars(recipe.launch).items()
        if value not in (None, type(recipe.launch).__dataclass_fields__[name].default)
    }
    return str(yaml.safe_dump(recipe.flat() | launch, sort_keys=False)).rstrip()


def _amounts(recipe: Recipe, rows: int, processes: int) -> str:
    stage, rollouts = recipe.stage, recipe.option("num_generations")
    seen = stage.steps * stage.prompts_per_step
    total, updates = stage.prompts_per_step * rollouts, stage.updates_per_step()
    return "\n".join(
        [
            f"processes            {processes}",
            f"prompts per step     {stage.prompts_per_step}",
            f"rollouts per step    {total:,} ({total // processes:,} per process)",
            f"updates per step     {updates}",
            f"steps                {stage.steps} ({stage.steps * updates:,} updates)",
            f"rows                 {rows:,}, each seen {seen / rows:.1f} times",
        ]
    )


def _line(need: Need) -> str:
    if math.isnan(need.nbytes):
        return f"{need.where:<8}{need.what}"
    unit, scale = ("GB", 1e9) if need.nbytes >= 1e8 else ("MB", 1e6)
    return f"{need.where:<8}{need.what:<60}{need.nbytes / scale:8.1f} {unit}"


def _preflight(report: PreflightReport, method: str, boxes: Problem | None) -> str:
    warnings = report.warnings + ([] if boxes is None else [boxes])
    rollout = "with one crop at its largest" if method == "lfpc" else "of one answer"
    return "\n".join(
        [
            f"longest prompt       {report.longest_prompt:,} tokens ({report.longest_row})",
            f"shortest rollout     {report.rollout_tokens:,} tokens {rollout}",
            f"pictures decoded     {report.decoded:,}: their tokens equal their features",
            *(f"warning              {warning}" for warning in warnings),
        ]
    )


def first_prompt(processor: Any, row: Row, crops: CropSettings, method: str = "lfpc") -> str:
    """The prompt of a row as the model sees it, each picture given by its token count and size."""
    messages, tools = _opening(row, crops, method)
    first, *parts = _render(processor, messages, tools).split(processor.image_token)
    originals = [row.size] * len(parts) if method == "locus" else [each.size for each in row.pictures]
    for (width, height), original, part in zip(_picture_sizes(messages), originals, parts, strict=True):
        tokens = tokens_of((width, height), crops.factor)
        size = f"{width} x {height} pixels of {original[0]} x {original[1]}"
        first += f"{processor.image_token} x {tokens} ({size}){part}"
    return first


def _opening(row: Row, crops: CropSettings, method: str) -> tuple[list[Message], list[Any] | None]:
    """The messages before the first turn, with pictures, and the available tools."""
    if method == "locus":
        return CuePrompt(crops.frame, crops.factor, crops.crop_tokens)(row), None
    from transformers.utils import get_json_schema

    environment = environment_for(row, crops)
    messages = build_prompt(crops.frame, environment.reset(row=row), pictures=len(row.pictures))
    return messages, [get_json_schema(environment.image_zoom_in_tool)]


def _picture_sizes(messages: Sequence[Message]) -> list[tuple[int, int]]:
    return [
        block["image"].size
        for message in messages
        if isinstance(message["content"], list)
        for block in message["content"]
        if is_image(block)
    ]


def _render(processor: Any, messages: list[Message], tools: list[Any] | None) -> str:
    from trl.data_utils import prepare_multimodal_messages

    return str(
        processor.apply_chat_template(
            prepare_multimodal_messages(messages),
            tools=tools,
            add_generation_prompt=True,
            tokenize=False,
        )
    )
