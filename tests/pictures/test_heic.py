"""HEIC, as phones write it, through the package pillow-heif: upright, its main picture, 8 bits, bounded."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lfpc_trl.pictures import opening
from lfpc_trl.pictures.opening import MAX_PIXELS
from lfpc_trl.pictures.originals import check_picture, load_original, read_header

heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")


def save(image, path, **options):
    image.save(path, "HEIF", quality=-1, **options)  # without loss, but for the way to YCbCr and back
    return path


def is_near(path, wanted):
    found = np.asarray(load_original(path), dtype=int)
    return found.shape == np.shape(wanted) and np.abs(found - wanted).max() <= 3


def halves(size=(96, 64)):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_read_as_the_same_jpeg_is(tmp_path, orientation):
    """HEIC turns by a transformation of its own, which is done when the picture is opened, not twice."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(halves(), tmp_path / "a.heic", exif=exif.tobytes())
    halves().save(tmp_path / "a.jpg", quality=100, subsampling=0, exif=exif)
    assert check_picture(path) == check_picture(tmp_path / "a.jpg")
    assert is_near(path, np.asarray(load_original(tmp_path / "a.jpg"), dtype=int))


def test_of_several_pictures_in_a_file_the_main_one_is_read(tmp_path):
    file = heif.HeifFile()
    for colour in ("red", "green", "blue"):
        file.add_from_pillow(Image.new("RGB", (64, 48), colour))
    file.save(tmp_path / "burst.heic", quality=-1, primary_index=1)
    with Image.open(tmp_path / "burst.heic") as image:
        assert image.n_frames == 3
    assert is_near(tmp_path / "burst.heic", np.full((48, 64, 3), (0, 128, 0)))


def test_ten_bits_become_the_highest_eight(tmp_path):
    values = np.linspace(0, 65_535, 64 * 48 * 3).astype(np.uint16).reshape(48, 64, 3)
    heif.from_bytes("RGB;16", (64, 48), values.tobytes()).save(tmp_path / "deep.heic", quality=-1)
    with Image.open(tmp_path / "deep.heic") as image:
        assert image.info["bit_depth"] > 8
    assert is_near(tmp_path / "deep.heic", values >> 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_stands_on_white(tmp_path, mode):
    path = save(Image.new(mode, (64, 48), 0), tmp_path / "a.heic")
    assert read_header(path).conversions == ("alpha onto white",)
    assert is_near(path, np.full((48, 64, 3), 255))


def test_a_picture_that_claims_to_be_too_large_is_refused_by_its_header(tmp_path):
    data = save(halves((64, 64)), tmp_path / "a.heic").read_bytes()
    assert check_picture(tmp_path / "a.heic") == (64, 64)
    at = data.index(b"ispe") + 8  # behind the name of the box, its version and flags: width, height
    side = int(MAX_PIXELS**0.5) + 1
    (tmp_path / "a.heic").write_bytes(data[:at] + 2 * side.to_bytes(4, "big") + data[at + 8 :])
    with pytest.raises(OSError, match=f"the picture claims more than {MAX_PIXELS} pixels"):
        check_picture(tmp_path / "a.heic")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused(tmp_path, kept):
    data = save(halves(), tmp_path / "a.heic").read_bytes()
    (tmp_path / "a.heic").write_bytes(data[: int(kept * len(data))])
    with pytest.raises((OSError, ValueError)):
        check_picture(tmp_path / "a.heic")


def test_the_names_of_phones_files_are_taken_from_a_folder(tmp_path):
    save(halves(), tmp_path / "IMG_0001.HEIC")
    (tmp_path / "b.heif").touch()
    found, left_out = opening.find_picture_files(tmp_path)
    assert [path.name for path in found] == ["IMG_0001.HEIC", "b.heif"]
    assert left_out == []


WITHOUT = """
import importlib.util, sys
from pathlib import Path
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "pillow_heif" else find(name, *more)
from lfpc_trl.pictures import opening
folder = Path(sys.argv[1])
try:
    opening.open_picture(folder / "a.heic")
except OSError as error:
    print(error)
print(opening.in_one_line(folder, opening.find_picture_files(folder)[1]))
"""


def test_without_the_package_the_sentence_names_the_extra(tmp_path):
    save(halves(), tmp_path / "a.heic")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    opened, listed = ran.stdout.splitlines()
    why = "HEIC needs the package pillow-heif (in the folder of your clone: pip install '.[heic]')"
    assert opened == f"cannot identify image file: {why}"
    assert f"a.heic ({why})" in listed
