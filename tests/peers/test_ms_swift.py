"""The rewards in ms-swift 4.6: its own call of reward functions, and its own rewards beside ours."""

import math
from types import SimpleNamespace

import pytest
import torch
from swift.rewards import ORM, orms
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import compute_rewards_per_func

from lfpc_rewards import accuracy_reward, locus_parts, presets
from lfpc_rewards.adapters import swift_orm

SAID = [
    "<think>by the door</think><answer>[10, 10, 30, 20]</answer>",
    "[10, 10, 30, 20]",
    "<think>x</think><answer>[0, 0, 5, 5]</answer>",
]
BOXES = [[10, 10, 30, 30], [10, 10, 30, 20], [0, 0, 5, 5]]
LOOKED = [
    {"role": "assistant", "content": "<think>near near near near near</think><tool_call>{}</tool_call>"},
    {"role": "tool", "content": "<image>"},
]
TEXTS = [
    "<think>so</think><answer>4</answer>",
    "<think>so</think>\n<answer>4</answer>",
    "<think>so</think><answer>4</answer>\n",
    "<think>so</think><answer>4</answer>!",
    " <think>so</think><answer>4</answer>",
    "<answer>4</answer>",
    "<think>a b c a b c a b c</think>",
    "a A a a a a",
    "a b",
    "",
    "<think>so</think><answer>4</answer><|im_end|>",
    "\u68d5 \u68d5 \u68d5 \u68d5",
]


def scored(samples, *rewards):
    """(B, rewards) what ms-swift's trainer computes."""
    return compute_rewards_per_func(samples, list(rewards), None, torch.device("cpu"))


def samples(conversations, **columns):
    return [
        GRPOSample(
            messages=[{"role": "user", "content": "?"}, *said],
            extra={name: column[row] for name, column in columns.items()},
        )
        for row, said in enumerate(conversations)
    ]


def of(texts, before=()):
    return [[*before, {"role": "assistant", "content": text}] for text in texts]


def test_its_trainer_takes_the_reward():
    binding = {"columns": {"targets": "box"}, "term": "iou"}
    orms["locus"] = swift_orm(ORM, "Locus", locus_parts, **binding)
    rows = samples(of([*SAID, SAID[0]]), box=[*BOXES, None])
    expected = pytest.approx([0.5, 0.0, 1.0, math.nan], nan_ok=True)
    assert scored(rows, orms["locus"](args=None))[:, 0].tolist() == expected


def test_columns_of_optional_arguments_reach_the_reward():
    reward = swift_orm(ORM, "Accuracy", accuracy_reward, columns={"answers": "solution"})
    said = of(["<think>so</think><answer>blue</answer>"] * 2)
    rows = samples(said, solution=["B", "A"], choices=[["red", "blue"]] * 2)
    assert scored(rows, reward(args=None))[:, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("before", [(), LOOKED])
def test_format_and_repetition_are_what_its_own_rewards_give(before):
    args = SimpleNamespace(repetition_n_grams=3, repetition_max_penalty=-1.0)
    conversations = of(TEXTS, before)
    theirs = scored(samples(conversations), orms["format"](args=args), orms["repetition"](args=args))
    assert theirs[:, 0].any()
    assert theirs[:, 1].any()
    for said in (conversations, TEXTS):
        assert presets.ms_swift_format(said).tolist() == theirs[:, 0].tolist()
        assert presets.ms_swift_repetition(said).tolist() == pytest.approx(theirs[:, 1].tolist())


def test_format_and_repetition_as_orms_are_what_its_own_rewards_give():
    args = SimpleNamespace(repetition_n_grams=3, repetition_max_penalty=-1.0)
    rows = samples(of(TEXTS, LOOKED))
    ours = [
        swift_orm(ORM, reward.__name__, reward)
        for reward in (presets.ms_swift_format, presets.ms_swift_repetition)
    ]
    theirs = scored(rows, orms["format"](args=args), orms["repetition"](args=args))
    torch.testing.assert_close(scored(rows, *(orm(args=args) for orm in ours)), theirs)


def test_length_is_priced_as_its_own_rewards_price_it():
    args = SimpleNamespace(
        soft_max_length=100, soft_cache_length=20, cosine_max_len=100, cosine_min_len_value_wrong=-0.5,
        cosine_max_len_value_wrong=0.0, cosine_min_len_value_correct=1.0, cosine_max_len_value_correct=0.5,
    )  # fmt: skip
    lengths, right = [0, 50, 85, 100, 150], [1.0, 0.0, 1.0, 0.0, 1.0]
    ids = [[1] * length for length in lengths]
    theirs = orms["soft_overlong"](args=args)(TEXTS[:5], response_token_ids=ids)
    assert presets.ms_swift_overlong(lengths, longest=100, buffer=20).tolist() == pytest.approx(theirs)
    cosine = orms["cosine"](args=args, accuracy_orm=lambda *_, **__: right)
    theirs = cosine(TEXTS[:5], [""] * 5, response_token_ids=ids)
    assert presets.ms_swift_cosine(right, lengths, longest=100).tolist() == pytest.approx(theirs)
