"""Pictures: whatever comes is checked before it is kept, and boxes stay on what they were drawn on."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from lfpc_trl.convert.drafts import original_boxes
from lfpc_trl.convert.pictures import SUFFIXES, PictureStore
from lfpc_trl.errors import DataError
from lfpc_trl.pictures.originals import MAX_PIXELS, check_picture, load_original
from tests.convert.published import picture_bytes


@pytest.fixture
def store(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    return PictureStore(tmp_path / "out", root)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_the_content_decides_what_a_picture_is_called(store, tmp_path, kind):
    options = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if kind == "MPO" else {}
    (tmp_path / "data" / "a.png").write_bytes(picture_bytes(kind, **options))
    picture = store.add_path("a.png")
    assert picture.path.endswith(SUFFIXES[kind])
    assert picture.size == (320, 240)
    assert check_picture(tmp_path / "out" / picture.path) == (320, 240)


def test_a_picture_is_kept_once_however_it_comes(store, tmp_path):
    data = picture_bytes()
    (tmp_path / "data" / "a.jpg").write_bytes(data)
    (tmp_path / "data" / "copy.jpg").write_bytes(data)
    text = base64.b64encode(data).decode()
    paths = {
        store.add_bytes(data).path,
        store.add_base64(text).path,
        store.add_base64("data:image/jpeg;base64," + text).path,
        store.add_path("a.jpg").path,
        store.add_path("./copy.jpg").path,
        store.add_path(f"file://{tmp_path}/data/a.jpg").path,
    }
    assert len(paths) == 1
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [data]
    assert kept[0].stat().st_mode & 0o777 == 0o644


def test_a_kept_picture_that_was_damaged_is_written_again(store, tmp_path):
    path = tmp_path / "out" / store.add_bytes(picture_bytes()).path
    path.write_bytes(b"damaged")
    store.add_bytes(picture_bytes())
    assert path.read_bytes() == picture_bytes()


def bomb(width, height):
    """A PNG of 100 bytes whose header claims any size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD = [  # id, bytes, what the message says
    ("nothing", b"", "cannot identify|known format"),
    ("text", b"<html>not found</html>", "known format"),
    ("a bomb", bomb(100_000, 100_000), f"claims more than {MAX_PIXELS} pixels"),
    ("a smaller bomb", bomb(20_000, 20_000), f"claims more than {MAX_PIXELS} pixels"),
    ("a JPEG cut short", picture_bytes()[:-1000], "the JPEG file is truncated"),
    ("a PNG cut short", picture_bytes("PNG")[:-1000], "known format"),
    ("a WebP cut short", picture_bytes("WEBP")[:-1000], "known format"),
    ("a program for a printer", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
]


@pytest.mark.parametrize(("data", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_picture_is_refused_and_leaves_nothing_behind(store, tmp_path, data, message):
    (tmp_path / "data" / "a.jpg").write_bytes(data)
    for add in (lambda: store.add_bytes(data), lambda: store.add_path("a.jpg")):
        with pytest.raises(DataError, match=message) as caught:
            add()
        assert "\n" not in str(caught.value)
        assert ".new-" not in str(caught.value)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_photograph_of_100_megapixels_passes(store, tmp_path):
    file = io.BytesIO()
    Image.new("L", (12_288, 8_192)).save(file, "PNG", compress_level=1)
    assert store.add_bytes(file.getvalue()).size == (12_288, 8_192)


def test_the_bomb_is_refused_by_the_reader_of_rows_too(tmp_path):
    (tmp_path / "a.png").write_bytes(bomb(20_000, 20_000))
    for read in (check_picture, load_original):
        with pytest.raises(OSError, match="claims more than"):
            read(tmp_path / "a.png")


PATHS = [
    ("up and out", "../secret.jpg", "must lie inside the folder .* got '../secret.jpg'"),
    ("absolute", "/etc/passwd", "must lie inside the folder"),
    ("a link out", "link.jpg", "must lie inside the folder"),
    ("a link to itself", "loop.jpg", "image must"),
    ("a folder", "sub", "image must exist"),
    ("missing", "gone.jpg", "image must exist, got '.*gone.jpg'"),
    (
        "a web address",
        "https://example.com/a.jpg",
        "nothing is downloaded\\), got 'https://example.com/a.jpg'",
    ),
    ("another scheme", "s3://bucket/a.jpg", "nothing is downloaded"),
    ("empty", " ", "image must be a path"),
    ("a NUL", "a\0.jpg", "image must be a path"),
    ("endless", "a" * 5000, "image must"),
]


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in PATHS], ids=[case[0] for case in PATHS])
def test_paths_stay_inside_the_folder_of_the_data(store, tmp_path, text, message):
    (tmp_path / "secret.jpg").write_bytes(picture_bytes())
    (tmp_path / "data" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "data" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "data" / "sub").mkdir()
    with pytest.raises(DataError, match=message):
        store.add_path(text)


def test_base64_that_is_none_is_refused(store):
    with pytest.raises(DataError, match="image must be base64, got 'abcde'"):
        store.add_base64("abcde")


# --- boxes on turned pictures ------------------------------------------------------------------------

SIZE, BOX = (60, 40), (10, 5, 30, 12)
AS_LAYOUT = {
    "xyxy": BOX,
    "xywh": (10, 5, 20, 7),
    "xyxy-1": (10 / 60, 5 / 40, 30 / 60, 12 / 40),
    "xyxy-1000": (10 / 0.06, 5 / 0.04, 30 / 0.06, 12 / 0.04),
    "xywh-100": (10 / 0.6, 5 / 0.4, 20 / 0.6, 7 / 0.4),
}


@pytest.mark.parametrize("layout", AS_LAYOUT)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_on_the_stored_picture_covers_the_same_pixels_of_the_upright_one(
    store, painted, orientation, layout
):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    painted(SIZE, BOX).save(file, "PNG", exif=exif)
    picture = store.add_bytes(file.getvalue())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("L")) > 0
    [box] = original_boxes([list(AS_LAYOUT[layout])], layout, picture, upright=False)
    x1, y1, x2, y2 = (int(side) for side in box)
    assert picture.size == (upright.shape[1], upright.shape[0])
    assert upright[y1:y2, x1:x2].all()
    assert upright.sum() == (x2 - x1) * (y2 - y1)


def test_a_box_that_counts_on_the_upright_picture_is_left_alone(store, painted):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    painted(SIZE, BOX).save(file, "PNG", exif=exif)
    picture = store.add_bytes(file.getvalue())
    assert original_boxes([[1, 2, 3, 4]], "xyxy", picture, upright=True).tolist() == [[1, 2, 3, 4]]


def test_a_turned_picture_of_another_format_takes_no_boxes(store, painted):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    painted(SIZE, BOX).save(file, "WEBP", exif=exif)
    picture = store.add_bytes(file.getvalue())
    assert picture.size == (40, 60)
    with pytest.raises(DataError, match="boxes need an upright picture or a JPEG or PNG, got a rotated WEBP"):
        original_boxes([[1, 2, 3, 4]], "xyxy", picture, upright=False)


NO_BOX = [
    "[1, 2, 3, 4]",
    [1, 2, 3],
    [1, 2, 3, None],
    [1, 2, 3, float("nan")],
    [1, 2, 3, True],
    [1, 2, 3, "4"],
]


@pytest.mark.parametrize("box", [*NO_BOX, [1, 2, 3, 10**400], {"x": 1}, None])
def test_what_is_no_box_is_refused(store, box):
    picture = store.add_bytes(picture_bytes())
    with pytest.raises(DataError, match="a box must be four finite numbers, got "):
        original_boxes([box], "xyxy", picture, upright=False)


@pytest.mark.parametrize("boxes", [None, [], "box", 3])
def test_what_is_no_list_of_boxes_is_refused(store, boxes):
    picture = store.add_bytes(picture_bytes())
    with pytest.raises(DataError, match="boxes must be a list"):
        original_boxes(boxes, "xyxy", picture, upright=False)
