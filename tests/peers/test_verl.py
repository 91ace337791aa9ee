"""The rewards in verl 0.9.1: its own loader, its own managers, rollouts as its trainer hands them over."""

import asyncio
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from ray import cloudpickle
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-rewards-elsewhere.md"
BOX = [10, 10, 30, 30]
SAID = [
    "<think>by the door</think><answer>[10, 10, 30, 20]</answer>",
    "[10, 10, 30, 20]",
    "<think>x</think><answer>[10, 10, 30, 30]</answer>",
]
LOCUS = """
from lfpc_rewards import locus_parts
from lfpc_rewards.adapters import VerlScore
compute_score = VerlScore(locus_parts, columns={"targets": "ground_truth"})
"""
MATH = """
import math_verify
from lfpc_rewards import presets
from lfpc_rewards.adapters import VerlScore
compute_score = VerlScore(
    presets.pixel_reasoner_accuracy, columns={"texts": "completions", "answers": "ground_truth"},
    options={"math": math_verify},
)
"""
GROUP = """
from lfpc_rewards import presets
from lfpc_rewards.adapters import verl_group_score
compute_score = verl_group_score(
    presets.pixel_reasoner, size={"train": 2, "test": 1}, patience=PATIENCE,
    columns={"answers": "ground_truth", "groups": "index"}, options={"mode": "strict"},
)
"""


class Letters:
    """A tokenizer whose tokens are characters; 0 is special."""

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(map(chr, filter(None, ids.tolist())))


def rollout(text, ground_truth, extra_info):
    """One rollout, as verl's agent loop hands it to `RewardLoopWorker.compute_score`."""
    responses = torch.tensor([[ord(letter) for letter in text] + [0]])
    prompts = torch.tensor([[63]])
    return DataProto.from_dict(
        tensors={
            "prompts": prompts,
            "responses": responses,
            "attention_mask": torch.ones(1, 1 + responses.shape[1], dtype=torch.int64),
        },
        non_tensors={
            "data_source": np.array(["mine"], object),
            "reward_model": np.array([{"ground_truth": ground_truth}], object),
            "extra_info": np.array([extra_info], object),
            "__num_turns__": np.array([2]),
            "tool_extra_fields": np.array([{}], object),
        },
    )


def scores(manager, code, folder, rollouts):
    """What verl's manager gives for rollouts that come at once, the reward loaded from a file."""
    path = folder / "rewards.py"
    path.write_text(code)
    config = {
        "reward": {
            "custom_reward_function": {"path": str(path), "name": "compute_score"},
            "reward_manager": {"source": "register", "name": manager, "module": None},
            "num_workers": 1,
        },
        "trainer": {"experiment_name": "mine"},
    }
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    async def all_at_once():
        loaded = load_reward_manager(OmegaConf.create(config), Letters())
        return await asyncio.gather(*(loaded.run_single(rollout(*each)) for each in rollouts))

    try:
        return loop.run_until_complete(all_at_once())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("manager", ["naive", "dapo", "gdpo"])
def test_each_manager_takes_the_reward(manager, tmp_path):
    scored = scores(manager, LOCUS, tmp_path, [(text, BOX, {"index": 1}) for text in SAID])
    assert [each["reward_score"] for each in scored] == pytest.approx([0.55, 0.0, 1.0])
    assert [each["reward_extra_info"]["iou"] for each in scored] == pytest.approx([0.5, 0.0, 1.0])


def test_the_manager_of_other_processes_can_send_the_reward_to_them(tmp_path):
    """Starting Ray takes longer than all the other tests, so only its pickling is done here."""
    path = tmp_path / "rewards.py"
    path.write_text(LOCUS)
    config = {"reward": {"custom_reward_function": {"path": str(path), "name": "compute_score"}}}
    compute_score = get_custom_reward_fn(OmegaConf.create(config))
    assert not inspect.iscoroutinefunction(compute_score)
    sent = cloudpickle.loads(cloudpickle.dumps(compute_score))
    assert sent(data_source="mine", solution_str=SAID[0], ground_truth=BOX, extra_info={})["score"] == 0.55


def test_mathematics_are_compared_in_its_threads(tmp_path):
    rollouts = [(said, r"\boxed{\frac{1}{2}}", {}) for said in (r"\boxed{0.5}", r"\boxed{0.7}")]
    scored = scores("naive", MATH, tmp_path, rollouts)
    assert [each["reward_score"] for each in scored] == [1.0, 0.0]


GROUPS = [
    ("<think>so</think><answer>B</answer>", "B", {"index": 1, "split": "train"}),
    ("<think>so</think><answer>C</answer>", "C", {"index": 2, "split": "train"}),
    ("<think>so</think><answer>A</answer>", "B", {"index": 1, "split": "train"}),
    ("<think>so</think><answer>A</answer>", "A", {"index": 1, "split": "test"}),
    ("<think>so</think><answer>C</answer>", "C", {"index": 2, "split": "train"}),
]


@pytest.mark.parametrize("manager", ["naive", "dapo", "gdpo"])
def test_a_reward_of_groups_waits_for_the_group(manager, tmp_path):
    from lfpc_rewards import presets

    code = GROUP.replace("PATIENCE", "60")
    scored = [each["reward_score"] for each in scores(manager, code, tmp_path, GROUPS)]
    by_hand = presets.pixel_reasoner(
        [text for text, _, _ in GROUPS],
        [gold for _, gold, _ in GROUPS],
        groups=[(info["split"], info["index"]) for _, _, info in GROUPS],
        mode="strict",
    ).total
    assert scored == by_hand.tolist()


def test_a_group_that_stays_incomplete_is_an_error(tmp_path):
    with pytest.raises(TimeoutError, match=r"only 1 of the 2 rollouts of group 1 came within 0\.1 s"):
        scores("naive", GROUP.replace("PATIENCE", "0.1"), tmp_path, GROUPS[:1])


def test_the_managers_that_the_page_names_are_those_of_the_trainer():
    rows = re.findall(r"\| verl, (.*?) \|", PAGE.read_text(encoding="utf-8"))
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {"naive", "dapo", "gdpo", "remote"}
    assert named <= set(REWARD_MANAGER)
