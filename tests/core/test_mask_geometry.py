"""Geometry of masks: tables, laws, oracles, error texts."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lfpc_rewards as lr
from tests.core import oracles
from tests.core.strategies import bitmaps, float_boxes, int_boxes

WIDTH, HEIGHT = 13, 9
picture = bitmaps(width=WIDTH, height=HEIGHT)
filled = bitmaps(width=WIDTH, height=HEIGHT, empty=False)
PAIRED = [lr.mask_iou, lr.mask_f1, lr.boundary_f1]


def box_mask(x0, y0, x1, y1, size=(20, 10)):
    bitmap = np.zeros(size[::-1], bool)
    bitmap[y0:y1, x0:x1] = True
    return bitmap


WHOLE, LEFT, RIGHT, NONE = (
    box_mask(0, 0, 20, 10),
    box_mask(0, 0, 10, 10),
    box_mask(10, 0, 20, 10),
    box_mask(0, 0, 0, 0),
)
PAIRS = [  # id, mask, other, IoU, F1 of pixels, F1 of boundaries without tolerance
    ("the same", LEFT, LEFT, 1, 1, 1),
    ("half of it", WHOLE, LEFT, 0.5, 2 / 3, 0),  # the whole image has no boundary
    ("beside it: one boundary", LEFT, RIGHT, 0, 0, 1),
    ("an empty one", LEFT, NONE, 0, 0, 0),
    ("two empty ones", NONE, NONE, 0, 0, 0),
    ("the whole image twice", WHOLE, WHOLE, 1, 1, 1),
    ("the whole image and an empty one", WHOLE, NONE, 0, 0, 0),
]


@pytest.mark.parametrize(
    ("mask", "other", "iou", "f1", "edge"), [r[1:] for r in PAIRS], ids=[r[0] for r in PAIRS]
)
def test_pairs(mask, other, iou, f1, edge):
    for a, b in ((mask, other), (other, mask)):
        assert lr.mask_iou([a], [b]) == iou
        assert lr.mask_iou_matrix([a], [b]) == iou
        assert lr.mask_f1([a], [b]) == pytest.approx(f1)
        assert lr.boundary_f1([a], [b], bound=0) == edge


COVERAGE = [  # of a target of the pixels (2, 1), (3, 1) and (3, 2)
    ("the whole image", [0, 0, 20, 10], 1),
    ("far more", [-1e9, -1e9, 1e9, 1e9], 1),
    ("one pixel", [2, 1, 3, 2], 1 / 3),
    ("the pixel of its box that it lacks", [2, 2, 3, 3], 0),
    ("half a pixel", [2, 1, 2.5, 2], 1 / 6),
    ("a quarter of three", [2.5, 1.5, 3.5, 2.5], (0.25 + 0.25 + 0.25) / 3),
    ("beside it", [4, 0, 20, 10], 0),
    ("touches it", [0, 0, 2, 10], 0),
    ("no area", [3, 1, 3, 2], 0),
]


@pytest.mark.parametrize(("crop", "share"), [row[1:] for row in COVERAGE], ids=[row[0] for row in COVERAGE])
def test_coverage_by_boxes(crop, share):
    target = lr.Masks([box_mask(2, 1, 4, 2) | box_mask(3, 1, 4, 3)])
    assert lr.mask_coverage(crop, target) == pytest.approx(share)
    assert lr.mask_coverage([crop], target) == pytest.approx(share)
    assert lr.mask_coverage_matrix([crop], target) == pytest.approx(share)


@given(picture, picture)
def test_measures_equal_counted_pixels(mask, other):
    shared, union, both = (mask & other).sum(), (mask | other).sum(), mask.sum() + other.sum()
    assert lr.mask_iou([mask], [other]) == (shared / union if union else 0)
    assert lr.mask_f1([mask], [other]) == (2 * shared / both if both else 0)
    if other.any():
        assert lr.mask_coverage(lr.Masks([mask]), [other]) == shared / other.sum()


@given(filled, float_boxes() | int_boxes(width=WIDTH, height=HEIGHT))
@example(box_mask(3, 2, 8, 6), [2.3, 2.1, 7.7, 5.9])
def test_coverage_equals_exact_fractions(target, crop):
    exact = oracles.mask_coverage_by_counting(crop, target)
    assert lr.mask_coverage([crop], [target]) == pytest.approx(exact, abs=1e-12)
    assert lr.mask_coverage_matrix([crop], [target]) == pytest.approx(exact, abs=1e-12)
    assert 0 <= lr.mask_coverage([crop], [target]) <= 1
    assert 0 <= lr.mask_coverage_matrix([crop], [target]) <= 1


@given(
    int_boxes(width=WIDTH, height=HEIGHT, empty=False), float_boxes() | int_boxes(width=WIDTH, height=HEIGHT)
)
def test_the_coverage_of_a_mask_that_fills_a_box_is_that_of_the_box(box, crop):
    mask = box_mask(*box, (WIDTH, HEIGHT))
    assert lr.mask_coverage([crop], [mask]) == pytest.approx(lr.coverage([crop], box), abs=1e-12)


@given(filled, int_boxes(width=WIDTH, height=HEIGHT))
def test_a_box_covers_what_its_mask_covers(target, crop):
    mask = box_mask(*crop, (WIDTH, HEIGHT))
    assert lr.mask_coverage([crop], [target]) == lr.mask_coverage(lr.Masks([mask]), [target])
    assert lr.mask_coverage_matrix([crop], [target]) == lr.mask_coverage_matrix(lr.Masks([mask]), [target])


@given(picture, picture, st.sampled_from([0, 0.008, 0.1, 0.3]))
@example(box_mask(1, 1, 5, 5), box_mask(2, 2, 6, 6), 0.05)
def test_boundaries_are_those_of_davis(mask, other, bound):
    theirs = oracles.davis_f(mask, other, bound)
    ours = lr.boundary_f1([mask], [other], bound=bound)
    if any(each.any() and not each.all() for each in (mask, other)):  # else neither has one: our choice
        assert ours == pytest.approx(theirs, abs=1e-12)
    else:
        assert ours == lr.mask_iou([mask], [other])


@given(picture, picture)
def test_measures_are_symmetric_and_in_range(mask, other):
    for measure in PAIRED:
        value = measure([mask], [other])
        assert 0 <= value <= 1
        assert measure([other], [mask]) == pytest.approx(value, abs=1e-12)
        assert measure([mask], [mask]) == mask.any()


@given(st.lists(picture, min_size=1, max_size=40), st.lists(filled, max_size=40))
def test_matrices_equal_their_rows(masks, others):
    a, b = lr.Masks(masks), lr.Masks(others)
    assert (lr.mask_iou_matrix(a, b)).shape == (len(masks), len(others))
    for i in range(len(masks)):
        np.testing.assert_array_equal(lr.mask_iou_matrix(a, b)[i], lr.mask_iou(a[i], b))
        np.testing.assert_array_equal(lr.mask_coverage_matrix(a, b)[i], lr.mask_coverage(a[i], b))
    boxes = a.boxes() + 0.3
    for j in range(len(others)):
        np.testing.assert_allclose(
            lr.mask_coverage_matrix(boxes, b)[:, j], lr.mask_coverage(boxes, b[j]), atol=1e-12
        )


def test_a_mask_that_meets_many_others_is_counted_by_a_table_and_the_same():
    dice = np.random.default_rng(0)
    masks = lr.Masks(dice.random((3, 20, 30)) < 0.5)
    others = lr.Masks(dice.random((200, 20, 30)) < dice.random((200, 1, 1)))
    result = lr.mask_iou_matrix(masks, others)
    for i in range(3):
        np.testing.assert_array_equal(result[i], lr.mask_iou(masks[i], others))


@given(st.lists(picture, min_size=1, max_size=4), st.lists(picture, min_size=1, max_size=4), st.data())
def test_pycocotools_gives_the_same_matrix(masks, others, data):
    coco = pytest.importorskip("pycocotools.mask")
    a, b = lr.Masks(masks), lr.Masks(others)
    crowd = data.draw(st.lists(st.booleans(), min_size=len(others), max_size=len(others)))
    theirs = coco.iou(a.rles(), b.rles(), crowd)
    for j, is_crowd in enumerate(crowd):
        if not is_crowd:
            np.testing.assert_allclose(lr.mask_iou_matrix(a, b)[:, j], theirs[:, j])
        elif a.areas().all():
            np.testing.assert_allclose(lr.mask_coverage_matrix(b, a)[j], theirs[:, j])


@given(filled, float_boxes(), st.floats(0, 9))
def test_a_larger_crop_never_covers_less(target, crop, grow):
    larger = [crop[0] - grow, crop[1] - grow, crop[2] + grow, crop[3] + grow]
    for measure in (lr.mask_coverage, lr.mask_coverage_matrix):
        assert measure([larger], [target]) >= measure([crop], [target]) - 1e-12


@given(picture, picture, st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_larger_bound_never_matches_less(mask, other, bound, more):
    assert lr.boundary_f1([mask], [other], bound=bound + more) >= lr.boundary_f1([mask], [other], bound=bound)


def test_one_row_is_the_partner_of_all():
    masks = lr.Masks([WHOLE, LEFT, RIGHT])
    assert lr.mask_iou(masks, masks[1]).tolist() == lr.mask_iou(masks[1], masks).tolist() == [0.5, 1, 0]
    assert lr.mask_coverage([0, 0, 10, 10], masks).tolist() == [0.5, 1, 0]
    assert lr.mask_coverage([[0, 0, 10, 10], [0, 0, 5, 10]], masks[1]).tolist() == [1, 0.5]
    assert lr.mask_coverage(masks[1], masks).tolist() == [0.5, 1, 0]
    for measure in (*PAIRED, lr.mask_coverage):
        with pytest.raises(ValueError, match=r"must have the same length, or one of them 1, got 3 and 2$"):
            measure(masks, masks[:2])
    with pytest.raises(ValueError, match=r"crops and targets must have the same length, .* got 2 and 3"):
        lr.mask_coverage([[0, 0, 1, 1]] * 2, masks)


def test_empty_batches():
    none, one = lr.Masks([]), lr.Masks([LEFT])
    for measure in PAIRED:
        assert measure(none, none).shape == measure(none, one).shape == measure([], []).shape == (0,)
    assert lr.mask_coverage([], one).shape == lr.mask_coverage([], none).shape == (0,)
    assert lr.mask_coverage_matrix([], one).shape == lr.mask_coverage_matrix(none, one).shape == (0, 1)
    assert (
        lr.mask_iou_matrix(one, none).shape == lr.mask_coverage_matrix([[0, 0, 1, 1]], none).shape == (1, 0)
    )


def test_out_is_filled_and_returned():
    masks = lr.Masks([LEFT])
    for call, shape in (
        *((lambda out, f=f: f(masks, masks, out=out), (1,)) for f in (*PAIRED, lr.mask_coverage)),
        (lambda out: lr.mask_coverage([0, 0, 20, 20], masks, out=out), (1,)),
        (lambda out: lr.mask_iou_matrix(masks, masks, out=out), (1, 1)),
        (lambda out: lr.mask_coverage_matrix(masks, masks, out=out), (1, 1)),
        (lambda out: lr.mask_coverage_matrix([[0, 0, 20, 20]], masks, out=out), (1, 1)),
    ):
        out = np.full(shape, -7.0)
        assert call(out) is out
        assert out.flat[0] == 1
        with pytest.raises(ValueError, match="out must be a writeable C-contiguous float64 array of shape"):
            call(np.empty(shape, np.float32))


NAN = float("nan")


@pytest.mark.parametrize("crop", [[3, 0, 1, 1], [NAN, 0, 1, 1], [0, 0, 1e200, 1e200]])
@pytest.mark.parametrize("measure", [lr.mask_coverage, lr.mask_coverage_matrix])
def test_a_bad_box_is_named_with_its_row(measure, crop):
    with pytest.raises(ValueError, match=r"^crops\[1\] must be four finite numbers with x0 <= x1, y0 <= y1"):
        measure([[5, 5, 5, 5], crop], [LEFT])
    with pytest.raises(ValueError, match=r"^crops must have shape"):
        measure([[1, 2, 3]], [LEFT])


def test_bad_masks_are_named_with_argument_and_row():
    for measure in (*PAIRED, lr.mask_iou_matrix):
        with pytest.raises(
            ValueError, match=r"^others\[1\] must have the size of its partner, 20 x 10, got 13 x 9"
        ):
            measure([LEFT, LEFT], [LEFT, np.ones((9, 13), int)])
        with pytest.raises(TypeError, match=r"^masks\[1\] must be an RLE"):
            measure([LEFT, 7], [LEFT, LEFT])
        with pytest.raises(ValueError, match=r"image_sizes is needed .* as others\[0\] is"):
            measure([LEFT], [[[0, 0, 5, 0, 5, 5]]])
    for measure in (lr.mask_coverage, lr.mask_coverage_matrix):
        for crops in (lr.Masks([LEFT, LEFT]), [[0, 0, 1, 1]] * 2):
            with pytest.raises(ValueError, match=r"^targets\[1\] must hold at least one pixel, got none"):
                measure(crops, [LEFT, NONE])
        with pytest.raises(ValueError, match=r"^targets\[1\] must have the size of its partner, 20 x 10"):
            measure(lr.Masks([LEFT, LEFT]), [LEFT, np.ones((9, 13), int)])
    with pytest.raises(
        ValueError, match=r"^masks\[1\] must have the size of its partner, 20 x 10, got 13 x 9"
    ):
        lr.mask_iou_matrix([LEFT, np.ones((9, 13), int)], [LEFT])


@pytest.mark.parametrize("bound", [-0.1, 1, NAN, float("inf")])
def test_a_bound_out_of_its_range_is_refused(bound):
    with pytest.raises(
        ValueError, match="bound must be at least 0 and below 1, a share of the diagonal, got"
    ):
        lr.boundary_f1([LEFT], [LEFT], bound=bound)
