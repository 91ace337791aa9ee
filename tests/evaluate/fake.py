"""A made-up evaluation on disk, in the files and columns that `lfpc eval` writes."""

import functools
import io
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw
from pyarrow import parquet

from lfpc_trl.evaluate.summary import CONDITIONS, MEASURES

BENCHMARKS = {"hr_bench_4k": ("FSP", "FCP"), "vstar": ("Attr", "Spatial")}
SIZE = (1600, 1200)

_TEXT, _NUMBERS = pa.string(), pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("benchmark", "condition", "row_id", "question_id", "category"), _TEXT),
        **{name: pa.int32() for name in ("budget", "sample", "turns", "crops", "failed_calls")},
        "shown_tokens": pa.int32(),
        "well_formed": pa.bool_(),
        **{name: pa.float64() for name in ("accuracy", "iou", "overlap", "bbox_ratio", "crop_tokens")},
        "seconds": pa.float64(),
        **{name: pa.int32() for name in ("step", "group", "rollout")},
        "question": _TEXT,
        "choices": pa.list_(_TEXT),
        "accepted": pa.list_(_TEXT),
        "image": _TEXT,
        "image_size": _NUMBERS,
        "messages": _TEXT,
        "thumbnails": pa.list_(pa.binary()),
        "answer": _TEXT,
        "ending": _TEXT,
        "masked": pa.bool_(),
        "boxes": pa.list_(_NUMBERS),
        "targets": pa.list_(pa.list_(pa.list_(pa.float64()))),
        "scores": pa.map_(_TEXT, pa.float64()),
        "reward": pa.float64(),
        "advantage": pa.float64(),
    }
)
MEASURED = dict.fromkeys(MEASURES) | {
    "accuracy": 1.0,
    "well_formed": True,
    "turns": 2,
    "crops": 0,
    "failed_calls": 0,
    "shown_tokens": 1000,
    "seconds": 2.0,
}


def rollout(**columns):
    """The measures of one rollout without a crop, right, changed by `columns`."""
    names = {
        "benchmark": "vstar",
        "budget": 1024,
        "condition": "predicted",
        "sample": 0,
        "row_id": "r0",
        "question_id": columns.get("row_id", "r0"),
        "category": None,
    }
    return names | MEASURED | columns


def columns_of(rollouts):
    """Rollouts as columns."""
    return {name: [each[name] for each in rollouts] for name in rollouts[0]}


@functools.cache
def jpeg(colour, size=(64, 48), boxes=()):
    image = Image.new("RGB", size, colour)
    for box in boxes:
        ImageDraw.Draw(image).rectangle(box, fill="white")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def _messages(text, question, boxes, answer, *, pictures):
    turns = [
        {"role": "system", "content": "You look closely."},
        {
            "role": "user",
            "content": [{"type": "image", "thumbnail": 0}, {"type": "text", "text": question}],
        },
    ]
    for number, box in enumerate(boxes):
        call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": list(box)}}
        turns.append(
            {
                "role": "assistant",
                "content": text,
                "tool_calls": [{"type": "function", "function": call}],
            }
        )
        block = {"type": "image", "thumbnail": number + 1} if pictures else {"type": "text", "text": "Done."}
        turns.append({"role": "tool", "content": [block]})
    turns.append({"role": "assistant", "content": f"<answer>{answer}</answer>"})
    return turns


def rollouts(
    *,
    questions=24,
    orders=2,
    budgets=(1024, 16384),
    conditions=CONDITIONS,
    benchmarks=BENCHMARKS,
    skill=0.75,
    seed=0,
    text="<think>near the door</think>",
):
    """Rollouts of a model that is right with probability `skill` where it sees the truth."""
    rng = np.random.default_rng(seed)
    made = []
    for benchmark, categories in benchmarks.items():
        for number in range(questions):
            # What a question is does not depend on the model that answers it.
            place = np.random.default_rng(zlib.crc32(f"{benchmark} {number}".encode()))
            x, y = (int(place.integers(100, side - 300)) for side in SIZE)
            target = [x, y, x + 120, y + 80]
            shown = jpeg(
                tuple(place.integers(60, 200, 3).tolist()),
                (256, 192),
                (tuple(value * 256 // SIZE[0] for value in target),),
            )
            for order in range(orders):
                row = f"{benchmark}-{number}-{order}"
                for budget in budgets:
                    gap = 0.12 if budget < 4096 else 0.0
                    crops = int(rng.random() < 0.9)
                    shift = rng.normal(0, 40, 2) if crops else np.zeros(2)
                    box = [int(max(0, v)) for v in (x - 60 + shift[0], y - 60 + shift[1])]
                    box = [*box, box[0] + 260, box[1] + 220]
                    for condition in conditions:
                        tool = condition != "no_tool"
                        pictures = condition != "no_picture"
                        delivered = crops if tool and pictures else 0
                        sees = delivered and condition in ("predicted", "target")
                        right = rng.random() < (skill if sees else skill - 0.25 - gap)
                        overlap, iou = _overlap(box, target)
                        boxes = [box] if delivered else []
                        noisy = "grey" if condition == "noise" else "teal"
                        answer = "A" if right else "B"
                        made.append(
                            rollout(
                                benchmark=benchmark,
                                budget=budget,
                                condition=condition,
                                row_id=row,
                                question_id=f"{benchmark}-{number}",
                                category=categories[number % len(categories)],
                                accuracy=float(right),
                                well_formed=bool(rng.random() < 0.97),
                                turns=1 + crops if tool else 1,
                                crops=delivered,
                                shown_tokens=budget - 14,
                                iou=iou if delivered else None,
                                overlap=overlap if delivered else None,
                                bbox_ratio=260 * 220 / (SIZE[0] * SIZE[1]) if delivered else None,
                                crop_tokens=float(rng.integers(60, 260)) if delivered else None,
                                seconds=float(rng.gamma(4, 0.5) + budget / 4096),
                                step=0,
                                group=0,
                                rollout=order,
                                question=f"What is written on sign {number}?",
                                choices=["A", "B", "C", "D"],
                                accepted=["A"],
                                image=f"/data/{benchmark}/{number}.jpg",
                                image_size=list(SIZE),
                                messages=json.dumps(
                                    _messages(
                                        text,
                                        f"What is written on sign {number}?",
                                        [box] if crops and tool else [],
                                        answer,
                                        pictures=pictures,
                                    )
                                ),
                                thumbnails=[shown] + [jpeg(noisy, (130, 110))] * delivered,
                                answer=answer,
                                ending="finished",
                                masked=False,
                                boxes=boxes,
                                targets=[[target]],
                                scores=[("accuracy", float(right)), ("overlap", overlap)],
                                reward=float(right),
                                advantage=None,
                            )
                        )
    return made


def _overlap(box, target):
    width = max(0, min(box[2], target[2]) - max(box[0], target[0]))
    height = max(0, min(box[3], target[3]) - max(box[1], target[1]))
    inner, own = 120 * 80, 260 * 220
    shared = width * height
    return shared / inner, shared / (inner + own - shared)


def write_evaluation(folder: Path, made=None, *, settings=None, **options):
    """OUTPUT of an evaluation, without its figures."""
    made = rollouts(**options) if made is None else made
    (folder / "trajectories").mkdir(parents=True)
    half = math.ceil(len(made) / 2)
    for number, part in enumerate((made[:half], made[half:])):
        parquet.write_table(
            pa.Table.from_pylist(part, schema=SCHEMA),
            folder / "trajectories" / f"part-{number:05d}.parquet",
            compression="zstd",
            row_group_size=100,
        )
    about = {
        "settings": {"model": f"models/{folder.name}", "temperature": 0.0, "crop_tokens": 1024}
        | (settings or {}),
        "seconds": 12.5,
    }
    (folder / "evaluation.json").write_text(json.dumps(about))
    return folder
