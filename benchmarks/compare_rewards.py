"""Write the tables of docs/explanation/rewards-compared.md from what the code knows about each reward.

    python benchmarks/compare_rewards.py

The prose around the tables stays. A test compares the page with `written`.
"""

import re
from pathlib import Path

import numpy as np

from lfpc_rewards import iou
from lfpc_rewards.presets import SYSTEMS, Loophole, System
from lfpc_rewards.presets._boxes import giou_as_written, pixel_inclusive_iou, pixel_iou

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "rewards-compared.md"
BLOCK = re.compile(r"(<!-- compare_rewards\.py: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

ALWAYS = "Always: "
LFPC = System(
    name="**LFPC**",
    paper="2603.27494",
    code="lfpc_rewards",
    rewards=("lfpc_reward", "grounding_reward"),
    terms="0.8 accuracy (rules) + 0.2 format (0 or -1) + 1.2 tool; stage 2: + 0.5 IoU + 0.5 nearness",
    gates="the tool bonus needs a right answer, the IoU 0.9 of the innermost box; nearness none",
    blind_to=(
        "stage 1: where the crop lies and whether it helped; there the coarse picture makes it needed",
        "stage 2: whether the answer used the crop: a wrong one keeps the grounding",
        "the thinking",
    ),
    loopholes=(
        Loophole(
            "typed tool call",
            "The model types a call, or the picture that would come back.",
            f"{ALWAYS}a crop counts when a tool message delivered its image.",
        ),
        Loophole(
            "ask for more",
            "A box beyond the picture, or in another frame.",
            f"{ALWAYS}the box that was cut is scored, in pixels of the original.",
        ),
        Loophole(
            "hedge",
            "An answer that names two options, or one in every turn.",
            f"{ALWAYS}a hedge is wrong, and only the last turn answers.",
        ),
        Loophole(
            "several crops",
            "The best crop counts, so each further one is another try.",
            'Open by default: `reduce="last"`, "first" or "mean".',
        ),
        Loophole(
            "far is better than none",
            "Nearness pays any crop, also one beside the object, with a wrong answer.",
            "Open by default: `iou_weight=1`.",
        ),
    ),
)
LOCUS = System(
    name="LOCUS",
    paper="2606.16586",
    code="lfpc_rewards",
    rewards=("locus_reward",),
    terms="0.9 IoU + 0.1 format (0 or 1)",
    gates="none",
    blind_to=("the thinking", "further boxes in the answer: the first counts"),
    loopholes=(
        Loophole(
            "box in the thinking",
            "A box that stands anywhere but in the answer.",
            f"{ALWAYS}it is the first box of the one answer of the last turn.",
        ),
        Loophole(
            "several boxes",
            "Boxes behind the first cost nothing, and earn nothing.",
            "Open: which one counts is not in the paper.",
        ),
    ),
)
"""The two rewards of the core, which have no modes."""

GROUPS = {
    "search": (
        "LFPC",
        "DeepEyes",
        "DeepEyes in verl",
        "DeepEyes in ms-swift",
        "DeepEyesV2",
        "Chain-of-Focus",
        "Mini-o3",
        "Pixel-Reasoner",
        "VisionThink",
        "Thyme",
        "ERGO",
    ),
    "boxes": (
        "LOCUS",
        "VLM-R1",
        "Visual-RFT",
        "Vision-R1 (Griffon)",
        "Seg-Zero",
        "VisionReasoner",
        "Perception-R1",
        "TreeVGR",
    ),
    "clicks": ("SE-GUI", "GUI-R1", "UI-R1"),
    "text": ("ZwZ", "EasyR1", "TRL", "ms-swift"),
}
"""The tables of the page: every system stands in one of them."""

PAIRS = {
    "100 px, half": ([0, 0, 100, 100], [0, 50, 100, 150]),
    "10 px, half": ([0, 0, 10, 10], [0, 5, 10, 15]),
    "10 px, 1 px shared": ([0, 0, 10, 10], [9, 0, 19, 10]),
    "10 px, touching": ([0, 0, 10, 10], [10, 0, 20, 10]),
    "10 px, 10 px apart": ([0, 0, 10, 10], [20, 0, 30, 10]),
}


def systems():
    """Name to system, LFPC's stars left out of the name; raises where a system has no table, or two."""
    known = {each.name.strip("*"): each for each in (LFPC, LOCUS, *SYSTEMS)}
    placed = [name for names in GROUPS.values() for name in names]
    if sorted(placed) != sorted(known):
        raise ValueError(f"GROUPS and SYSTEMS differ in {sorted(set(placed) ^ set(known)) or placed}")
    return known


def cell(text):
    """The text in a cell: what looks like a tag of HTML would not be shown, a bar would end the cell."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"</?\w+>", r"`\g<0>`", part) for part in parts[::2]]
    return "".join(parts).replace("|", "\\|")


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def terms(group):
    rows = [
        [each.name, each.terms, each.gates, "; ".join(each.blind_to)]
        for each in map(systems().get, GROUPS[group])
    ]
    return table(["system", "terms and weights", "gates", "blind to"], rows)


def loopholes(group):
    rows = [
        [each.name, hole.name, hole.trick, hole.closed]
        for each in map(systems().get, GROUPS[group])
        for hole in each.loopholes
    ]
    return table(["system", "loophole", "what the model does", "what `strict` does"], rows)


def sources():
    rows = [
        [
            each.name,
            each.paper,
            each.code,
            ", ".join(f"`{reward}`" for reward in each.rewards),
            " ".join(each.deviations) or "-",
        ]
        for each in systems().values()
    ]
    return table(["system", "paper (arXiv)", "code", "functions", "where `exact` is not the original"], rows)


def conventions():
    kinds = {
        "LFPC, LOCUS, Visual-RFT, TreeVGR": iou,
        "Perception-R1: squared": lambda a, b: iou(a, b) ** 2,
        "VLM-R1: an overlap of at most 1 px is none": lambda a, b: pixel_iou(a[None], b[None])[0],
        "Seg-Zero: the last pixel belongs to the box": lambda a, b: pixel_inclusive_iou(a, b, False),
        "VisionReasoner: and touching boxes share it": lambda a, b: pixel_inclusive_iou(a, b, True),
        "Vision-R1: GIoU": lambda a, b: giou_as_written(a[None], b[None])[0],
        "Visual-RFT for one box: GIoU + 1": lambda a, b: giou_as_written(a[None], b[None])[0] + 1,
    }
    rows = []
    for kind, measure in kinds.items():
        pairs = [[np.array(box, float) for box in pair] for pair in PAIRS.values()]
        rows.append([kind, *(f"{float(measure(*pair)):.3f}" for pair in pairs)])
    return table(["convention", *PAIRS], rows)


def written(page):
    """The text of the page with its tables as the code has them; raises if one of them has no place."""
    tables = {"sources": sources(), "conventions": conventions()}
    for group in GROUPS:
        tables[group] = f"{terms(group)}\n\n{loopholes(group)}"
    places = [name for _, name, _ in BLOCK.findall(page)]
    if sorted(places) != sorted(tables):
        raise ValueError(f"the page must have one block for each of {sorted(tables)}, got {sorted(places)}")
    return BLOCK.sub(lambda block: f"{block[1]}\n{tables[block[2]]}\n\n{block[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
