"""Questions about several images: a crop counts for the targets on its own image."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfpc_rewards import (
    ParsedCompletion,
    Targets,
    grounding_parts,
    grounding_reward,
    lfpc_reward,
    parse_completion,
)
from lfpc_rewards.parsing import Crop

SIGN = [[40, 40, 60, 60], [20, 20, 80, 80]]
SIZES = [(640, 480), (100, 100)]
PARTS = ("overlap", "iou", "nearness", "total", "max_iou")


def call(arguments):
    return (
        f'<think>t</think><tool_call>{{"name": "image_zoom_in_tool", "arguments": {arguments}}}</tool_call>'
    )


@pytest.mark.parametrize(
    ("arguments", "image"),
    [
        pytest.param('{"bbox_2d": [1, 2, 3, 4]}', 1, id="none named: the first"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": 2}', 2, id="behind the box"),
        pytest.param('{"image": 3, "bbox_2d": [1, 2, 3, 4], "label": "sign"}', 3, id="before the box"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": "2"}', 2, id="a number as text"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": "left"}', 0, id="words"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": 0}', 0, id="zero"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": -1}', 0, id="negative"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": 1.5}', 0, id="no whole number"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": true}', 0, id="true"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": null}', 0, id="null"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": 99999999999999999999999999}', 0, id="huge"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "image": [2]}', 0, id="a list"),
    ],
)
def test_a_call_names_its_image(arguments, image):
    [crop] = parse_completion(call(arguments)).crops
    assert (crop.box, crop.image) == ((1, 2, 3, 4), image)


def test_other_forms_of_a_call_name_their_image_too():
    arguments = {"bbox_2d": [1, 2, 3, 4], "image": 2}
    entry = {"function": {"name": "image_zoom_in_tool", "arguments": arguments}}
    xml = (
        "<tool_call><function=image_zoom_in_tool><parameter=bbox_2d>\n[1, 2, 3, 4]\n</parameter>"
        "<parameter=image>\n2\n</parameter></function></tool_call>"
    )
    glm = (
        "<tool_call>image_zoom_in_tool\n<arg_key>bbox_2d</arg_key>\n<arg_value>[1, 2, 3, 4]</arg_value>\n"
        "<arg_key>image</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
    )
    for completion in ([{"role": "assistant", "content": "", "tool_calls": [entry]}], xml, glm):
        assert [crop.image for crop in parse_completion(completion).crops] == [2]


def test_a_crop_of_another_image_overlaps_nothing():
    crop = [[40, 40, 60, 60]]
    parts = grounding_parts(
        [crop] * 3,
        [SIGN] * 3,
        [SIZES] * 3,
        crop_images=[[1], [2], ["two"]],
        target_images=[[2]] * 3,
    )
    for name in PARTS:
        assert getattr(parts, name).tolist() == [0.0, 1.0, 0.0], name


def test_each_region_is_measured_on_its_own_image():
    pair = [SIGN, [[300, 200, 320, 210]]]
    crops = [[[40, 40, 60, 60], [300, 200, 320, 210]]]
    options = {"crop_images": [[2, 1]], "target_images": [[2, 1]]}
    assert grounding_reward(crops, [pair], [SIZES], **options).tolist() == [1.0]
    # The distance counts in sides of the image that the target is on.
    off = grounding_reward([[[45, 40, 65, 60]]], [SIGN], [SIZES], crop_images=[[2]], target_images=[[2]])
    alone = grounding_reward([[[45, 40, 65, 60]]], [SIGN], [SIZES[1]])
    assert off.tolist() == alone.tolist()


BOX = st.tuples(*[st.integers(0, 40)] * 4).map(
    lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1]
)
ROW = st.tuples(
    st.lists(st.tuples(BOX, st.integers(1, 3)), max_size=4),
    st.lists(st.tuples(BOX, st.integers(1, 3)), max_size=3),
)


@given(st.lists(ROW, min_size=1, max_size=4), st.sampled_from(["best", "last", "first", "mean"]))
@settings(max_examples=60)
def test_it_is_the_mean_over_regions_with_the_crops_of_other_images_as_bad_boxes(rows, reduce):
    sizes = [(50, 60), (41, 41), (90, 45)]
    found = grounding_parts(
        [[box for box, _ in crops] for crops, _ in rows],
        [[[box] for box, _ in regions] for _, regions in rows],
        [sizes] * len(rows),
        crop_images=[[image for _, image in crops] for crops, _ in rows],
        target_images=[[image for _, image in regions] for _, regions in rows],
        reduce=reduce,
    )
    for place, (crops, regions) in enumerate(rows):
        alone = [
            grounding_parts(
                [[box if on == image else None for box, on in crops]],
                [[target]],
                sizes[image - 1],
                reduce=reduce,
            )
            for target, image in regions
        ]
        for name in PARTS:
            expected = np.mean([getattr(each, name)[0] for each in alone]) if alone else math.nan
            np.testing.assert_allclose(getattr(found, name)[place], expected, rtol=1e-12)


def test_without_the_images_of_targets_nothing_changes():
    crops, sizes = [[[40, 40, 60, 61]], [[0, 0, 9, 9]]], [(100, 100)] * 2
    plain = grounding_reward(crops, [SIGN, [SIGN, SIGN]], sizes)
    # Every row has one image, whatever a model wrote.
    assert (
        grounding_reward(crops, [SIGN, [SIGN, SIGN]], sizes, crop_images=[[7], [9]]).tolist()
        == plain.tolist()
    )
    numbered = grounding_reward(crops, [SIGN, [SIGN, SIGN]], sizes, target_images=[None, [1, 1]])
    assert numbered.tolist() == plain.tolist()


def test_targets_keep_their_images_when_they_are_chosen_and_pickled():
    targets = Targets([SIGN, None, SIGN], [SIZES, None, (100, 100)], [[2], None, [3]])
    assert targets.images.tolist() == [2, 3]
    assert targets.sizes.tolist() == [100, 100, 100, 100]
    chosen = pickle.loads(pickle.dumps(targets[[2, 1, 0]]))
    crops = [[[40, 40, 60, 60]]] * 3
    scores = grounding_reward(crops, chosen, crop_images=[[3], [3], [1]])
    np.testing.assert_array_equal(scores, [1.0, math.nan, 0.0])
    assert grounding_reward(crops, chosen)[0] == 0.0  # no image named: the first


def test_the_total_takes_the_image_that_a_call_names():
    def looked(arguments):
        return [
            {"role": "assistant", "content": call(arguments)},
            {"role": "tool", "content": [{"type": "image"}]},
            {"role": "assistant", "content": "<think>so</think><answer>B</answer>"},
        ]

    said = [looked('{"bbox_2d": [40, 40, 60, 60], "image": 2}'), looked('{"bbox_2d": [40, 40, 60, 60]}')]
    truth = {"targets": [SIGN] * 2, "image_sizes": [SIZES] * 2, "target_images": [[2]] * 2}
    assert lfpc_reward(said, ["B", "B"], **truth).tolist() == [3.0, 2.0]
    assert lfpc_reward(said, ["B", "B"], crops="requested", **truth).tolist() == [3.0, 2.0]
    given = [[[40, 40, 60, 60]]] * 2
    assert lfpc_reward(said, ["B", "B"], crops=given, crop_images=[[1], [2]], **truth).tolist() == [2.0, 3.0]
    parsed = [ParsedCompletion("B", (Crop((40, 40, 60, 60), delivered=True, turn=0, image=2),), True, 2)]
    assert lfpc_reward(parsed, ["B"], **{name: rows[:1] for name, rows in truth.items()}).tolist() == [3.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_images": [[3]]}, r"target_images\[0\] region 0 must be at most 2, the number of .*, got 3"),
        ({"target_images": [[0]]}, r"target_images\[0\] region 0 must be the number of an image, .*, got 0"),
        ({"target_images": [["2"]]}, r"target_images\[0\] region 0 must be the number of an image.*'2'"),
        ({"target_images": [[1, 1]]}, r"target_images\[0\] must have one number per region, got 2 for 1"),
        ({"target_images": [[1], [1]]}, r"target_images must have one entry per row of targets, got 2 for 1"),
        (
            {"target_images": [[1]], "crop_images": [[1, 1]]},
            r"crop_images\[0\] must have one number per crop, got 2 for 1",
        ),
        (
            {"target_images": [[1]], "crop_images": [[1], [1]]},
            r"crop_images must have one entry per row of crops, got 2 for 1",
        ),
        ({"target_images": [[1]], "image_sizes": [SIZES] * 2}, r"image_sizes must have one entry per row"),
        (
            {"target_images": [[2]], "image_sizes": [[(9, 9), (0, 9)]]},
            r"image_sizes\[0\] must be .*\[0.0, 9.0\]",
        ),
        (
            {"target_images": [[2]], "image_sizes": [[(99, 99), (70, 99)]]},
            r"inside its image of 70 x 99 pixels",
        ),
    ],
)
def test_bad_truth_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        grounding_reward([[[40, 40, 60, 60]]], [SIGN], **{"image_sizes": [SIZES]} | options)


def test_prepared_targets_hold_their_own_images():
    targets = Targets([SIGN], [SIZES], [[2]])
    with pytest.raises(ValueError, match="target_images must be None when targets is a Targets"):
        grounding_reward([[]], targets, target_images=[[2]])
    with pytest.raises(ValueError, match="crop_images must be None unless crops are given"):
        lfpc_reward(["x"], ["B"], targets=targets, crop_images=[[1]])
