"""The miniature's starting model: the demo's warm checkpoint after a short supervised phase.

The shipped checkpoint always answers from its crop once it has one, so a training that rewards ignoring
crops would find nothing to reward. Here it learns that there are two ways to go on after a crop, each with
a word of its own: `read`, from the crop, and `now`, from the overview, readable or not. It also learns to
read overviews of 216 tokens. A second one learns to answer questions about two signs, with a crop for each
or one for both.

Every seed draws its own examples, so the seeds do not share their start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from lfpc_trl.demo import warm_up as demo
from lfpc_trl.demo.world import QUESTION, TRAINING_PHOTOS, Scene, Sign, draw_background, draw_scene
from lfpc_trl.models.weights import load_model
from lfpc_trl.pictures.sizes import show, shown_size

PICTURE_SIZE = (840, 560)
"""Smaller than the demo's pictures, with signs of the same size: 216 tokens are then enough to read them."""
WARM = Path(str(resources.files("lfpc_trl.demo") / "warm"))


@dataclass(frozen=True)
class Lessons:
    """What the phase practises.

    Attributes:
        steps: batches.
        batch: examples in one.
        learning_rate: falls by a cosine.
        levels: shares of the overview budgets of 216, 108 and 54 tokens.
        tools: share of the examples at each level in which the tool is offered.
        pairs: share of questions about two signs.
        moves: shares of the first moves: now, near, mid, wide.
        ignore: share of the answers after a crop that come from the overview.
        both: share of the looks at two signs that take one crop, where the two stand close enough.
        jitter: of the edges of a near crop, standard deviation in pixels of the picture.
        unclear: share of the crops that show something else.
    """

    steps: int = 250
    batch: int = 12
    learning_rate: float = 8e-4
    levels: tuple[float, float, float] = (0.45, 0.15, 0.4)
    tools: tuple[float, float, float] = (0.6, 0.7, 0.9)
    pairs: float = 0.4
    moves: tuple[float, float, float, float] = (0.25, 0.3, 0.25, 0.2)
    ignore: float = 0.5
    both: float = 0.25
    jitter: float = 5.0
    unclear: float = 0.06


SINGLES = Lessons(
    steps=220, learning_rate=1e-3, levels=(0.6, 0.1, 0.3), tools=(0.75, 0.7, 0.9), pairs=0.0, ignore=0.6
)
"""Questions about one sign, from overviews of all sizes."""
PAIRS = Lessons(
    steps=230,
    batch=14,
    learning_rate=1.2e-3,
    levels=(0.0, 0.0, 1.0),
    tools=(1.0, 1.0, 1.0),
    pairs=1.0,
    moves=(0.1, 0.35, 0.3, 0.25),
    ignore=0.0,
)
"""Questions about two signs, from unreadable overviews, always answered from the crops."""


def make_example(rng: np.random.Generator, scene: Scene, level: int, lessons: Lessons) -> demo.Example:
    """One conversation about one or two signs of `scene`, shown at `level` visual tokens."""
    count = 2 if rng.random() < lessons.pairs else 1
    asked = tuple(scene.signs[i] for i in rng.permutation(len(scene.signs))[:count])
    size = shown_size(PICTURE_SIZE, level, factor=demo.FACTOR)
    scale = (size[0] / PICTURE_SIZE[0], size[1] / PICTURE_SIZE[1])
    question = " ".join(QUESTION.format(colour=sign.colour) for sign in asked)
    overview = [
        (s, demo.scaled(s.box, (0, 0), scale), demo.scaled(s.text_box, (0, 0), scale)) for s in scene.signs
    ]
    readable = level == demo.LEVELS[0]
    example = demo.Example(
        messages=[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
        tools=bool(rng.random() < lessons.tools[demo.LEVELS.index(level)]),
        pictures=[show(scene.picture, size)],
        signs=[overview],
        readable=[readable],
        asked=asked,
    )
    move = str(rng.choice(("now", "near", "mid", "wide"), p=lessons.moves)) if example.tools else "now"
    seen = dict.fromkeys(asked, readable)
    word = "now"
    if move != "now":
        by_crop = _look(rng, example, scene, move, lessons)
        if rng.random() >= lessons.ignore:
            seen, word = by_crop, "read" if all(by_crop.values()) else "unclear"
        else:
            # No help for reading the crop: the letters shall not come from there.
            example.readable[1:] = [False] * (len(example.readable) - 1)
    answer = " ".join(sign.text if seen[sign] else demo.guess(rng) for sign in asked)
    demo.say(example, word, answer)
    return example


def _look(
    rng: np.random.Generator, example: demo.Example, scene: Scene, habit: str, lessons: Lessons
) -> dict[Sign, bool]:
    """The crops of an example, and which of the asked signs they show."""
    asked = example.asked
    shared = _around(asked)
    if len(asked) > 1 and shared is not None and rng.random() < lessons.both:
        boxes = [("wide", shared)]
    else:
        habits = [habit, str(rng.choice(("near", "mid", "wide")))]
        boxes = [
            (h, demo.requested_box(rng, sign, h, lessons.jitter, scene.picture.size))
            for sign, h in zip(asked, habits[: len(asked)], strict=True)
        ]
    shown = []
    for thought, box in boxes:
        cut_box, lost = demo.add_crop(rng, example, scene, box, thought, unclear=lessons.unclear)
        if not lost:
            shown.append(cut_box)
    return {sign: any(demo.shows(box, sign) for box in shown) for sign in asked}


def _around(signs: tuple[Sign, ...]) -> demo.Box | None:
    """A box around all the signs, None where a crop of it would be too coarse to read."""
    edges = np.array([sign.box for sign in signs], dtype=float)
    x0, y0 = np.maximum(edges[:, :2].min(0) - 8, 0).tolist()
    x1, y1 = np.minimum(edges[:, 2:].max(0) + 8, PICTURE_SIZE).tolist()
    scale = math.sqrt(demo.CROP_TOKENS * demo.FACTOR**2 / ((x1 - x0) * (y1 - y0)))
    return (x0, y0, x1, y1) if scale >= 0.5 else None


class Batches(IterableDataset[demo.Batch]):
    """The batches of the phase, the same for the same seed."""

    def __init__(self, lessons: Lessons, seed: int) -> None:
        self.lessons, self.seed = lessons, seed

    def __iter__(self) -> Iterator[demo.Batch]:
        torch.set_num_threads(1)
        processor = demo.small_processor()
        rng = np.random.default_rng((self.seed, 77))
        pool = [draw_background(rng, TRAINING_PHOTOS, PICTURE_SIZE) for _ in range(24)]
        for _ in range(self.lessons.steps):
            pool[rng.integers(len(pool))] = draw_background(rng, TRAINING_PHOTOS, PICTURE_SIZE)
            level = int(rng.choice(demo.LEVELS, p=self.lessons.levels))
            scenes = [draw_scene(rng, pool[rng.integers(len(pool))]) for _ in range(self.lessons.batch)]
            examples = [make_example(rng, scene, level, self.lessons) for scene in scenes]
            batch = demo.collate(examples, processor)
            views = [demo.make_reading_example(rng, scene, 0.4) for scene in scenes[:4]]
            batch.views = demo.collate_pictures(views, processor)
            yield batch


def warm_up(
    output: Path,
    *,
    lessons: Lessons,
    seed: int,
    device: str = "cpu",
    start: Path = WARM,
    on_step: Callable[[int, int, dict[str, float]], object] = lambda *_: None,
) -> None:
    """Train the starting model of a seed, from the checkpoint in `start`, and save it."""
    torch.manual_seed(seed)
    processor = demo.small_processor()
    model = load_model(start, device=device)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    model.train()
    helpers = demo.Helpers(model.config.get_text_config().hidden_size).to(device)
    numbers = demo.number_ids(processor).to(device)
    optimiser = torch.optim.AdamW(
        # The helpers start from nothing and must not disturb a model that knows its work.
        [
            {"params": list(model.parameters()), "share": 1.0},
            {"params": list(helpers.parameters()), "share": 5.0},
        ],
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )
    seen: list[torch.Tensor] = []
    model.model.visual.register_forward_hook(lambda _module, _inputs, out: seen.append(out.pooler_output))
    for step, drawn in enumerate(DataLoader(Batches(lessons, seed), batch_size=None)):
        batch = drawn.to(device)
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / lessons.steps))
        for group in optimiser.param_groups:
            rise = min(1.0, (step + 1) / 40) if group["share"] == 1 else 1.0
            group["lr"] = lessons.learning_rate * group["share"] * rise * decay
        stats: dict[str, float] = {}
        seen.clear()
        loss = demo.language_loss(model, batch, helpers, 0.4, numbers, stats)
        loss = loss + demo.vision_loss(seen[0], batch.tokens, helpers, stats)
        loss = loss + demo.vision_loss(demo.see(model, batch.views), batch.views.tokens, helpers, stats)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        on_step(step + 1, lessons.steps, {"loss": loss.item(), **stats})
    demo.save(model, processor, output)
