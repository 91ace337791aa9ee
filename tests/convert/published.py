"""Small files in the published layouts; where each was seen stands in docs/reference/converters.md."""

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

SIZE = (320, 240)


def picture_bytes(kind="JPEG", size=SIZE, seed=0, **options):
    """A picture of noise, so that two seeds differ."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(file, kind, **options)
    return file.getvalue()


def write_parquet(path: Path, records, schema):
    parquet.write_table(pa.Table.from_pylist(records, schema=pa.schema(schema)), path)
    return path


def write_json(path: Path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def add_picture(path: Path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_bytes(**options))
    return path


MESSAGES = pa.list_(pa.struct({"content": pa.string(), "role": pa.string()}))
DEEPEYES = {
    "data_source": pa.string(),
    "prompt": MESSAGES,
    "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})),
    "ability": pa.string(),
    "env_name": pa.string(),
    "reward_model": pa.struct({"ground_truth": pa.string(), "style": pa.string()}),
    "extra_info": pa.struct(
        {
            "answer": pa.string(),
            "id": pa.string(),
            "image": pa.string(),
            "index": pa.string(),
            "pred_ans": pa.string(),
            "question": pa.string(),
            "split": pa.string(),
        }
    ),
}
DEEPEYES_SUFFIX = (
    "\nThink first, call **image_zoom_in_tool** if needed, then answer. Format strictly as:  "
    "<think>...</think>  <tool_call>...</tool_call> (if tools needed)  <answer>...</answer> "
)


def deepeyes_record(question, answer, *, extra=True, pictures=1, source="vstar"):
    return {
        "data_source": source,
        "prompt": [
            {"role": "system", "content": "You are a helpful assistant.\n\n# Tools"},
            {"role": "user", "content": "<image>\n" + question + DEEPEYES_SUFFIX},
        ],
        "images": [{"bytes": picture_bytes(seed=i), "path": None} for i in range(pictures)],
        "ability": "vl_chart",
        "env_name": "visual_toolbox_v2",
        "reward_model": {"style": "model", "ground_truth": answer},
        "extra_info": {"question": question, "answer": answer, "index": "7", "split": "train"}
        if extra
        else None,
    }


def deepeyes(folder: Path) -> Path:
    records = [
        deepeyes_record("What is the color of the chair?", "The color of the chair is white."),
        deepeyes_record("Which curve rises?\nA) the red one\nB) the blue one", "B", source="chart"),
        deepeyes_record("What does the sign say?", "STOP", extra=False),
        deepeyes_record("Which one?", "left", pictures=2),
    ]
    return write_parquet(folder / "data_0.1.2_visual_toolbox_v2.parquet", records, DEEPEYES)


COF_SUFFIX = (
    "\nThink in the mind first, and then decide whether to call tools one or more times OR provide final "
    "answer. Format strictly as: <think>...</think> <tool_call>...</tool_call> (if any tools needed) OR "
    "<answer>...</answer> (if no tools needed)."
)


def cof(folder: Path) -> Path:
    add_picture(folder / "images" / "a.jpg")
    schema = {
        "data_source": pa.string(),
        "agent_name": pa.string(),
        "prompt": MESSAGES,
        "images": pa.list_(pa.struct({"image": pa.string()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"ground_truth": pa.string(), "style": pa.string()}),
        "extra_info": pa.struct({"index": pa.int64(), "split": pa.string()}),
    }

    def record(question, answer, image):
        return {
            "data_source": "rl_multiresolution",
            "agent_name": "tool_agent",
            "prompt": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "<image> Question: " + question + COF_SUFFIX},
            ],
            "images": [{"image": image}],
            "ability": "vision",
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {"index": 3, "split": "train"},
        }

    letter = "\nAnswer with the option's letter from the given choices directly."
    mcq = "What is it?\n(A) a kite\n(B) a bird" + letter
    open_one = "What number is on the bus?\nAnswer the question using a single word or phrase."
    records = [
        record(open_one, "42", "./images/a.jpg"),
        record(mcq, "A", "./images/a.jpg"),
        record(open_one, "42", "./images/gone.jpg"),
    ]
    return write_parquet(folder / "train.parquet", records, schema)


def cof_json(folder: Path) -> Path:
    add_picture(folder / "a.jpg")
    record = {"question": "What number is on the bus?", "groundtruth": "42", "image_name": "a.jpg"}
    return write_json(folder / "cof.json", [record])


def pixel_reasoner(folder: Path) -> Path:
    add_picture(folder / "images" / "a.jpg")
    schema = {
        "question": pa.string(),
        "image": pa.list_(pa.string()),
        "answer": pa.list_(pa.string()),
        "is_video": pa.bool_(),
        "qid": pa.string(),
    }

    def record(number, question, answer, image=("images/a.jpg",), video=None):
        return {
            "qid": number,
            "question": question,
            "answer": [answer],
            "image": list(image),
            "is_video": video,
        }

    records = [
        record("q-1", "What is the total?", r"\boxed{['12', '12 dollars']}"),
        record("q-2", "Which?\nChoices:\n(A) left\n(B) right", r"\boxed{B}", video=False),
        record("q-3", "What happens?", r"\boxed{A}", ("v/1.jpg", "v/2.jpg"), video=True),
        record("q-4", "Which differs?", r"\boxed{A}", ("images/a.jpg", "images/a.jpg")),
        record("q-1", "What is the total?", r"\boxed{12}"),
    ]
    return write_parquet(folder / "release.parquet", records, schema)


def thinklite(folder: Path) -> Path:
    schema = {"id": pa.string(), "problem": pa.string(), "answer": pa.string(), "image": pa.binary()}
    records = [
        {
            "id": "g3k-1",
            "problem": "<image>Find x.",
            "answer": r"\frac { 1 } { 2 }",
            "image": picture_bytes(),
        },
        {
            "id": "fig-1",
            "problem": "<image>Is it rising?\nChoices:\n(A) Yes\n(B) No",
            "answer": "A",
            "image": picture_bytes("PNG"),
        },
        {"id": "bad", "problem": "<image>Find y.", "answer": "3", "image": picture_bytes()[:400]},
    ]
    return write_parquet(folder / "ThinkLite-VL-Hard-11k.parquet", records, schema)


def visualprobe(folder: Path) -> Path:
    add_picture(folder / "data" / "visual_probe_train_7.jpg")
    record = {
        "problem": "<image>\nWhat is the number on the boat with the blue sail?",
        "solution": " 27 ",
        "images": ["VisualProbe_train/data/visual_probe_train_7.jpg"],
        "data_source": "visual_probe_train",
        "doc_id": 7,
    }
    return write_json(folder / "train.json", [record])


ASK = "Please provide the bounding box coordinate of the region this sentence describes: "


def vlm_r1(folder: Path) -> Path:
    add_picture(folder / "train2014" / "COCO_train2014_000000000009.jpg")
    record = {
        "image": "train2014/COCO_train2014_000000000009.jpg",
        "problem": ASK + "the lady in blue.",
        "solution": [10.5, 20, 110, 220],
    }
    return write_json(folder / "refcoco_train.json", [record])


def vlm_r1_lines(folder: Path) -> Path:
    add_picture(folder / "a.jpg")

    def record(number, question, answer):
        talk = [{"from": "human", "value": "<image>" + question}, {"from": "gpt", "value": answer}]
        return {"id": number, "image": "a.jpg", "conversations": talk}

    return write_lines(
        folder / "refcoco_train.jsonl",
        record(1, ASK + "left cup", "[10, 20, 110, 220]"),
        record(2, "What number of purple metallic balls are there?", "0"),
        record(3, ASK + "right cup", "[10, 20, 1100, 220]"),
        record(4, ASK + "right cup", "[10, 20, NaN, 220]"),
    )


def vlm_r1_several(folder: Path) -> Path:
    """The format for several pictures in VLM-R1's README."""
    for seed, name in enumerate(("16885.png", "16886.png")):
        add_picture(folder / "images" / f"CLEVR_{name}", kind="PNG", seed=seed)

    def record(question, answer):
        talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return {"id": 1, "image": ["images/CLEVR_16885.png", "images/CLEVR_16886.png"], "conversations": talk}

    return write_lines(
        folder / "clevr.jsonl",
        record("<image><image>What number of purple metallic balls in total within the two images?", "3"),
        record("Is there a ball in <image> that is not in <image>?", "yes"),
        record("<image><image>" + ASK + "left cup", "[10, 20, 110, 220]"),
        record("<image><image><image>Which differs?", "the last"),
    )


def vstar(folder: Path) -> Path:
    for kind, name, boxes in (
        ("direct_attributes", "sa_1", [[10, 20, 30, 40]]),
        ("relative_position", "sa_2", [[10, 20, 30, 40], [200, 100, 20, 10]]),
    ):
        add_picture(folder / kind / f"{name}.jpg")
        record = {
            "target_object": ["glove"] * len(boxes),
            "bbox": boxes,
            "question": "What is the material of the glove?",
            "options": ["The glove is rubber.", "The glove is cotton.", "The glove is leather."],
        }
        write_json(folder / kind / f"{name}.json", record)
    write_json(folder / "direct_attributes" / "alone.json", {"question": "no picture"})
    return folder


def treebench(folder: Path) -> Path:
    columns = ["index", "image", "question", "A", "B", "C", "D", "multi-choice options", "answer", "category"]
    records = [
        [0, "Which is larger?", "the cup", "the jug", "", "", "A. the cup\nB. the jug", "B"],
        [1, "What does it say?\nA. NO\nB. YES", "", "", "", "", "", "A"],
    ]
    path = folder / "TreeBench.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")  # pandas writes the same
        writer.writerow([*columns, "target_instances"])
        for number, question, *rest in records:
            image = base64.b64encode(picture_bytes(seed=number)).decode()
            targets = "[[10, 20, 110, 220], [200, 10, 300, 90]]" if number == 0 else "[[1, 2, 30, 40]]"
            writer.writerow([number, image, question, *rest, "Perception/OCR", targets])
    return path


def coco(folder: Path) -> Path:
    add_picture(folder / "000000000139.jpg")
    names = {1: "person", 18: "dog", 44: "bottle", 62: "chair", 85: "clock"}

    def box(number, category, numbers, image=139, crowd=0):
        return {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": numbers,
            "area": numbers[2] * numbers[3],
            "iscrowd": crowd,
            "segmentation": [[1.5, 2, 3, 4, 5, 6]],
        }

    return write_json(
        folder / "instances_val2017.json",
        {
            "info": {"description": "COCO 2017 Dataset", "year": 2017},
            "licenses": [{"url": "", "id": 1, "name": ""}],
            "images": [
                {
                    "id": 139,
                    "file_name": "000000000139.jpg",
                    "width": SIZE[0],
                    "height": SIZE[1],
                    "license": 1,
                }
            ],
            "annotations": [
                box(1, 85, [236.98, 142.51, 24.7, 69.5]),
                box(2, 62, [10, 10, 20, 20]),
                box(3, 62, [50, 10, 20, 20]),
                box(4, 1, [0, 0, 100, 100], crowd=1),
                box(5, 18, [0, 0, 10, 10], image=140),
            ],
            "categories": [
                {"supercategory": "thing", "id": number, "name": name} for number, name in names.items()
            ],
        },
    )


def label_studio(folder: Path) -> Path:
    add_picture(folder / "a.jpg")

    def rectangle(label, x, y, width, height, rotation=0):
        return {
            "id": "Dx_aB91ISN",
            "source": "$image",
            "from_name": "box",
            "to_name": "image",
            "type": "rectanglelabels",
            "original_width": SIZE[0],
            "original_height": SIZE[1],
            "image_rotation": 0,
            "value": {
                "x": x,
                "y": y,
                "width": width,
                "height": height,
                "rotation": rotation,
                "rectanglelabels": [label],
            },
        }

    def task(number, *results, cancelled=False):
        return {
            "id": number,
            "created_at": "2021-03-09T21:52:49.513742Z",
            "project": 83,
            "data": {
                "image": "/data/local-files/?d=a.jpg",
                "question": "What does it say?",
                "answer": "KR",
            },
            "annotations": [
                {"id": 1001, "result": list(results), "was_cancelled": cancelled, "lead_time": 4.2}
            ],
            "predictions": [],
        }

    return write_json(
        folder / "project-1-at-2026.json",
        [
            task(1, rectangle("B2", 10, 10, 50, 50), rectangle("B1", 20, 20, 10, 10)),
            task(2, rectangle("B1", 20, 20, 10, 10, rotation=30)),
            task(3, rectangle("B1", 20, 20, 10, 10), cancelled=True),
            task(4, rectangle("B1", 20, 20, 10, 10), rectangle("B2", 50, 50, 10, 10)),
        ],
    )
