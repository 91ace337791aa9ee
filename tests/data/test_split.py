"""Parts of a data set share no picture and no near-duplicate; what is in another data set is left out."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from skimage import data as photographs

from lfpc_trl import cli
from lfpc_trl.data.rows import read_rows
from lfpc_trl.data.split import find_leaks, split
from lfpc_trl.errors import UserError
from lfpc_trl.pictures.near_duplicates import Fingerprint, fingerprint, near_duplicates
from lfpc_trl.pictures.originals import load_original, load_small

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "grass", "gravel", "page", "moon")


def jpeg(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


ALIKE = {
    "a file again": lambda p: p,
    "compressed": lambda p: jpeg(p, 30),
    "half": lambda p: p.resize((p.width // 2, p.height // 2)),
    "a thumbnail": lambda p: jpeg(p.resize((p.width // 4, p.height // 4)), 50),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.2),
    "grey": lambda p: p.convert("L"),
    "trimmed": lambda p: p.crop((p.width // 100, p.height // 100, p.width * 99 // 100, p.height * 99 // 100)),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folder of ten photographs as PNG files."""
    folder = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        Image.fromarray(getattr(photographs, name)()).convert("RGB").save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def prints(photos):
    return {name: fingerprint(photos / f"{name}.png") for name in NAMES}


def write(path, images, questions=1):
    lines = [
        json.dumps({"question": f"What is it, {i}?", "answer": "it", "image": str(image)})
        for image in images
        for i in range(questions)
    ]
    path.write_text("\n".join(lines))
    return path


def pairs(some, others, distance=64):
    return np.concatenate(list(near_duplicates(some, others, distance))).tolist()


# --- near-duplicates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ALIKE)
def test_a_photograph_is_found_among_others_however_it_was_saved(photos, prints, tmp_path, how):
    others = list(prints.values())
    for i, name in enumerate(NAMES):
        changed = tmp_path / f"{name}.png"
        ALIKE[how](Image.open(photos / f"{name}.png")).convert("RGB").save(changed)
        found = pairs([fingerprint(changed)], others)
        assert [other for _, other, _ in found] == [i], name


def test_different_photographs_are_far_apart(prints):
    some = list(prints.values())
    distances = [apart for one, other, apart in pairs(some, some, 256) if one < other]
    assert len(distances) == 45
    assert min(distances) > 90


def test_a_turned_file_is_compared_upright(photos, prints, tmp_path):
    picture = Image.open(photos / "coffee.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert [apart for _, _, apart in pairs([fingerprint(tmp_path / "a.jpg")], [prints["coffee"]], 16)]
    del exif[0x0112]
    picture.save(tmp_path / "b.jpg", exif=exif)
    assert not pairs([fingerprint(tmp_path / "b.jpg")], [prints["coffee"]], 90)


def test_plain_pictures_are_told_apart_by_their_files_alone(prints, tmp_path):
    for name, grey in (("a", 200), ("b", 200), ("c", 201)):
        Image.new("RGB", (100, 80), (grey, grey, grey)).save(tmp_path / f"{name}.png")
    a, b, c = (fingerprint(tmp_path / f"{name}.png") for name in "abc")
    assert a.bits is None
    assert pairs([a, c], [b, c, prints["camera"]], 127) == [[0, 0, 0], [1, 1, 0]]


@given(
    bits=st.lists(st.lists(st.booleans(), min_size=256, max_size=256) | st.none(), min_size=1, max_size=6),
    distance=st.integers(100, 140),
)
def test_distances_are_those_of_counting(bits, distance):
    some = [
        Fingerprint(bytes([i]), None if each is None else np.packbits(np.array(each)).tobytes())
        for i, each in enumerate(bits)
    ]
    expected = [
        [i, j, apart]
        for i, one in enumerate(bits)
        for j, other in enumerate(bits)
        for apart in [
            0
            if i == j
            else 256
            if one is None or other is None
            else sum(a != b for a, b in zip(one, other, strict=True))
        ]
        if apart <= distance
    ]
    assert pairs(some, some, distance) == expected


def test_a_small_version_is_upright_and_large_enough(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(photographs.coffee()).save(tmp_path / "a.jpg", exif=exif)
    small, whole = load_small(tmp_path / "a.jpg", 64), load_original(tmp_path / "a.jpg")
    assert 64 <= min(small.size) < min(whole.size) / 2
    assert (small.width < small.height) == (whole.width < whole.height)


# --- parts -------------------------------------------------------------------------------------------


def test_rows_of_a_picture_and_of_its_near_duplicates_stay_together(photos, tmp_path):
    images = [photos / f"{name}.png" for name in NAMES]
    for name in NAMES[:5]:
        Image.open(photos / f"{name}.png").save(tmp_path / f"{name}.jpg", quality=60)
        images.append(tmp_path / f"{name}.jpg")
    rows = read_rows(write(tmp_path / "rows.jsonl", images, questions=4))
    prints = {image: fingerprint(image) for image in images}
    seen = set()
    for seed in range(8):
        parts = split(rows, {"train": 0.7, "test": 0.3}, prints, seed=seed)
        assert sorted(row.id for part in parts.rows.values() for row in part) == sorted(
            row.id for row in rows
        )
        where = [{row.image.stem for row in part} for part in parts.rows.values()]
        assert not where[0] & where[1]
        assert 0.2 <= len(parts.rows["test"]) / len(rows) <= 0.4
        assert [[path.stem for path in group] for group in parts.alike] == [
            [name, name] for name in NAMES[:5]
        ]
        assert parts == split(rows, {"train": 0.7, "test": 0.3}, prints, seed=seed)
        seen.add(frozenset(where[1]))
    assert len(seen) > 1  # the seed decides


def test_the_pictures_of_a_row_stay_together(photos, tmp_path):
    paths = [str(photos / f"{name}.png") for name in NAMES[:6]]
    pairs = [paths[0:2], paths[1:3], [paths[3]], [paths[4]], [paths[5]]]
    lines = [
        json.dumps(
            {"question": "Same?", "answer": "no"} | ({"images": each} if each[1:] else {"image": each[0]})
        )
        for each in pairs
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    rows = read_rows(tmp_path / "rows.jsonl")
    prints = {path: fingerprint(path) for path in map(type(photos), paths)}
    for seed in range(6):
        parts = split(rows, {"train": 0.5, "test": 0.5}, prints, seed=seed)
        where = [{each.image for row in part for each in row.pictures} for part in parts.rows.values()]
        assert not where[0] & where[1]
        assert parts.alike == []
    theirs = read_rows(write(tmp_path / "theirs.jsonl", [paths[2]]))
    [leak] = find_leaks(rows, theirs, prints)
    assert (leak.row.id, leak.image, leak.distance) == ("2", rows[1].pictures[1].image, 0)


def test_what_a_chain_connects_is_one_group(photos, tmp_path):
    rows = read_rows(write(tmp_path / "rows.jsonl", [photos / f"{name}.png" for name in NAMES[:4]]))
    bits = np.zeros((4, 256), dtype=bool)
    bits[1, :40] = bits[2, :80] = True
    bits[3] = True
    prints = {
        row.image: Fingerprint(bytes([i]), np.packbits(each).tobytes())
        for i, (row, each) in enumerate(zip(rows, bits, strict=True))
    }
    parts = split(rows, {"train": 0.75, "test": 0.25}, prints, distance=40)
    assert [len(part) for part in parts.rows.values()] == [3, 1]
    assert [len(group) for group in parts.alike] == [3]
    apart = split(rows, {"train": 0.75, "test": 0.25}, prints, distance=39)
    assert apart.alike == []


def test_a_group_larger_than_a_block_is_one_group(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("lfpc_trl.pictures.near_duplicates._BLOCK", 2)
    rows = read_rows(write(tmp_path / "rows.jsonl", [photos / f"{name}.png" for name in NAMES[:7]]))
    flips = np.arange(7)[:, None] * 30 > np.arange(256)[None, :]
    prints = {
        row.image: Fingerprint(bytes([i]), np.packbits(flips[6 - i]).tobytes()) for i, row in enumerate(rows)
    }
    with pytest.raises(UserError, match="test would be empty: the 7 rows are about 1 distinct pictures"):
        split(rows, {"train": 0.5, "test": 0.5}, prints, distance=30)


def test_leaks_are_the_nearest(photos, prints, tmp_path):
    Image.open(photos / "coins.png").convert("L").save(tmp_path / "again.png")
    Image.open(photos / "coins.png").save(tmp_path / "coins.jpg", quality=20)
    mine = read_rows(write(tmp_path / "mine.jsonl", [photos / f"{name}.png" for name in NAMES], questions=2))
    theirs = read_rows(write(tmp_path / "theirs.jsonl", [tmp_path / "coins.jpg", tmp_path / "again.png"]))
    known = {row.image: fingerprint(row.image) for row in (*mine, *theirs)}
    found = find_leaks(mine, theirs, known)
    assert {(leak.row.image.name, leak.other.name, leak.distance) for leak in found} == {
        ("coins.png", "again.png", 0)
    }
    assert len(found) == 2


# --- the command -------------------------------------------------------------------------------------


def test_the_command_writes_parts_and_leaves_out_what_leaks(photos, tmp_path, capsys):
    data = write(tmp_path / "rows.jsonl", [photos / f"{name}.png" for name in NAMES], questions=3)
    Image.open(photos / "moon.png").save(tmp_path / "bench.jpg", quality=50)
    bench = write(tmp_path / "bench.jsonl", [tmp_path / "bench.jpg"])
    options = ["split", "--data", str(data), "--against", str(bench), "--output", str(tmp_path / "out")]
    options += ["--parts", "train=0.8", "check=.1", "test=0.1", "--json"]
    assert cli.main(options) == 0
    output = capsys.readouterr()
    told, record = output.err, json.loads(output.out)
    assert f"rows left out, their picture is in {bench}: 3" in told
    assert "moon.png is bench.jpg" in told
    written = {name: read_rows(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "check", "test")}
    assert sum(map(len, written.values())) == 27
    assert "moon.png" not in {row.image.name for part in written.values() for row in part}
    for name, rows in written.items():
        assert f"{name}: {len(rows)} rows" in told
    assert {name: len(ids) for name, ids in record["parts"].items()} == {
        name: len(rows) for name, rows in written.items()
    }
    assert [leak["row"] for leak in record["leaks"][str(bench)]] == ["28", "29", "30"]
    assert cli.main(options) == 2
    assert "already exists" in capsys.readouterr().err


def test_without_an_output_it_only_tells(photos, tmp_path, capsys):
    data = write(tmp_path / "rows.jsonl", [photos / f"{name}.png" for name in NAMES])
    assert cli.main(["split", "--data", str(data)]) == 0
    assert "train: 9 rows (90.0%), 9 pictures\n" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            ["--parts", "train"],
            "--parts must be names with shares of 1, such as train=0.9 test=0.1, got 'train'",
        ),
        (["--parts", "train=90", "test=10"], "--parts must be names with shares of 1"),
        (["--parts", "a/b=1"], "--parts must be names with shares of 1"),
        (["--parts", "train=0.5", "train=0.5"], "--parts must name every part once, got 'train' twice"),
        (["--parts", "train=0.5", "test=0.4"], "--parts must sum to 1, got 0.9"),
        (["--distance", "128"], "--distance must be 0 to 127, got 128"),
        (["--against", "rows.jsonl"], "rows.jsonl: every row is about a picture of rows.jsonl"),
        (["--parts", "train=0.999", "test=0.001"], "test would be empty: the 10 rows are about 10 distinct"),
    ],
)
def test_what_cannot_be_done_is_one_line(photos, tmp_path, monkeypatch, capsys, options, rule):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", [photos / f"{name}.png" for name in NAMES])
    assert cli.main(["split", "--data", "rows.jsonl", *options]) == 2
    assert rule in capsys.readouterr().err.splitlines()[-1]
