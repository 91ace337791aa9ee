"""Measure the core against its peers and write the table of benchmarks/README.md.

    pip install ".[bench]"
    python benchmarks/make_table.py    # minutes; --quick for a look, --only TEXT for some rows

Everything runs in one process on one thread, through the public functions with their checks, warmed up.
In every round each contender is called in shuffled order, so that whatever else the machine does hits
both; a ratio is the median over the rounds of peer time / our time. Nothing is installed.
"""

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy and torch read it

KEPT_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "200000000",
}
"""For glibc: memory that was freed is kept. Else whoever makes large arrays mostly pays for fresh pages."""

import data  # noqa: E402
import numpy as np  # noqa: E402
import peers  # noqa: E402
import powerboxes  # noqa: E402
import preset_cases  # noqa: E402
import torch  # noqa: E402
from pycocotools import mask as coco  # noqa: E402
from supervision.detection.utils.iou_and_nms import box_iou_batch  # noqa: E402

import lfpc_rewards as lr  # noqa: E402

PAGE = Path(__file__).with_name("README.md")
SIZE = (data.WIDTH, data.HEIGHT)
START, STOP = "<!-- table: written by make_table.py -->", "<!-- end of table -->"


def seconds(call, repeats):
    """Time on the processor: what a busy machine lets us wait is nobody's cost."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def race(ours, theirs, rounds, budget=0.02):
    """(our median time, their median time, median of the ratios of the rounds)."""
    dice = random.Random(0)
    contenders = [ours, theirs]
    repeats = []
    for call in contenders:
        call()  # compiles, fills caches
        repeats.append(max(1, round(budget / max(seconds(call, 1), 1e-7))))
    times = [[], []]
    for _ in range(rounds):
        for which in dice.sample([0, 1], 2):
            times[which].append(seconds(contenders[which], repeats[which]))
    ratios = [theirs / ours for ours, theirs in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), statistics.median(ratios)


def rows_of_iou(count, peer, goal):
    a, b = data.boxes(count, seed=1), data.boxes(count, seed=2)
    if peer == "numpy":
        theirs = lambda: peers.iou_numpy(a, b)  # noqa: E731
        label = "numpy, torchvision's formula, unchecked"
    else:
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        theirs = lambda: peers.iou_torch(x, y)  # noqa: E731
        label = "torch, torchvision's formula"
    np.testing.assert_allclose(lr.iou(a, b), np.asarray(theirs()), atol=1e-12)
    return f"`iou`, {count:,} rows", label, goal, lambda: lr.iou(a, b), theirs


def bandwidth():
    count = 10_000_000
    a, b, out = data.boxes(count, seed=1), data.boxes(count, seed=2), np.empty(count)
    copy = np.empty_like(a)
    lr.iou(a, b, out=out)
    # As many bytes: the copy reads and writes 4 numbers per row, we read 8 and write 1.
    scale = 9 / 8

    def copying():
        np.copyto(copy, a)

    return (
        f"`iou`, {count:,} rows, `out=`",
        "copying as many bytes (`np.copyto`)",
        0.7,
        lambda: lr.iou(a, b, out=out),
        copying,
        scale,
    )


def matrix(count, peer, goal):
    a, b = data.boxes(count, seed=1), data.boxes(count, seed=2)
    xywh = [np.hstack([each[:, :2], each[:, 2:] - each[:, :2]]) for each in (a, b)]
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    crowd = np.zeros(count, np.uint8)
    theirs = {
        "powerboxes": lambda: powerboxes.iou_distance(a, b),
        "torch, torchvision's formula": lambda: peers.iou_matrix_torch(x, y),
        "supervision": lambda: box_iou_batch(a, b),
        "pycocotools": lambda: coco.iou(*xywh, crowd),
    }[peer]
    expected = np.asarray(theirs())
    np.testing.assert_allclose(
        lr.iou_matrix(a, b), 1 - expected if peer == "powerboxes" else expected, atol=1e-6
    )
    return f"`iou_matrix`, {count:,} x {count:,}", peer, goal, lambda: lr.iou_matrix(a, b), theirs


def grounding(count, prepared, goal):
    crops, targets = data.grounding(count)
    truth = lr.Targets(targets, SIZE) if prepared else targets
    ours = (
        (lambda: lr.grounding_reward(crops, truth))
        if prepared
        else (lambda: lr.grounding_reward(crops, truth, SIZE))
    )
    theirs = lambda: peers.grounding_loop(crops, targets, *SIZE)  # noqa: E731
    np.testing.assert_allclose(ours(), theirs(), atol=1e-9)
    how = ", `Targets` prepared" if prepared else ""
    return f"`grounding_reward`, lists, {count:,} rollouts{how}", "a plain Python loop", goal, ours, theirs


def grounding_of_several(count, prepared, goal):
    crops, targets = data.grounding(count)
    seen, wanted = data.images_of(crops)
    truth = lr.Targets(targets, SIZE, wanted) if prepared else targets
    more = {} if prepared else {"image_sizes": SIZE, "target_images": wanted}
    ours = lambda: lr.grounding_reward(crops, truth, crop_images=seen, **more)  # noqa: E731
    theirs = lambda: peers.grounding_loop_of_several(crops, seen, targets, wanted, *SIZE)  # noqa: E731
    np.testing.assert_allclose(ours(), theirs(), atol=1e-9)
    how = ", `Targets` prepared" if prepared else ""
    what = f"`grounding_reward`, lists, {count:,} rollouts about 2 or 3 images{how}"
    return what, "a plain Python loop", goal, ours, theirs


def one_rollout(prepared):
    crops, targets = (
        [[[100, 100, 200, 220], [400, 300, 600, 500]]],
        [[[410, 310, 590, 490], [380, 300, 640, 520], [300, 250, 700, 600]]],
    )
    truth = lr.Targets(targets, SIZE) if prepared else targets
    ours = (
        (lambda: lr.grounding_reward(crops, truth))
        if prepared
        else (lambda: lr.grounding_reward(crops, truth, SIZE))
    )
    theirs = lambda: peers.grounding_loop(crops, targets, *SIZE)  # noqa: E731
    np.testing.assert_allclose(ours(), theirs(), atol=1e-9)
    how = ", `Targets` prepared" if prepared else ""
    return f"`grounding_reward`, one rollout, 2 crops{how}", "a plain Python loop", 1 / 3, ours, theirs


def fresh(texts):
    """The same texts in new strings, so that nothing that Python keeps about a string helps."""
    return [text[:1] + text[1:] for text in texts]


def strings(count, script, goal):
    texts, answers, choices = data.completions(count, script)
    targets = data.grounding(count)[1]
    truth = lr.Targets(targets, SIZE)
    ours = lambda: lr.lfpc_reward(texts, answers, choices, crops="requested", targets=truth)  # noqa: E731
    theirs = lambda: peers.totals(texts, answers, choices, targets, *SIZE)  # noqa: E731
    np.testing.assert_allclose(ours(), theirs(), atol=1e-9)
    kind = "ASCII" if script == "ascii" else "CJK"
    return (
        f"strings to totals, {count:,} completions, {kind}",
        "`re.finditer`, `json`, plain loops",
        goal,
        ours,
        theirs,
    )


def parsing(count, script):
    texts = data.completions(count, script)[0]
    ours = lambda: lr.parse_completions(texts)  # noqa: E731
    theirs = lambda: [peers.parse_text(text) for text in texts]  # noqa: E731
    for rollout, (answer, boxes, well_formed) in zip(ours(), theirs(), strict=True):
        found = [None if crop.box is None else list(crop.box) for crop in rollout.crops]
        assert (rollout.answer, found, rollout.well_formed) == (answer, boxes, well_formed)
    kind = "ASCII" if script == "ascii" else "CJK"
    return f"`parse_completions`, {count:,} strings, {kind}", "`re.finditer`, `json`", None, ours, theirs


def chats(count):
    completions, answers, choices = data.rollouts(count)
    targets = data.grounding(count)[1]
    truth = lr.Targets(targets, SIZE)
    ours = lambda: lr.lfpc_reward(completions, answers, choices, targets=truth)  # noqa: E731
    theirs = lambda: peers.chat_totals(completions, answers, choices, targets, *SIZE)  # noqa: E731
    np.testing.assert_allclose(ours(), theirs(), atol=1e-9)
    return (
        f"message lists to totals, {count:,} rollouts",
        "`re.finditer`, `json`, plain loops",
        2.5,
        ours,
        theirs,
    )


def mask_matrix(dense, prepared, goal):
    """1,000 x 1,000 masks of which all overlap, or one pair in a hundred."""
    polygons = [data.blobs(1000, dense, seed) for seed in (1, 2)]
    size = (data.MASK_WIDTH, data.MASK_HEIGHT)
    a, b = (lr.Masks(each, size) for each in polygons)
    # What pycocotools works with: dicts of compressed counts.
    texts = [[rle | {"counts": rle["counts"].encode()} for rle in each.rles()] for each in (a, b)]
    crowd = np.zeros(1000, np.uint8)
    theirs = lambda: coco.iou(*texts, crowd)  # noqa: E731
    ours = (
        (lambda: lr.mask_iou_matrix(a, b))
        if prepared
        else (lambda: lr.mask_iou_matrix(lr.Masks(texts[0]), lr.Masks(texts[1])))
    )
    result = ours()
    np.testing.assert_array_equal(result, theirs())
    share = f"{100 * (result > 0).mean():.0f} % overlap"
    how = "`Masks` prepared" if prepared else "from compressed RLE"
    return f"`mask_iou_matrix`, 1,000 x 1,000 of 640 x 480, {share}, {how}", "pycocotools", goal, ours, theirs


def mask_coverage(count, goal):
    """pycocotools has no coverage by boxes: it gets boxes of whole pixels as masks."""
    size = (data.MASK_WIDTH, data.MASK_HEIGHT)
    mask = lr.Masks(data.blobs(1, True, 1), size)
    boxes = np.floor(data.boxes(count, seed=1) * (np.array(size * 2) / (SIZE * 2)))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    [rle] = mask.rles()
    xywh = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    frames = coco.frPyObjects(xywh, data.MASK_HEIGHT, data.MASK_WIDTH)
    ours = lambda: lr.mask_coverage_matrix(boxes, mask)  # noqa: E731
    theirs = lambda: coco.iou([rle], frames, [1] * count)  # noqa: E731
    np.testing.assert_allclose(ours()[:, 0], theirs()[0], atol=1e-12)
    return (
        f"`mask_coverage_matrix`, {count:,} boxes, a mask of 640 x 480",
        "pycocotools, boxes as masks",
        goal,
        ours,
        theirs,
    )


def polygons_to_masks(count):
    polygons = data.blobs(count, True, 1)
    size = (data.MASK_WIDTH, data.MASK_HEIGHT)
    ours = lambda: lr.Masks(polygons, size)  # noqa: E731
    theirs = lambda: [  # noqa: E731
        coco.merge(coco.frPyObjects(each, data.MASK_HEIGHT, data.MASK_WIDTH)) for each in polygons
    ]
    assert [each["counts"].encode() for each in ours().rles()] == [each["counts"] for each in theirs()]
    return f"`Masks`, {count:,} polygons on 640 x 480", "pycocotools", None, ours, theirs


def boundaries(count):
    size = (data.MASK_WIDTH, data.MASK_HEIGHT)
    a, b = (lr.Masks(data.blobs(count, True, seed), size) for seed in (1, 2))
    pictures = list(zip(a.bitmaps(), b.bitmaps(), strict=True))
    ours = lambda: lr.boundary_f1(a, b)  # noqa: E731
    theirs = lambda: [peers.davis_f(mask, other) for mask, other in pictures]  # noqa: E731
    np.testing.assert_allclose(ours(), theirs(), atol=1e-12)
    return (
        f"`boundary_f1`, {count:,} pairs of 640 x 480",
        "DAVIS's formula, numpy and scipy",
        None,
        ours,
        theirs,
    )


MASKS = [
    lambda: mask_matrix(True, True, 3),
    lambda: mask_matrix(False, True, 3),
    lambda: mask_matrix(False, False, None),
    lambda: mask_coverage(10_000, None),
    lambda: polygons_to_masks(1000),
    lambda: boundaries(100),
]

SEVERAL = [lambda: grounding_of_several(4096, False, None), lambda: grounding_of_several(4096, True, None)]
CASES = [
    lambda: rows_of_iou(16, "numpy", 2),
    lambda: rows_of_iou(4096, "torch", 8),
    lambda: rows_of_iou(1_000_000, "torch", 6),
    bandwidth,
    lambda: matrix(1000, "powerboxes", 10),
    lambda: matrix(5000, "powerboxes", 8),
    lambda: matrix(1000, "torch, torchvision's formula", 25),
    lambda: matrix(1000, "supervision", 25),
    lambda: matrix(1000, "pycocotools", 25),
    lambda: grounding(4096, False, 8),
    lambda: grounding(4096, True, 20),
    *SEVERAL,
    lambda: one_rollout(False),
    lambda: one_rollout(True),
    lambda: strings(4096, "ascii", 8),
    lambda: strings(4096, "cjk", 3),
    lambda: parsing(4096, "ascii"),
    lambda: parsing(4096, "cjk"),
    lambda: chats(512),
    *MASKS,
    *preset_cases.CASES,
]

IOU = "import lfpc_rewards as lr; lr.iou([0, 0, 2, 2], [1, 1, 3, 3])"
FIRST_CALLS = {
    "`import lfpc_rewards`, first `iou`": IOU,
    "the same without scipy": f"import sys; sys.modules['scipy'] = None; {IOU}",
    "`import lfpc_rewards`, first `lfpc_reward` with crops": (
        "import lfpc_rewards as lr; lr.lfpc_reward(['<answer>B</answer>'], ['B'], crops=[[[0, 0, 9, 9]]], "
        "targets=[[[0, 0, 9, 9]]], image_sizes=(9, 9))"
    ),
}


def starts(rounds):
    """(what, seconds of ours, seconds of `import numba`, seconds more): whole processes, caches filled."""

    # An installed package has its bytecode next to it, so the second process has to find ours as well.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def process(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        return time.perf_counter() - start

    codes = ["import numba", *FIRST_CALLS.values()]
    for code in codes:
        process(code)
    dice = random.Random(0)
    times = [[0.0] * len(codes) for _ in range(rounds)]
    for row in times:
        for place in dice.sample(range(len(codes)), len(codes)):
            row[place] = process(codes[place])
    for place, what in enumerate(FIRST_CALLS, start=1):
        ours, numba = (
            statistics.median(column) for column in (list(zip(*times, strict=True))[k] for k in (place, 0))
        )
        yield what, ours, numba, statistics.median(row[place] - row[0] for row in times)


def duration(value):
    scale, unit = (1, "s") if value >= 1 else (1e3, "ms") if value >= 1e-3 else (1e6, "us")
    return f"{value * scale:.3g} {unit}"


def measured(cases, only, rounds):
    lines = [
        "| what | ours | peer | theirs | ratio | at least | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in cases:
        what, peer, goal, ours, theirs, *scale = case()
        if only not in what:
            continue
        own, other, ratio = race(ours, theirs, rounds)
        factor = scale[0] if scale else 1.0
        other, ratio = other * factor, ratio * factor
        wanted = "" if goal is None else f"{goal:.2g}x"
        verdict = "" if goal is None else "met" if ratio >= goal else "**missed**"
        lines.append(
            f"| {what} | {duration(own)} | {peer} | {duration(other)} | {ratio:.3g}x | {wanted} | {verdict} |"
        )
        print(lines[-1], flush=True)
    for what, ours, numba, more in starts(rounds) if cases is CASES and only in "import" else ():
        verdict = "met" if more <= 0.4 else "**missed**"
        lines.append(
            f"| {what} | {duration(ours)} | `import numba` | {duration(numba)} | +{more:.2f} s "
            f"| +0.4 s at most | {verdict} |"
        )
        print(lines[-1], flush=True)
    return lines


SECTIONS = {
    "several": (SEVERAL, "about 2 or 3 images"),
    "presets": (preset_cases.CASES, "the original's loop, restated"),
    "masks": (MASKS, "640 x 480"),
}
"""Rows that can be measured alone: their cases, and a text that all of them have on the page."""


def merged(old, lines, section, note):
    """The page's rows with those of a section replaced, and all notes: they may be of different days."""
    mark, own = SECTIONS[section][1], f"Rows of the section {section}: "
    rows = [line for line in old if line.startswith("|")]
    places = [place for place, line in enumerate(rows) if mark in line]
    start, stop = (places[0], places[-1] + 1) if places else (len(rows), len(rows))
    rows[start:stop] = lines[2:]
    notes = [line for line in old if line and not line.startswith(("|", own))]
    return rows, "\n\n".join([*notes, own + note])


def machine():
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    packages = ["numpy", "numba", "torch", "powerboxes", "supervision", "pycocotools"]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def load():
    return " / ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="3 rounds in place of 15; does not write the page"
    )
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each row; the page says if not 15")
    parser.add_argument("--only", default="", help="rows whose name contains this; does not write the page")
    for name in SECTIONS:
        told = f"the rows of the section {name}; the page keeps its other rows"
        parser.add_argument(f"--{name}", dest="section", action="store_const", const=name, help=told)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = load()
    cases = SECTIONS[arguments.section][0] if arguments.section else CASES
    lines = measured(cases, arguments.only, 3 if arguments.quick else arguments.rounds)
    day = time.strftime("%Y-%m-%d")
    note = f"{machine()}. Load of the machine before and after: {before} and {load()}. {day}."
    note += "" if arguments.rounds == 15 else f" {arguments.rounds} rounds."
    print(note)
    if not arguments.quick and not arguments.only:
        page = PAGE.read_text(encoding="utf-8")
        head, tail = page[: page.index(START)], page[page.index(STOP) :]
        if arguments.section:
            old = page[page.index(START) : page.index(STOP)].splitlines()[2:]
            lines, note = merged(old, lines, arguments.section, note)
        PAGE.write_text(head + START + "\n\n" + "\n".join(lines) + f"\n\n{note}\n\n" + tail, encoding="utf-8")


if __name__ == "__main__":
    if not KEPT_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT_MEMORY})
    main()
