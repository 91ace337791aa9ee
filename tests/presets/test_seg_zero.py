"""Seg-Zero and VisionReasoner: recorded calls, loopholes, the rules every preset keeps, borders."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.seg_zero import SEG_ZERO, VISION_REASONER
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, first, recorded

GOLD = "<box>(100,100),(200,200)</box><points>(150,150),(160,160)</points>"
OBJECT = {"bbox": [100, 100, 200, 200], "points_1": [150, 150], "points_2": [160, 160]}
GOLDS = [{"bbox_2d": [100, 100, 200, 200], "point_2d": [150, 150]}]


def said(value, thought="so"):
    return f"<think>{thought}</think><answer>{json.dumps(value)}</answer>"


def seg(text, mode="exact", gold=GOLD, **options):
    return presets.seg_zero([text], [gold], mode=mode, **options)


def reason(text, mode="exact", golds=GOLDS):
    return presets.vision_reasoner([text], [golds], mode=mode)


REPLAY = {
    "seg_compute_score": lambda call: seg(call["predict_str"], gold=call["ground_truth"]),
    "seg_strict_compute_score": lambda call: seg(
        call["predict_str"], gold=call["ground_truth"], restricted=True
    ),
    "vision_reasoner_compute_score": lambda call: reason(call["predict_str"], golds=call["ground_truth"]),
}


@pytest.mark.parametrize("row", recorded("seg_zero"))
def test_exact_gives_what_they_gave(row):
    ours = first(REPLAY[row["function"]](row["input"]))
    assert ours == pytest.approx(row["expected"], abs=1e-6)


def test_tricks_fool_exact_seg_zero_and_not_strict():
    bare = "<think>so</think><answer>none</answer>"
    inside = f"<think>{json.dumps(OBJECT)}</think><answer>none</answer>"
    four = {"bbox": "abcd", "points_1": "ab", "points_2": "ab"}
    tiny = "<box>(10,10),(14,14)</box><points>(11,11),(12,12)</points>"
    inverted = OBJECT | {"bbox": [14, 14, 10, 10]}
    fools_exact_but_not_strict(
        SEG_ZERO,
        {
            "answer in the thinking": lambda mode: (seg(inside, mode).total[0], seg(bare, mode).total[0]),
            "four of anything": lambda mode: (seg(said(four), mode).total[0], seg(bare, mode).total[0]),
            "inverted box": lambda mode: (
                seg(said(inverted), mode, tiny).box_l1[0],
                seg(bare, mode, tiny).box_l1[0],
            ),
            "text after the object": lambda mode: (
                seg(said([OBJECT, OBJECT | {"bbox": [0, 0, 9, 9]}]), mode).iou[0],
                seg(bare, mode).iou[0],
            ),
        },
    )


def test_tricks_fool_exact_vision_reasoner_and_not_strict():
    bare = "<think>so</think><answer>[]</answer>"
    inside = f"<think><answer>{json.dumps(GOLDS)}</answer></think><answer>none</answer>"
    four = [{"bbox_2d": list("abcd"), "point_2d": list("ab")}]
    many = GOLDS * 120
    fools_exact_but_not_strict(
        VISION_REASONER,
        {
            "answer in the thinking": lambda mode: (
                reason(inside, mode).accuracy[0],
                reason(bare, mode).accuracy[0],
            ),
            "four of anything": lambda mode: (
                reason(said(four), mode).format[0],
                reason(bare, mode).format[0],
            ),
            "repetition without full stops": lambda mode: (
                reason(said([], "so!\n" * 4), mode).non_repeat[0],
                reason(said([], "so. " * 4), mode).non_repeat[0],
            ),
            "objects beyond 120": lambda mode: (
                reason(said(many + GOLDS * 9), mode, many).accuracy[0],
                reason(said(many[:119]), mode, many).accuracy[0],
            ),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    for restricted in (False, True):
        keeps_the_contract(
            lambda batch, r=restricted: presets.seg_zero(batch, [GOLD] * len(batch), restricted=r, mode=mode),
            rows,
        )
    keeps_the_contract(lambda batch: presets.vision_reasoner(batch, [GOLDS] * len(batch), mode=mode), rows)


@pytest.mark.parametrize(
    ("change", "terms"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"bbox": [109, 109, 209, 209]}, [1, 1, 1, 1, 1]),
        ({"bbox": [110, 110, 210, 210]}, [1, 1, 1, 0, 1]),  # a distance of 10 is no longer below 10
        ({"bbox": [100, 100, 200, 150]}, [1, 1, 1, 0, 0]),  # 51 of 101 lines: both ends count
        ({"points_1": [201, 150]}, [1, 1, 1, 1, 0]),
        ({"points_1": ["150", "150.0"]}, [1, 1, 1, 1, 0]),
        ({"points_1": ["150", 150.9]}, [1, 1, 1, 1, 1]),
        ({"points_1": [150, 150, 9]}, [1, 0, 1, 1, 1]),
        ({"bbox": [100, 100, 200, "200"]}, [1, 1, 0, 0, 0]),
    ],
)
def test_the_terms_of_seg_zero(change, terms):
    assert [part[0] for part in seg(said(OBJECT | change))[:5]] == terms


def test_empty_braces_are_no_object():
    assert seg(said(OBJECT).replace("<think>", "<think>{}")).total == seg(said(OBJECT)).total == 5


def test_a_box_of_one_pixel_has_an_overlap_for_vision_reasoner_only():
    gold = "<box>(5,5),(5,5)</box><points>(5,5),(5,5)</points>"
    dot = {"bbox": [5] * 4, "points_1": [5, 5], "points_2": [5, 5]}
    assert [part[0] for part in seg(said(dot), gold=gold)[:5]] == [1, 1, 0, 1, 1]
    dots = [{"bbox_2d": [5] * 4, "point_2d": [5, 5]}]
    assert reason(said(dots), golds=dots).accuracy[0] == 3


@pytest.mark.parametrize(
    ("items", "layout", "accuracy"),
    [
        (GOLDS, 3, 3),
        ([GOLDS[0], "x"], 2, 0),
        ([GOLDS[0], "bbox_2d", GOLDS[0]], 1 + 2 / 3, 0),  # the format stops there
        ([{"bbox_2d": [100, 100, 200, 200]}], 2, 0),
        ([], 1, 0),
        ({"bbox_2d": 1}, 1, 0),
        (3, 1, 0),
        (
            [{"bbox_2d": [100, 100, 200, 200], "point_2d": [180, 150]}],
            3,
            2,
        ),  # 30 is not below 30
        ([{"bbox_2d": [100, 100, 200, 200], "point_2d": [150, 2**70]}], 3, 0),  # numpy has no such integer
    ],
)
def test_the_terms_of_vision_reasoner(items, layout, accuracy):
    parts = reason(said(items))
    assert close(parts.format[0], layout)
    assert close(parts.accuracy[0], accuracy)


@pytest.mark.parametrize(
    ("thought", "fresh"), [("a. a. b", 1), ("a. a. a", 0), ("a. a. b. b", 0), ("...", 1)]
)
def test_two_repeated_sentences_are_too_many(thought, fresh):
    assert reason(thought).non_repeat[0] == fresh


def test_mistakes_of_the_caller_are_named():
    with pytest.raises(ValueError, match=r"answers\[0\] must hold <box>..</box> and <points>"):
        seg("x", gold="<box>(1,2),(3,4)</box>")
    with pytest.raises(ValueError, match=r"answers\[0\] must hold objects with a bbox_2d"):
        reason("x", golds=[{"bbox_2d": [1, 2, 3, 4]}])
