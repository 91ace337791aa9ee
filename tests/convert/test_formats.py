"""Every published layout becomes rows that say the same; what cannot become a row says why."""

import base64
import csv
import json
import re

import pytest

from lfpc_trl.convert import coco
from lfpc_trl.convert.formats import FORMATS, LOOK
from lfpc_trl.convert.run import convert
from lfpc_trl.convert.text import plain_answers, plain_question, question_with_choices
from lfpc_trl.convert.verl import only_picture
from lfpc_trl.data.choices import split_choices
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import DataError
from tests.convert import published


def run(tmp_path, path, source, **options):
    """Convert a file; the rows as they are read back, and the entries of the rejects file."""
    output = tmp_path / "out" / "rows.jsonl"
    summary = convert([path], output, source=source, **options)
    rejects = output.with_suffix(".rejects.jsonl")
    entries = [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []
    rows = read_rows(output) if summary.converted else []
    assert (summary.converted, summary.rejected) == (len(rows), len(entries))
    return rows, entries


def essence(row):
    regions = None if row.regions is None else [region.tolist() for region in row.regions]
    return row.question, row.answer, row.choices, regions


PUBLISHED = {  # builder: format, rows (question, answer, choices, targets), reasons of the rejected
    "deepeyes": (
        "deepeyes",
        [
            ("What is the color of the chair?", ("The color of the chair is white.",), None, None),
            ("Which curve rises?", ("B",), ("the red one", "the blue one"), None),
            ("What does the sign say?", ("STOP",), None, None),
            ("Which one?", ("left",), None, None),  # about two pictures
        ],
        [],
    ),
    "cof": (
        "cof",
        [
            ("What number is on the bus?", ("42",), None, None),
            ("What is it?", ("A",), ("a kite", "a bird"), None),
        ],
        ["image must exist, got '.*gone.jpg'"],
    ),
    "cof_json": ("cof", [("What number is on the bus?", ("42",), None, None)], []),
    "pixel_reasoner": (
        "pixel-reasoner",
        [
            ("What is the total?", ("12", "12 dollars"), None, None),
            ("Which?", ("B",), ("left", "right"), None),
            ("Which differs?", ("A",), None, None),  # about two pictures
        ],
        [
            "a question must be about a picture, got a video",
            "id must be unique, got 'q-1' as in release.parquet row 1",
        ],
    ),
    "thinklite": (
        "thinklite",
        [
            ("Find x.", (r"\frac { 1 } { 2 }",), None, None),
            ("Is it rising?", ("A",), ("Yes", "No"), None),
        ],
        ["image must be a picture of a known format, got the bytes of the picture"],
    ),
    "visualprobe": (
        "visualprobe",
        [("What is the number on the boat with the blue sail?", ("27",), None, None)],
        [],
    ),
    "vlm_r1": ("vlm-r1", [(LOOK.format("the lady in blue"), ("seen",), None, [[[10.5, 20, 110, 220]]])], []),
    "vlm_r1_lines": (
        "vlm-r1",
        [
            (LOOK.format("left cup"), ("seen",), None, [[[10, 20, 110, 220]]]),
            ("What number of purple metallic balls are there?", ("0",), None, None),
        ],
        [r"targets must lie inside the picture .320 x 240", "a box must be four finite numbers, got .*nan"],
    ),
    "vlm_r1_several": (
        "vlm-r1",
        [
            ("What number of purple metallic balls in total within the two images?", ("3",), None, None),
            ("Is there a ball in Image 1 that is not in Image 2?", ("yes",), None, None),
        ],
        [
            "boxes must be on one picture, since the format cannot say which, got 2",
            "question must be about its 2",
        ],
    ),
    "treebench": (
        "treebench",
        [
            (
                "Which is larger?",
                ("B",),
                ("the cup", "the jug"),
                [[[10, 20, 110, 220]], [[200, 10, 300, 90]]],
            ),
            ("What does it say?", ("A",), ("NO", "YES"), [[[1, 2, 30, 40]]]),
        ],
        [],
    ),
    "label_studio": (
        "label-studio",
        [
            ("What does it say?", ("KR",), None, [[[64, 48, 96, 72], [32, 24, 192, 144]]]),
            ("What does it say?", ("KR",), None, None),
        ],
        ["a rectangle must not be rotated", "a box labelled B2 must have a box inside it"],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_layout_becomes_rows(tmp_path, name):
    source, expected, reasons = PUBLISHED[name]
    rows, entries = run(tmp_path, getattr(published, name)(tmp_path), source)
    assert [essence(row) for row in rows] == expected, entries
    assert len(entries) == len(reasons)
    for entry, reason in zip(entries, reasons, strict=True):
        assert re.match(reason, entry["reason"]), entry


def test_lists_of_pictures_of_vlm_r1_stay_lists(tmp_path):
    rows, _ = run(tmp_path, published.vlm_r1_several(tmp_path), "vlm-r1")
    for row in rows:
        assert [picture.image.read_bytes() for picture in row.pictures] == [
            published.picture_bytes("PNG", seed=seed) for seed in (0, 1)
        ]


def test_vstar_is_read_from_its_folders_and_its_first_option_is_the_right_one(tmp_path):
    rows, entries = run(tmp_path, published.vstar(tmp_path / "vstar"), "vstar")
    assert [row.id for row in rows] == ["direct_attributes/sa_1", "relative_position/sa_2"]
    assert [[region.tolist() for region in row.regions] for row in rows] == [
        [[[10, 20, 40, 60]]],
        [[[10, 20, 40, 60]], [[200, 100, 220, 110]]],
    ]
    for row in rows:
        assert row.choices["ABC".index(row.answer[0])] == "The glove is rubber."
    assert re.match("alone.json must be an object with one picture beside it", entries[0]["reason"])


def test_the_right_options_of_vstar_are_not_always_in_one_place():
    record = {"category": "x", "question": "Which?", "options": ["right", "b", "c", "d"], "image": "a.jpg"}
    places = {FORMATS["vstar"].convert(record | {"id": f"sa_{i}"}).answer[0] for i in range(40)}
    assert places == set("ABCD")


def test_coco_asks_which_category_is_there(tmp_path):
    rows, entries = run(tmp_path, published.coco(tmp_path), "coco")
    [row] = rows
    assert (row.id, row.question) == ("139-85", coco.QUESTION)
    assert row.regions[0].tolist() == [[236.98, 142.51, 261.68, 212.01]]
    assert row.choices["ABCD".index(row.answer[0])] == "clock"
    assert set(row.choices) == {"clock", "dog"}  # nothing is annotated as a bottle: perhaps it is no class
    assert [entry["reason"] for entry in entries] == [
        "an instance must not be a crowd, got iscrowd 1",
        "a category must have one instance on the picture, got 2",
        "annotations must belong to a picture, got image_id 140",
    ]


def coco_of(tmp_path, categories, *pictures):
    """A file of categories (name: supercategory) with, for each picture, the ids of the boxes on it."""
    data = {
        "images": [{"id": i, "file_name": "a.jpg"} for i in range(len(pictures))],
        "categories": [
            {"id": i, "name": name} | ({} if parent is None else {"supercategory": parent})
            for i, (name, parent) in enumerate(categories)
        ],
        "annotations": [
            {"image_id": i, "category_id": category, "bbox": [10, 10, 50, 50]}
            for i, found in enumerate(pictures)
            for category in found
        ],
    }
    published.add_picture(tmp_path / "a.jpg")
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(data))
    return path


ROOT = [("road-things", "none"), ("sign", "road-things"), ("car", "road-things")]
SAME = [("sign", "none"), ("sign", "sign"), ("car", "sign")]
DEEP = [("vehicle", "thing"), ("car", "vehicle"), ("Taxi", "car"), ("dog", "animal"), ("thing", None)]
OFFERED = {  # categories, ids on each picture, what each row offers (the right one first)
    "a root that nothing is annotated with": (ROOT, [[1], [2], [1, 2]], [{"sign", "car"}, {"car", "sign"}]),
    "a root with the name of a class": (SAME, [[1], [2], [1, 2]], [{"sign", "car"}, {"car", "sign"}]),
    "a parent": (DEEP, [[1], [0], [3]], [{"car", "dog"}, {"vehicle", "dog"}, {"dog", "vehicle", "car"}]),
    "a grandparent": (
        DEEP,
        [[2], [0], [3]],
        [{"Taxi", "dog"}, {"vehicle", "dog"}, {"dog", "vehicle", "Taxi"}],
    ),
    "equal names": (
        [("cup", None), ("Cup ", None), ("bus", None), ("BUS", None)],
        [[0], [2], [1], [3]],
        [{"cup", "bus"}, {"bus", "cup"}, {"Cup ", "bus"}, {"BUS", "cup"}],
    ),
    "one of two with a name": (
        [("dish", None), ("cup", None), ("CUP", "dish"), ("dog", None)],
        [[0], [1], [2], [3]],
        [{"dish", "dog"}, {"cup", "dog", "dish"}, {"CUP", "dog"}, {"dog", "dish", "cup"}],
    ),
    "its own parent": ([("cup", "cup"), ("bus", "cup")], [[0], [1]], []),
    "a circle": (
        [("cup", "bus"), ("bus", "cup"), ("dog", None)],
        [[0], [2]],
        [{"cup", "dog"}, {"dog", "cup", "bus"}],
    ),
}
OFFERED["a circle"][2][1].discard("bus")  # on no picture


@pytest.mark.parametrize("name", OFFERED)
def test_only_what_is_surely_absent_is_offered(tmp_path, name):
    categories, pictures, offered = OFFERED[name]
    rows, _ = run(tmp_path, coco_of(tmp_path, categories, *pictures), "coco")
    assert [set(row.choices) for row in rows] == offered
    for row in rows:
        assert len({choice.strip().casefold() for choice in row.choices}) == len(row.choices)
        right = row.choices["ABCD".index(row.answer[0])]
        assert right == categories[int(row.id.partition("-")[2])][0]


@pytest.mark.parametrize("found", [[0, 1], [0, 2], [3, 4]])
def test_what_is_on_a_picture_twice_is_no_question(tmp_path, found):
    categories = [
        ("vehicle", None),
        ("car", "vehicle"),
        ("taxi", "car"),
        ("cup", None),
        ("CUP", None),
        ("dog", None),
    ]
    _, entries = run(tmp_path, coco_of(tmp_path, categories, found, [5]), "coco")
    assert f"0-{found[0]}" in [entry["id"] for entry in entries]
    assert entries[0]["reason"] == "a category must have one instance on the picture, got 2"


def test_the_right_options_of_coco_are_not_always_in_one_place():
    record = {
        "category": "cup",
        "absent": list("bcdefg"),
        "instances": [{"bbox": [1, 2, 3, 4], "iscrowd": 0}],
    }
    rest = {"width": 9, "height": 9, "file_name": "a.jpg"}
    places = {FORMATS["coco"].convert(record | rest | {"id": f"{i}-1"}).answer[0] for i in range(40)}
    assert places == set("ABCD")


def test_coco_boxes_of_a_resized_copy_are_refused(tmp_path):
    path = published.coco(tmp_path)
    (tmp_path / "000000000139.jpg").write_bytes(published.picture_bytes(size=(160, 120)))
    rows, entries = run(tmp_path, path, "coco")
    assert rows == []
    reasons = "\n".join(entry["reason"] for entry in entries)
    assert "boxes must be for this picture of [160, 120] pixels, got boxes for [320, 240]" in reasons


BOX_LAYOUTS = {
    "xyxy": [10, 20, 110, 220],
    "xywh": [10, 20, 100, 200],
    "xyxy-1": [10 / 320, 20 / 240, 110 / 320, 220 / 240],
    "xywh-1": [10 / 320, 20 / 240, 100 / 320, 200 / 240],
    "xyxy-1000": [10 / 0.32, 20 / 0.24, 110 / 0.32, 220 / 0.24],
    "xywh-1000": [10 / 0.32, 20 / 0.24, 100 / 0.32, 200 / 0.24],
    "xywh-100": [10 / 3.2, 20 / 2.4, 100 / 3.2, 200 / 2.4],
}


@pytest.mark.parametrize("layout", BOX_LAYOUTS)
def test_the_same_box_in_any_layout(tmp_path, layout):
    path = published.vlm_r1(tmp_path)
    [record] = json.loads(path.read_text())
    published.write_json(path, [record | {"solution": BOX_LAYOUTS[layout]}])
    rows, _ = run(tmp_path, path, "vlm-r1", layout=layout)
    assert rows[0].regions[0].tolist() == [[10, 20, 110, 220]]


def test_a_box_that_sticks_out_by_a_rounding_is_clipped_and_one_further_out_is_not(tmp_path):
    path = published.vlm_r1(tmp_path)
    [record] = json.loads(path.read_text())
    published.write_json(
        path, [record | {"solution": box} for box in ([-0.5, 20, 320.9, 240], [-2, 20, 110, 220])]
    )
    rows, entries = run(tmp_path, path, "vlm-r1")
    assert rows[0].regions[0].tolist() == [[0, 20, 320, 240]]
    assert "targets must lie inside the picture" in entries[0]["reason"]


QUESTIONS = [  # id, text, answer, question, choices
    ("lines with points", "Which?\nA. red\nB. blue", "A", "Which?", ["red", "blue"]),
    ("lines with brackets", "Which?\n(A) red\n(B) blue", "B", "Which?", ["red", "blue"]),
    ("lines with colons", "Which?\nA: red\nB: blue\nC: green", "C", "Which?", ["red", "blue", "green"]),
    ("one line in brackets", "Find x. (A) 3 (B) 4", "A", "Find x.", ["3", "4"]),
    ("a heading", "Which?\nOptions:\nA. red\nB. blue", "A", "Which?", ["red", "blue"]),
    ("an answer by its text", "Which?\nA. red\nB. blue", "blue", "Which?", ["red", "blue"]),
    ("an answer that is no option", "Which?\nA. red\nB. blue", "7", "Which?\nA. red\nB. blue", None),
    ("letters out of order", "Which?\nB. red\nA. blue", "A", "Which?\nB. red\nA. blue", None),
    ("one option", "Which?\nA. red", "A", "Which?\nA. red", None),
    ("a name", "Is A. Smith on it?\nB. Jones too?", "yes", "Is A. Smith on it?\nB. Jones too?", None),
    ("text behind the options", "Q?\nA. x\nB. y\nThink.", "A", "Q?\nA. x\nB. y\nThink.", None),
    ("no question", "A. red\nB. blue", "A", "A. red\nB. blue", None),
    ("no options", "What does it say?", "A", "What does it say?", None),
]


@pytest.mark.parametrize(("text", "answer", "question", "choices"), [case[1:] for case in QUESTIONS], ids=[
    case[0] for case in QUESTIONS
])  # fmt: skip
def test_options_are_split_out_of_a_question_only_where_that_is_certain(text, answer, question, choices):
    assert question_with_choices(text, [answer]) == (question, choices)


@pytest.mark.parametrize("answer", ["A, C", "AC", "(A) and (B)", "A C", "A;B"])
def test_an_answer_of_several_options_is_refused(answer):
    with pytest.raises(DataError, match=f"answer must name one option, got {re.escape(repr(answer))}"):
        question_with_choices("Which?\nA. red\nB. blue\nC. green", [answer])


def test_an_option_may_look_like_several():
    assert question_with_choices("Which group?\nA. O\nB. AB", ["AB"]) == ("Which group?", ["O", "AB"])
    assert split_choices("Is A. Smith on the sign?") is None


B1, B2 = [10, 20, 110, 220], [200, 20, 310, 220]
ASK = published.ASK
CUP = LOOK.format("the cup")
SEEN = "Answer with the word seen once you see it clearly."
SOLUTIONS = {  # prompt, solution, question and regions; or the reason
    "a box": (ASK + "the cup.", B1, (CUP, [[B1]])),
    "a box as text": (ASK + "the cup", "[10, 20, 110, 220]", (CUP, [[B1]])),
    "a box between tags": (ASK + "the cup", "<answer> [10, 20, 110, 220] </answer>", (CUP, [[B1]])),
    "several": (ASK + "the cup", [B1, B2], (CUP, [[B1], [B2]])),
    "several as text": (ASK + "the cup", f"{[B1, B2]}", (CUP, [[B1], [B2]])),
    "an object": (ASK + "the cup", {"bbox_2d": B1}, (CUP, [[B1]])),
    "an object as text": (ASK + "the cup", '{"bbox_2d": [10, 20, 110, 220]}', (CUP, [[B1]])),
    "a fenced block": (
        ASK + "the cup",
        f"```json\n{json.dumps([{'bbox_2d': B1, 'label': 'cup'}, {'bbox_2d': B2, 'label': 'cup'}])}\n```",
        (CUP, [[B1], [B2]]),
    ),
    "a fenced block with words around": (ASK + "the cup", "Here:\n```\n[10,20,110,220]\n```", (CUP, [[B1]])),
    "as Python writes it": (ASK + "the cup", "[{'bbox': [10, 20, 110, 220]}]", (CUP, [[B1]])),
    "two points": (ASK + "the cup", "(10, 20), (110, 220)", (CUP, [[B1]])),
    "a free prompt": ("Detect all cups. Report JSON.", [B1, B2], (f"Detect all cups. {SEEN}", [[B1], [B2]])),
    "a question": ("Where is the cup?", B1, (f"Where is the cup? {SEEN}", [[B1]])),
    "a free prompt without an end": ("Locate the cup", B1, (f"Locate the cup. {SEEN}", [[B1]])),
    "the box of": (
        "Please provide the bounding box coordinates of the cup in JSON format.",
        B1,
        (CUP, [[B1]]),
    ),
    "only about the form": ("Report bbox coordinates in JSON.", B1, "problem must say what to look for, got"),
    "nothing": (ASK + "the cup", [], "solution must be an answer in words, or boxes"),
    "nothing as text": (ASK + "the cup", "[]", "solution must be an answer in words, or boxes"),
    "two numbers": ("Which two numbers?", [3, 5], "solution must be an answer in words, or boxes"),
    "five numbers": (ASK + "the cup", "[[10, 20, 110, 220, 0.9]]", "solution must be an answer in words"),
    "points": (ASK + "the cup", "[[10, 20], [110, 220]]", "solution must be an answer in words"),
    "six numbers": (ASK + "the cup", "(1, 2), (3, 4), (5, 6)", "solution must be an answer in words"),
    "another notation": (
        ASK + "the cup",
        "<box>(10,20),(110,220)</box>",
        "solution must be an answer in words",
    ),
    "an object without a box": (ASK + "the cup", '{"label": "cup"}', "solution must be an answer in words"),
    "broken JSON": (ASK + "the cup", '[{"bbox_2d": [10, 20, 110', "solution must be an answer in words"),
    "two pictures": ("<image><image>What?", "a cup", "a question must have one picture, got 2 times <image>"),
}


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_of_vlm_r1_that_are_boxes_are_never_answers_in_words(tmp_path, name, lines):
    question, solution, expected = SOLUTIONS[name]
    published.add_picture(tmp_path / "a.jpg")
    record = {"image": "a.jpg", "problem": question, "solution": solution}
    if lines:
        talk = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": question}]
        record = {"image": "a.jpg", "conversations": [*talk, {"from": "gpt", "value": solution}]}
    rows, entries = run(tmp_path, published.write_lines(tmp_path / "a.jsonl", record), "vlm-r1")
    if isinstance(expected, str):
        assert rows == []
        assert entries[0]["reason"].startswith(expected)
    else:
        [row] = rows
        assert (row.question, row.answer) == (expected[0], ("seen",))
        assert [region.tolist() for region in row.regions] == expected[1]


@pytest.mark.parametrize(("solution", "answer"), [
    ("0", "0"), ("[0, 5]", "[0, 5]"), ("(3, 5)", "(3, 5)"), (7, "7"), ("<answer> a cup </answer>", "a cup"),
    ("A box (small), [red]", "A box (small), [red]"),
])  # fmt: skip
def test_solutions_of_vlm_r1_in_words_stay_answers(tmp_path, solution, answer):
    published.add_picture(tmp_path / "a.jpg")
    record = {"image": "a.jpg", "problem": "What is it?", "solution": solution}
    [row], _ = run(tmp_path, published.write_lines(tmp_path / "a.jsonl", record), "vlm-r1")
    assert (row.question, row.answer, row.regions) == ("What is it?", (answer,), None)


def test_a_conversation_of_several_rounds_is_refused(tmp_path):
    published.add_picture(tmp_path / "a.jpg")
    talk = [{"from": role, "value": "What?"} for role in ("human", "gpt") * 2]
    path = published.write_lines(tmp_path / "a.jsonl", {"image": "a.jpg", "conversations": talk})
    _, [entry] = run(tmp_path, path, "vlm-r1")
    assert entry["reason"] == "conversations must be one question and its answer, got 4 turns"


ONE, OTHER = (base64.b64encode(published.picture_bytes(seed=seed)).decode() for seed in (0, 1))
CELLS = {  # what stands in the cell: number of pictures, or None for the reason of a cell that cannot be read
    "one": (ONE, 1),
    "one in lines": (base64.encodebytes(published.picture_bytes(seed=0)).decode(), 1),
    "a list of one": (f"['{ONE}']", 1),
    "two, as Python writes it": (f"['{ONE}', '{OTHER}']", 2),
    "two, as JSON writes it": (json.dumps([ONE, OTHER]), 2),
    "two between commas": (f"{ONE},{OTHER}", None),
    "two between bars": (f"{ONE}|{OTHER}", None),
    "none": ("[]", 0),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_several_pictures_is_never_read_as_its_first(tmp_path, name):
    cell, count = CELLS[name]
    path = published.treebench(tmp_path)
    text = path.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(text, delimiter="\t"))
    rows[0]["image"] = cell
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerow(rows[0])
    rows, entries = run(tmp_path, path, "treebench")
    if count == 1:
        assert rows[0].image.read_bytes() == published.picture_bytes(seed=0)
    elif count is None:
        assert entries[0]["reason"].startswith("image must be base64, got")
    else:
        assert entries[0]["reason"] == f"a question must have one picture, got {count}"


@pytest.mark.parametrize(
    "images", [["a.jpg", "b.jpg"], "['a.jpg', 'b.jpg']", '["a.jpg", "b.jpg"]', [{"path": "a.jpg"}] * 2]
)
def test_several_pictures_of_a_record_are_refused(images):
    with pytest.raises(DataError, match="a question must have one picture, got 2"):
        only_picture(images)


def test_a_path_may_begin_with_a_bracket():
    assert only_picture("[draft] a.jpg").path == "[draft] a.jpg"
    assert only_picture("['a.jpg']").path == "a.jpg"


ANSWERS = [
    ("a text", "red", ["red"]),
    ("a number", 3, ["3"]),
    ("boxed", r"\boxed{B}", ["B"]),
    ("boxed with braces", r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
    ("the last box", r"\boxed{A} no, \boxed{B}", ["B"]),
    ("a box that never ends", r"\boxed{B", [r"\boxed{B"]),
    ("several", [r"\boxed{a}", "b"], ["a", "b"]),
    ("a list in a box", r"\boxed{['a', 'b', 'a']}", ["a", "b"]),
    ("an interval", "[0, 5]", ["[0, 5]"]),
    ("an interval in a box", r"\boxed{[0, 5]}", ["[0, 5]"]),
    ("a list of texts that is written out", "['a', 'b']", ["['a', 'b']"]),
    ("brackets that are no list", "[open]", ["[open]"]),
    ("a list of lists", "[[1, 2]]", ["[[1, 2]]"]),
]


@pytest.mark.parametrize(
    ("value", "expected"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
def test_answers_come_out_of_their_boxes(value, expected):
    assert plain_answers(value) == expected


@pytest.mark.parametrize("value", ["", "  ", [], None, {"a": 1}, [None], True, [""], r"\boxed{}"])
def test_an_answer_that_is_none_is_refused(value):
    with pytest.raises(DataError, match="answer must be a text"):
        plain_answers(value)


@pytest.mark.parametrize(
    "text",
    [
        "What?" + published.DEEPEYES_SUFFIX,
        "<image>What?" + published.COF_SUFFIX,
        "<image>\nQuestion: What?\nAnswer the question using a single word or phrase.",
        "What? You FIRST think about the reasoning process as an internal monologue and then",
    ],
)
def test_instructions_of_other_systems_are_cut_off(text):
    assert plain_question(text) == "What?"
