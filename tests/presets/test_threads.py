"""Presets in a worker thread, where verl scores: the library for mathematics cannot set its alarm there."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from lfpc_rewards import presets

GOLD, SAID, WRONG = r"$\frac{1}{2}$", r"\boxed{0.5}", r"\boxed{0.7}"

POSITIONS = "<answer>[{'Position': [1, 2, 3, 4], 'Confidence': 1}]</answer>"
LISA = "<answer>(1,2),(3,4)</answer>"


def both(text):
    return [f"<think>so</think><answer>{each}</answer>" for each in (text, WRONG)]


def judge(questions, answers, golds):
    return ["0"] * len(answers)


SCORES = {
    "chain_of_focus_math": lambda math: presets.chain_of_focus_math(both(SAID), [GOLD] * 2, math=math),
    "deepeyes_math": lambda math: presets.deepeyes_math(both(SAID), [GOLD] * 2, math=math, judge=judge),
    "pixel_reasoner": lambda math: presets.pixel_reasoner_accuracy(
        [SAID, WRONG], [r"\boxed{\frac{1}{2}}"] * 2, math=math
    ),
    "thyme": lambda math: presets.thyme(
        both(SAID), [GOLD] * 2, math=math, judge=judge, consistency_judge=judge
    ),
    "trl_accuracy": lambda math: presets.trl_accuracy([SAID, WRONG], [GOLD] * 2, math=math),
    "trl_reasoning_accuracy": lambda math: presets.trl_reasoning_accuracy(
        [f"so</think>{each}" for each in (SAID, WRONG)], [GOLD] * 2, math=math
    ),
    "visual_rft": lambda math: presets.visual_rft([POSITIONS, ""], [POSITIONS] * 2, math=math),
    "visual_rft_lisa": lambda math: presets.visual_rft_lisa([LISA, ""], [LISA] * 2, math=math),
    "vlm_r1": lambda math: presets.vlm_r1_accuracy(both("$0.5$"), [GOLD] * 2, math=math),
}


@pytest.mark.parametrize("name", SCORES)
def test_a_worker_thread_scores_as_the_main_thread_does(name):
    math = pytest.importorskip("math_verify")
    here = SCORES[name](math)
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(SCORES[name], math).result()
    total = getattr(here, "total", here)
    assert total[0] > total[1]
    np.testing.assert_array_equal(here, there)


def test_a_library_without_a_limit_is_called_as_ever():
    plain = SimpleNamespace(parse=list, verify=lambda gold, answer: gold == answer)
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(presets.pixel_reasoner_accuracy, [SAID], [SAID], math=plain).result()
    assert there.tolist() == [1.0]
