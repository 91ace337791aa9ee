"""Slow, obviously right versions. They share no code with the library."""

import json
import math
import re
from fractions import Fraction


def pixels(box):
    x0, y0, x1, y1 = box
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


def iou_by_counting(box, other):
    union = pixels(box) | pixels(other)
    return len(pixels(box) & pixels(other)) / len(union) if union else 0.0


def coverage_by_counting(crop, target):
    return len(pixels(crop) & pixels(target)) / len(pixels(target))


def union_coverage_by_counting(crops, target):
    covered = set().union(*map(pixels, crops)) if crops else set()
    return len(covered & pixels(target)) / len(pixels(target))


def giou_by_counting(box, other):
    corners = [min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])]
    hull = len(pixels(corners))
    union = len(pixels(box) | pixels(other))
    return iou_by_counting(box, other) - (hull - union) / hull if hull else 0.0


def mask_coverage_by_counting(crop, bitmap):
    """In exact fractions: each pixel is a square, of which the crop has its share."""
    x0, y0, x1, y1 = map(Fraction, crop)

    def inside(pixel, low, high):
        return max(min(pixel + 1, high) - max(pixel, low), 0)

    pixels = [(x, y) for y, row in enumerate(bitmap.tolist()) for x, filled in enumerate(row) if filled]
    return float(sum(inside(x, x0, x1) * inside(y, y0, y1) for x, y in pixels) / Fraction(len(pixels)))


def davis_f(bitmap, other, bound):
    """F of DAVIS: boundaries by three shifted copies, matched by growing each with a disk."""
    height, width = bitmap.shape
    reach = math.ceil(bound * math.sqrt(height * height + width * width))
    steps = range(-reach, reach + 1)
    disk = [(dx, dy) for dx in steps for dy in steps if dx * dx + dy * dy <= reach * reach]

    def boundary(mask):
        rows = mask.tolist()
        last_x, last_y = width - 1, height - 1
        return {
            (x, y)
            for x in range(width)
            for y in range(height)
            for dx, dy in ((1, 0), (0, 1), (1, 1))
            if x + dx <= last_x and y + dy <= last_y and rows[y][x] != rows[y + dy][x + dx]
        }

    edge, other_edge = boundary(bitmap), boundary(other)
    if not edge or not other_edge:
        return 1.0 if edge == other_edge else 0.0
    grown, other_grown = (
        {(x + dx, y + dy) for x, y in each for dx, dy in disk} for each in (edge, other_edge)
    )
    precision, recall = len(edge & other_grown) / len(edge), len(other_edge & grown) / len(other_edge)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def grounding(crops, regions, size, *, threshold, weight, reduce):
    """(overlap, iou, nearness, total, max_iou) of one rollout in exact fractions, by the paper's formulas."""
    width, height = size

    def fractions_of(box):
        return [Fraction(number) for number in box]

    def area(x0, y0, x1, y1):
        return max(x1 - x0, 0) * max(y1 - y0, 0)

    def one(crop, region):
        bad = crop is None or len(crop) != 4 or not all(math.isfinite(n) for n in crop)
        if bad or not (crop[0] < crop[2] and crop[1] < crop[3]):
            return (Fraction(0),) * 5
        p = fractions_of(crop)
        ious, distances, overlaps = [], [], []
        for box in map(fractions_of, region):
            shared = area(max(p[0], box[0]), max(p[1], box[1]), min(p[2], box[2]), min(p[3], box[3]))
            overlaps.append(shared / area(*box))
            ious.append(shared / (area(*p) + area(*box) - shared))
            scale = [width, height, width, height]
            distances.append(sum(abs(a - b) / s for a, b, s in zip(p, box, scale, strict=True)) / 4)
        gated = max(ious) if threshold is None or overlaps[0] > Fraction(threshold) else Fraction(0)
        nearness = max(1 - min(distances), Fraction(0))
        return overlaps[0], gated, nearness, weight * gated + (1 - weight) * nearness, max(ious)

    if not crops:
        return (0.0,) * 5
    scores = []
    for region in regions:
        each = [one(crop, region) for crop in crops]
        if reduce == "best":
            chosen = [max(each, key=lambda parts: parts[3])]  # max keeps the first of equals
        else:
            chosen = {"first": each[:1], "last": each[-1:], "mean": each}[reduce]
        scores.append([sum(column) / len(chosen) for column in zip(*chosen, strict=True)])
    return tuple(float(sum(column) / len(scores)) for column in zip(*scores, strict=True))


INNER = r"(?:(?!</?(?:think|tool_call|answer)>).)*"
THINK = rf"\s*<think>{INNER}</think>\s*"
CALL_TURN = re.compile(rf"{THINK}<tool_call>{INNER}</tool_call>\s*", re.DOTALL)
ANSWER_TURN = re.compile(rf"{THINK}<answer>{INNER}</answer>\s*", re.DOTALL)


def parse_texts(turns):
    """(answer, boxes, well_formed) of assistant turns that are plain texts, by `re` and `json`."""
    boxes, answer = [], None
    for text in turns:
        spoken = re.split("</think>", text)[-1]
        calls = re.findall(r"<tool_call>(.*?)</tool_call>", spoken, re.DOTALL)
        for call in calls:
            try:
                request = json.loads(call)
                if request["name"] == "image_zoom_in_tool":
                    boxes.append(_numbers(request.get("arguments")))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        found = re.findall(r"<answer>(.*?)</answer>", spoken, re.DOTALL)
        tags = re.findall(r"</?answer>", spoken)
        answer = found[0].strip() if len(tags) == 2 and len(found) == 1 and not calls else None
    ok = bool(turns) and all(CALL_TURN.fullmatch(t) for t in turns[:-1]) and ANSWER_TURN.fullmatch(turns[-1])
    return answer, boxes, bool(ok)


def _numbers(arguments):
    try:
        box = (json.loads(arguments) if isinstance(arguments, str) else arguments)["bbox_2d"]
        box = json.loads(box) if isinstance(box, str) else box
        if not isinstance(box, list) or len(box) != 4 or any(type(n) not in (int, float) for n in box):
            return None
        numbers = tuple(map(float, box))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
