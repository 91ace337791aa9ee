"""What the reward pays to who does not look: `python -m benchmarks.gaming` writes docs/results/gaming.md.

Scripted rollouts about real rows (photographs with signs) are scored by the reward functions of the core
under the published recipe, its `reduce` options, and options that the core does not have; those are worked
out here, from the scores of its terms. No model is asked and nothing is trained: this is what a training
would be paid for.
"""

import argparse
import dataclasses
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import (
    Reduce,
    accuracy_reward,
    format_reward,
    grounding_parts,
    grounding_reward,
    lfpc_reward,
    parse_completions,
    tool_bonus,
)

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "gaming.md"
BEGIN, END = "<!-- figures: written by benchmarks/gaming.py -->\n", "<!-- end of figures -->\n"

ACCURACY, FORMAT, TOOL, GROUNDING = 0.8, 0.2, 1.2, 1.0
"""Weights of Table 12, and ours of the grounding term."""
CHARGE = 0.05
"""Per crop beyond the first: these questions are about one thing. Not in the core."""
OVERLAP = 0.9
"""tau of Table 12: the share of the innermost box that a crop must hold to cover it."""
PICTURES, SEED = 40, 77

Box = tuple[float, float, float, float]
Message = dict[str, Any]
Scores = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Case:
    """A question with what is needed to script its rollouts."""

    answer: str
    wrong: str
    targets: Sequence[Box]
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to answer.

    Attributes:
        name: as the table says it.
        crops: the boxes that it asks for, in order.
        right: whether its answer is right.
        says_first: whether its first turn already holds the answer in a tag.
        looks: whether it is what the training is for.
    """

    name: str
    crops: Callable[[Case], list[Box]]
    right: bool = True
    says_first: bool = False
    looks: bool = False


def exact(case: Case) -> list[Box]:
    """The sign, which is the outermost box of the target."""
    return [case.targets[-1]]


def double(case: Case) -> list[Box]:
    """Twice the sign's sides, about its middle, inside the picture."""
    x0, y0, x1, y1 = case.targets[-1]
    width, height = case.size
    dx, dy = (x1 - x0) / 2, (y1 - y0) / 2
    return [(max(x0 - dx, 0), max(y0 - dy, 0), min(x1 + dx, width), min(y1 + dy, height))]


def closer(case: Case) -> list[Box]:
    return double(case) + exact(case)


def everything(case: Case) -> list[Box]:
    return [(0, 0, *case.size)]


def corner(case: Case) -> list[Box]:
    """The smallest crop there is, of the corner that is farthest from the target."""
    x0, y0, x1, y1 = case.targets[-1]
    width, height = case.size
    left, top = x0 + x1 > width, y0 + y1 > height
    x, y = (0 if left else width - 28), (0 if top else height - 28)
    return [(x, y, x + 28, y + 28)]


def grid(case: Case, side: int = 4) -> list[Box]:
    width, height = case.size
    xs, ys = np.linspace(0, width, side + 1), np.linspace(0, height, side + 1)
    return [
        (float(x0), float(y0), float(x1), float(y1))
        for (y0, y1), (x0, x1) in itertools.product(itertools.pairwise(ys), itertools.pairwise(xs))
    ]


def four(case: Case) -> list[Box]:
    return grid(case, 2)


STRATEGIES = (
    Strategy("looks at the sign, right", exact, looks=True),
    Strategy("looks at twice the sign, right", double, looks=True),
    Strategy("looks at twice the sign, then at the sign, right", closer, looks=True),
    Strategy("looks at the sign, misreads it", exact, right=False, looks=True),
    Strategy("a crop of everything, right", everything),
    Strategy("a grid of 4 crops, right", four),
    Strategy("a grid of 16 crops, right", grid),
    Strategy("a grid of 16 crops, then the sign, right", lambda case: grid(case) + exact(case)),
    Strategy("answers, then crops the sign, answers again, right", exact, says_first=True),
    Strategy("answers, then crops a far corner, answers again, right", corner, says_first=True),
    Strategy("knows the answer, crops a far corner, right", corner),
    Strategy("does not look, right", lambda _: []),
    Strategy("does not look, wrong", lambda _: [], right=False),
    Strategy("answers, then crops the sign, answers again, wrong", exact, right=False, says_first=True),
    Strategy("a crop of everything, wrong", everything, right=False),
    Strategy("a grid of 16 crops, wrong", grid, right=False),
)


def rollout(strategy: Strategy, case: Case) -> list[Message]:
    """The messages of a strategy, as TRL hands them to a reward: every crop is delivered."""
    answer = f"<answer>{case.answer if strategy.right else case.wrong}</answer>"
    messages: list[Message] = []
    for number, box in enumerate(strategy.crops(case)):
        said = "<think>look</think>" + (answer if strategy.says_first and number == 0 else "")
        call = {"function": {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": list(box)}}}
        messages += [
            {"role": "assistant", "content": said, "tool_calls": [call]},
            {"role": "tool", "content": [{"type": "image"}]},
        ]
    return [*messages, {"role": "assistant", "content": f"<think>so</think>{answer}"}]


@dataclasses.dataclass(frozen=True)
class Terms:
    """The terms of one strategy over all cases."""

    accuracy: Scores
    format: Scores
    bonus: Scores
    grounding: dict[Reduce, Scores]
    covered: Scores
    crops: Scores
    said_first: Scores
    published: Scores


def terms_of(strategy: Strategy, cases: Sequence[Case]) -> Terms:
    rollouts = parse_completions([rollout(strategy, case) for case in cases])
    answers = [case.answer for case in cases]
    crops: list[list[Box]] = [[crop.box for crop in each.delivered_crops] for each in rollouts]
    targets, sizes = [list(case.targets) for case in cases], [case.size for case in cases]
    accuracy = accuracy_reward(rollouts, answers)
    reduces: tuple[Reduce, ...] = ("best", "last", "mean")
    return Terms(
        accuracy,
        format_reward(rollouts),
        tool_bonus(rollouts, accuracy),
        {reduce: grounding_reward(crops, targets, sizes, reduce=reduce) for reduce in reduces},
        grounding_parts(crops, targets, sizes).overlap > OVERLAP,
        np.array([float(len(each)) for each in crops]),
        np.full(len(cases), float(strategy.says_first)),
        lfpc_reward(rollouts, answers, targets=targets, image_sizes=sizes),
    )


def total(
    terms: Terms,
    *,
    reduce: Reduce = "best",
    charge: float = 0.0,
    order: bool = False,
    gate: bool = False,
    cover: bool = False,
) -> Scores:
    """The total under options.

    Args:
        terms: of a strategy.
        reduce: of the grounding term; an option of the core.
        charge: taken off per crop beyond the first, never more than the crops brought in.
        order: crops after an answer was given count for nothing.
        gate: the grounding term counts for right answers alone.
        cover: the bonus is paid only where the crop of the grounding term covers the innermost target.
    """
    bonus, grounding = TOOL * terms.bonus, GROUNDING * terms.grounding[reduce]
    if order:
        bonus, grounding = bonus * (1 - terms.said_first), grounding * (1 - terms.said_first)
    if gate:
        grounding = grounding * (terms.accuracy > 0)
    if cover:
        bonus = bonus * terms.covered
    fee = np.minimum(charge * np.maximum(terms.crops - 1, 0), bonus + grounding)
    return ACCURACY * terms.accuracy + FORMAT * terms.format + bonus + grounding - fee


OPTIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "`last`": {"reduce": "last"},
    "`mean`": {"reduce": "mean"},
    "charge": {"charge": CHARGE},
    "order": {"order": True},
    "gate": {"gate": True},
    "cover": {"cover": True},
    "charge, order, gate, cover": {"charge": CHARGE, "order": True, "gate": True, "cover": True},
}


def as_box(numbers: Sequence[float]) -> Box:
    x0, y0, x1, y1 = map(float, numbers)
    return x0, y0, x1, y1


def draw_cases(folder: Path) -> list[Case]:
    """Photographs with three signs, as in the demo; the wrong answer is the text of another sign there."""
    from lfpc_trl.data.rows import read_rows
    from lfpc_trl.demo import world

    photos = world.TRAINING_PHOTOS
    drawn = list(world.make_pictures(folder, PICTURES, seed=SEED, photos=photos, name="rows"))
    assert len(drawn) == PICTURES
    rows = read_rows(folder / "rows.jsonl", require_targets=True)
    by_picture: dict[Any, list[Any]] = {}
    for row in rows:
        by_picture.setdefault(row.image, []).append(row)
    return [
        Case(
            row.answer[0],
            next(each.answer[0] for each in group if each.answer != row.answer),
            [as_box(box) for box in row.regions[0]],
            row.size,
        )
        for group in by_picture.values()
        for row in group
    ]


def table(cases: Sequence[Case]) -> list[str]:
    """Mean totals, a row per strategy, a column per option."""
    lines = ["| strategy | " + " | ".join(OPTIONS) + " |", "| --- |" + " ---: |" * len(OPTIONS)]
    for strategy in STRATEGIES:
        terms = terms_of(strategy, cases)
        assert np.allclose(total(terms), terms.published)  # the core's own sum
        cells = [f"{total(terms, **options).mean():.2f}" for options in OPTIONS.values()]
        name = f"**{strategy.name}**" if strategy.looks else strategy.name
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gaming", description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        cases = draw_cases(Path(folder))
        rows = table(cases)
    before, rest = args.page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    about = f"{len(cases)} questions about {PICTURES} pictures; "
    about += f"`python -m benchmarks.gaming` at commit `{commit}`."
    args.page.write_text(before + BEGIN + "\n".join(["", *rows, about, ""]) + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
