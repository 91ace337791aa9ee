"""Tiny Qwen-VL model directories with random weights, and pictures with rows, made in a moment."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    TrainingArguments,
)

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row
from lfpc_trl.models.families import family_named, family_of
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.rollouts.crop_tool import CropSettings, environment_for
from lfpc_trl.rollouts.prompts import build_prompt

_NAMES = ("activation_checkpointing", "gradient_checkpointing")  # the second up to transformers 5.22
NO_CHECKPOINTING = {next(name for name in _NAMES if name in TrainingArguments.__dataclass_fields__): False}
"""The option that keeps activations, under the name that the installed transformers gives it."""

SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
CALL_OPEN = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": ['
CALL_CLOSE = "]}}</tool_call>"
WORDS = [
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    *("<answer>", "</answer>", CALL_OPEN, CALL_CLOSE),
]
STOCK_QWEN2_5 = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for block in message['content'] %}{% if block['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ block['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

COMPACT = (
    "{% macro show(content) %}{% if content is string %}{{ content }}{% else %}{% for block in content %}"
    "{% if block.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ block.text }}"
    "{% endif %}{% endfor %}{% endif %}{% endmacro %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|im_start|>user\n{{ show(message.content) }}<|im_end|>\n"
    "{% elif message.role == 'tool' %}"
    "<|im_start|>user\n<tool_response>{{ show(message.content) }}</tool_response><|im_end|>\n"
    "{% elif message.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ show(message.content) }}"
    "{% for call in message.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>{% endgeneration %}\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template with tools and pictures that drops the system message: prompts of 100 tokens, not 2,000."""

_JSON_CALL = "<tool_call>{{ call.function | tojson }}</tool_call>"
COMPACT_XML = COMPACT.replace(
    _JSON_CALL,
    "<tool_call><function={{ call.function.name }}>{% for name, value in call.function.arguments | items %}"
    "<parameter={{ name }}>{{ value if value is string else value | tojson }}</parameter>{% endfor %}"
    "</function></tool_call>",
)
COMPACT_GLM = (
    COMPACT.replace(
        _JSON_CALL,
        "<tool_call>{{ call.function.name }}{% for name, value in call.function.arguments | items %}"
        "<arg_key>{{ name }}</arg_key>"
        "<arg_value>{{ value if value is string else value | tojson }}</arg_value>"
        "{% endfor %}</tool_call>",
    )
    .replace("<|vision_start|><|image_pad|><|vision_end|>", "<|begin_of_image|><|image|><|end_of_image|>")
    .replace("<|im_end|>{% endgen", "{{ '<|observation|>' if message.tool_calls else '<|user|>' }}{% endgen")
    .replace("<|im_start|>user\n<tool_response>", "\n<tool_response>")
    .replace("<|im_start|>user", "<|user|>")
    .replace("<|im_start|>assistant", "<|assistant|>")
    .replace("<|im_end|>\n", "")
    .replace("{% endgeneration %}\n", "{% endgeneration %}")
)


def compact(family: str) -> str:
    """`COMPACT` as a family writes its calls and turns."""
    return {"JSON": COMPACT, "XML": COMPACT_XML, "XML of GLM": COMPACT_GLM}[family_named(family).calls.name]


def tokenizer(specials: Sequence[str] = SPECIALS) -> PreTrainedTokenizerFast:
    """One token per byte, and special tokens, the first of which is padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>" if "<|im_end|>" in specials else "<|endoftext|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )
    others = [each for each in specials if each not in ("<|im_end|>", "<|endoftext|>")]
    fast.add_special_tokens({"additional_special_tokens": others})
    fast.add_tokens(WORDS)
    return fast


_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "bos_token_id": None,
}
_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
_VISION_3 = _VISION | {"patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 64}
_DEEP = _VISION_3 | {"deepstack_visual_indexes": [0]}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_PARTLY = _ROPE | {"mrope_interleaved": True, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SHARED = _EXPERTS | {"shared_expert_intermediate_size": 16}
_LINEAR = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_HYPER = {
    "hc_count": 2,
    "hc_lowrank": 8,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
    "layer_types": ["linear_attention", "indexed_attention"],
}
_GLM_ROPE = _ROPE | {"partial_rotary_factor": 1.0}
_PARTS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "qwen2_5_vl": (
        {"rope_parameters": _ROPE},
        _VISION
        | {"patch_size": 14, "spatial_merge_size": 2, "fullatt_block_indexes": [1], "window_size": 112},
    ),
    "qwen3_vl": ({"rope_parameters": _ROPE | {"mrope_interleaved": True}}, _DEEP),
    "qwen3_vl_moe": (_EXPERTS | {"rope_parameters": _ROPE | {"mrope_interleaved": True}}, _DEEP),
    "qwen3_5": (_LINEAR | {"rope_parameters": _PARTLY}, _VISION_3),
    "qwen3_5_moe": (_LINEAR | _SHARED | {"rope_parameters": _PARTLY}, _VISION_3),
    "qwen4_exp": (_LINEAR | _SHARED | _HYPER | {"rope_parameters": _PARTLY}, _VISION_3),
    "glm46v": (
        {"rope_parameters": _GLM_ROPE},
        _VISION | {"patch_size": 14, "spatial_merge_size": 2, "image_size": 112},
    ),
    "lfm3_vl": (
        {"layer_types": ["conv", "sliding_attention", "full_attention"], "num_hidden_layers": 3},
        {"hidden_size": 32, "intermediate_size": 64, "patch_size": 16, "spatial_merge_size": 2}
        | {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
        | {"layer_types": ["conv", "full_attention"]},
    ),
}
"""Model type: what its text and its vision have beside the common sizes."""
GLM_SPECIALS = [
    *("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|image|>", "<|end_of_image|>"),
    *("<|begin_of_video|>", "<|video|>", "<|end_of_video|>"),
]


def make_model(
    folder: Path,
    family: str,
    *,
    chat_template: str | None = STOCK_QWEN2_5,
    words: PreTrainedTokenizerFast | None = None,
) -> Path:
    """A model directory as the Hub holds it: config, weights, tokenizer, image processor settings."""
    torch.manual_seed(0)
    described = family_named(family)
    words = words or tokenizer(GLM_SPECIALS if family == "glm46v" else SPECIALS)
    end, pad = words.eos_token_id, words.pad_token_id
    text, vision = _PARTS[family]
    config = AutoConfig.for_model(
        family,
        text_config=_TEXT | text | {"vocab_size": len(words), "eos_token_id": end, "pad_token_id": pad},
        vision_config=vision,
        tie_word_embeddings=True,
        **_ids_of_pictures(family, words),
    )
    model = AutoModelForImageTextToText.from_config(config)
    # As in the checkpoints: generation ends at either.
    ends = [*words.convert_tokens_to_ids(list(described.turn_ends)), end, pad]
    model.generation_config.eos_token_id = list(dict.fromkeys(ends))
    model.generation_config.pad_token_id = pad
    model.save_pretrained(folder)
    if chat_template is not None:
        words.chat_template = chat_template
    words.save_pretrained(folder)
    settings = {
        "image_processor_type": described.image_processor.__name__.removesuffix("Pil") + "Fast",
        "processor_class": described.processor.__name__,
        "patch_size": vision["patch_size"],
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 3136, "longest_edge": 12845056},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def _ids_of_pictures(family: str, words: PreTrainedTokenizerFast) -> dict[str, int]:
    """The ids by which a config names the tokens of pictures."""
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    names |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    if family == "glm46v":
        names = {"image": "<|image|>", "video": "<|video|>", "image_start": "<|begin_of_image|>"}
        names |= {"image_end": "<|end_of_image|>", "video_start": "<|begin_of_video|>"}
        names |= {"video_end": "<|end_of_video|>"}
    return {f"{name}_token_id": words.convert_tokens_to_ids(token) for name, token in names.items()}


def teach(folder: Path, rows: list[Row], *, steps: int = 60, crops: Sequence[int] | None = None) -> None:
    """Let the model of `folder` learn by heart to crop and to answer, most of the time.

    Args:
        folder: of the model.
        rows: what it sees.
        steps: updates.
        crops: how often it crops, for each row; None for once.
    """
    torch.manual_seed(0)
    processor, model = load_processor(folder), load_model(folder)
    frame = family_of(folder).frame
    batch = []
    for index, row in enumerate(rows):
        environment = environment_for(row, CropSettings(frame=frame, factor=factor(processor)))
        pictures = len(row.pictures)
        prompt = build_prompt(frame, environment.reset(row=row), pictures=pictures)
        which = {} if pictures == 1 else {"image": pictures}  # the last one
        close = CALL_CLOSE if pictures == 1 else f'], "image": {pictures}}}}}</tool_call>'
        scale = 9 if frame is Frame.RELATIVE_1000 else 1
        box = [scale * side for side in (20 + index, 20, 90, 70 + index)]
        call = f"<think>c</think>{CALL_OPEN}{', '.join(map(str, box))}{close}"
        for _ in range(1 if crops is None else crops[index]):
            prompt.append({"role": "assistant", "content": [{"type": "text", "text": call}]})
            prompt.append({"role": "tool", "content": environment.image_zoom_in_tool(box, **which)})
        answer = [{"type": "text", "text": "<think>r</think><answer>A</answer>"}]
        batch.append([*prompt, {"role": "assistant", "content": answer}])
    inputs = processor.apply_chat_template(
        batch,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"padding": True, "return_tensors": "pt"},
    )
    labels = turns_only(inputs["input_ids"], processor.tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


def turns_only(ids: torch.Tensor, words: PreTrainedTokenizerFast) -> torch.Tensor:
    """Labels: the turns of the model, -100 elsewhere (transformers 5.17 loses its mask behind pictures)."""
    anchor = words("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    labels = torch.full_like(ids, -100)
    for row, line in enumerate(ids.tolist()):
        for start in range(len(anchor), len(line)):
            if line[start - len(anchor) : start] == anchor:
                end = line.index(words.eos_token_id, start) + 1
                labels[row, start:end] = ids[row, start:end]
    return labels


def make_picture(path: Path, size: tuple[int, int] = (224, 168), seed: int = 0) -> Path:
    """A picture of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def make_rows(folder: Path, count: int = 4, **columns: object) -> Path:
    """A JSONL file with `count` answerable rows and their pictures; `columns` are added to every row."""
    lines = []
    for index in range(count):
        make_picture(folder / "images" / f"{index}.png", seed=index)
        row = {
            "id": f"q{index}",
            "question": "What is on the sign?",
            "answer": ["A", "a"],
            "image": f"images/{index}.png",
            "targets": [[40, 40, 80, 70], [30, 30, 100, 90]],
            "shown_size": [112, 84],
        }
        lines.append(json.dumps(row | columns))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_records(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def make_several(folder: Path, count: int = 4, side: int = 28, **columns: object) -> Path:
    """As `make_rows`, each row about three pictures of different sizes: targets on two of them."""
    sizes = [(224, 168), (112, 112), (196, 252)]
    lines = []
    for index in range(count):
        images = [f"images/{index}-{number}.png" for number in (1, 2, 3)]
        for number, (image, size) in enumerate(zip(images, sizes, strict=True)):
            make_picture(folder / image, size, seed=10 * index + number)
        row = {
            "id": f"q{index}",
            "question": "What is on the sign?",
            "answer": ["A", "a"],
            "images": images,
            "targets": [[[100, 150, 160, 200], [90, 140, 180, 220]], [[40, 40, 80, 70]]],
            "target_images": [3, 1],
            "shown_sizes": [[4 * side, 3 * side], [2 * side, 2 * side], [3 * side, 4 * side]],
        }
        lines.append(json.dumps(row | columns))
    path = folder / "several.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
