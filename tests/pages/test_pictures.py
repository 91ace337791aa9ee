"""Tiles: cut where they say, at every level."""

import io

import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException

from lfpc_trl.errors import DataError
from lfpc_trl.html.tiles import TILE, numbered, tile
from tests.pages.conftest import noise


def opened(data):
    return Image.open(io.BytesIO(data))


@pytest.fixture
def path(tmp_path):
    # A picture of one colour per block of 64: JPEG keeps it almost exactly.
    blocks = np.random.default_rng(0).integers(0, 256, (20, 25, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((1600, 1280), Image.Resampling.NEAREST).save(tmp_path / "blocks.png")
    return tmp_path / "blocks.png"


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_tiles_of_a_level_make_up_the_picture(path, level):
    side = 1 << level
    width, height = -(-1600 // side), -(-1280 // side)
    whole = np.zeros((height, width, 3), dtype=np.uint8)
    for row in range(-(-height // TILE)):
        for column in range(-(-width // TILE)):
            part = np.asarray(opened(tile(path, level, column, row)))
            whole[row * TILE : row * TILE + TILE, column * TILE : column * TILE + TILE] = part
    original = np.asarray(Image.open(path), dtype=int)
    expected = original.reshape(height, side, width, side, 3).mean(axis=(1, 3))
    assert np.abs(whole - expected).max() <= 6


def test_a_picture_on_its_side_is_cut_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (600, 300), "red").save(tmp_path / "turned.jpg", exif=exif)
    assert opened(tile(tmp_path / "turned.jpg", 0, 0, 1)).size == (300, 88)


def test_a_tile_shows_the_colours_that_the_model_gets(tmp_path):
    Image.new("RGBA", (300, 200)).save(tmp_path / "clear.png")
    Image.new("I;16", (300, 200), 78 * 256).save(tmp_path / "grey.png")
    for name, level in (("clear", 255), ("grey", 78)):
        shown = np.asarray(opened(tile(tmp_path / f"{name}.png", 0, 0, 0)), dtype=int)
        assert np.abs(shown - level).max() <= 1, name


OUTSIDE = [(0, 4, 0), (0, 0, 3), (3, 1, 0), (0, -1, 0), (0, 0, -1), (-1, 0, 0), (13, 0, 0), (0, 10**9, 0)]


@pytest.mark.parametrize("place", OUTSIDE)
def test_outside_the_picture_there_is_no_tile(path, place):
    assert tile(path, *place) is None


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^broken.png cannot be read \(cannot identify image file"):
        tile(tmp_path / "broken.png", 0, 0, 0)
    with pytest.raises(DataError, match=r"^gone.png cannot be read"):
        tile(tmp_path / "gone.png", 0, 0, 0)


def test_pictures_have_numbers_and_no_others(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    assert numbered(paths, 1) == tmp_path / "b"
    for number in (-1, 2):
        with pytest.raises(HTTPException):
            numbered(paths, number)


def test_a_full_resolution_tile_keeps_single_pixels(tmp_path):
    noise((300, 200)).save(tmp_path / "noise.png")
    shown = np.asarray(opened(tile(tmp_path / "noise.png", 0, 0, 0)), dtype=int)
    # Noise is the worst case of JPEG; with chroma subsampling the mean error would be several times that.
    assert np.abs(shown - np.asarray(noise((300, 200)), dtype=int)).mean() < 8
