"""Completions broken in every way: no exception, no hang, nothing that is not finite, the oracle's verdicts.

`LFPC_FUZZ=1000000 pytest tests/core/test_fuzz.py` runs the long form.
"""

import os
import random
import time

import numpy as np
from numba import config

import lfpc_rewards as lr
from tests.core import oracles

COUNT = int(os.environ.get("LFPC_FUZZ", "300" if config.DISABLE_JIT else "20000"))
BATCH = 5000
ARGUMENTS = '{"bbox_2d": [10, 20.5, 30, 40], "label": "x"}'
CALL = f'<tool_call>{{"name": "image_zoom_in_tool", "arguments": {ARGUMENTS}}}</tool_call>'
SEEDS = [
    f"<think>near</think>\n{CALL}",
    "<think>a sign</think>\n<answer>B</answer>\n",
    f"<think>a < b</think>{CALL}{CALL}<answer>red</answer>",
    f"<think>\u770b\u770b\u72d7</think>\u3000{CALL}",
    "<think>\U0001f415 caf\u00e9</think>\u00a0<answer>\ud83d</answer>",
    "no tags at all",
]
PIECES = [
    "<",
    ">",
    "/",
    "</",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<answer>",
    "</answer>",
    "<Answer>",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    '\\"',
    "\\n",
    "\\u0041",
    "-",
    ".",
    "0",
    "7",
    "e5",
    "1e999",
    "9" * 30,
    "NaN",
    "null",
    "true",
    "[" * 50,
    " ",
    "\n",
    "\t",
    "\x0b",
    "\x1c",
    "\x85",
    "\u00a0",
    "\u2003",
    "\u200b",
    "\u0663",
    "\ud800",
    "\U0001f415",
    "\x00",
    '"bbox_2d"',
    '"name"',
    '"arguments"',
    "image_zoom_in_tool",
    "A",
    "not",
    "50%",
]


def mutated(dice):
    text = dice.choice(SEEDS)
    for _ in range(dice.choice([0, 1, 1, 2, 3, 6])):
        a = dice.randrange(len(text) + 1)
        b = min(len(text), a + dice.randrange(12))
        how = dice.randrange(4)
        if how == 0:
            text = text[:a] + text[b:]
        elif how == 1:
            text = text[:b] + text[a:]
        elif how == 2:
            text = text[:a] + dice.choice(PIECES) + text[a:]
        else:
            text = text[:a] + dice.choice(PIECES) + text[b:]
    return text


def test_mutated_completions():
    dice = random.Random(int(os.environ.get("LFPC_FUZZ_SEED", "0")))
    slowest = 0.0
    for first in range(0, COUNT, BATCH):
        texts = [mutated(dice) for _ in range(min(BATCH, COUNT - first))]
        count = len(texts)
        targets = lr.Targets([[[10, 20, 30, 40], [5, 5, 50, 50]]], (100, 100))[[0] * count]
        start = time.process_time()
        rollouts = lr.parse_completions(texts)
        total = lr.lfpc_reward(
            texts, ["B"] * count, [["red", "blue"]] * count, crops="requested", targets=targets
        )
        free = lr.accuracy_reward(rollouts, ["red"] * count)
        if first:  # the first batch may have to compile
            slowest = max(slowest, (time.process_time() - start) / count)
        assert np.isfinite(total).all()
        assert ((free == 0) | (free == 1)).all()
        for text, rollout in zip(texts, rollouts, strict=True):
            found = (rollout.answer, [crop.box for crop in rollout.crops], rollout.well_formed)
            assert found == oracles.parse_texts([text]), text
        chats = [
            [
                {"role": "assistant", "content": a},
                {"role": "tool", "content": [{"type": "image"}]},
                {"role": "assistant", "content": b},
            ]
            for a, b in zip(texts[::2], texts[1::2], strict=True)
        ]
        for (a, _, b), rollout in zip(chats, lr.parse_completions(chats), strict=True):
            expected = oracles.parse_texts([a["content"], b["content"]])
            assert (rollout.answer, [crop.box for crop in rollout.crops], rollout.well_formed) == expected
    assert config.DISABLE_JIT or slowest < 0.002
