"""The demo's pictures and rows."""

import json

import numpy as np
import pytest
from PIL import Image

from lfpc_trl.data.rows import read_rows
from lfpc_trl.demo import world
from lfpc_trl.pictures.sizes import show


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    pictures = list(world.make_pictures(folder, 4, seed=7, photos=world.UNSEEN_PHOTOS, name="test"))
    return folder, pictures


def test_rows_pass_the_checks_of_every_other_dataset(made):
    folder, pictures = made
    rows = read_rows(folder / "test.jsonl", require_targets=True)
    assert len(rows) == 3 * len(pictures)
    assert all(row.size == world.PICTURE_SIZE and row.size[0] >= 1024 for row in rows)


def test_the_answer_is_what_stands_on_the_sign_of_the_asked_colour(made):
    folder, _ = made
    for line in (folder / "test.jsonl").read_text().splitlines():
        row = json.loads(line)
        colour = row["question"].split()[3]
        (x0, y0, x1, _) = row["targets"][1]
        with Image.open(folder / row["image"]) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        # A strip of the sign's face, between its outline and its plate.
        face = pixels[y0 + 12 : y0 + 20, x0 + 30 : x1 - 30].reshape(-1, 3).mean(0)
        distance = {name: np.abs(face - rgb).sum() for name, rgb in world.COLOURS.items()}
        assert min(distance, key=distance.__getitem__) == colour


def test_the_inner_target_holds_every_dark_pixel_of_the_letters_and_no_spare_border(made):
    folder, _ = made
    for line in (folder / "test.jsonl").read_text().splitlines():
        row = json.loads(line)
        (a, b, c, d), (x0, y0, x1, y1) = row["targets"]
        with Image.open(folder / row["image"]) as picture:
            grey = np.asarray(picture.convert("L"))
        # The plate is all white but for the letters; stay off its edge, where JPEG rings.
        ys, xs = np.nonzero(
            grey[(y0 + y1) // 2 - 30 : (y0 + y1) // 2 + 30, (x0 + x1) // 2 - 55 : (x0 + x1) // 2 + 55] < 100
        )
        top, left = ys.min() + (y0 + y1) // 2 - 30, xs.min() + (x0 + x1) // 2 - 55
        bottom, right = ys.max() + 1 + (y0 + y1) // 2 - 30, xs.max() + 1 + (x0 + x1) // 2 - 55
        assert a <= left <= a + 6
        assert b <= top <= b + 6
        assert c - 6 <= right <= c
        assert d - 6 <= bottom <= d


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_picture(made, tmp_path):
    folder, pictures = made
    again = list(world.make_pictures(tmp_path / "a", 4, seed=7, photos=world.UNSEEN_PHOTOS, name="test"))
    other = list(world.make_pictures(tmp_path / "b", 4, seed=8, photos=world.UNSEEN_PHOTOS, name="test"))
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in pictures]
    assert (tmp_path / "a" / "test.jsonl").read_text() == (folder / "test.jsonl").read_text()
    assert other[0].read_bytes() != pictures[0].read_bytes()


def test_no_photograph_is_in_both_training_and_test():
    assert not set(world.TRAINING_PHOTOS) & set(world.UNSEEN_PHOTOS)


def test_signs_of_a_scene_never_touch():
    rng = np.random.default_rng(3)
    background = Image.new("RGB", world.PICTURE_SIZE)
    for _ in range(50):
        boxes = [sign.box for sign in world.draw_scene(rng, background).signs]
        for i, p in enumerate(boxes):
            for q in boxes[i + 1 :]:
                assert p[2] < q[0] or q[2] < p[0] or p[3] < q[1] or q[3] < p[1]


def test_the_plate_on_the_overview_does_not_depend_on_the_width_of_its_text():
    rng = np.random.default_rng(1)
    background = Image.new("RGB", world.PICTURE_SIZE)
    widths = set()
    for _ in range(12):
        scene = world.draw_scene(rng, background)
        for sign in scene.signs:
            x0, y0, x1, y1 = sign.box
            row = np.asarray(scene.picture.convert("L"))[(y0 + y1) // 2 - 32, x0 + 8 : x1 - 8]
            widths.add(int((row > 240).sum()))
    assert len(widths) == 1
    assert show(scene.picture, (252, 168)).size == (252, 168)
