"""Vision-R1: recorded calls, loopholes, the rules every preset keeps, the schedule."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.vision_r1 import SYSTEM
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, number, recorded

SIZES = {"image_sizes": (100, 100), "shown_sizes": (100, 100)}
GOLD = [("dog", [0, 0, 10, 10])]


def boxes(*items):
    return json.dumps([{"bbox_2d": box, "label": label} for label, box in items])


def score(text, gold=GOLD, mode="exact", **options):
    return presets.vision_r1([text], [gold], mode=mode, **SIZES | options)


def replayed(call):
    sizes = {
        "image_sizes": (call["width"], call["height"]),
        "shown_sizes": (call["input_width"], call["input_height"]),
    }
    return score(call["content"], call["solution"], step=call["step"], **sizes)


REPLAY = {
    "precision_reward": lambda call: replayed(call).precision,
    "recall_reward": lambda call: replayed(call).recall,
    "dual_format_reward": lambda call: score(call["content"], GOLD * call["num_instances"]).format,
}


@pytest.mark.parametrize("row", recorded("vision_r1_griffon"))
def test_exact_gives_what_vision_r1_gave(row):
    assert close(REPLAY[row["function"]](row["input"])[0], number(row["expected"]), 1e-5)


def test_tricks_fool_exact_and_not_strict():
    right, far = ("dog", [0, 0, 10, 10]), ("dog", [50, 50, 60, 60])

    def total(mode, text, gold=GOLD):
        return score(text, gold, mode).total[0]

    def turns(*contents):
        return [{"role": "assistant", "content": content} for content in contents]

    fools_exact_but_not_strict(
        SYSTEM,
        {
            "boxes without end": lambda mode: (
                score(boxes(far, far, right), mode=mode).precision[0],
                score(boxes(("dog", [0, 0, 10, 5])), mode=mode).precision[0],
            ),
            "wrong labels": lambda mode: (
                total(mode, boxes(("cat", [0, 0, 10, 10]))),
                total(mode, boxes(far)),
            ),
            "boxes in passing": lambda mode: (total(mode, f"so {boxes(right)}"), total(mode, "none")),
            "JSON without boxes": lambda mode: (total(mode, "5"), total(mode, "none")),
            "garbage where there is nothing": lambda mode: (total(mode, "none", []), total(mode, "[]", [])),
            "first message": lambda mode: tuple(
                presets.vision_r1(
                    [
                        [
                            {"role": "assistant", "content": boxes(each)},
                            {"role": "assistant", "content": "none"},
                        ]
                        for each in (right, far)
                    ],
                    [GOLD] * 2,
                    mode=mode,
                    **SIZES,
                ).total
            ),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    keeps_the_contract(
        lambda said: presets.vision_r1(said, [GOLD] * len(said), mode=mode, step=0, **SIZES), rows
    )


@pytest.mark.parametrize(
    ("height", "step", "precision", "recall"),
    [
        (10, None, 1, 1),
        (8, None, 0.8, 1),
        (8, 0, 1, 1),
        (8, 1500, 0.8, 1),
        (5, None, 0.5, 0.5),  # a hit of exactly 0.5 stays 0.5
        (5, 1499, 0.5, 0.5),
        (5, 1500, 0, 0),
        (4, 0, 0, 0),
    ],
)
def test_thresholds_rise_with_the_step(height, step, precision, recall):
    parts = score(boxes(("dog", [0, 0, 10, height])), step=step)
    assert close(parts.precision[0], precision)
    assert close(parts.recall[0], recall)


def test_boxes_where_there_is_nothing_stop_the_original():
    parts = score(boxes(*GOLD), [])
    assert parts.precision != parts.precision
    assert parts.format.tolist() == [0.0]
    assert score("none", []).total.tolist() == [3.0]
    assert score("[]", [], "strict").total.tolist() == [3.0]


@pytest.mark.parametrize(
    ("gold", "options", "error"),
    [
        ("[[1]]", {}, r"answers\[0\] must be a list of \(label, box\)"),
        ([("dog", [0, 0, 1])], {}, r"answers\[0\] must hold boxes of four finite numbers"),
        ([("dog", [9, 0, 1, 1])], {}, "must be four finite numbers with x0 <= x1"),
        (GOLD, {"shown_sizes": (0, 5)}, "shown_sizes must be a positive finite"),
    ],
)
def test_mistakes_of_the_caller_are_named(gold, options, error):
    with pytest.raises(ValueError, match=error):
        score("x", gold, **options)


def test_all_boxes_of_a_label_belong_to_one_class():
    gold = [("dog", [0, 0, 10, 10]), ("cat", [50, 50, 60, 60]), ("Dog", [20, 0, 30, 10])]
    assert score(boxes(*gold), gold, "strict").recall.tolist() == [1.0]
