"""Small benchmarks in the published layouts; where each was seen stands in docs/reference/benchmarks.md."""

import base64
import csv
import functools
import io
import json

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

SIZE = (96, 64)
RED = (230, 20, 20)


@functools.cache
def picture(seed=0, kind="PNG", box=None, size=SIZE, **options):
    """The bytes of a grey picture of noise, the box [x1, y1, x2, y2] painted red; two seeds differ."""
    pixels = np.random.default_rng(seed).integers(100, 140, (size[1], size[0], 3), dtype=np.uint8)
    if box is not None:
        pixels[box[1] : box[3], box[0] : box[2]] = RED
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def base64_of(data):
    return base64.b64encode(data).decode()


# --- HR-Bench ----------------------------------------------------------------------------------------

OPTIONS = ["red", "green", "blue", "grey"]


def hr_rows(questions=2, **columns):
    """Each question in four rows; the options of row i are moved by i places, and `red` is right."""
    rows = []
    for number in range(questions):
        for order in range(4):
            shown = OPTIONS[order:] + OPTIONS[:order]
            rows.append(
                {
                    "index": 4 * number + order,
                    "question": f"What is the colour of sign {number}?",
                    "answer": "ABCD"[shown.index("red")],
                    "category": ("single", "cross")[number % 2],
                    **dict(zip("ABCD", shown, strict=True)),
                    "cycle_category": str(order),
                    "image": base64_of(picture(number, "JPEG")),
                    **columns,
                }
            )
    return rows


def write_tsv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")  # pandas writes the same
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def with_images(rows, change):
    return [row | {"image": change(base64.b64decode(row["image"]))} for row in rows]


# --- V* ----------------------------------------------------------------------------------------------

STATEMENTS = ["The glove is rubber.", "The glove is cotton.", "The glove is leather.", "The glove is wool."]


def vstar(folder, direct=1, relative=1, **columns):
    """The folder of V*: one box in `direct_attributes`, two in `relative_position`."""
    for category, count in (("direct_attributes", direct), ("relative_position", relative)):
        for number in range(count):
            boxes = [[10, 20, 30, 12], [60, 4, 8, 6]][: 1 + (category == "relative_position")]
            add_vstar(folder / category, f"sa_{number}", boxes, picture(number, "JPEG"), **columns)
    return folder


def add_vstar(folder, name, boxes, data, suffix=".jpg", **columns):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}{suffix}").write_bytes(data)
    record = {
        "target_object": ["glove"] * len(boxes),
        "bbox": boxes,
        "question": "What is the material of the glove?",
        "options": STATEMENTS,
    }
    (folder / f"{name}.json").write_text(json.dumps(record | columns))


def vstar_questions(folder):
    """`test_questions.jsonl` of the folder."""
    letter = "\nAnswer with the option's letter from the given choices directly."
    return write_lines(
        folder / "test_questions.jsonl",
        [
            {
                "image": f"{category}/sa_0.jpg",
                "text": f"What is the material?\n(A) cotton\n(B) rubber\n(C) wool\n(D) leather{letter}",
                "category": category,
                "label": "B",
                "question_id": str(number),
            }
            for number, category in enumerate(("direct_attributes", "relative_position"))
        ],
    )


# --- TreeBench and VLMEvalKit's table ------------------------------------------------------------------


def tree_rows(**columns):
    listed = "A. the cup\nB. the jug\nC. the can"
    common = {"index": 0, "image": base64_of(picture(0, "JPEG")), "question": "Which one is larger?"}
    options = {"A": "the cup", "B": "the jug", "C": "the can", "D": "", "E": ""}
    first = {
        **common,
        **options,
        "multi-choice options": listed,
        "answer": "B",
        "category": "Reasoning/Comparison",
        "target_instances": "[[10, 20, 40, 32], [60, 4, 68, 10]]",
    }
    second = first | {
        "index": 1,
        "image": base64_of(picture(1, "JPEG")),
        "question": "What does the sign say?\nA. NO\nB. YES",
        **dict.fromkeys("ABCDE", ""),
        "multi-choice options": "",
        "answer": "A",
        "category": "Perception/OCR",
        "target_instances": "[[1, 2, 30, 40]]",
    }
    return [first | columns, second | columns]
