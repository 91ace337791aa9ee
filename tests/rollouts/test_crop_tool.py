"""The crop tool as TRL runs it."""

import contextlib
import dataclasses
import inspect
import math
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.utils import get_json_schema

from lfpc_rewards import Frame
from lfpc_trl.data.rows import read_rows
from lfpc_trl.pictures.crops import BOX_ERRORS, BoxError
from lfpc_trl.pictures.originals import load_original
from lfpc_trl.rollouts.crop_tool import TOOL_NAME, CropEnvironment, CropSettings, environment_factory
from tests.tiny import make_rows

SETTINGS = CropSettings(frame=Frame.SHOWN, factor=28, crop_tokens=16, max_crops=2)


@pytest.fixture
def environment(row):
    environment = CropEnvironment(SETTINGS)
    environment.reset(row=row, prompt=[], more="columns of TRL")
    return environment


def picture(blocks):
    assert [block["type"] for block in blocks] == ["image"]
    return np.asarray(blocks[0]["image"])


def test_reset_shows_the_picture_small_and_asks(row):
    image, text = CropEnvironment(SETTINGS).reset(row=row)
    assert image["image"].size == row.shown_size == (112, 84)
    assert text == {"type": "text", "text": "What is on the sign?"}


def test_options_are_lettered(row):
    row = dataclasses.replace(row, choices=("cat", "dog"))
    assert CropEnvironment(SETTINGS).reset(row=row)[1]["text"] == "What is on the sign?\nA. cat\nB. dog"


def test_a_crop_is_cut_from_the_original_at_full_resolution(environment, row):
    crop = picture(environment.image_zoom_in_tool([28, 14, 56, 42], label="sign"))
    np.testing.assert_array_equal(crop, np.asarray(load_original(row.image))[28:84, 56:112])


@pytest.mark.parametrize(
    ("box", "rule"),
    [
        ([200, 200, 300, 300], "outside"),
        ([50, 50, 20, 20], "inverted"),
        ([50, 50, 51, 51], "thin"),
        ([math.nan, 0, 9, 9], "form"),
        ("[1, 2, 3, 4]", "form"),
        ([1, 2, 3], "form"),
        (None, "form"),
    ],
)
def test_a_bad_call_is_refused_in_words_and_takes_no_crop_away(environment, box, rule):
    with pytest.raises(BoxError) as caught:
        environment.image_zoom_in_tool(box)
    assert str(caught.value) == BOX_ERRORS[rule]
    for _ in range(SETTINGS.max_crops):
        environment.image_zoom_in_tool([10, 10, 60, 60])


def test_too_many_crops_are_refused_until_the_next_rollout(environment, row):
    for _ in range(SETTINGS.max_crops):
        environment.image_zoom_in_tool([10, 10, 60, 60])
    with pytest.raises(BoxError, match="No more crops"):
        environment.image_zoom_in_tool([10, 10, 60, 60])
    environment.reset(row=row)
    environment.image_zoom_in_tool([10, 10, 60, 60])


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-200, 300) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    box=anything | st.lists(st.integers(-20, 130) | st.floats(-20, 130), min_size=4, max_size=4),
    label=anything,
)
def test_no_call_crashes(environment, row, box, label):
    environment.reset(row=row)
    # BoxError can only be made of one of the fixed sentences.
    with contextlib.suppress(BoxError):
        crop = picture(environment.image_zoom_in_tool(box, label))
        assert crop.shape[0] % 28 == crop.shape[1] % 28 == 0
        assert crop.shape[0] * crop.shape[1] <= 16 * 28 * 28


# --- what the model depends on -----------------------------------------------------------------------


def test_noise_has_the_size_of_the_crop_and_is_the_same_every_time(row):
    noisy = dataclasses.replace(SETTINGS, crop_source="noise")
    crops = []
    for setting in (SETTINGS, noisy, noisy, dataclasses.replace(noisy, seed=1)):
        environment = CropEnvironment(setting)
        environment.reset(row=row)
        crops.append(picture(environment.image_zoom_in_tool([10, 10, 60, 60])))
    real, noise, again, other = crops
    assert real.shape == noise.shape
    np.testing.assert_array_equal(noise, again)
    assert (noise != other).any()
    assert noise.std() > 60


def test_two_noise_crops_of_one_rollout_differ(row):
    environment = CropEnvironment(dataclasses.replace(SETTINGS, crop_source="noise"))
    environment.reset(row=row)
    first, second = (picture(environment.image_zoom_in_tool([10, 10, 60, 60])) for _ in range(2))
    assert (first != second).any()


def test_the_target_is_the_outermost_box_of_the_nearest_region(tmp_path):
    near, far = [[42, 42, 60, 60], [28, 28, 84, 84]], [[150, 100, 160, 110], [140, 84, 196, 140]]
    row = read_rows(make_rows(tmp_path, 1, targets=[near, far]))[0]
    environment = CropEnvironment(dataclasses.replace(SETTINGS, crop_source="target"))
    environment.reset(row=row)
    original = np.asarray(load_original(row.image))
    np.testing.assert_array_equal(
        picture(environment.image_zoom_in_tool([10, 10, 50, 50])), original[28:84, 28:84]
    )
    np.testing.assert_array_equal(
        picture(environment.image_zoom_in_tool([70, 50, 100, 70])), original[84:140, 140:196]
    )


@pytest.mark.parametrize("source", ["target", "noise"])
def test_a_replaced_crop_still_needs_a_valid_call(row, source):
    environment = CropEnvironment(dataclasses.replace(SETTINGS, crop_source=source))
    environment.reset(row=row)
    with pytest.raises(BoxError, match="outside"):
        environment.image_zoom_in_tool([200, 200, 300, 300])


# --- TRL's contract ----------------------------------------------------------------------------------


def test_the_tool_is_the_only_public_method_besides_reset():
    # The way TRL looks for tools.
    methods = inspect.getmembers(CropEnvironment, predicate=inspect.isfunction)
    assert {name for name, _ in methods if not name.startswith("_")} == {"reset", TOOL_NAME}


def test_the_model_reads_a_short_description():
    schema = get_json_schema(CropEnvironment(SETTINGS).image_zoom_in_tool)["function"]
    assert schema["name"] == TOOL_NAME
    assert schema["parameters"]["required"] == ["bbox_2d"]
    assert schema["parameters"]["properties"]["bbox_2d"]["items"] == {"type": "number"}
    assert "return" not in schema


def test_the_factory_pickles():
    factory = pickle.loads(pickle.dumps(environment_factory(SETTINGS)))
    assert isinstance(factory(), CropEnvironment)
    assert factory() is not factory()


def test_rows_that_cannot_be_shown_are_refused(row):
    with pytest.raises(RuntimeError, match="reset"):
        CropEnvironment(SETTINGS).image_zoom_in_tool([10, 10, 60, 60])
    with pytest.raises(ValueError, match="no shown_size"):
        CropEnvironment(SETTINGS).reset(row=dataclasses.replace(row, shown_size=None))
    target = dataclasses.replace(SETTINGS, crop_source="target")
    with pytest.raises(ValueError, match="no targets"):
        CropEnvironment(target).reset(row=dataclasses.replace(row, regions=None))
