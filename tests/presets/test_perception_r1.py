"""Perception-R1: recorded calls, loopholes, the rules every preset keeps, frames."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.perception_r1 import SYSTEM
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, number, recorded

GOLD = [100, 100, 200, 200]


def box(corners):
    return f"<|object_ref_start|>dog<|object_ref_end|><|box_start|>{corners}<|box_end|><|im_end|>"


def score(text, gold=GOLD, mode="exact"):
    return presets.perception_r1([text], [gold], mode=mode)


REPLAY = {
    "pr1_grounding_reward": lambda call: score(call["content"], call["solution"]).iou2,
    "pr1_grounding_format_reward": lambda call: score(call["content"]).format,
    "think_format_reward": lambda call: presets.perception_r1_think_format([call["content"]]),
}


@pytest.mark.parametrize("row", recorded("perception_r1"))
def test_exact_gives_what_perception_r1_gave(row):
    assert close(REPLAY[row["function"]](row["input"])[0], number(row["expected"]))


def test_tricks_fool_exact_and_not_strict():
    right, far = box("(100,100),(200,200)"), box("(700,700),(800,800)")

    def total(mode, text):
        return score(text, mode=mode).total[0]

    def turns(text):
        return [{"role": "assistant", "content": text}, {"role": "assistant", "content": far}]

    nested = "<think><answer>A</answer></think><answer>B</answer>"
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "format of one character": lambda mode: (total(mode, "<"), total(mode, "-")),
            "several boxes": lambda mode: (total(mode, right + far), total(mode, far)),
            "box without its token": lambda mode: (
                total(mode, "-[0.1, 0.1, 0.2, 0.2]"),
                total(mode, "-[0.7, 0.7, 0.8, 0.8]"),
            ),
            "first message": lambda mode: (total(mode, turns(right)), total(mode, turns(far))),
            "tags inside tags": lambda mode: tuple(
                presets.perception_r1_think_format([nested, "A"], mode=mode)
            ),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    keeps_the_contract(lambda said: presets.perception_r1(said, [GOLD] * len(said), mode=mode), rows)
    keeps_the_contract(lambda said: presets.perception_r1_think_format(said, mode=mode), rows)


parts = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "</think><answer>", "x", "\n", "é"])


@given(st.lists(parts, max_size=6).map("".join), st.booleans())
def test_the_layout_on_one_line_is_that_of_the_regular_expression(inside, whole):
    text = f"<think>{inside}</think><answer></answer>" if whole else inside
    rows = [text, f"{text}\n", f"<think>{text}</answer>"]
    found = [re.match("^<think>.*?</think><answer>.*?</answer>$", row) for row in rows]
    assert presets.perception_r1_think_format(rows).tolist() == [float(each is not None) for each in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (box("(100,100),(200,200)"), 1),
        (box("(100,100),(200,150)"), 0.25),
        (box("( 100 ,100),(200,200)"), 0),  # a blank before the comma
        ("(100,100),(200,200)", 0),  # without the token: 100,000
        ("(0.1,0.1),(0.2,0.2)", 1),
        ("[0.1, 0.1, 0.2, 0.29]", (100 / 190) ** 2),
        (f"[{'9' * 400}, 0, 1, 1]", math.nan),
    ],
)
def test_the_token_decides_on_the_frame(text, expected):
    assert close(score(text).iou2[0], expected)


def test_two_boxes_without_area_stop_the_original():
    assert math.isnan(score("x", [0, 0, 0, 0]).total[0])
    assert score("x", [0, 0, 0, 0], "strict").total.tolist() == [0.0]


@pytest.mark.parametrize("gold", ["no box", [1, 2, 3], [1, 2, 3, math.inf]])
def test_a_bad_gold_box_is_named(gold):
    with pytest.raises(ValueError, match="answers"):
        score("x", gold)
