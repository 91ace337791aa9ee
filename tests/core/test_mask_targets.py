"""Masks as innermost targets: a crop must hold their pixels."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lfpc_rewards as lr
from tests.core import oracles
from tests.core.strategies import IMAGE, bitmaps, crops, float_boxes, int_boxes, nested_boxes

PARTS = lr.GroundingParts._fields
SIZE = (100, 80)
OUTER = [20, 20, 80, 60]
ARM = np.zeros((80, 100), bool)
ARM[40:60, 40:42] = ARM[40:41, 40:60] = True
MASK = lr.Masks([ARM])
[RLE] = MASK.rles()


def box_mask(box, size=IMAGE):
    bitmap = np.zeros(size[::-1], bool)
    bitmap[box[1] : box[3], box[0] : box[2]] = True
    return lr.Masks([bitmap])


def assert_same(a, b):
    for name in PARTS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


TABLE = [  # id, crop, overlap, IoU, total, with the mask as target
    ("its box", [40, 40, 60, 60], 1, 1, 1),
    ("an empty corner of its box cut off", [40, 40, 59, 60], 57 / 58, 0.95, None),
    ("nearly all of its box, but not the arm", [40, 42, 60, 60], 36 / 58, 0, None),
    ("the empty corner of its box", [45, 45, 60, 60], 0, 0, None),
    ("the box around it", OUTER, 1, 400 / 2400, None),
    ("elsewhere", [0, 0, 9, 9], 0, 0, None),
]


@pytest.mark.parametrize(
    ("crop", "overlap", "iou", "total"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE]
)
@pytest.mark.parametrize("mask", [MASK, RLE], ids=["Masks", "RLE"])
def test_a_crop_must_hold_the_pixels_of_a_mask(mask, crop, overlap, iou, total):
    parts = lr.grounding_parts([[crop]], [[mask]], SIZE)
    assert parts.overlap == pytest.approx(overlap)
    assert parts.iou == pytest.approx(iou)
    assert total is None or parts.total == total


@given(
    crops | st.lists(float_boxes(), max_size=3),
    nested_boxes(),
    st.sampled_from(["best", "last", "first", "mean"]),
)
def test_with_a_mask_that_fills_its_box_nothing_changes(rollout, region, reduce):
    mask = box_mask(region[0])
    boxes = lr.grounding_parts([rollout] * 2, [region, [region, region]], IMAGE, reduce=reduce)
    targets = [[mask, *region[1:]], [[*mask.rles(), *region[1:]], region]]
    assert_same(lr.grounding_parts([rollout] * 2, targets, IMAGE, reduce=reduce), boxes)


@given(crops, bitmaps(width=IMAGE[0], height=IMAGE[1], empty=False), st.booleans())
def test_all_but_the_overlap_is_that_of_the_tight_box(rollout, bitmap, outer):
    mask = lr.Masks([bitmap])
    boxes = [*mask.boxes().tolist(), *[[0, 0, *IMAGE]] * outer]
    found = lr.grounding_parts([rollout], [[mask, *boxes[1:]]], IMAGE, reduce="last", overlap_threshold=None)
    plain = lr.grounding_parts([rollout], [boxes], IMAGE, reduce="last", overlap_threshold=None)
    for name in ("iou", "nearness", "total", "max_iou"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    if plain.nearness[0] > 0 and rollout[-1][0] > -500:  # else the crop is none, or lies far outside
        assert found.overlap == pytest.approx(
            oracles.mask_coverage_by_counting(rollout[-1], bitmap), abs=1e-12
        )


@given(bitmaps(width=IMAGE[0], height=IMAGE[1], empty=False), int_boxes(empty=False))
def test_the_iou_counts_only_above_the_threshold_of_the_pixels(bitmap, crop):
    mask = lr.Masks([bitmap])
    parts = lr.grounding_parts([[crop]], [[mask]], IMAGE)
    share = lr.mask_coverage([crop], mask)
    assert parts.overlap == pytest.approx(share, abs=1e-12)
    assert parts.iou == (parts.max_iou if parts.overlap > 0.9 else 0)


def test_rows_and_regions_with_and_without_masks_mix():
    inner = [10, 10, 20, 20]
    rows = [[inner], None, [RLE, OUTER], [[RLE], [inner], [MASK, OUTER]], [], [[inner], [inner]]]
    targets = lr.Targets(rows, SIZE)
    assert repr(targets) == "Targets(rows=6, regions=7, boxes=9)"
    crop = [[40, 42, 60, 60]]
    together = lr.grounding_parts([crop] * 6, targets)
    for place, row in enumerate(rows):
        alone = lr.grounding_parts([crop], [row], SIZE)
        for name in PARTS:
            np.testing.assert_array_equal(getattr(together, name)[place], getattr(alone, name)[0])
    chosen = pickle.loads(pickle.dumps(targets[[3, 2, 0]]))
    np.testing.assert_array_equal(lr.grounding_reward([crop] * 3, chosen), together.total[[3, 2, 0]])


def test_masks_on_several_images():
    sizes = [[(640, 480), SIZE]] * 2
    crop = [[40, 40, 60, 60]]
    options = {"crop_images": [[1], [2]], "target_images": [[2], [2]]}
    assert lr.grounding_reward([crop, crop], [[MASK]] * 2, sizes, **options).tolist() == [0, 1]


def test_lfpc_reward_takes_masks():
    said = ["<think>so</think><answer>B</answer>"]
    total = lr.lfpc_reward(said, ["B"], crops=[[[40, 40, 60, 60]]], targets=[[RLE]], image_sizes=SIZE)
    assert total == pytest.approx(1.8)


INNERMOST = "mask must be the innermost of the region, before its boxes, got"
EMPTY = {"size": [80, 100], "counts": [8000]}
BAD = [
    ("empty", [EMPTY], "mask must hold at least one pixel, got none"),
    ("of another size", [{"size": [100, 80], "counts": [0, 8000]}],
     "mask must have the size of its image, 100 x 80, got 80 x 100"),
    ("broken", [RLE | {"counts": "015"}], "mask counts must add up to 100 x 80 pixels, got 6"),
    ("without counts", [{"size": [80, 100]}], 'mask must have "size"'),
    ("not the innermost", [[40, 40, 60, 60], RLE], INNERMOST),
    ("two masks", [MASK, RLE], INNERMOST),
    ("several rows", [MASK[[0, 0]]], "mask must be Masks with one row, got Masks\\(rows=2, runs=40\\)"),
    ("a box that does not hold it", [RLE, [41, 20, 80, 60]], "box 1 must contain the box before it"),
    ("a box that is none", [RLE, [1, 2, 3]], "must have shape"),
]  # fmt: skip


@pytest.mark.parametrize(("region", "rule"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_mask_is_named_with_row_region_and_rule(region, rule):
    with pytest.raises(ValueError, match=rf"^targets\[1\] region 1 {rule}"):
        lr.Targets([None, [[[0, 0, 9, 9]], region]], SIZE)
