"""Visual-RFT: recorded calls, loopholes, the rules every preset keeps, what it reads and how it matches."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.visual_rft import SYSTEM
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, number, recorded


class Plain:
    parse = staticmethod(lambda text: [text])
    verify = staticmethod(lambda gold, answer: gold == answer)


class Never:
    parse = staticmethod(lambda _: [])
    verify = staticmethod(lambda *_: False)


GOLD = [[100, 100, 200, 200]]
BOX = "{'Position': [100, 100, 200, 200], 'Confidence': %s}"
FAR = "{'Position': [700, 700, 800, 800], 'Confidence': %s}"


def said(*items):
    return f"<think>so</think><answer>[{', '.join(items)}]</answer>"


def score(text, gold=GOLD, mode="exact", math=Never):
    return presets.visual_rft([text], [gold], math=math, mode=mode)


def lisa(text, gold=(100, 100, 200, 200), mode="exact", math=Never):
    return presets.visual_rft_lisa([text], [gold], math=math, mode=mode)


REPLAY = {
    "accuracy_reward_iou": lambda call, math: score(call["content"], call["solution"], math=math).iou,
    "accuracy_reward_confidence": lambda call, math: (
        score(call["content"], call["solution"], math=math).confidence
    ),
    "format_reward": lambda call, _: score(call["content"], call["solution"]).format,
    "lisa_accuracy_reward": lambda call, math: lisa(call["content"], call["solution"], math=math).giou,
}


@pytest.mark.parametrize("row", recorded("visual_rft"))
def test_exact_gives_what_visual_rft_gave(row):
    math = pytest.importorskip("math_verify")
    assert close(REPLAY[row["function"]](row["input"], math)[0], number(row["expected"]))


def test_tricks_fool_exact_and_not_strict():
    def one(mode, inside, **options):
        return lisa(f"<think>so</think><answer>{inside}</answer>", mode=mode, **options).giou[0]

    fools_exact_but_not_strict(
        SYSTEM,
        {
            "sure that it is wrong": lambda mode: (
                score(said(FAR % 0), mode=mode).confidence[0],
                score(said(FAR % 1), mode=mode).confidence[0],
            ),
            "confidence beyond 1": lambda mode: (
                score(said(BOX % 9, FAR % 1), mode=mode).confidence[0],
                score(said(BOX % 1, FAR % 1), mode=mode).confidence[0],
            ),
            "answer without tags": lambda mode: (
                score(f"[{BOX % 1}]", mode=mode).iou[0],
                score(f"[{FAR % 1}]", mode=mode).iou[0],
            ),
            "answer in the thinking": lambda mode: (
                score(f"<think><answer>[{BOX % 1}]</answer></think><answer>none</answer>", mode=mode).iou[0],
                score("<think></think><answer>none</answer>", mode=mode).iou[0],
            ),
            "corners of two boxes": lambda mode: (
                one(mode, "(100,100),(900,900),(200,200),(900,900)"),
                one(mode, "(100,100),(900,900)"),
            ),
            "inverted box": lambda mode: (one(mode, "(160,160),(140,140)"), one(mode, "(0,0),(1,1)")),
            "far is better than none": lambda mode: (one(mode, "(300,300),(400,400)"), one(mode, "none")),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    for preset, gold in ((presets.visual_rft, GOLD), (presets.visual_rft_lisa, [0, 0, 9, 9])):
        keeps_the_contract(
            lambda batch, f=preset, g=gold: f(batch, [g] * len(batch), math=Plain, mode=mode), rows
        )


@pytest.mark.parametrize(
    ("items", "iou", "confidence"),
    [
        ([BOX % 0.9], 1, 0.9),
        ([BOX % 0.9, BOX % 0.1], 1, 0.9),  # an exact duplicate is left out
        ([BOX % 0.9, FAR % 0.5], 0.5, 0.7),
        ([BOX % 1.5], 1, 1),
        ([BOX % -3], 1, 0),
        ([BOX % "'high'"], 0, 0),
        ([BOX % "1e999"], 1, 1),
        (
            [BOX % 1, "{'Position': [1, 2, 3], 'Confidence': 0.5}"],
            0.5,
            0.75,
        ),  # left over
        (
            [BOX % 0.4, "{'Position': [1, 2, 3], 'Confidence': 0.5}"],
            0,
            0,
        ),  # compared: it stops
        ([BOX % 1, "{'Position': 'abcd'}"], 0, 0),
        ([BOX % 1, "7"], 0, 0),
        (["{'Position': [100, 100, 200, 150], 'Confidence': 1}"], 0, 0),  # an IoU of 0.5 is no match
        ([], 0, 0),
    ],
)
def test_boxes_are_matched_as_the_original_matches_them(items, iou, confidence):
    parts = score(said(*items))
    assert close(parts.iou[0], iou)
    assert close(parts.confidence[0], confidence)


def test_a_text_that_mathematics_finds_equal_earns_both():
    gold = f"<answer>[{FAR % 1}]</answer>"
    assert score(gold, gold, math=Plain).total.tolist() == [2.0]
    assert lisa("<answer>(1,2),(3,4)</answer>", "<answer>(1,2),(3,4)</answer>").giou.tolist() == [2.0]
    assert lisa("<answer>(1,2),(3,4)</answer>", "<answer>(1,2),(3,4)</answer>", math=Plain).giou.tolist() == [
        1.0
    ]


pieces = st.sampled_from(
    ["(1,2),(13,14)", "(3 , 4) ,( 5,\n6 )", "(7,8),", "(0,0)", "(٣,2),(9,9)", "(1,1),(1" + "0" * 20 + ",9)"]
)
answers_ = st.lists(pieces | st.sampled_from([" ", ",", "x", "<answer>", "</answer>"]), max_size=4).map(
    "".join
)


def boxes_as_published(text):
    """GIoU + 1 of the first two of all first and then all second corners with the box 0, 0, 10, 10."""
    found = re.findall(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)", text)
    if not found:
        return 0.0
    corners = [(int(x), int(y)) for x, y, _, _ in found] + [(int(x), int(y)) for _, _, x, y in found]
    (x0, y0), (x1, y1) = corners[:2]
    shared = max(0, min(x1, 10) - max(x0, 0)) * max(0, min(y1, 10) - max(y0, 0))
    union = (x1 - x0) * (y1 - y0) + 100 - shared
    hull = (max(x1, 10) - min(x0, 0)) * (max(y1, 10) - min(y0, 0))
    return 1 + (shared / union if union > 0 else 0) - ((hull - union) / hull if hull > 0 else 0)


@given(st.lists(answers_, max_size=5), st.booleans())
def test_corners_are_those_that_a_regular_expression_finds(rows, tagged):
    texts = [f"<answer>{row}</answer>" if tagged else row for row in rows]
    scores = presets.visual_rft_lisa(texts, [[0, 0, 10, 10]] * len(rows), math=Never).giou
    found = [re.search("<answer>(.*?)</answer>", text, re.DOTALL) for text in texts]
    insides = [each[1] if each else text for each, text in zip(found, texts, strict=True)]
    assert scores.tolist() == pytest.approx(list(map(boxes_as_published, insides)))


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4), max_size=5))
def test_a_name_with_an_escape_is_the_same_name(rows):
    def item(x, sure, key):
        return f"{{'{key}': [{x}, 0, {x + 9}, 9], 'Confidence': 0.{sure}}}"

    golds = [[[0, 0, 9, 9], [4, 0, 13, 9]]] * len(rows)
    plain = [said(*(item(*each, "Position") for each in row)) for row in rows]
    odd = [text.replace("Position", "Positi\\u006fn") for text in plain]
    first, second = (presets.visual_rft(batch, golds, math=Never) for batch in (plain, odd))
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("preset", "gold", "options", "error"),
    [
        (presets.visual_rft, "no list", {"math": Plain}, r"answers\[0\] must hold a list of positions"),
        (presets.visual_rft, [[1, 2, 3]], {"math": Plain}, r"answers\[0\] must hold boxes of four finite"),
        (presets.visual_rft, GOLD, {}, "math must be given"),
        (presets.visual_rft_lisa, "none", {"math": Plain}, r"answers\[0\] must hold a box"),
    ],
)
def test_mistakes_of_the_caller_are_named(preset, gold, options, error):
    with pytest.raises(ValueError, match=error):
        preset(["x"], [gold], **options)
