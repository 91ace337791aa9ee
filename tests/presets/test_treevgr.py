"""TreeVGR: recorded calls, loopholes, the rules every preset keeps, against a slow version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import iou_matrix, presets
from lfpc_rewards.presets.systems.treevgr import SYSTEM
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, number, recorded

GOLD = [[100, 100, 200, 200]]
HIT, FAR = "<box>[100,100,200,200]</box>", "<box>[700,700,800,800]</box>"


def score(text, mode="exact", golds=GOLD):
    return presets.treevgr([text], [golds], mode=mode)[0]


REPLAY = {"compute_box_iou": lambda call: score(call["predict_str"], golds=call["target_boxes"])}


@pytest.mark.parametrize("row", recorded("treevgr_iou"))
def test_exact_gives_what_treevgr_gave(row):
    assert close(REPLAY[row["function"]](row["input"]), number(row["expected"]))


def test_tricks_fool_exact_and_not_strict():
    half = "<box>[100,100,200,150]</box>"
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "boxes without end": lambda mode: (
                score(f"<think>{HIT}{FAR * 300}</think>", mode),
                score(f"<think>{half.replace('150]', '152]')}</think>", mode),
            ),
            "boxes after the thinking": lambda mode: (
                score(f"<think></think>{HIT}", mode),
                score("<think></think>", mode),
            ),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    keeps_the_contract(lambda said: presets.treevgr(said, [GOLD] * len(said), mode=mode), rows)


corners = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 6), st.integers(1, 6)).map(
    lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
)


@given(st.lists(corners, min_size=1, max_size=4), st.lists(corners, min_size=1, max_size=3))
def test_it_is_the_mean_of_the_best_of_the_matrix(boxes, golds):
    text = "<think>" + "".join(f"<box>[{','.join(map(str, box))}]</box>" for box in boxes) + "</think>"
    matrix = iou_matrix(boxes, golds)
    recall, precision = matrix.max(0).mean(), matrix.max(1).mean()
    assert close(score(text, golds=golds), recall)
    expected = 2 * recall * precision / (recall + precision) if recall else 0.0
    assert close(score(text, "strict", golds), expected)


def test_strict_pays_next_to_nothing_for_boxes_all_over_the_image():
    sides = (100, 150, 200, 300)
    tiled = [
        (x, y, x + side, y + side)
        for side in sides
        for x in range(0, 1001 - side, side // 2)
        for y in range(0, 1001 - side, side // 2)
    ]
    text = "<think>" + "".join(f"<box>[{x0},{y0},{x1},{y1}]</box>" for x0, y0, x1, y1 in tiled) + "</think>"
    assert len(tiled) > 600
    golds = [[130, 140, 230, 250], [520, 610, 700, 720]]
    assert score(text, golds=golds) > 0.4
    assert score(text, "strict", golds) < 0.1


@pytest.mark.parametrize(
    "text",
    ["<box>[200,100,100,200]</box>", "<box>[100, 100, 200, 200]</box>", "<box>so [100,100,200,200]</box>"],
)
def test_other_boxes_are_left_out(text):
    assert score(text) == 0.0


def test_a_bad_gold_box_is_named():
    with pytest.raises(ValueError, match=r"answers\[0\] must hold boxes of four finite numbers"):
        score("x", golds=[[1, 2, 3]])
