"""Masks: every form in, every form out, and what is refused."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import Masks
from tests.core.strategies import bitmaps

SIZE = (8, 6)
SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]


def pickled(masks):
    return pickle.loads(pickle.dumps(masks))


def drawn(masks):
    return ["/".join("".join(".#"[v] for v in row) for row in each.tolist()) for each in masks.bitmaps()]


# As pycocotools 2.0.11 draws them: name, polygons, pixels of an image of 8 x 6.
POLYGONS = [
    ("a square fills its box", [SQUARE], "......../.###..../.###..../.###..../......../........"),
    (
        "the other way round",
        [[1, 4, 4, 4, 4, 1, 1, 1]],
        "......../.###..../.###..../.###..../......../........",
    ),
    ("a triangle", [[0, 0, 5, 0, 0, 5]], "####..../###...../##....../#......./......../........"),
    (
        "the middle of a column counts",
        [[1.6, 1, 4.4, 1, 4.4, 4, 1.6, 4]],
        "......../..##..../..##..../..##..../......../........",
    ),
    (
        "two parts are united",
        [SQUARE, [3, 3, 6, 3, 6, 5, 3, 5]],
        "......../.###..../.###..../.#####../...###../........",
    ),
    (
        "a part inside another is no hole",
        [SQUARE, [2, 2, 3, 2, 3, 3, 2, 3]],
        "......../.###..../.###..../.###..../......../........",
    ),
    (
        "a line that crosses itself: even-odd",
        [[0, 0, 6, 0, 6, 6, 2, 6, 2, 2, 4, 2, 4, 4, 0, 4]],
        "######../######../##..##../##..##../..####../..####..",
    ),
    (
        "what leaves the image is cut off",
        [[-5, -5, 3, -5, 3, 3, -5, 3]],
        "###...../###...../###...../......../......../........",
    ),
    ("a line holds no pixel", [[1, 1, 4, 4, 1, 1]], "......../......../......../......../......../........"),
]


@pytest.mark.parametrize(
    ("polygons", "pixels"), [row[1:] for row in POLYGONS], ids=[row[0] for row in POLYGONS]
)
def test_polygons(polygons, pixels):
    assert drawn(Masks([polygons], SIZE)) == [pixels]


# Of 3 x 2 pixels, as pycocotools encodes them.
RLES = [
    ("empty", "000/000", [6], "6"),
    ("full", "111/111", [0, 6], "06"),
    ("the first pixel", "100/000", [0, 1, 5], "015"),
    ("the last pixel", "000/001", [5, 1], "51"),
    ("down the columns", "011/100", [1, 2, 1, 1, 1], "121O0"),
]


@pytest.mark.parametrize(("bits", "counts", "text"), [row[1:] for row in RLES], ids=[row[0] for row in RLES])
def test_rle(bits, counts, text):
    bitmap = np.array([[bit == "1" for bit in row] for row in bits.split("/")])
    size = {"size": [2, 3]}
    masks = Masks(
        [bitmap, size | {"counts": counts}, size | {"counts": text}, size | {"counts": text.encode()}]
    )
    for each in masks.bitmaps():
        np.testing.assert_array_equal(each, bitmap)
    assert masks.rles() == [size | {"counts": text}] * 4
    assert masks.rles(compressed=False) == [size | {"counts": counts}] * 4


def test_counts_of_zero_length_and_runs_that_meet_are_one_run():
    size = {"size": [2, 3]}
    for counts in ([1, 2, 0, 1, 2], [1, 0, 0, 3, 2], [1, 3, 2, 0], [1, 3, 0, 0, 2]):
        masks = Masks([size | {"counts": counts}])
        assert masks.runs.tolist() == [1, 4]
        assert masks.rles(compressed=False) == [size | {"counts": [1, 3, 2]}]


@given(st.lists(bitmaps(), max_size=4))
def test_every_form_gives_the_mask_back(pictures):
    masks = Masks(pictures)
    for form in (
        masks.rles(),
        masks.rles(compressed=False),
        masks.bitmaps(),
        json.loads(json.dumps(masks.rles())),
    ):
        again = Masks(form, [(each.shape[1], each.shape[0]) for each in pictures] or None)
        for name in Masks.__slots__:
            np.testing.assert_array_equal(getattr(again, name), getattr(masks, name))
        assert again.rles() == masks.rles()
    for bitmap, twin in zip(pictures, masks.bitmaps(), strict=True):
        np.testing.assert_array_equal(twin, bitmap)


@given(st.lists(bitmaps(), max_size=4))
def test_areas_and_boxes_equal_counted_pixels(pictures):
    masks = Masks(pictures)
    assert masks.areas().tolist() == [int(each.sum()) for each in pictures]
    for bitmap, box in zip(pictures, masks.boxes().tolist(), strict=True):
        ys, xs = np.nonzero(bitmap)
        assert box == ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0])


coordinate = st.floats(-0.9, 1.9) | st.integers(-2, 4).map(lambda n: n / 2)
polygon = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
@given(st.lists(polygon, min_size=1, max_size=3), st.integers(1, 30), st.integers(1, 30))
def test_masks_agree_with_pycocotools_pixel_by_pixel(shares, width, height):
    coco = pytest.importorskip("pycocotools.mask")
    polygons = [[n for x, y in points for n in (x * width, y * height)] for points in shares]
    theirs = coco.merge(coco.frPyObjects(polygons, height, width))
    masks = Masks([polygons, theirs], (width, height))
    for bitmap in masks.bitmaps():
        np.testing.assert_array_equal(bitmap, coco.decode(theirs))
    assert [each["counts"].encode() for each in masks.rles()] == [theirs["counts"]] * 2
    assert masks.areas().tolist() == [coco.area(theirs)] * 2
    x, y, w, h = coco.toBbox(theirs).tolist()
    assert masks.boxes().tolist() == [[x, y, x + w, y + h]] * 2
    uncompressed = {"size": [height, width], "counts": masks.rles(compressed=False)[0]["counts"]}
    assert coco.frPyObjects(uncompressed, height, width) == theirs


@given(st.lists(st.integers(0, 2**31 - 1), max_size=8))
def test_compressed_counts_are_those_of_pycocotools_however_long(counts):
    coco = pytest.importorskip("pycocotools.mask")
    from lfpc_rewards import _runs

    # Any counts will do: the text does not know the size of the image.
    ours = _runs.text_of_counts(np.array(counts, np.int64)).tobytes()
    assert ours == coco.frPyObjects({"size": [1, 1], "counts": counts}, 1, 1)["counts"]
    assert _runs.counts_of_text(np.frombuffer(ours, np.uint8)).tolist() == counts


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), min_size=3, max_size=6))
def test_the_area_of_a_polygon_is_that_of_shapely_but_for_its_outline(points):
    shapely = pytest.importorskip("shapely")
    shape = shapely.Polygon(points)
    if not shape.is_valid:
        return  # the even-odd rule is not shapely's
    [area] = Masks([[[n for point in points for n in point]]], (300, 200)).areas()
    assert area == pytest.approx(shape.area, abs=shape.length + 4)


BAD_RLE = {"size": [6, 8], "counts": [10, 2]}
MISSING = r'must have "size" \(height, width\) and "counts", got'
FORM = r"must be an RLE, a list of polygons, or a bitmap \(height, width\) of bools or of 0 and 1, got"
POINTS = r"polygon 1 must be a flat list x0, y0, x1, y1, ... of at least 3 points, got"
FAR = r"polygon 1 must lie inside its image of 8 x 6 pixels, or at most that far outside, got"
WHOLE = "must have a width and a height that are whole numbers, and 1 to 2147483647 pixels, got"
ADD_UP = "counts must add up to 8 x 6 pixels, got "
OTHER_SIZE = "must have the size of its image, 8 x 6, got 6 x 8"
LISTED = "counts must be compressed text or a list of whole numbers, got"
LENGTHS = "counts must be lengths, compressed as COCO does or not, got"
BAD = [
    ("counts that do not add up", BAD_RLE, ADD_UP + "12"),
    ("counts of more pixels", BAD_RLE | {"counts": [40, 9]}, ADD_UP + "49"),
    ("counts beyond all numbers", BAD_RLE | {"counts": [2**62] * 4}, ADD_UP + "184"),
    ("no counts", BAD_RLE | {"counts": []}, LISTED),
    ("a negative count", BAD_RLE | {"counts": [50, -2]}, LENGTHS),
    ("counts with a fraction", BAD_RLE | {"counts": [40.5, 7.5]}, LISTED),
    ("nested counts", BAD_RLE | {"counts": [[40, 8]]}, LISTED),
    ("lists of different lengths", BAD_RLE | {"counts": [[40], 8]}, LISTED),
    ("no list", BAD_RLE | {"counts": None}, LISTED),
    ("text of other characters", BAD_RLE | {"counts": "`1 8"}, LENGTHS),
    ("text beyond ASCII", BAD_RLE | {"counts": "é"}, LENGTHS),
    ("text that stops inside a number", BAD_RLE | {"counts": "`"}, LENGTHS),
    ("text of an endless number", BAD_RLE | {"counts": "o" * 20}, LENGTHS),
    ("empty text", BAD_RLE | {"counts": ""}, ADD_UP + "0"),
    ("text of the wrong sum", BAD_RLE | {"counts": "015"}, ADD_UP + "6"),
    ("no size", {"counts": [48]}, MISSING),
    ("a size of one number", {"size": [48], "counts": [48]}, MISSING),
    ("a size that is a number", {"size": 48, "counts": [48]}, MISSING),
    ("width before height", {"size": [8, 6], "counts": [48]}, OTHER_SIZE),
    ("a size of words", {"size": ["6", "8"], "counts": [48]}, WHOLE),
    ("a size of nothing", {"size": [None, 8], "counts": [48]}, WHOLE),
    ("a size without pixels", {"size": [0, 8], "counts": []}, WHOLE),
    ("a negative size", {"size": [-6, -8], "counts": [48]}, WHOLE),
    ("too many pixels", {"size": [2**16, 2**15], "counts": [2**31]}, WHOLE),
    ("no polygon", [], "must hold at least one polygon, got none"),
    ("an odd number of coordinates", [SQUARE, [0, 0, 5, 0, 5, 5, 1]], POINTS),
    ("a polygon of two points", [SQUARE, [0, 0, 5, 5]], POINTS),
    ("points as pairs", [SQUARE, [[0, 0], [5, 0], [5, 5]]], POINTS),
    ("a polygon of words", [SQUARE, ["a"] * 6], POINTS),
    ("a polygon without its list", SQUARE, "polygon 0 must be a flat list"),
    ("NaN", [SQUARE, [0, 0, 5, 0, float("nan"), 5]], FAR),
    ("infinite", [SQUARE, [0, 0, 5, 0, float("inf"), 5]], FAR),
    ("far outside", [SQUARE, [0, 0, 16.5, 0, 5, 5]], FAR),
    ("a bitmap of 255", np.full((6, 8), 255, np.uint8), FORM),
    ("a bitmap of -1", np.full((6, 8), -1), FORM),
    ("a bitmap of floats", np.ones((6, 8)), FORM),
    ("a bitmap with channels", np.ones((6, 8, 3), bool), FORM),
    ("a bitmap of no pixels", np.ones((0, 8), bool), WHOLE),
    ("a bitmap of another size", np.ones((8, 6), bool), OTHER_SIZE),
    ("nothing", None, FORM),
    ("a number", 7, FORM),
    ("text", "1O", FORM),
]  # fmt: skip


@pytest.mark.parametrize(("mask", "rule"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_mask_is_named_with_row_and_rule(mask, rule):
    with pytest.raises((ValueError, TypeError), match=rf"^masks\[1\] {rule}"):
        Masks([[SQUARE], mask], SIZE)


def test_sizes_of_images_are_refused_where_they_cannot_be():
    with pytest.raises(
        ValueError, match=r"image_sizes is needed where a mask is a list of polygons, as masks\[1\] is"
    ):
        Masks([np.ones((6, 8), bool), [SQUARE]])
    with pytest.raises(ValueError, match=r"image_sizes must have shape \(1, 2\) or \(2,\), .* got \(2, 2\)"):
        Masks([[SQUARE]], [SIZE, SIZE])
    for size, came in (((8.5, 6), "8.5 x 6.0"), ((8, 0), "8.0 x 0.0"), ((float("inf"), 6), "inf x 6.0")):
        with pytest.raises(ValueError, match=rf"masks\[0\] {WHOLE} {re.escape(came)}$"):
            Masks([[SQUARE]], size)


def test_sizes_differ_between_rows():
    masks = Masks([[SQUARE], [SQUARE]], [(8, 6), (5, 5)])
    assert [each["size"] for each in masks.rles()] == [[6, 8], [5, 5]]
    assert masks.areas().tolist() == [9, 9]


def test_selections_keep_order_and_repeats_and_share_the_runs():
    masks = Masks([[SQUARE], np.zeros((6, 8), bool), np.ones((2, 3), int)], [SIZE, SIZE, (3, 2)])
    for indices in ([2, 0, 1, 2], np.array([2, 0, 1, 2]), [-1, 0, 1, 2]):
        chosen = masks[indices]
        assert chosen.areas().tolist() == [6, 9, 0, 6]
        assert chosen.runs is masks.runs
        assert repr(chosen) == "Masks(rows=4, runs=5)"
        assert [each.sum() for each in chosen.bitmaps()] == [6, 9, 0, 6]
    assert len(masks[:2]) == len(masks[np.array([True, False, True])]) == 2
    assert masks[::-2].areas().tolist() == [6, 9]
    assert len(masks[1]) == 1
    assert len(masks[[]]) == len(Masks([])) == 0
    assert Masks([]).boxes().shape == (0, 4)
    with pytest.raises(IndexError):
        masks[[3]]


@pytest.mark.parametrize("copied", [pickled, copy.copy, copy.deepcopy, lambda masks: masks])
def test_copies_are_equal_and_read_only(copied):
    masks = Masks([[SQUARE], np.zeros((6, 8), bool)], SIZE)[[1, 0]]
    twin = copied(masks)
    assert twin.rles() == masks.rles()
    for name in Masks.__slots__:
        with pytest.raises(ValueError, match="read-only"):
            getattr(twin, name)[0] = 1


def test_the_callers_bitmap_is_neither_kept_nor_changed():
    bitmap = np.zeros((6, 8), np.uint8)
    bitmap[2:4] = 1
    before = bitmap.copy()
    masks = Masks([bitmap])
    np.testing.assert_array_equal(bitmap, before)
    bitmap[:] = 0
    assert masks.areas().tolist() == [16]


def test_masks_take_no_more_memory_than_a_third_above_their_counts():
    # Counts of four bytes each, which is what pycocotools holds; masks of some 30 columns, and large ones.
    for radius in (15, 200):
        y, x = np.ogrid[:480, :640]
        masks = Masks([(x - 320) ** 2 + (y - 240) ** 2 < (radius + i) ** 2 for i in range(5)])
        counts = sum(len(each["counts"]) for each in masks.rles(compressed=False))
        assert sum(getattr(masks, name).nbytes for name in Masks.__slots__) <= 1.3 * 4 * counts
