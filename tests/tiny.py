"""Tiny Qwen-VL model directories with random weights, and pictures with rows, made in a moment."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    TrainingArguments,
)

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row
from lfpc_trl.models.families import family_of
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.rollouts.crop_tool import CropEnvironment, CropSettings
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


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the special tokens of Qwen."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.add_special_tokens({"additional_special_tokens": SPECIALS[1:2] + SPECIALS[3:]})
    fast.add_tokens(WORDS)
    return fast


def make_model(
    folder: Path,
    family: str,
    *,
    chat_template: str | None = STOCK_QWEN2_5,
    words: PreTrainedTokenizerFast | None = None,
) -> Path:
    """A model directory as the Hub holds it: config, weights, tokenizer, image processor settings."""
    torch.manual_seed(0)
    words = words or tokenizer()
    ids = {name: words.convert_tokens_to_ids(name) for name in SPECIALS}
    common = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
    text = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
    if family == "qwen2_5_vl":
        config = Qwen2_5_VLConfig(
            text_config=text | {"rope_parameters": rope},
            vision_config=vision
            | {"patch_size": 14, "spatial_merge_size": 2, "fullatt_block_indexes": [1], "window_size": 112},
            **common,
        )
        model = Qwen2_5_VLForConditionalGeneration(config)
    else:
        config = Qwen3VLConfig(
            text_config=text | {"rope_parameters": rope | {"mrope_interleaved": True}},
            vision_config=vision
            | {
                "patch_size": 16,
                "spatial_merge_size": 2,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
            },
            **common,
        )
        model = Qwen3VLForConditionalGeneration(config)
    # As in the checkpoints of Qwen: generation ends at either.
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    model.save_pretrained(folder)
    if chat_template is not None:
        words.chat_template = chat_template
    words.save_pretrained(folder)
    patch = 14 if family == "qwen2_5_vl" else 16
    settings = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen2_5_VLProcessor" if family == "qwen2_5_vl" else "Qwen3VLProcessor",
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 3136, "longest_edge": 12845056},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


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
    environment = CropEnvironment(CropSettings(frame=frame, factor=factor(processor)))
    batch = []
    for index, row in enumerate(rows):
        prompt = build_prompt(frame, environment.reset(row=row))
        scale = 9 if frame is Frame.RELATIVE_1000 else 1
        box = [scale * side for side in (20 + index, 20, 90, 70 + index)]
        call = f"<think>c</think>{CALL_OPEN}{', '.join(map(str, box))}{CALL_CLOSE}"
        for _ in range(1 if crops is None else crops[index]):
            prompt.append({"role": "assistant", "content": [{"type": "text", "text": call}]})
            prompt.append({"role": "tool", "content": environment.image_zoom_in_tool(box)})
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
