"""Synthetic rows: boxes that hold exactly what was drawn, certain answers, the same bytes for a seed."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lfpc_rewards import answers_match, grounding_reward
from lfpc_trl import cli
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import InterruptedRun, UserError
from lfpc_trl.pictures.sizes import shown_size
from lfpc_trl.synthesize.contents import LENGTH, LETTERS, Object, draw_object, draw_text, find_objects
from lfpc_trl.synthesize.questions import KINDS, _objects, ask, plan_signs, unused
from lfpc_trl.synthesize.run import Settings, make_scene, synthesize
from lfpc_trl.synthesize.scene import COLOURS, PLATE, SHAPES, Plan, draw_signs

SMALL = Settings(size=(1280, 720), target_pixels=(6.0, 9.0), overview_tokens=256)
"""Small pictures, so that many of them are quick; the words are about 15 pixels high."""


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    for i, name in enumerate(["red-apple_1", "red apple-2", "blue cup", "Star", "leaf", "stone_12", "boat"]):
        picture = Image.new("RGBA", (120, 90))
        ImageDraw.Draw(picture).ellipse((20 + i, 10, 90, 70), fill=(200, 20 * i, 40, 255))
        picture.save(folder / f"{name}.png")
    Image.new("RGBA", (50, 50)).save(folder / "nothing.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def scenes(kind, count=8, **options):
    return [make_scene(SMALL._replace(kinds=(kind,), **options), index) for index in range(count)]


# --- boxes -------------------------------------------------------------------------------------------


def around(pixels):
    """The box around the pixels that are set."""
    ys, xs = np.nonzero(pixels)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("height", [10, 17, 60])
def test_every_box_holds_exactly_the_pixels_that_were_drawn(shape, height):
    rng = np.random.default_rng(height)
    picture = Image.new("RGB", (800 + 27 * height, 600 + 20 * height), (1, 2, 3))
    plans = [Plan(colour, shape, "ACE4", height) for colour in ("red", "blue", "yellow")]
    signs = draw_signs(rng, picture, plans)
    pixels = np.asarray(picture)
    changed = (pixels != (1, 2, 3)).any(-1)
    for sign in signs:
        ink, plate, board, whole = sign.boxes
        x1, y1, x2, y2 = plate
        inside = (pixels[y1:y2, x1:x2] != PLATE).any(-1)
        assert tuple(np.add(around(inside), (x1, y1, x1, y1))) == ink
        x1, y1, x2, y2 = whole
        drawn = np.zeros_like(changed)
        near = (slice(y1 - 3, y2 + 3), slice(x1 - 3, x2 + 3))
        drawn[near] = changed[near]
        assert around(drawn) == whole
        assert around(drawn[: board[3]]) == board


def test_the_innermost_box_of_an_object_holds_what_is_seen_of_it(objects):
    """The cut-outs have wide transparent borders."""
    for scene in scenes("single", 2, objects=tuple(find_objects(objects, 0)[0])):
        pixels = np.asarray(scene.picture)
        for sign in scene.signs:
            ink, (x1, y1, x2, y2) = sign.boxes[0], sign.boxes[1]
            seen = (abs(pixels[y1:y2, x1:x2].astype(int) - PLATE) > 20).any(-1)
            assert abs(np.add(around(seen), (x1, y1, x1, y1)) - ink).max() <= 1


@pytest.mark.parametrize("seed", range(8))
def test_of_objects_with_one_name_the_first_drawn_is_taken(seed):
    made = [
        Object(name, Path(f"{number}.png"), None) for number, name in enumerate(["cup", "jug", "cup", "jug"])
    ]
    drawn = [made[place] for place in np.random.default_rng(seed).permutation(len(made))]
    expected = [drawn[0], next(each for each in drawn if each.name != drawn[0].name)]
    assert _objects(np.random.default_rng(seed), made, 2) == expected


def test_boxes_are_nested_and_signs_do_not_touch():
    for scene in scenes("single", 8):
        for sign in scene.signs:
            for inner, outer in zip(sign.boxes, sign.boxes[1:], strict=False):
                assert outer[0] <= inner[0] < inner[2] <= outer[2]
                assert outer[1] <= inner[1] < inner[3] <= outer[3]
        boxes = [sign.boxes[-1] for sign in scene.signs]
        for i, p in enumerate(boxes):
            for q in boxes[i + 1 :]:
                assert p[2] < q[0] or q[2] < p[0] or p[3] < q[1] or q[3] < p[1]


@pytest.mark.parametrize(
    "size", [(1280, 720), (3840, 2160), pytest.param((7680, 4320), marks=pytest.mark.slow)]
)
def test_the_words_have_the_height_on_the_overview_that_was_asked_for(size):
    settings = SMALL._replace(size=size)
    scale = size[1] / shown_size(size, 256, factor=28)[1]
    scene = make_scene(settings, 0)
    heights = [(sign.boxes[0][3] - sign.boxes[0][1]) / scale for sign in scene.signs]
    # The round letters reach a little above and below the straight ones, at most 5 %; one pixel of rounding.
    assert min(heights) >= 6.0 - 1 / scale
    assert max(heights) <= 9.0 * 1.05 + 2 / scale


def test_a_word_on_the_overview_does_not_show_by_its_width():
    rooms = {draw_text(word, 40).size for word in ("JJJJ", "WWWW")}
    assert len(rooms) == 2
    plates = set()
    for word in ("JJJJ", "WWWW"):
        [sign] = draw_signs(
            np.random.default_rng(0), Image.new("RGB", (900, 700)), [Plan("red", "oval", word, 40)]
        )
        plate = sign.boxes[1]
        plates.add((plate[2] - plate[0], plate[3] - plate[1]))
    assert len(plates) == 1


@pytest.mark.parametrize("height", [10, 16, 40])
def test_every_letter_is_different_at_every_size(height):
    pictures = {letter: draw_text(letter, height).tobytes() for letter in LETTERS}
    assert len(set(pictures.values())) == len(LETTERS)


# --- answers -----------------------------------------------------------------------------------------

LOOKS = rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"


def signs_like(scene, colour, shape):
    return [sign for sign in scene.signs if (sign.plan.colour, sign.plan.shape) == (colour, shape)]


def signs_with(scene, name):
    return [sign for sign in scene.signs if sign.name == name]


def said(scene):
    """The answer in words: the text of the option, if there are options."""
    question = scene.question
    return question.choices["ABCD".index(question.answer)] if question.choices else question.answer


@pytest.mark.parametrize("with_objects", [False, True])
def test_the_asked_sign_is_the_only_one_of_its_look_and_the_answer_stands_on_it(objects, with_objects):
    options = {"objects": tuple(find_objects(objects, 0)[0])} if with_objects else {}
    for scene in scenes("single", **options):
        verb = "show" if with_objects else "say"
        look = re.fullmatch(rf"What does the {LOOKS} sign {verb}\?", scene.question.text)
        [sign] = signs_like(scene, *look.groups())
        assert said(scene) == sign.name
        assert scene.question.asked == [sign]
        # Distractors: the colour alone and the shape alone are not enough, and no other sign says the same.
        assert sum(each.plan.colour == sign.plan.colour for each in scene.signs) >= 2
        assert sum(each.plan.shape == sign.plan.shape for each in scene.signs) >= 2
        assert len(signs_with(scene, sign.name)) == 1


@pytest.mark.parametrize("with_objects", [False, True])
def test_whether_two_signs_have_the_same_content(objects, with_objects):
    options = {"objects": tuple(find_objects(objects, 0)[0])} if with_objects else {}
    answers = []
    for scene in scenes("pair", 14, **options):
        look = re.fullmatch(
            rf"Do the {LOOKS} sign and the {LOOKS} sign (?:say|show) the same\?", scene.question.text
        )
        [first], [second] = signs_like(scene, *look.groups()[:2]), signs_like(scene, *look.groups()[2:])
        assert scene.question.asked == [first, second]
        assert scene.question.answer == ("yes" if first.name == second.name else "no")
        if scene.question.answer == "no" and not with_objects:
            assert sum(a != b for a, b in zip(first.name, second.name, strict=True)) == 1
        answers.append(scene.question.answer)
    assert set(answers) == {"yes", "no"}


@pytest.mark.parametrize("with_objects", [False, True])
def test_an_attribute_of_the_only_sign_with_a_content(objects, with_objects):
    options = {"objects": tuple(find_objects(objects, 0)[0])} if with_objects else {}
    wanted = set()
    for scene in scenes("attribute", 14, **options):
        found = re.fullmatch(
            r"Which (colour|shape) has the sign that (?:says|shows the) (.+)\?", scene.question.text
        )
        [sign] = signs_with(scene, found[2])
        assert said(scene) == getattr(sign.plan, found[1])
        assert len(set(scene.question.choices)) == len(scene.question.choices)
        wanted.add(found[1])
    assert wanted == {"colour", "shape"}


@pytest.mark.parametrize("with_objects", [False, True])
def test_where_one_sign_is_from_another(objects, with_objects):
    options = {"objects": tuple(find_objects(objects, 0)[0])} if with_objects else {}
    seen = set()
    for scene in scenes("spatial", 24, **options):
        what = r"the (?:sign that says )?(.+)"
        way = r"(to the left of or to the right of|above or below)"
        found = re.fullmatch(rf"Is {what} {way} {what}\?", scene.question.text)
        [first], [second] = signs_with(scene, found[1]), signs_with(scene, found[3])
        (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = first.boxes[-1], second.boxes[-1]
        true = {
            "to the left of": ax2 <= bx1,
            "to the right of": bx2 <= ax1,
            "above": ay2 <= by1,
            "below": by2 <= ay1,
        }
        assert true[said(scene)]
        seen.add(said(scene))
    assert len(seen) == 4


def test_the_right_option_is_not_always_in_one_place():
    rng = np.random.default_rng(5)
    places = []
    picture = Image.new("RGB", (1280, 720))
    for _ in range(30):
        signs = draw_signs(rng, picture, plan_signs(rng, "attribute", (), lambda: 14))
        question = ask(rng, "attribute", signs, [])
        if len(question.choices) == 4:
            places.append(question.answer)
    assert set(places) == set("ABCD")


def test_a_word_is_made_again_until_it_is_new():
    words = iter(["ACDE", "ACDE", "FHJK"])
    assert unused(words.__next__, ["ACDE"]) == "FHJK"


def test_words_have_one_length_and_only_letters_that_can_be_told_apart():
    words = [sign.name for scene in scenes("single", 6) for sign in scene.signs]
    assert {len(word) for word in words} == {LENGTH}
    assert set("".join(words)) <= set(LETTERS)
    assert not set(LETTERS) & set("O0I1S5B8Z2QG")


# --- files -------------------------------------------------------------------------------------------


def digests(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "data"
    synthesize(folder, 12, SMALL)
    return folder


def test_rows_pass_the_checks_and_a_gold_rollout_earns_everything(made):
    rows = read_rows(made / "rows.jsonl", require_targets=True)
    assert [row.extras["x_kind"] for row in rows] == list(KINDS) * 3
    for row in rows:
        assert row.size == (1280, 720)
        assert answers_match(row.answer[0], row.answer, row.choices)
        crops = [region[0].tolist() for region in row.regions]
        assert grounding_reward([crops], [list(row.regions)], [row.size]).tolist() == [1.0]
        assert len(row.regions) == (2 if row.extras["x_kind"] in ("pair", "spatial") else 1)


def test_a_row_depends_on_the_seed_and_its_number_alone(made, tmp_path):
    synthesize(tmp_path / "five", 5, SMALL)
    few, all_of_them = digests(tmp_path / "five"), digests(made)
    pictures = [name for name in few if name.endswith(".jpg")]
    assert len(pictures) == 5
    assert [few[name] for name in pictures] == [all_of_them[name] for name in pictures]
    assert (made / "rows.jsonl").read_text().startswith((tmp_path / "five" / "rows.jsonl").read_text())
    synthesize(tmp_path / "other", 5, SMALL._replace(seed=1))
    assert not set(digests(tmp_path / "other").values()) & set(few.values())


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(made, tmp_path):
    synthesize(tmp_path / "two", 12, SMALL, workers=2)
    assert digests(tmp_path / "two") == digests(made)


def command(*words):
    return cli.main(["synthesize", *map(str, words)])


FAST = ("--size", "1280x720", "--target-pixels", "6-9", "--rows", "2")


def test_objects_on_photographs(tmp_path, objects, capsys):
    backgrounds = tmp_path / "photos"
    backgrounds.mkdir()
    Image.new("RGB", (1400, 900), (9, 120, 60)).save(backgrounds / "green.png")
    Image.new("RGB", (200, 100)).save(backgrounds / "small.png")
    (backgrounds / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (backgrounds / "notes.txt").touch()
    words = ["--backgrounds", backgrounds, "--objects", objects, "--size", "as-background"]
    assert (
        command(
            "--output", tmp_path / "out", *words, "--rows", "4", "--target-pixels", "6-9", "--quality", "100"
        )
        == 0
    )
    rows = read_rows(tmp_path / "out" / "rows.jsonl", require_targets=True)
    assert {row.size for row in rows} == {(1400, 900)}
    with Image.open(rows[0].image) as picture:
        assert np.abs(np.asarray(picture)[0, 0].astype(int) - (9, 120, 60)).max() <= 3
    errors = capsys.readouterr().err
    for name in ("cut.jpg: left out, no readable picture", "nothing.png: left out, no readable picture"):
        assert name in errors
    assert "broken.png: left out, no readable picture" in errors
    assert "photos: left out 1 file: notes.txt (not the suffix of a picture that is read)\n" in errors
    assert "small.png: left out, too small for --target-pixels 6-9" in errors


def test_names_of_cut_outs_come_from_their_files(objects):
    found, bad = find_objects(objects, 0)
    assert {item.name for item in found} == {"red apple", "blue cup", "star", "leaf", "stone", "boat"}
    assert [each.path.name for each in bad] == ["broken.png", "nothing.png"]


def test_objects_of_a_coco_file(tmp_path):
    Image.new("RGB", (300, 200)).save(tmp_path / "secret.jpg")
    tmp_path = tmp_path / "data"
    tmp_path.mkdir()
    Image.new("RGB", (300, 200), (200, 10, 10)).save(tmp_path / "a.jpg")
    boxes = [[10, 10, 50, 40], [100, 20, 50, 60], [180, 20, 50, 60], [0, 100, 400, 60], [5, 5, 10, 10]]
    names = ["dog", "cat", "bus", "cup", "tiny"]
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "../secret.jpg"}],
        "annotations": [
            *({"image_id": 1, "category_id": i, "bbox": box} for i, box in enumerate(boxes)),
            {"image_id": 2, "category_id": 0, "bbox": [0, 0, 50, 50]},
            {"image_id": 1, "category_id": 0, "bbox": [0, 0, 50, 50], "iscrowd": 1},
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    found, bad = find_objects(tmp_path / "coco.json", 0)
    assert sorted(item.name for item in found) == ["bus", "cat", "cup", "dog"]
    assert [each.path.name for each in bad] == ["secret.jpg"]
    [scene] = scenes("spatial", 1, objects=tuple(found))
    picture = np.asarray(scene.picture).astype(int)
    for sign in scene.signs:
        x1, y1, x2, y2 = sign.boxes[0]
        assert np.abs(picture[y1:y2, x1:x2] - (200, 10, 10)).max() < 12


@pytest.mark.parametrize("counts_on", ["stored", "upright"])
def test_objects_of_a_turned_photograph_are_cut_where_they_stand(tmp_path, counts_on):
    colours = [(220, 20, 20), (20, 220, 20), (20, 20, 220), (220, 220, 20)]
    places = [(10, 20, 50, 80), (100, 20, 150, 90), (20, 200, 80, 250), (120, 220, 190, 280)]
    upright = Image.new("RGB", (200, 300), (128, 128, 128))
    for colour, place in zip(colours, places, strict=True):
        upright.paste(colour, place)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    # A quarter turn to the left: what was at (x, y) is at (y, 200 - x).
    boxes = [
        [y1, 200 - x2, y2 - y1, x2 - x1] if counts_on == "stored" else [x1, y1, x2 - x1, y2 - y1]
        for x1, y1, x2, y2 in places
    ]
    boxes.append([-40, 50, 60, 60])  # 20 pixels of it lie inside
    width, height = (300, 200) if counts_on == "stored" else (200, 300)
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "annotations": [{"image_id": 1, "category_id": i, "bbox": box} for i, box in enumerate(boxes)],
        "categories": [{"id": i, "name": f"kind {i}"} for i in range(5)],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    found, bad = find_objects(tmp_path / "coco.json", 0)
    assert bad == []
    assert [item.name for item in found] == [f"kind {i}" for i in range(4)]
    for item, colour, place in zip(found, colours, places, strict=True):
        assert item.box == place
        drawn = np.asarray(draw_object(item, 60).convert("RGB")).astype(int)
        assert np.abs(drawn - colour).max() < 8
        assert (drawn.shape[0] > drawn.shape[1]) == (place[3] - place[1] > place[2] - place[0])


def test_objects_of_a_resized_copy_are_left_out(tmp_path):
    Image.new("RGB", (300, 200), (200, 10, 10)).save(tmp_path / "a.jpg")
    Image.new("RGB", (300, 200), (200, 10, 10)).save(tmp_path / "b.jpg")
    coco = {
        "images": [
            {"id": 1, "file_name": "a.jpg"},
            {"id": 2, "file_name": "b.jpg", "width": 900, "height": 600},
        ],
        "annotations": [
            {"image_id": image, "category_id": i, "bbox": [10, 10, 50, 50]}
            for image in (1, 2)
            for i in range(4)
        ],
        "categories": [{"id": i, "name": f"kind {i}"} for i in range(4)],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    found, bad = find_objects(tmp_path / "coco.json", 0)
    assert {item.path.name for item in found} == {"a.jpg"}
    [left_out] = bad
    assert left_out.path.name == "b.jpg"
    assert "300" in left_out.reason


def objects_of_categories(folder, *categories):
    """The objects of a COCO file with one box of each category (name, supercategory)."""
    Image.new("RGB", (60 * len(categories), 60), (200, 10, 10)).save(folder / "a.png")
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"image_id": 1, "category_id": i, "bbox": [60 * i, 0, 50, 50]} for i in range(len(categories))
        ],
        "categories": [
            {"id": i, "name": name, "supercategory": parent} for i, (name, parent) in enumerate(categories)
        ],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    return find_objects(folder / "coco.json", 0)


ONE_IS_THE_OTHER = {"vehicle": {"car", "taxi"}, "car": {"vehicle", "taxi"}, "taxi": {"vehicle", "car"}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_category_and_its_parents_are_never_told_apart(tmp_path, kind):
    found, _ = objects_of_categories(
        tmp_path, ("vehicle", "thing"), ("car", "vehicle"), ("taxi", "Car"), ("dog", "animal"), ("cup", None)
    )
    asked = set()
    for scene in scenes(kind, 12, objects=tuple(found)):
        names = [sign.name for sign in scene.signs]
        asked.add(scene.question.asked[0].name)
        for sign in scene.signs:
            assert not ONE_IS_THE_OTHER.get(sign.name, set()) & set(names)
        if kind == "single":
            right = scene.question.asked[0].name
            assert len(scene.question.choices) >= 3
            assert not ONE_IS_THE_OTHER.get(right, set()) & set(scene.question.choices)
    assert {"vehicle", "car", "taxi"} & asked
    assert {"dog", "cup"} & asked


def test_names_that_differ_in_case_are_one(tmp_path):
    found, _ = objects_of_categories(
        tmp_path, ("cup", None), ("Cup ", None), ("bus", None), ("dog", None), ("cat", None)
    )
    assert [item.name for item in found] == ["cup", "cup", "bus", "dog", "cat"]


def test_a_category_above_all_others_is_left_out_and_named(tmp_path):
    found, left_out = objects_of_categories(
        tmp_path, ("thing", None), *((name, "thing") for name in ("cup", "bus", "dog", "cat"))
    )
    assert {item.name for item in found} == {"cup", "bus", "dog", "cat"}
    assert [str(each.reason) for each in left_out] == [
        "objects of 'thing', which is above or below all others"
    ]


MISUSES = [
    (
        "no kind",
        ["--questions", "single,riddle"],
        "--questions must be some of single, pair, attribute, spatial",
    ),
    ("the same kind twice", ["--questions", "single,single"], "--questions must name each kind once"),
    ("no size", ["--size", "4K"], "--size must be as 3840x2160, or as-background, got '4K'"),
    ("a tiny size", ["--size", "100x100"], "--size must be at least 256 x 256"),
    ("a giant size", ["--size", "99999x99999"], "at most 201326592 pixels"),
    ("no range", ["--target-pixels", "7"], "--target-pixels must be as 2-6, got '7'"),
    ("an empty range", ["--target-pixels", "7-6"], "--target-pixels must be two heights above 0, got 7-6"),
    ("unreadable words", ["--target-pixels", "1-2"], "targets must be at least 10 pixels high, got 2.1"),
    ("giant words", ["--target-pixels", "90-100"], "signs of .* do not fit on 1280 x 720"),
    ("no rows", ["--rows", "0"], "--rows must be at least 1, got 0"),
    ("no workers", ["--workers", "0"], "--workers must be at least 1, got 0"),
    ("no quality", ["--quality", "0"], "--quality must be 1 to 100, got 0"),
    ("a seed below zero", ["--seed", "-1"], "--seed must be at least 0, got -1"),
    ("no tokens", ["--overview-tokens", "0"], "--overview-tokens must be at least 1"),
    ("no backgrounds", ["--size", "as-background"], "--size as-background needs --backgrounds"),
    ("an empty folder", ["--backgrounds", "."], "no picture that can be used"),
    ("no objects", ["--objects", "."], r"objects must have at least four different names, got \[\]"),
    ("no COCO file", ["--objects", "rows.txt"], "JSON breaks off"),
]


@pytest.mark.parametrize(
    ("words", "message"), [case[1:] for case in MISUSES], ids=[case[0] for case in MISUSES]
)
def test_a_mistake_on_the_command_line_is_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.txt").write_text("{")
    assert command("--output", "out", *FAST, *words) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(message, error)
    assert error.splitlines()[-1].startswith("lfpc: error: ")


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert command("--output", tmp_path, *FAST) == 2
    assert "not a new or empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_run_says_what_is_there(tmp_path):
    def stop(count):
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun, match=r"the first 2 rows are in .*rows.jsonl.part"):
        synthesize(tmp_path / "out", 4, SMALL, progress=stop)


def test_signs_that_do_not_fit_are_an_error_of_the_user():
    with pytest.raises(UserError, match="do not fit"):
        draw_signs(np.random.default_rng(0), Image.new("RGB", (300, 300)), [Plan("red", "oval", "ACDE", 200)])


# --- after a kill ------------------------------------------------------------------------------------


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def stop_after(count):
    def progress(done):
        if done == count:
            raise RuntimeError("killed")

    return progress


@pytest.mark.parametrize("damage", ["nothing", "half a row", "no settings", "before the first row"])
def test_the_same_command_goes_on_after_a_kill(tmp_path, damage):
    synthesize(tmp_path / "whole", 4, SMALL)
    output = tmp_path / "out"
    with pytest.raises(RuntimeError):
        synthesize(output, 4, SMALL, progress=stop_after(2))
    if damage == "half a row":
        with (output / "rows.jsonl.part").open("a") as file:
            file.write('{"id": "0-0000')
    if damage == "no settings":  # as an older version left it
        (output / ".unfinished.json").unlink()
    if damage == "before the first row":
        (output / "rows.jsonl.part").unlink()
    seen = []
    synthesize(output, 4, SMALL, progress=seen.append)
    assert tree(output) == tree(tmp_path / "whole")
    assert seen == ([3, 4] if damage in ("nothing", "half a row") else [1, 2, 3, 4])


def test_another_command_does_not_go_on_with_it(tmp_path):
    with pytest.raises(RuntimeError):
        synthesize(tmp_path / "out", 4, SMALL, progress=stop_after(2))
    before = tree(tmp_path / "out")
    for rows, settings, change in (
        (5, SMALL, "rows was 4 and is 5"),
        (4, SMALL._replace(seed=1), "seed was 0"),
    ):
        with pytest.raises(UserError, match=f"holds an unfinished data set with other settings, {change}"):
            synthesize(tmp_path / "out", rows, settings)
    assert tree(tmp_path / "out") == before


def test_a_finished_data_set_is_not_begun_again(tmp_path):
    synthesize(tmp_path / "out", 1, SMALL)
    with pytest.raises(UserError, match="not a new or empty folder"):
        synthesize(tmp_path / "out", 1, SMALL)
