"""Files as pictures: what is opened, and what is refused by name before anything else happens."""

import os
import re
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from PIL import Image

import lfpc_trl
from lfpc_trl.convert.pictures import PictureStore
from lfpc_trl.data.rows import check_row
from lfpc_trl.errors import DataError
from lfpc_trl.evaluate.formats import _picture_at
from lfpc_trl.html.tiles import tile
from lfpc_trl.locus.cues import boxes_of_coco
from lfpc_trl.pictures import opening, originals
from lfpc_trl.pictures.opening import MAX_PIXELS, find_picture_files, in_one_line
from lfpc_trl.pictures.originals import (
    check_picture,
    load_original,
    load_rgba,
    load_shown,
    read_header,
)
from tests.tiny import make_picture

PRINTER = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def png_of(width, height):
    """A small PNG file that claims this size; its pixels break off."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def _rows(path):
    check_row({"question": "?", "answer": "a", "image": path.name}, path.parent)


def _coco(path):
    file = path.parent / "coco.json"
    file.write_text(
        f'{{"images": [{{"id": 1, "file_name": "{path.name}"}}], "annotations": '
        '[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]}'
    )
    list(boxes_of_coco(file, path.parent))


READERS = {  # every way in which a picture's file is opened
    "header": read_header,
    "check": check_picture,
    "pixels": load_original,
    "shown pixels": lambda path: load_shown(path, (28, 28)),
    "cut-out": load_rgba,
    "rows": _rows,
    "tiles": lambda path: tile(path, 0, 0, 0),
    "converters": lambda path: PictureStore(path.parent / "out", path.parent).add_path(path.name),
    "benchmarks": _picture_at,
    "boxes of COCO": _coco,
}


@pytest.fixture
def no_programs(monkeypatch):
    """Any attempt to start another program fails."""

    def refuse(event, args):
        if armed and event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            raise AssertionError(f"started {args}")

    armed = [True]
    sys.addaudithook(refuse)
    yield
    armed.clear()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["a.eps", "a.jpg", "a.png"])
def test_a_program_for_a_printer_is_no_picture_whatever_it_is_called(tmp_path, no_programs, reader, name):
    (tmp_path / name).write_bytes(PRINTER)
    with pytest.raises((OSError, DataError), match="EPS is not among the formats that are read"):
        READERS[reader](tmp_path / name)


# In a process of its own: a reader that waits for the other end of a pipe is stopped, and the test fails.
PIPE_SCRIPT = """
import signal, sys
from pathlib import Path
from tests.pictures.test_opening import READERS
signal.alarm(120)
for name, read in READERS.items():
    signal.alarm(10)
    try:
        read(Path(sys.argv[1]))
    except Exception as error:
        print(f"{name}: {error}")
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PIPE_SCRIPT, str(tmp_path / "a.png")],
        cwd=root,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(root), str(Path(lfpc_trl.__file__).parents[1])])},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == list(READERS), done.stderr
    assert all("a named pipe, not a regular file" in line for line in lines), lines


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_a_device_is_refused(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/zero")
    for name in ("header", "check", "pixels", "cut-out", "rows", "tiles", "boxes of COCO"):
        with pytest.raises((OSError, DataError), match="a device, not a regular file"):
            READERS[name](tmp_path / "a.png")


def test_other_files_that_are_no_regular_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.png").mkdir()
    Path("empty.png").touch()
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket.png")
        for name, reason in (("folder", "a folder"), ("socket", "a socket"), ("empty", "it is empty")):
            with pytest.raises(OSError, match=reason):
                check_picture(Path(f"{name}.png"))


OTHERS = [
    ("a cut TIFF", b"II*\0" + bytes(40), "TIFF that is damaged, or of a kind that Pillow cannot read"),
    ("Photoshop", b"8BPS\0\1" + bytes(40), "PSD is not among the formats"),
    ("HEIC", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC needs the package pillow-heif|HEIC that is damaged"),
    ("text", b"no picture at all", "no picture of a format that is read"),
]


@pytest.mark.parametrize(("data", "reason"), [case[1:] for case in OTHERS], ids=[case[0] for case in OTHERS])
def test_a_format_that_is_not_read_is_named(tmp_path, data, reason):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(OSError, match=f"cannot identify image file: ({reason})"):
        check_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", [kind for kind in opening.readable_formats() if kind != "HEIF"])
def test_every_format_of_the_list_is_read(tmp_path, kind):
    Image.new("RGB", (40, 30), "white").save(tmp_path / "a", kind)
    assert check_picture(tmp_path / "a") == (40, 30)
    assert load_original(tmp_path / "a").getpixel((20, 15)) == (255, 255, 255)


# --- size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16_384, 12_288), (16_320, 12_240), (7680, 4320), (MAX_PIXELS, 1)])
def test_the_largest_phone_cameras_pass(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_of(*size))
    assert check_picture(tmp_path / "a.png") == size


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("size", [(16_000, 16_000), (16_384, 16_384), (MAX_PIXELS + 1, 1)])
def test_a_small_file_that_claims_more_is_refused_by_its_header(tmp_path, size, reader):
    (tmp_path / "a.png").write_bytes(png_of(*size))
    with pytest.raises((OSError, DataError), match=f"claims more than {MAX_PIXELS} pixels"):
        READERS[reader](tmp_path / "a.png")


def test_pictures_that_are_read_at_the_same_time_share_a_bound_of_memory():
    room = originals._DecodeMemory(2 * originals.PIXEL_BYTES * 100)
    started, ended = [], []
    entered, gate = threading.Event(), threading.Event()

    def read(pixels):
        with room.for_picture((pixels, 1)):
            started.append(pixels)
            entered.set()
            gate.wait(30)
            ended.append(pixels)

    first = threading.Thread(target=read, args=(60,))
    first.start()
    assert entered.wait(30)
    others = [threading.Thread(target=read, args=(pixels,)) for pixels in (50, 500)]
    for thread in others:
        thread.start()
    with room.for_picture((40, 1)):  # fits beside the first
        assert started == [60]
    gate.set()
    for thread in (first, *others):
        thread.join(30)
    assert sorted(ended) == [50, 60, 500]  # also the one above the bound, alone


# --- forks --------------------------------------------------------------------------------------------

FORK_SCRIPT = """
import os, signal, sys, threading, warnings
from pathlib import Path
import numpy as np
from lfpc_trl.pictures import lazy, originals
from lfpc_trl.pictures.lazy import LazyImage, Part

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork beside threads
path, other = Path(sys.argv[1]), Path(sys.argv[2])
entered, go_on = threading.Event(), threading.Event()
real = originals.to_rgb
def slow(image):
    entered.set()
    go_on.wait(60)
    return real(image)
originals.to_rgb = slow
picture = LazyImage(Part(str(path), path.stat().st_size, (28, 28))).start()  # a thread decodes it
entered.wait(60)
locks = [originals._PICTURES._lock, lazy._WORKERS._lock, originals._DECODE_MEMORY._changed]
held = threading.Event()
def hold():
    for lock in locks:
        lock.acquire()
    held.set()
    go_on.wait(60)
    for lock in locks[::-1]:
        lock.release()
threading.Thread(target=hold).start()
held.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(20)
    originals.to_rgb = real
    sizes = [np.asarray(picture).shape]
    sizes += [originals.load_original(each).size for each in (path, other)]
    sizes.append(np.asarray(LazyImage(Part(str(other), other.stat().st_size, (28, 28))).start()).shape)
    print(sizes, flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
go_on.set()
print("child", status, "parent", np.asarray(picture).shape)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_while_a_picture_is_decoded_leaves_a_child_that_reads_pictures(tmp_path):
    paths = [str(make_picture(tmp_path / name, (60, 40))) for name in ("a.png", "b.png")]
    done = subprocess.run(
        [sys.executable, "-c", FORK_SCRIPT, *paths],
        env=os.environ | {"PYTHONPATH": str(Path(lfpc_trl.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    expected = "[(28, 28, 3), (60, 40), (60, 40), (28, 28, 3)]\nchild 0 parent (28, 28, 3)\n"
    assert done.stdout == expected, done.stderr


# --- folders ------------------------------------------------------------------------------------------


def test_what_is_left_out_of_a_folder_is_named_in_one_line(tmp_path):
    for name in ("a.PNG", "b.gif", "sub/c.avif", "d.jfif", "e.pgm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"-")
    for name in ("x.heic", "y.HEIC", "sub/labels.txt", "drawing.svg", ".hidden.txt", "Makefile"):
        (tmp_path / name).write_bytes(b"-")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
    found, left_out = find_picture_files(tmp_path)
    heic = "HEIF" in opening.readable_formats()
    expected = ["a.PNG", "b.gif", "d.jfif", "e.pgm", "sub/c.avif"]
    missing = [
        name for name in expected if name.endswith("avif") and "AVIF" not in opening.readable_formats()
    ]
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == sorted(set(expected) - set(missing) | ({"x.heic", "y.HEIC"} if heic else set()))
    line = in_one_line(tmp_path, left_out)
    assert "\n" not in line
    assert "labels.txt (not the suffix of a picture that is read)" in line
    assert "pipe.png (not a regular file)" in line or not hasattr(os, "mkfifo")
    assert "hidden" not in line
    assert heic or "x.heic and 1 more .heic (HEIC needs the package pillow-heif (in the" in line


# --- the whole repository -----------------------------------------------------------------------------

ROOM = ("pictures/opening.py",)


def _openings(sources):
    """Where a picture is opened or turned outside the two modules that know how."""
    return [
        f"{name}:{number}"
        for name, text in sources.items()
        if name not in ROOM
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(r"\bImage\.open\b|\bexif_transpose\b", line)
    ]


def test_one_module_opens_pictures():
    folder = Path(lfpc_trl.__file__).parent
    sources = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*.py")}
    assert "pictures/opening.py" in sources
    assert _openings(sources) == []
    assert _openings(sources | {"new.py": "with Image.open(path) as file:\n"}) == ["new.py:1"]
