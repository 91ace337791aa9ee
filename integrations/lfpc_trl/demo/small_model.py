"""A Qwen2.5-VL small enough for one CPU core: config, tokenizer and a compact chat template.

It uses the real classes of transformers with small sizes. Three choices differ from the published
checkpoints, because a model of a million parameters trained for minutes needs them:

* the language model's `rope_theta` is 10, not 10,000 or more: with heads of 32 and a 9 x 6 grid of image
  tokens, the usual values rotate the height and width channels by less than a thirtieth of a radian per
  token, which leaves the model hardly any position information;
* the question comes before the picture, so every image token can attend to the requested colour;
* every number is one token, and so is every fixed piece of a tool call: a whole turn takes fifteen tokens.

Everything else is what engines expect: heads of 32 in both towers, the smallest size that vLLM's attention
supports on CPUs, and a `rope_theta` of 10,000 in the vision tower, the only value that vLLM uses.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lfpc_trl.demo.world import COLOURS, QUESTION
from lfpc_trl.models.families import RESPONSE_TEMPLATE
from lfpc_trl.models.processors import new_processor

PATCH, MERGE = 14, 2
HEAD = 32
"""Channels of an attention head, in both towers."""
LARGEST_NUMBER = 767
"""Numbers from 0 to this are single tokens, which covers every coordinate in an overview."""

THOUGHTS = ("near", "mid", "wide", "now", "read", "unclear")
"""The one-word thoughts: three ways to crop, answering at once, and whether the crop was readable."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CALL_OPEN = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": ['
CALL_CLOSE = "]}}"
_PIECES = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<answer>",
    "</answer>",
    CALL_OPEN,
    CALL_CLOSE,
    ", ",
    "system\n",
    "user\n",
    "assistant\n",
    *THOUGHTS,
    *COLOURS,
    *(str(n) for n in range(LARGEST_NUMBER + 1)),
)


def build_tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a vocabulary of about 1,100.

    Args:
        sentences: Other texts that the model will read, such as the tool's error messages.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [QUESTION.format(colour=c) for c in COLOURS] + sentences
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 160,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    fast.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in _PIECES])
    fast.chat_template = resources.files("lfpc_trl.demo").joinpath("chat_template.jinja").read_text("utf-8")
    fast.response_template = RESPONSE_TEMPLATE
    return fast


def build_model(
    tokenizer: PreTrainedTokenizerFast, *, width: int = 1, layers: int = 4
) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained model: random weights, except the embeddings of numbers.

    Args:
        tokenizer: from `build_tokenizer`.
        width: factor on the demo's number of heads, in both towers; the size of a head does not change.
        layers: layers of the language model, at least 4. The demo's model has 1.4 million parameters; width 8
            with 12 layers gives 165 million.
    """
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 4 * HEAD * width,
            "intermediate_size": 320 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4 * width,
            "num_key_value_heads": 2 * width,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [4, 6, 6]},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 3 * HEAD * width,
            "intermediate_size": 192 * width,
            "num_heads": 3 * width,
            "out_hidden_size": 4 * HEAD * width,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1, 2],
            "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    _sine_initialise_numbers(model, tokenizer)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model


@torch.no_grad()
def _sine_initialise_numbers(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Give neighboring numbers similar embeddings, so that coordinates are learned as quantities."""
    embeddings = model.get_input_embeddings().weight
    numbers = torch.tensor([tokenizer.convert_tokens_to_ids(str(n)) for n in range(LARGEST_NUMBER + 1)])
    wavelengths = torch.logspace(
        torch.log10(torch.tensor(12.0)), torch.log10(torch.tensor(1600.0)), embeddings.shape[1] // 2
    )
    angles = 2 * torch.pi * torch.arange(LARGEST_NUMBER + 1)[:, None] / wavelengths
    embeddings[numbers] = 0.05 * torch.cat([angles.sin(), angles.cos()], dim=1).to(embeddings.dtype)


def build_processor(sentences: list[str]) -> Any:
    """A processor with the tokenizer of `build_tokenizer` and at most 216 visual tokens per picture."""
    tokenizer = build_tokenizer(sentences)
    return new_processor("qwen2_5_vl", tokenizer, patch_size=PATCH, merge_size=MERGE, max_tokens=216)
