from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.rollouts.crop_tool import CropSettings
from tests import tiny

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}
SIZE = (224, 168)
SIGN = (140, 84, 168, 112)  # one visual token, on the grid
SHOWN = (112, 84)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Random weights, real classes."""
    folder = tiny.make_model(tmp_path_factory.mktemp("model"), "qwen2_5_vl")
    processor = load_processor(folder)
    return SimpleNamespace(folder=folder, model=load_model(folder), processor=processor)


@pytest.fixture(scope="session")
def processor(tiny_model):
    return tiny_model.processor


@pytest.fixture(scope="session")
def settings(processor):
    return CropSettings(frame=Frame.SHOWN, factor=factor(processor), crop_tokens=16)


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """Grey pictures, each with one coloured sign; the colour is the answer. The id stands in the question."""
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for index, (colour, rgb) in enumerate(list(COLOURS.items()) * 3):
        pixels = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
        pixels[SIGN[1] : SIGN[3], SIGN[0] : SIGN[2]] = rgb
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        region = np.array([[145, 90, 163, 106], SIGN], float)
        made.append(
            Row(f"row{index}", f"Which colour, row{index}?", (colour,), None, path, SIZE, (region,), SHOWN)
        )
    return made
