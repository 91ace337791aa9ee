"""Pictures: what is read, shown and cut."""

import contextlib
import itertools
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lfpc_rewards import Frame, smart_resize
from lfpc_trl.pictures import crops, originals, sizes
from lfpc_trl.pictures.crops import BOX_ERRORS, BoxError, crop_box, cut
from lfpc_trl.pictures.originals import PictureCache
from tests.tiny import make_picture

any_size = st.tuples(st.integers(1, 5000), st.integers(1, 5000)).filter(lambda s: max(s) < 200 * min(s))


# --- any_size -------------------------------------------------------------------------------------------


@given(size=any_size, tokens=st.integers(1, 4096), factor=st.sampled_from([28, 32]))
def test_a_shown_size_is_left_alone_by_the_processor(size, tokens, factor):
    width, height = sizes.shown_size(size, tokens, factor=factor)
    assert width % factor == height % factor == 0
    resized = smart_resize(height, width, factor=factor, min_pixels=factor**2, max_pixels=16384 * factor**2)
    assert resized == (height, width)


@given(size=any_size, tokens=st.integers(1, 4096))
def test_a_shown_size_keeps_the_budget_unless_the_picture_is_a_strip(size, tokens):
    shown = sizes.shown_size(size, tokens, factor=28)
    assert sizes.tokens_of(shown, 28) <= tokens or min(shown) == 28


def test_a_small_picture_is_not_enlarged_beyond_whole_tokens():
    assert sizes.shown_size((60, 50), 1024, factor=28) == (56, 56)


@given(size=any_size, finest=st.integers(64, 16384), coarsest=st.integers(1, 64))
def test_the_ladder_halves_down_to_the_coarsest(size, finest, coarsest):
    ladder = sizes.budget_ladder(size, factor=28, finest=finest, coarsest=coarsest)
    assert all(low in (high // 2, coarsest) for high, low in itertools.pairwise(ladder))
    assert all(low < high for high, low in itertools.pairwise(ladder))
    assert ladder[-1] == coarsest or len(ladder) == 1


def test_the_ladder_of_a_photograph():
    assert sizes.budget_ladder((4000, 3000), factor=28, finest=1024, coarsest=64) == [972, 486, 243, 121, 64]


def test_budgets_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        sizes.shown_size((100, 100), 0, factor=28)
    with pytest.raises(ValueError, match="1 <= coarsest <= finest, got coarsest 9 and finest 8"):
        sizes.budget_ladder((100, 100), factor=28, finest=8, coarsest=9)


# --- boxes -------------------------------------------------------------------------------------------

BOXES = [  # id, box in shown pixels (100 x 50), cut box in the original (200 x 100)
    ("inside", [10, 5, 40, 25], (20, 10, 80, 50)),
    ("fractions grow outwards", [10.2, 5.2, 39.7, 24.7], (20, 10, 80, 50)),
    ("whole picture", [0, 0, 100, 50], (0, 0, 200, 100)),
    ("clipped on all sides", [-50, -50, 500, 500], (0, 0, 200, 100)),
    ("clipped on one side", [80, 10, 120, 30], (160, 20, 200, 60)),
    ("as small as a crop may be", [10, 5, 14, 9], (20, 10, 28, 18)),
    ("as far as a number may be", [0, 0, 10**9, 10**9], (0, 0, 200, 100)),
]
BAD_BOXES = [  # id, what the model wrote, rule
    ("no list", "10, 5, 40, 25", "form"),
    ("none", None, "form"),
    ("a dict", {"x1": 1}, "form"),
    ("three numbers", [10, 5, 40], "form"),
    ("five numbers", [10, 5, 40, 25, 1], "form"),
    ("nested", [[10, 5, 40, 25]], "form"),
    ("texts", ["10", "5", "40", "25"], "form"),
    ("a truth value", [True, 5, 40, 25], "form"),
    ("NaN", [math.nan, 5, 40, 25], "form"),
    ("infinite", [0, 0, math.inf, 25], "outside"),
    ("four hundred digits", [0, 0, 10**400, 25], "outside"),
    ("inverted", [40, 25, 10, 5], "inverted"),
    ("upside down", [10, 25, 40, 5], "inverted"),
    ("no width", [10, 5, 10, 25], "inverted"),
    ("no height", [10, 5, 40, 5], "inverted"),
    ("a little too small", [10, 5, 14, 8.5], "thin"),
    ("beyond that", [0, 0, 10**9 + 1, 25], "outside"),
    ("right of the picture", [110, 5, 140, 25], "outside"),
    ("above the picture", [10, -25, 40, -5], "outside"),
    ("touches the edge only", [100, 5, 140, 25], "outside"),
    ("too small", [10, 5, 11, 6], "thin"),
    ("too narrow", [10, 5, 90, 6], "thin"),
    ("only a sliver is inside", [99, 5, 140, 25], "thin"),
]
SHOWN = {"frame": Frame.SHOWN, "shown_size": (100, 50), "original_size": (200, 100)}


@pytest.mark.parametrize(("box", "expected"), [case[1:] for case in BOXES], ids=[case[0] for case in BOXES])
def test_the_box_that_is_cut(box, expected):
    assert crop_box(box, **SHOWN) == expected


@pytest.mark.parametrize(
    ("box", "rule"), [case[1:] for case in BAD_BOXES], ids=[case[0] for case in BAD_BOXES]
)
def test_a_box_that_cannot_be_cut_is_told_by_a_fixed_sentence(box, rule):
    with pytest.raises(BoxError) as caught:
        crop_box(box, **SHOWN)
    assert str(caught.value) == BOX_ERRORS[rule]


def test_relative_boxes_do_not_depend_on_the_shown_size():
    for shown in ((100, 50), (56, 28)):
        box = crop_box(
            [100, 100, 400, 500], frame=Frame.RELATIVE_1000, shown_size=shown, original_size=(200, 100)
        )
        assert box == (20, 10, 80, 50)


def test_a_crop_may_not_be_longer_than_the_processors_accept():
    any_size = {"frame": Frame.SHOWN, "shown_size": (4000, 2000), "original_size": (4000, 2000)}
    assert crop_box([0, 0, 4000, 40], **any_size) == (0, 0, 4000, 40)
    with pytest.raises(BoxError, match="too narrow"):
        crop_box([0, 0, 4000, 39], **any_size)


def test_a_corner_on_a_whole_pixel_does_not_grow_by_rounding():
    # 1 / 7 and its multiples are not exact in binary.
    box = crop_box([3, 3, 30, 30], frame=Frame.SHOWN, shown_size=(49, 49), original_size=(343, 343))
    assert box == (21, 21, 210, 210)


nearly_numbers = st.one_of(
    st.integers(-60, 160),
    st.floats(-60, 160),
    st.sampled_from(
        [0, 100, 50, math.nan, math.inf, -math.inf, 10**400, -(10**400), 1e-300, True, None, "7"]
    ),
)


@given(box=st.one_of(st.lists(nearly_numbers, min_size=3, max_size=5), nearly_numbers))
def test_any_nearly_valid_box_is_cut_inside_the_picture_or_refused(box):
    # BoxError can only be made of one of the fixed sentences.
    with contextlib.suppress(BoxError):
        x1, y1, x2, y2 = crop_box(box, **SHOWN)
        assert 0 <= x1 < x2 <= 200
        assert 0 <= y1 < y2 <= 100
        assert min(x2 - x1, y2 - y1) >= crops.MIN_SIDE


# --- crops -------------------------------------------------------------------------------------------


def test_a_crop_comes_at_native_resolution_rounded_to_tokens():
    original = Image.new("RGB", (1000, 1000))
    assert cut(original, (100, 100, 200, 160), factor=28, max_tokens=64).size == (112, 56)


def test_a_crop_above_the_budget_is_shrunk():
    size = cut(Image.new("RGB", (2000, 1000)), (0, 0, 2000, 1000), factor=28, max_tokens=64).size
    assert sizes.tokens_of(size, 28) <= 64
    assert size[0] / size[1] == pytest.approx(2, rel=0.15)


def test_the_longest_crop_is_accepted_by_the_processor():
    size = crops.crop_size((0, 0, 1600, 16), factor=28, max_tokens=1024)
    assert max(size) <= 200 * min(size)


def test_a_crop_shows_the_pixels_of_its_box(tmp_path):
    original = originals.load_original(make_picture(tmp_path / "a.png", (224, 168)))
    crop = cut(original, (56, 28, 112, 84), factor=28, max_tokens=64)
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(original)[28:84, 56:112])


# --- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_the_same_for_sizes_and_pixels(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (60, 40), "red").save(path, exif=exif)
    expected = (40, 60) if orientation >= 5 else (60, 40)
    assert originals.check_picture(path) == originals.load_original(path).size == expected


def test_exif_rotation_turns_the_pixels_as_viewers_do(tmp_path):
    picture = Image.new("RGB", (60, 40), "white")
    picture.paste("black", (0, 0, 30, 20))  # the corner that is upper left in the file
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    picture.save(tmp_path / "a.png", exif=exif)
    seen = originals.load_original(tmp_path / "a.png")
    assert seen.getpixel((35, 5)) == (0, 0, 0)  # now upper right
    assert seen.getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_a_picture_cut_short_is_found_before_training(tmp_path, suffix):
    whole = make_picture(tmp_path / f"whole.{suffix}")
    assert originals.check_picture(whole) == (224, 168)
    content = whole.read_bytes()
    for share in (0.3, 0.7, 0.99):
        short = tmp_path / f"short.{suffix}"
        short.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(Exception, match=r"\S"):
            originals.check_picture(short)


def test_a_jpeg_with_a_thumbnail_cut_short_is_found(tmp_path):
    thumbnail = make_picture(tmp_path / "thumbnail.jpg", (32, 24)).read_bytes()
    picture = Image.open(make_picture(tmp_path / "big.png"))
    picture.save(tmp_path / "a.jpg", exif=b"Exif\x00\x00" + b"MM\x00*\x00\x00\x00\x08\x00\x00" + thumbnail)
    content = (tmp_path / "a.jpg").read_bytes()
    assert content.count(b"\xff\xd9") == 2
    assert originals.check_picture(tmp_path / "a.jpg") == (224, 168)
    (tmp_path / "a.jpg").write_bytes(content[:-40])
    with pytest.raises(OSError, match="JPEG file is truncated"):
        originals.check_picture(tmp_path / "a.jpg")


def test_a_jpeg_with_padding_between_its_segments_is_complete(tmp_path):
    path = make_picture(tmp_path / "a.jpg")
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\xff\xff" + content[2:])
    assert originals.check_picture(path) == (224, 168)


def test_a_png_with_a_flipped_bit_is_found(tmp_path):
    path = make_picture(tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="broken PNG"):
        originals.check_picture(path)


def test_a_jpeg_with_data_behind_its_end_is_complete(tmp_path):
    path = make_picture(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"\xff\xda trailer of a phone")
    assert originals.check_picture(path) == (224, 168)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (30, 20)).save(path)
    assert originals.load_original(path).mode == "RGB"


# --- cache -------------------------------------------------------------------------------------------


def test_many_threads_decode_a_picture_once(tmp_path):
    path, cache = make_picture(tmp_path / "a.png"), PictureCache()
    barrier, seen = threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        seen.append(cache.load(path))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.decodes == 1
    assert len({id(image) for image in seen}) == 1


def test_the_cache_keeps_the_pictures_used_last_within_its_bytes(tmp_path):
    paths = [make_picture(tmp_path / f"{name}.png", (100, 100)) for name in "abc"]
    cache = PictureCache(max_bytes=2 * 100 * 100 * originals.PIXEL_BYTES)
    for path in (paths[0], paths[1], paths[0], paths[2], paths[0]):
        cache.load(path)
    assert cache.decodes == 3  # b was dropped, a was kept
    cache.load(paths[1])
    assert cache.decodes == 4


def test_a_shown_picture_is_made_once(tmp_path):
    path, cache = make_picture(tmp_path / "a.png"), PictureCache()
    shown = cache.load(path, (112, 84))
    assert shown.size == (112, 84)
    assert cache.load(path, (112, 84)) is shown
    assert cache.load(path).size == (224, 168)
    assert cache.decodes == 1


def test_one_picture_above_the_bound_is_still_kept(tmp_path):
    cache = PictureCache(max_bytes=1)
    path = make_picture(tmp_path / "a.png")
    for _ in range(3):
        cache.load(path)  # which nobody holds
    assert cache.decodes == 1


@pytest.mark.parametrize(("held", "decodes"), [(True, 2), (False, 3)])
def test_a_picture_that_had_to_go_is_found_as_long_as_someone_holds_it(tmp_path, held, decodes):
    cache = PictureCache(max_bytes=1)
    first, second = make_picture(tmp_path / "a.png"), make_picture(tmp_path / "b.png")
    holder = [cache.load(first)] if held else [cache.load(first).size]
    cache.load(second)
    assert (cache.load(first) is holder[0]) == held
    assert cache.decodes == decodes


def test_a_shown_picture_above_the_bound_costs_one_decode_however_often_it_is_shown(tmp_path):
    cache = PictureCache(max_bytes=1)
    path = make_picture(tmp_path / "a.png")
    for _ in range(3):
        cache.load(path, (112, 84))
    assert cache.decodes == 1


def test_a_picture_that_changed_is_read_again(tmp_path):
    path, cache = make_picture(tmp_path / "a.png", (40, 40)), PictureCache()
    cache.load(path)
    make_picture(path, (80, 40))
    assert cache.load(path).size == (80, 40)


def test_a_picture_that_failed_can_be_tried_again(tmp_path):
    path, cache = Path(tmp_path / "a.png"), PictureCache()
    path.write_bytes(b"no picture")
    with pytest.raises(OSError, match="cannot identify"):
        cache.load(path)
    make_picture(path)
    assert cache.load(path).size == (224, 168)


@pytest.mark.parametrize("size", [(29, 5615), (5615, 29), (28, 5599)])
def test_a_strip_stays_short_enough_for_the_processors(size):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as transformers_resize

    width, height = sizes.shown_size(size, 201, factor=28)
    assert max(width, height) <= 200 * min(width, height)
    limits = {"factor": 28, "min_pixels": 28 * 28, "max_pixels": 16384 * 28 * 28}
    assert transformers_resize(height, width, **limits) == (height, width)
