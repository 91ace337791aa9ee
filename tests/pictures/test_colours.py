"""Colours: the model gets what a person sees in a viewer."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from lfpc_trl.pictures import colours
from lfpc_trl.pictures.colours import FIRST_FRAME, HIGH_BYTE, ON_WHITE, TIMES_255
from lfpc_trl.pictures.originals import check_picture, load_original, load_rgba, read_header

WIDE, HIGH = 6, 4


def grey(*levels):
    """Vertical bars of these levels."""
    return np.tile(np.repeat(np.array(levels), WIDE // len(levels)), (HIGH, 1))


def seen(path):
    """The levels that a reader of the picture gets at the middle of each third, as (red, green, blue)."""
    pixels = np.asarray(load_original(path))
    assert pixels.shape == (HIGH, WIDE, 3)
    assert check_picture(path) == (WIDE, HIGH)
    return [tuple(map(int, pixels[1, x])) for x in (1, 3, 5)]


def png(depth, colour, rows, *chunks):
    """A PNG file by hand: `rows` as bytes, further chunks before the pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDE, HIGH, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in chunks) + body + chunk(b"IEND", b"")
    )


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(values, **tags):
    """A TIFF of one strip by hand; tags in Pillow's numbers."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags.items():
        info[int(number[1:])] = value
    return saved(Image.fromarray(values), "TIFF", tiffinfo=info)


def patched(data, tag, old, new):
    """A little-endian TIFF in which the short value of a tag is another."""
    entry = struct.pack("<HHIHH", tag, 3, 1, old, 0)
    assert data.count(entry) == 1
    return data.replace(entry, struct.pack("<HHIHH", tag, 3, 1, new, 0))


def tiff_of_12_bits(levels):
    """A TIFF of grey with 12 bits by hand; Pillow cannot write one."""
    bits = "".join(f"{level:012b}" for level in levels.ravel())
    pixels = int(bits, 2).to_bytes(len(bits) // 8, "big")
    start = 8 + 2 + 9 * 12 + 4
    shorts = {256: WIDE, 257: HIGH, 258: 12, 259: 1, 262: 1, 277: 1, 278: HIGH}
    entries = {tag: struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()}
    longs = {273: start, 279: len(pixels)}
    entries |= {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in longs.items()}
    body = b"".join(entries[tag] for tag in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, 9) + body + bytes(4) + pixels


DARK, MIDDLE, LIGHT = 8000, 20_000, 45_000
BY_HIGH_BYTE = [(31,) * 3, (78,) * 3, (175,) * 3]
LETTER = [(255,) * 3, (0,) * 3, (255,) * 3]  # black between transparent
INK = np.array([0, 0, 255, 255, 0, 0])  # alpha of the columns
BARS16 = grey(DARK, MIDDLE, LIGHT)


def with_alpha(mode):
    layers = Image.new(mode.replace("A", "").replace("P", "L") or "L", (WIDE, HIGH))
    alpha = Image.fromarray(np.tile(INK, (HIGH, 1)).astype(np.uint8))
    return Image.merge(mode, [*layers.split(), alpha])


def palette(transparency):
    image = Image.fromarray(np.tile([0, 0, 1, 1, 0, 0], (HIGH, 1)).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    return saved(image, "PNG", transparency=transparency)


def keyed(mode, ground, ink, kind="PNG"):
    image = Image.new(mode, (WIDE, HIGH), ground)
    image.paste(ink, (2, 0, 4, HIGH))
    return saved(image, kind, transparency=ground)


def big_endian(values):
    return struct.pack(f">{values.size}H", *values.ravel().tolist())


PA = Image.new("PA", (WIDE, HIGH))
PA.putalpha(Image.fromarray(np.tile(INK, (HIGH, 1)).astype(np.uint8)))
# TIFF names what its alpha is in ExtraSamples (338): 1 is alpha that the colours are multiplied with already.
PREMULTIPLIED = patched(saved(with_alpha("LA"), "TIFF"), 338, 2, 1)

CASES = [  # id, file, what is seen at the thirds, how it was converted
    (
        "grey of 16 bits, PNG",
        saved(Image.fromarray(BARS16.astype(np.uint16)), "PNG"),
        BY_HIGH_BYTE,
        [HIGH_BYTE],
    ),
    ("grey of 16 bits, TIFF", tiff(BARS16.astype(np.uint16)), BY_HIGH_BYTE, [HIGH_BYTE]),
    (
        "grey of 16 bits, big-endian TIFF",
        saved(Image.frombytes("I;16B", (WIDE, HIGH), big_endian(BARS16)), "TIFF"),
        BY_HIGH_BYTE,
        [HIGH_BYTE],
    ),
    (
        "grey of 16 bits, PGM",
        b"P5 6 4 65535\n" + big_endian(BARS16),
        BY_HIGH_BYTE,
        [HIGH_BYTE],
    ),
    ("grey of 12 bits, TIFF", tiff_of_12_bits(BARS16 >> 4), BY_HIGH_BYTE, [HIGH_BYTE]),
    (
        "grey of 16 bits, JPEG 2000",
        saved(Image.fromarray(BARS16.astype(np.uint16)), "JPEG2000"),
        BY_HIGH_BYTE,
        [HIGH_BYTE],
    ),
    (
        "grey of 16 bits that counts from white, TIFF",
        patched(tiff((65_535 - BARS16).astype(np.uint16)), 262, 1, 0),
        BY_HIGH_BYTE,
        [HIGH_BYTE],
    ),
    (
        "grey of 16 bits with a transparent level",
        png(16, 0, [big_endian(grey(DARK, 0, DARK)[0])] * HIGH, (b"tRNS", struct.pack(">H", DARK))),
        None,
        [HIGH_BYTE, ON_WHITE],
    ),
    (
        "float, TIFF",
        tiff(grey(0.25, 0.5, 1.0).astype(np.float32)),
        [(64,) * 3, (128,) * 3, (255,) * 3],
        [TIMES_255],
    ),
    ("RGBA", saved(with_alpha("RGBA"), "PNG"), LETTER, [ON_WHITE]),
    ("RGBA, WebP", saved(with_alpha("RGBA"), "WEBP", lossless=True), LETTER, [ON_WHITE]),
    ("RGBA, TIFF", saved(with_alpha("RGBA"), "TIFF"), LETTER, [ON_WHITE]),
    ("LA", saved(with_alpha("LA"), "PNG"), LETTER, [ON_WHITE]),
    ("La, TIFF", PREMULTIPLIED, LETTER, [ON_WHITE]),
    ("PA, TIFF", saved(PA, "TIFF"), LETTER, [ON_WHITE]),
    ("palette with alphas", palette(b"\0\xff"), LETTER, [ON_WHITE]),
    ("palette with one transparent colour", palette(0), LETTER, [ON_WHITE]),
    ("GIF", keyed("P", 1, 0, "GIF"), None, [ON_WHITE]),
    ("RGB with a transparent colour", keyed("RGB", (9, 8, 7), (0, 0, 0)), LETTER, [ON_WHITE]),
    ("grey with a transparent level", keyed("L", 9, 0), LETTER, [ON_WHITE]),
    (
        "grey of 4 bits with a transparent level",
        png(4, 0, [bytes([0x99, 0x00, 0x99])] * HIGH, (b"tRNS", struct.pack(">H", 9))),
        LETTER,
        [ON_WHITE],
    ),
    (
        "RGB of 16 bits with a transparent colour",
        png(
            16,
            2,
            [big_endian(np.repeat([DARK, 0, DARK], 2)[:, None].repeat(3, 1))] * HIGH,
            (b"tRNS", struct.pack(">HHH", DARK, DARK, DARK)),
        ),
        LETTER,
        [ON_WHITE],
    ),
    ("half transparent", None, [(128,) * 3] * 3, [ON_WHITE]),
    ("grey of 8 bits", saved(Image.fromarray(grey(31, 78, 175).astype(np.uint8)), "PNG"), BY_HIGH_BYTE, []),
    ("black and white", saved(Image.fromarray(grey(0, 255, 0) > 0), "PNG"), None, []),
    ("CMYK", saved(Image.new("CMYK", (WIDE, HIGH), (0, 255, 255, 0)), "TIFF"), [(255, 0, 0)] * 3, []),
]


@pytest.mark.parametrize(
    ("data", "expected", "how"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_picture_is_read_as_it_is_seen(tmp_path, data, expected, how):
    path = tmp_path / "picture"
    path.write_bytes(data or saved(Image.new("RGBA", (WIDE, HIGH), (0, 0, 0, 127)), "PNG"))
    if expected is None:
        expected = LETTER if ON_WHITE in how else [(0,) * 3, (255,) * 3, (0,) * 3]
    assert seen(path) == expected
    assert list(read_header(path).conversions) == how


def test_the_processors_of_transformers_put_the_same_pixels_on_white(tmp_path):
    from transformers.image_transforms import convert_to_rgb

    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    expected = convert_to_rgb(Image.open(tmp_path / "a.png"), return_numpy=True)
    np.testing.assert_array_equal(np.asarray(load_original(tmp_path / "a.png")), expected)


@given(seed=st.integers(0, 10_000), lines=st.integers(1, 9), mode=st.sampled_from(["L", "RGBA", "I;16"]))
def test_a_picture_is_the_same_however_many_lines_are_converted_at_a_time(seed, lines, mode):
    values = np.random.default_rng(seed).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    image = (
        Image.fromarray(values) if mode == "RGBA" else Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    )
    if mode == "L":
        image = Image.fromarray(values[..., 0])
        image.info["transparency"] = int(values[0, 0, 0])
    whole = np.asarray(colours.to_rgb(image))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colours, "_STRIP_PIXELS", 7 * lines)
        np.testing.assert_array_equal(np.asarray(colours.to_rgb(image)), whole)


NO_RULE = [
    (
        "float above 1",
        tiff(grey(0.0, 1.0, 900.0).astype(np.float32)),
        "float values must be between 0 and 1 .* got 0 to 900",
    ),
    (
        "float below 0",
        tiff(grey(-0.5, 0.0, 1.0).astype(np.float32)),
        "float values must be between 0 and 1 .* got -0.5 to 1",
    ),
    (
        "float that is no number",
        tiff(grey(0, np.nan, 1).astype(np.float32)),
        "float values must be .* got nan",
    ),
    (
        "32-bit or signed 16-bit integers",
        tiff(grey(0, 9, 70_000).astype(np.int32)),
        "32-bit or signed 16-bit integers",
    ),
    ("Lab", saved(Image.new("LAB", (WIDE, HIGH)), "TIFF"), "colors in mode LAB have no known range"),
    ("the preview of a raw file", tiff(grey(1, 2, 3).astype(np.uint8), t254=1), "a camera's raw file"),
]


@pytest.mark.parametrize(
    ("data", "reason"), [case[1:] for case in NO_RULE], ids=[case[0] for case in NO_RULE]
)
def test_what_no_rule_makes_visible_is_refused_by_name(tmp_path, data, reason):
    path = tmp_path / "picture.tif"
    path.write_bytes(data)
    for read in (check_picture, load_original):
        with pytest.raises(OSError, match=reason):
            read(path)


def test_of_several_frames_the_first_is_shown_and_that_is_said(tmp_path):
    frames = [Image.new("RGB", (WIDE, HIGH), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "png", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert seen(path)[0][0] > 240, suffix
        assert read_header(path).conversions == (FIRST_FRAME,), suffix


def test_the_second_picture_of_a_phone_is_no_frame(tmp_path):
    frames = [Image.new("RGB", (WIDE, HIGH), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert read_header(tmp_path / "a.jpg").conversions == ()


def test_a_cut_out_keeps_its_transparency_and_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with_alpha("RGBA").save(tmp_path / "a.png", exif=exif)
    cut_out = load_rgba(tmp_path / "a.png")
    assert cut_out.mode == "RGBA"
    assert cut_out.size == (HIGH, WIDE)
    np.testing.assert_array_equal(np.asarray(cut_out)[:, 0, 3], INK)


def test_grey_of_16_bits_is_opaque_as_a_cut_out(tmp_path):
    Image.fromarray(BARS16.astype(np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(load_rgba(tmp_path / "a.png"))[1, 5].tolist() == [175, 175, 175, 255]
