"""What the library is compared with: what one would write without it, and what others offer."""

import json
import math
import re

import numpy as np
import torch
from scipy import ndimage


def iou_numpy(boxes, others):
    """Torchvision's formula, row by row, without checks."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, 2:], others[:, 2:])
    sides = (high - low).clip(min=0)
    shared = sides[:, 0] * sides[:, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    other = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return shared / (area + other - shared)


def davis_f(mask, other, bound=0.008):
    """The measure F of DAVIS, with its morphology from scipy."""
    reach = math.ceil(bound * math.hypot(*mask.shape))
    steps = np.arange(-reach, reach + 1)
    disk = steps[:, None] ** 2 + steps**2 <= reach**2
    edges = [_boundary(each) for each in (mask, other)]
    grown = [ndimage.binary_dilation(each, disk) for each in edges]
    precision = (edges[0] & grown[1]).sum() / edges[0].sum()
    recall = (edges[1] & grown[0]).sum() / edges[1].sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(mask):
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (
        (mask != padded[1:, :-1])
        | (mask != padded[:-1, 1:])
        | (
            (mask != padded[1:, 1:])
            & (np.arange(len(mask))[:, None] < len(mask) - 1)
            & (np.arange(mask.shape[1]) < mask.shape[1] - 1)
        )
    )


def iou_torch(boxes, others):
    """The same in torch."""
    low = torch.max(boxes[:, :2], others[:, :2])
    high = torch.min(boxes[:, 2:], others[:, 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[:, 0] * sides[:, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    other = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return shared / (area + other - shared)


def iou_matrix_torch(boxes, others):
    """`torchvision.ops.box_iou`, every pair."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    other = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    low = torch.max(boxes[:, None, :2], others[:, :2])
    high = torch.min(boxes[:, None, 2:], others[:, 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[:, :, 0] * sides[:, :, 1]
    return shared / (area[:, None] + other - shared)


def grounding_loop(crops, targets, width, height, threshold=0.9, weight=0.5):
    """The grounding reward as a plain loop: best crop, one region per row."""
    scores = []
    for row, region in zip(crops, targets, strict=True):
        best = 0.0
        for crop in row:
            if crop is None:
                continue
            x0, y0, x1, y1 = crop
            if not (x0 < x1 and y0 < y1):
                continue
            own = (x1 - x0) * (y1 - y0)
            overlap, highest, nearest = None, 0.0, math.inf
            for a0, b0, a1, b1 in region:
                shared = max(min(x1, a1) - max(x0, a0), 0.0) * max(min(y1, b1) - max(y0, b0), 0.0)
                area = (a1 - a0) * (b1 - b0)
                if overlap is None:
                    overlap = shared / area
                value = shared / (own + area - shared)
                if value > highest:
                    highest = value
                distance = (
                    (abs(x0 - a0) + abs(x1 - a1)) / width + (abs(y0 - b0) + abs(y1 - b1)) / height
                ) / 4
                if distance < nearest:
                    nearest = distance
            gated = highest if overlap > threshold else 0.0
            best = max(best, weight * gated + (1 - weight) * max(1 - nearest, 0.0))
        scores.append(best)
    return scores


def grounding_loop_of_several(crops, crop_images, targets, target_images, width, height):
    """The same where a rollout has several images of one size: a crop of another image counts for nothing."""
    on_its_image = [
        [crop if image == wanted else None for crop, image in zip(row, images, strict=True)]
        for row, images, (wanted,) in zip(crops, crop_images, target_images, strict=True)
    ]
    return grounding_loop(on_its_image, targets, width, height)


TAG = re.compile(r"</?(?:think|tool_call|answer)>")
LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


def parse_text(text):
    """(answer, boxes, well formed) of one assistant turn, with `re.finditer` and `json`."""
    tags = [(tag.group(), tag.start(), tag.end()) for tag in TAG.finditer(text)]
    names = [tag[0] for tag in tags]
    spoken = 0
    for place, name in enumerate(names):
        if name == "</think>":
            spoken = place + 1
    boxes, calls, opened = [], 0, -1
    for name, start, end in tags[spoken:]:
        if name == "<tool_call>" and opened < 0:
            opened = end
        elif name == "</tool_call>" and opened >= 0:
            calls += 1
            try:
                request = json.loads(text[opened:start])
                if request["name"] == "image_zoom_in_tool":
                    box = request["arguments"]["bbox_2d"]
                    good = len(box) == 4 and all(type(n) in (int, float) and math.isfinite(n) for n in box)
                    boxes.append(box if good else None)
            except (ValueError, KeyError, TypeError):
                pass
            opened = -1
    answer = None
    said = names[spoken:]
    if not calls and said.count("<answer>") == said.count("</answer>") == 1:
        first, last = said.index("<answer>"), said.index("</answer>")
        if first < last:
            answer = text[tags[spoken + first][2] : tags[spoken + last][1]].strip()
    well_formed = (
        names == ["<think>", "</think>", "<answer>", "</answer>"]
        and not text[: tags[0][1]].strip()
        and not text[tags[1][2] : tags[2][1]].strip()
        and not text[tags[3][2] :].strip()
    )
    return answer, boxes, well_formed


def is_right(answer, accepted, options):
    """A short comparison that is enough for the answers in the benchmark's data."""
    if answer is None:
        return 0.0
    found = LETTER.fullmatch(answer)
    if found:
        return float(found[1].upper() == accepted)
    return float(answer in options and options.index(answer) == ord(accepted) - 65)


def totals(texts, answers, choices, targets, width, height):
    """Strings to totals."""
    parsed = [parse_text(text) for text in texts]
    grounding = grounding_loop([boxes for _, boxes, _ in parsed], targets, width, height)
    return [
        0.8 * is_right(answer, accepted, options) - (0.0 if well_formed else 0.2) + score
        for (answer, _, well_formed), accepted, options, score in zip(
            parsed, answers, choices, grounding, strict=True
        )
    ]


def chat_totals(chats, answers, choices, targets, width, height):
    """Lists of messages to totals, for chats of string contents."""
    results, crops = [], []
    for chat in chats:
        turns, delivered, waiting = [], [], []
        for message in chat:
            if message["role"] == "assistant":
                turns.append(parse_text(message["content"]))
                waiting = list(turns[-1][1])
            elif message["role"] == "tool" and waiting:
                box = waiting.pop(0)
                if any(block.get("type") == "image" for block in message["content"]):
                    delivered.append(box)
        well_formed = turns[-1][2] and all(
            _calls(m["content"]) for m in chat[:-1] if m["role"] == "assistant"
        )
        results.append((turns[-1][0], bool(delivered), well_formed))
        crops.append(delivered)
    grounding = grounding_loop(crops, targets, width, height)
    scores = []
    for (answer, looked, well_formed), accepted, options, score in zip(
        results, answers, choices, grounding, strict=True
    ):
        right = is_right(answer, accepted, options)
        scores.append(0.8 * right - (0.0 if well_formed else 0.2) + 1.2 * (right > 0 and looked) + score)
    return scores


def _calls(text):
    tags = list(TAG.finditer(text))
    return [tag.group() for tag in tags] == ["<think>", "</think>", "<tool_call>", "</tool_call>"] and not (
        text[: tags[0].start()].strip()
        or text[tags[1].end() : tags[2].start()].strip()
        or text[tags[3].end() :].strip()
    )
