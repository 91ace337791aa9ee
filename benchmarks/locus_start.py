"""The starting model of `benchmarks.locus_miniature`: it finds a cue, but most of its boxes are too large.

The demo's warm checkpoint knows signs and coordinates, but neither the task nor its format. A short
supervised phase on scenes drawn on the fly teaches both, with the helpers of `lfpc_trl.demo.warm_up` and one
more. It has three ways to answer, each with a word of its own, as in the demo: exactly (`near`), or too large
and off-centre (`mid`, `wide`). That is what the training has to change, and all of it can be sampled.
"""

import math
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from lfpc_trl.demo import warm_up as demo
from lfpc_trl.demo.world import (
    COLOURS,
    PICTURE_SIZE,
    TRAINING_PHOTOS,
    Scene,
    Sign,
    draw_background,
    draw_scene,
)
from lfpc_trl.models.processors import load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.pictures.crops import cut
from lfpc_trl.pictures.sizes import show, shown_size

SHOWN_TOKENS, CROP_TOKENS = 54, 16
"""Visual tokens of a picture and of a cue at most."""
SCENES = 8
"""Scenes in a batch; each gives three cues."""
LEARNING_RATE = 2e-3
WIDTH = (3.0, 1.0)
"""Of the soft target around a coordinate, at the start and at the end, in pixels of the picture as shown."""
HABITS = {"near": 0.3, "mid": 0.4, "wide": 0.3}
"""Shares of the ways to answer."""


def make_start(folder: Path, *, steps: int, seed: int) -> dict[str, float]:
    """Write the starting model to `folder`, and return the last figures of its training."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(str(resources.files("lfpc_trl.demo") / "warm")), folder)
    _rewrite_template(folder / "chat_template.jinja")
    torch.manual_seed(seed)
    model, processor = load_model(folder), load_processor(folder)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    model.model.visual.requires_grad_(False)
    hidden = model.config.get_text_config().hidden_size
    helpers, cue_colour = demo.Helpers(hidden), torch.nn.Linear(hidden, len(COLOURS))
    outputs: list[Any] = []
    model.model.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    numbers = demo.number_ids(processor)
    modules = (model, helpers, cue_colour)
    parameters = [each for module in modules for each in module.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)
    rng = np.random.default_rng((seed, 88))
    backgrounds = [draw_background(rng, TRAINING_PHOTOS) for _ in range(48)]
    stats: dict[str, float] = {}
    for step in range(steps):
        backgrounds[rng.integers(len(backgrounds))] = draw_background(rng, TRAINING_PHOTOS)
        scenes = [draw_scene(rng, backgrounds[rng.integers(len(backgrounds))]) for _ in range(SCENES)]
        examples = [cue for scene in scenes for cue in make_examples(rng, scene)]
        batch = demo.collate(examples, processor)
        # The demo's coordinates stand in calls and its letters in answers; here answers hold coordinates.
        batch.coordinates = torch.isin(batch.targets, numbers).int()
        batch.letters = torch.zeros_like(batch.letters)
        done = step / steps
        decay = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 30) * decay
        outputs.clear()
        loss = demo.language_loss(
            model, batch, helpers, WIDTH[0] + (WIDTH[1] - WIDTH[0]) * done, numbers, stats
        )
        # Where a coordinate is due, the model shall know which sign the cue shows.
        rows, places = batch.coordinates.nonzero(as_tuple=True)
        colours = torch.tensor([list(COLOURS).index(example.asked[0].colour) for example in examples])
        told = cue_colour(outputs[0].hidden_states[2][rows, places])
        loss = loss + F.cross_entropy(told, colours[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if (step + 1) % 10 == 0:
            figures = ", ".join(f"{name} {stats[name]:.2f}" for name in ("attention", "pixels_off"))
            print(f"start {step + 1}/{steps}: loss {loss.item():.2f}, {figures}", flush=True)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    return {name: stats[name] for name in ("attention", "pixels_off")}


def _rewrite_template(path: Path) -> None:
    """Leave out the words of the task, which the model cannot read, and tell it to point, not to answer."""
    text = path.read_text(encoding="utf-8")
    for before, after in (
        ("text(message.content) + images(message.content)", "images(message.content)"),
        ("('wide' if tools else 'now')", "'wide'"),
    ):
        assert before in text
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


def make_examples(rng: np.random.Generator, scene: Scene) -> list[demo.Example]:
    """Every sign of a scene as a cue, each answered in one of the ways of `HABITS`."""
    size = shown_size(PICTURE_SIZE, SHOWN_TOKENS, factor=demo.FACTOR)
    scale = (size[0] / PICTURE_SIZE[0], size[1] / PICTURE_SIZE[1])
    overview = show(scene.picture, size)

    def seen(sign: Sign, origin: tuple[float, float], by: tuple[float, float]) -> Any:
        return sign, demo.scaled(sign.box, origin, by), demo.scaled(sign.text_box, origin, by)

    signs = [seen(sign, (0, 0), scale) for sign in scene.signs]
    examples = []
    for asked, _, _ in signs:
        cue = cut(scene.picture, asked.box, factor=demo.FACTOR, max_tokens=CROP_TOKENS)
        x0, y0, x1, y1 = asked.box
        example = demo.Example(
            messages=[{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}],
            tools=False,
            pictures=[overview, cue],
            signs=[signs, [seen(asked, (x0, y0), (cue.width / (x1 - x0), cue.height / (y1 - y0)))]],
            readable=[False, False],
            asked=(asked,),
        )
        habit = str(rng.choice(list(HABITS), p=list(HABITS.values())))
        box = demo.requested_box(rng, asked, habit, 0.0, PICTURE_SIZE)
        demo.say(example, habit, str([round(value) for value in demo.scaled(box, (0, 0), scale)]))
        examples.append(example)
    return examples
