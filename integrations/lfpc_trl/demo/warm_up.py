"""Trains the demo's warm checkpoint from scratch: a miniature of what a pretrained model can do.

LFPC starts from a model that already sees, reads and writes. To avoid a download, this script trains one with
ordinary supervised learning on scenes drawn on the fly, in six phases:

1. `read`: the vision tower alone, on close views of signs: every image token learns which sign it lies
   on, where that sign ends and what it says. Large letters come first; small ones are not learned otherwise.
2. `see`: the same on whole overviews and crops.
3. `speak`: the language model learns to write tool calls and answers, with auxiliary losses for two
   attention patterns that a small model does not find by itself: coordinates attend to the requested sign,
   letters attend to its text.
4. `speak on`: the same, mostly on coarse overviews, with sharper coordinates.
5. `refine`: the whole model, with close views of signs added so that it keeps reading well.
6. `behave`: the same, with bad habits for reinforcement learning to change: the checkpoint answers without
   a crop in nearly half of the cases, and most of its crops are too large and off-center.

The checkpoint deliberately never learns to read the coarsest overview: its direct answers there are guesses.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.utils.data import DataLoader, Dataset

from lfpc_trl.demo.small_model import (
    CALL_CLOSE,
    CALL_OPEN,
    LARGEST_NUMBER,
    MERGE,
    PATCH,
    build_model,
    build_processor,
)
from lfpc_trl.demo.world import (
    COLOURS,
    LETTERS,
    QUESTION,
    TRAINING_PHOTOS,
    Scene,
    Sign,
    draw_background,
    draw_scene,
)
from lfpc_trl.files import atomic_file, write_atomic
from lfpc_trl.pictures.crops import BOX_ERRORS, cut
from lfpc_trl.pictures.sizes import show, shown_size, tokens_of

FACTOR = PATCH * MERGE
CROP_TOKENS = 64
LEVELS = (216, 108, 54)
"""Visual-token budgets of the overviews, as in the demo's resolution selection."""
READABLE_LEVELS = (216, 108)
BACKGROUNDS, NEW_BACKGROUNDS = 48, 2
"""Backgrounds available in a step, and how many of them the next step replaces."""
HOURS = 3.1
"""Duration of the whole warm-up on one core; see docs/results/checkpoint.md."""
SAVE_EVERY = 100
"""Number of steps between saved states, also within a phase."""
TOOLS = [{"type": "function", "function": {"name": "image_zoom_in_tool"}}]

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Habits:
    """Shares of the first actions when the tool is available, and rates of mistakes to practice on."""

    now: float
    near: float
    mid: float
    wide: float
    retry: float = 0.03
    unclear: float = 0.06
    jitter: float = 0.0
    """Standard deviation of the edges of a near crop, in pixels of the original."""


SPEAKING = Habits(now=0.15, near=0.45, mid=0.2, wide=0.2)
WARM = Habits(now=0.45, near=0.19, mid=0.18, wide=0.18, jitter=5.0)


@dataclass(frozen=True)
class Phase:
    """One phase of the warm-up: `steps` batches of `batch` examples, with a cosine learning rate."""

    name: str
    kind: Literal["read", "see", "speak"]
    steps: int
    batch: int
    learning_rate: float
    habits: Habits
    coordinate_sigma: tuple[float, float]
    """Width in pixels of the soft target around a coordinate, at the start and end."""
    levels: tuple[float, float, float] = (0.12, 0.28, 0.60)
    """Shares of the overview budgets `LEVELS`."""
    frozen_vision: bool = False


MOSTLY_COARSE = (0.06, 0.24, 0.70)
PHASES = (
    Phase("read", "read", 2200, 63, 2e-3, SPEAKING, (1.0, 1.0)),
    Phase("see", "see", 300, 24, 1.5e-3, SPEAKING, (1.0, 1.0)),
    Phase("speak", "speak", 900, 24, 2e-3, SPEAKING, (1.5, 0.7), frozen_vision=True),
    Phase("speak on", "speak", 700, 24, 2e-3, SPEAKING, (1.0, 0.5), levels=MOSTLY_COARSE, frozen_vision=True),
    Phase("refine", "speak", 600, 20, 1e-3, SPEAKING, (0.6, 0.4), levels=MOSTLY_COARSE),
    Phase("behave", "speak", 200, 20, 4e-4, WARM, (0.4, 0.4), levels=MOSTLY_COARSE),
)


@dataclass
class Example:
    """One conversation with its pictures and the positions of the signs in each picture."""

    messages: list[dict[str, Any]]
    tools: bool
    pictures: list[Image.Image]
    signs: list[list[tuple[Sign, Box, Box]]]
    """Per picture: sign, its box and its text box in pixels of that picture."""
    readable: list[bool]
    asked: tuple[Sign, ...]


# --- examples ----------------------------------------------------------------------------------------


def scaled(box: Box, origin: tuple[float, float], scale: tuple[float, float]) -> Box:
    """Convert a box to the pixels of a view that starts at `origin` and is scaled by `scale`."""
    (x, y), (sx, sy) = origin, scale
    return ((box[0] - x) * sx, (box[1] - y) * sy, (box[2] - x) * sx, (box[3] - y) * sy)


def requested_box(
    rng: np.random.Generator, sign: Sign, habit: str, jitter: float, size: tuple[int, int]
) -> Box:
    """The box to request under a habit, in pixels of an original of this size."""
    x0, y0, x1, y1 = sign.box
    if habit == "near":
        a, b, c, d = rng.normal(0, jitter, 4)
        return (max(x0 + a, 0), max(y0 + b, 0), min(x1 + c, size[0]), min(y1 + d, size[1]))
    scale = rng.uniform(1.5, 1.9) if habit == "mid" else rng.uniform(2.2, 2.8)
    w, h = (x1 - x0) * scale, (y1 - y0) * scale
    # Off-center: the text can be anywhere in the crop, sometimes cut off by its border.
    cx = (x0 + x1) / 2 + rng.uniform(-0.45, 0.45) * (w - 90)
    cy = (y0 + y1) / 2 + rng.uniform(-0.45, 0.45) * (h - 50)
    left, top = max(cx - w / 2, 0), max(cy - h / 2, 0)
    return (left, top, min(cx + w / 2, size[0]), min(cy + h / 2, size[1]))


def _call(box: Any) -> dict[str, Any]:
    function = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": list(box)}}
    return {"type": "function", "function": function}


def guess(rng: np.random.Generator) -> str:
    """A random code."""
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=2))


def make_example(rng: np.random.Generator, scene: Scene, level: int, habits: Habits) -> Example:
    """One conversation about `scene` (an overview, perhaps a crop) for the checkpoint to imitate."""
    asked = scene.signs[rng.integers(len(scene.signs))]
    # Fine overviews train direct answers, which resolution selection needs; coarse ones train crops.
    tools = rng.random() < {216: 0.3, 108: 0.75, 54: 0.95}[level]
    size = shown_size(scene.picture.size, level, factor=FACTOR)
    scale = (size[0] / scene.picture.width, size[1] / scene.picture.height)
    overview = show(scene.picture, size)
    question = QUESTION.format(colour=asked.colour)
    example = Example(
        messages=[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
        tools=tools,
        pictures=[overview],
        signs=[[(s, scaled(s.box, (0, 0), scale), scaled(s.text_box, (0, 0), scale)) for s in scene.signs]],
        readable=[level in READABLE_LEVELS],
        asked=(asked,),
    )
    shares = np.array([habits.now, habits.near, habits.mid, habits.wide])
    habit = str(rng.choice(("now", "near", "mid", "wide"), p=shares / shares.sum())) if tools else "now"
    if habit == "now":
        say(example, "now", asked.text if example.readable[0] else guess(rng))
        return example
    if rng.random() < habits.retry:
        _make_mistake(rng, example, asked, scale)
    box = requested_box(rng, asked, habit, habits.jitter, scene.picture.size)
    cut_box, lost = add_crop(rng, example, scene, box, habit, unclear=habits.unclear)
    seen = not lost and shows(cut_box, asked)
    say(example, "read" if seen else "unclear", asked.text if seen else guess(rng))
    return example


def add_crop(
    rng: np.random.Generator, example: Example, scene: Scene, box: Box, thought: str, *, unclear: float
) -> tuple[Box, bool]:
    """Add a call for `box` (pixels of the original) and the tool's response.

    Args:
        rng: random generator.
        example: gets the messages, the picture and the positions of its signs.
        scene: the scene to crop.
        box: the requested box.
        thought: the thought before the call.
        unclear: probability that the crop is useless: another place, or noise.

    Returns:
        The box as written, in pixels of the original, and whether the crop is useless.
    """
    size = example.pictures[0].size
    scale = (size[0] / scene.picture.width, size[1] / scene.picture.height)
    written = [round(v) for v in scaled(box, (0, 0), scale)]
    example.messages.append(
        {"role": "assistant", "content": f"<think>{thought}</think>", "tool_calls": [_call(written)]}
    )
    # The tool cuts the written box, so the crop includes the rounding, as in training.
    x0, y0, x1, y1 = (round(v / s) for v, s in zip(written, (*scale, *scale), strict=True))
    box_cut = (max(x0, 0), max(y0, 0), min(x1, scene.picture.width), min(y1, scene.picture.height))
    lost = rng.random() < unclear
    if lost:
        box_cut = _elsewhere(rng, scene, box_cut)
    crop = cut(scene.picture, box_cut, factor=FACTOR, max_tokens=CROP_TOKENS)
    if lost and rng.random() < 0.5:
        crop = Image.fromarray(rng.integers(0, 256, (crop.height, crop.width, 3), dtype=np.uint8))
    origin = (float(box_cut[0]), float(box_cut[1]))
    crop_scale = (crop.width / (box_cut[2] - box_cut[0]), crop.height / (box_cut[3] - box_cut[1]))
    example.pictures.append(crop)
    inside = [
        (s, scaled(s.box, origin, crop_scale), scaled(s.text_box, origin, crop_scale))
        for s in scene.signs
        if not lost
    ]
    example.signs.append(inside)
    example.readable.append(not lost)
    example.messages.append({"role": "tool", "content": [{"type": "image"}]})
    return (x0, y0, x1, y1), lost


def shows(box: Box, sign: Sign) -> bool:
    """Whether a box contains the text of a sign, with a tolerance of two pixels."""
    x0, y0, x1, y1 = sign.text_box
    return x0 >= box[0] - 2 and y0 >= box[1] - 2 and x1 <= box[2] + 2 and y1 <= box[3] + 2


def make_reading_example(rng: np.random.Generator, scene: Scene, smallest: float) -> Example:
    """Close views of the signs of `scene`, at scales from 1 down to `smallest`."""
    example = Example([], False, [], [], [], scene.signs[:1])
    for sign in scene.signs:
        kind = rng.random()
        if kind < 0.35:
            scale = 1.0
        elif kind < 0.85:
            scale = float(rng.uniform(smallest, 1.0))
        else:
            scale = max(smallest, 504 / scene.picture.width if kind < 0.95 else 336 / scene.picture.width)
        x0, y0, x1, y1 = sign.text_box
        margin = 40 if scale > 0.6 else 26 / scale
        w = round((x1 - x0 + 2 * margin) * scale / FACTOR + 0.5) * FACTOR
        h = round((y1 - y0 + 2 * margin) * scale / FACTOR + 0.5) * FACTOR
        # The text can be anywhere in the view, so that it meets the patch grid at every offset.
        left = int(
            np.clip(
                x1 - w / scale + rng.uniform(0, w / scale - (x1 - x0)), 0, scene.picture.width - w / scale
            )
        )
        top = int(
            np.clip(
                y1 - h / scale + rng.uniform(0, h / scale - (y1 - y0)), 0, scene.picture.height - h / scale
            )
        )
        view = (left, top, left + w / scale, top + h / scale)
        example.pictures.append(scene.picture.resize((w, h), Image.Resampling.BICUBIC, box=view))
        example.signs.append(
            [
                (
                    s,
                    scaled(s.box, (left, top), (scale, scale)),
                    scaled(s.text_box, (left, top), (scale, scale)),
                )
                for s in scene.signs
            ]
        )
        example.readable.append(True)
    return example


def say(example: Example, thought: str, answer: str) -> None:
    """Append the last turn: a thought and the answer."""
    content = f"<think>{thought}</think><answer>{answer}</answer>"
    example.messages.append({"role": "assistant", "content": content})


def _make_mistake(
    rng: np.random.Generator, example: Example, asked: Sign, scale: tuple[float, float]
) -> None:
    """Append a rejected call and the tool's error message; a valid call follows."""
    x0, y0, x1, y1 = (round(v) for v in scaled(asked.box, (0, 0), scale))
    rule = str(rng.choice(("inverted", "thin", "outside")))
    bad = {
        "inverted": [x1, y0, x0, y1],
        "thin": [x0, y0, x0 + 1, y1],
        "outside": [x0 + 510, y0, x1 + 510, y1],
    }[rule]
    example.messages.append(
        {"role": "assistant", "content": "<think>near</think>", "tool_calls": [_call(bad)]}
    )
    example.messages.append({"role": "tool", "content": str({"error": BOX_ERRORS[rule]})})


def _elsewhere(
    rng: np.random.Generator, scene: Scene, box: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """A box of the same size without any sign's text."""
    w, h = box[2] - box[0], box[3] - box[1]
    for _ in range(50):
        x, y = (
            int(rng.integers(0, scene.picture.width - w + 1)),
            int(rng.integers(0, scene.picture.height - h + 1)),
        )
        if all(
            x + w <= s.text_box[0] or s.text_box[2] <= x or y + h <= s.text_box[1] or s.text_box[3] <= y
            for s in scene.signs
        ):
            return (x, y, x + w, y + h)
    return (0, 0, 60, 60)


# --- targets of the image tokens ---------------------------------------------------------------------


@dataclass
class TokenTargets:
    """Targets per image token (28 x 28 pixels of its picture), pictures in order."""

    colour: Tensor  # 0 none, 1.. the sign's colour
    box: Tensor  # the sign's corners minus the token's centre, in tokens; NaN off the signs
    letters: Tensor  # (N, 2) letter indices on tokens with text; -100 elsewhere or where unreadable
    place: Tensor  # (N, 2) centre of the token, in tokens
    asked: Tensor  # 1 on the first requested sign, 2 on the second, 0 elsewhere
    asked_text: Tensor  # the same for their readable text
    overview: Tensor  # whether the token belongs to the overview


def token_targets(example: Example) -> TokenTargets:
    """The targets of all image tokens of `example`."""
    parts = [_picture_targets(example, i) for i in range(len(example.pictures))]
    return TokenTargets(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)))


def _picture_targets(example: Example, index: int) -> tuple[np.ndarray[Any, Any], ...]:
    picture = example.pictures[index]
    w, h = picture.width // FACTOR, picture.height // FACTOR
    x, y = (a.reshape(-1) for a in np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5))
    n = w * h
    colour = np.zeros(n, dtype=np.int64)
    box = np.full((n, 4), np.nan, dtype=np.float32)
    letters = np.full((n, 2), -100, dtype=np.int64)
    asked = np.zeros(n, dtype=np.float32)
    asked_text = np.zeros(n, dtype=np.float32)
    for sign, sign_box, text_box in example.signs[index]:
        b = np.array(sign_box) / FACTOR
        on_sign = _touches(x, y, b, 0.25)
        colour[on_sign] = 1 + list(COLOURS).index(sign.colour)
        box[on_sign] = (b - np.stack([x, y, x, y], axis=1))[on_sign]
        number = 1 + example.asked.index(sign) if sign in example.asked else 0
        asked[on_sign] = number
        t = np.array(text_box) / FACTOR
        if (
            example.readable[index]
            and t[0] >= -0.05
            and t[1] >= -0.05
            and t[2] <= w + 0.05
            and t[3] <= h + 0.05
        ):
            on_text = _touches(x, y, t, 0.12)
            letters[on_text] = [LETTERS.index(c) for c in sign.text]
            asked_text[on_text] = number
    place = np.stack([x, y], axis=1).astype(np.float32)
    return colour, box, letters, place, asked, asked_text, np.full(n, index == 0)


def _touches(
    x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], box: np.ndarray[Any, Any], share: float
) -> Any:
    """Tokens with at least `share` of their area in the box, or with most of a small box in them."""
    wide = np.clip(np.minimum(x + 0.5, box[2]) - np.maximum(x - 0.5, box[0]), 0, None)
    tall = np.clip(np.minimum(y + 0.5, box[3]) - np.maximum(y - 0.5, box[1]), 0, None)
    area = wide * tall
    return area >= min(share, 0.45 * (box[2] - box[0]) * (box[3] - box[1]))


# --- batches -----------------------------------------------------------------------------------------


@dataclass
class Batch:
    """A padded batch; `coordinates` and `letters` are the asked sign's number if the NEXT token is one."""

    model_inputs: dict[str, Tensor]
    targets: Tensor
    coordinates: Tensor
    letters: Tensor
    tokens: TokenTargets
    views: Batch | None = None
    """Close views of signs, to train reading along with the whole model."""

    def to(self, device: str) -> Batch:
        """The batch on a device."""
        return Batch(
            {name: tensor.to(device) for name, tensor in self.model_inputs.items()},
            self.targets.to(device),
            self.coordinates.to(device),
            self.letters.to(device),
            TokenTargets(*(tensor.to(device) for tensor in vars(self.tokens).values())),
            None if self.views is None else self.views.to(device),
        )


def small_processor() -> Any:
    """The small model's processor; its tokenizer knows the tool's error messages."""
    return build_processor([str({"error": text}) for text in BOX_ERRORS.values()])


def number_ids(processor: Any) -> Tensor:
    """Token ids of 0, 1, ... `LARGEST_NUMBER`; not consecutive, as single digits are also byte tokens."""
    texts = [str(number) for number in range(LARGEST_NUMBER + 1)]
    return torch.tensor(processor.tokenizer.convert_tokens_to_ids(texts))


def numbers_of(tokens: Tensor, ids: Tensor) -> Tensor:
    """Which number each token is, by `number_ids`."""
    return (tokens[:, None] == ids).int().argmax(1)


class Batches(Dataset[Batch]):
    """The batches of a phase, by step. Each depends only on seed, phase and step, in any process."""

    def __init__(self, phase: Phase, seed: int) -> None:
        self.phase, self.seed = phase, seed
        self._backgrounds: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        return self.phase.steps

    @functools.cached_property
    def processor(self) -> Any:
        """Created lazily in each process: a processor cannot be pickled."""
        return small_processor()

    def __getitem__(self, step: int) -> Batch:
        torch.set_num_threads(1)
        # Backgrounds are reused for some steps: drawing one takes longer than drawing a scene.
        numbers = range(step * NEW_BACKGROUNDS, step * NEW_BACKGROUNDS + BACKGROUNDS)
        drawn = self._backgrounds
        self._backgrounds = {i: drawn[i] if i in drawn else self._background(i) for i in numbers}
        return self._batch(step, list(self._backgrounds.values()))

    def _random(self, what: int, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *map(ord, self.phase.name), what, number))

    def _background(self, number: int) -> Image.Image:
        return draw_background(self._random(0, number), TRAINING_PHOTOS)

    def _batch(self, step: int, backgrounds: list[Image.Image]) -> Batch:
        phase, rng = self.phase, self._random(1, step)
        level = int(rng.choice(LEVELS, p=phase.levels))  # one per batch: little padding
        # Reading uses three views per scene; other phases ask for one sign per scene.
        count = phase.batch // 3 if phase.kind == "read" else phase.batch
        scenes = [draw_scene(rng, backgrounds[rng.integers(len(backgrounds))]) for _ in range(count)]
        if phase.kind == "read":
            # Large letters first: small ones build on them.
            return self._views(rng, scenes, 1 - 0.7 * min(1.0, 1.6 * step / phase.steps))
        examples = [make_example(rng, scene, level, phase.habits) for scene in scenes]
        if phase.kind == "see":
            return collate_pictures(examples, self.processor)
        batch = collate(examples, self.processor)
        if not phase.frozen_vision:
            batch.views = self._views(rng, scenes[:12], 0.4)
        return batch

    def _views(self, rng: np.random.Generator, scenes: list[Scene], smallest: float) -> Batch:
        examples = [make_reading_example(rng, scene, smallest) for scene in scenes]
        return collate_pictures(examples, self.processor)


def collate_pictures(examples: list[Example], processor: Any) -> Batch:
    """A batch of pictures only, for the phases that train the vision tower."""
    vision = processor.image_processor(images=[p for e in examples for p in e.pictures], return_tensors="pt")
    nothing = torch.empty(0)
    columns = zip(*(vars(token_targets(e)).values() for e in examples), strict=True)
    return Batch(dict(vision), nothing, nothing, nothing, TokenTargets(*(torch.cat(c) for c in columns)))


def collate(examples: list[Example], processor: Any) -> Batch:
    """Render, tokenise and pad the examples exactly as in later training."""
    tokenizer = processor.tokenizer
    pictures = [p for e in examples for p in e.pictures]
    vision = processor.image_processor(images=pictures, return_tensors="pt")
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    numbers = set(number_ids(processor).tolist())
    call_open, call_close, answer, answer_end, end = (
        tokenizer.convert_tokens_to_ids(t)
        for t in (CALL_OPEN, CALL_CLOSE, "<answer>", "</answer>", "<|im_end|>")
    )
    speaker = tokenizer.convert_tokens_to_ids("assistant\n")
    rows = []
    for e in examples:
        text = tokenizer.apply_chat_template(e.messages, tools=TOOLS if e.tools else None, tokenize=False)
        head, *rest = text.split("<|image_pad|>")
        for picture, tail in zip(e.pictures, rest, strict=True):
            head += "<|image_pad|>" * tokens_of(picture.size, FACTOR) + tail
        rows.append(tokenizer(head)["input_ids"])
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    targets = torch.full_like(ids, -100)
    coordinates, letters = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        speaking = in_call = in_answer = False
        calls = written = 0
        asked = len(examples[i].asked)
        for j, token in enumerate(row):
            if speaking:
                targets[i, j - 1] = token
                in_answer = in_answer and token != answer_end
                in_call = in_call and token != call_close
                # One call per requested sign, then their codes in the same order: two letters and a space.
                coordinates[i, j - 1] = min(calls, asked) if in_call and token in numbers else 0
                letters[i, j - 1] = min(1 + written // 3, asked) if in_answer else 0
                written += in_answer
                calls += token == call_open
                in_answer = in_answer or token == answer
                in_call = in_call or token == call_open
            if token == speaker:
                speaking = True
            elif token == end:
                speaking = False
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == image_id).int(),
        "pixel_values": vision["pixel_values"],
        "image_grid_thw": vision["image_grid_thw"],
    }
    columns = zip(*(vars(token_targets(e)).values() for e in examples), strict=True)
    return Batch(inputs, targets, coordinates, letters, TokenTargets(*(torch.cat(c) for c in columns)))


# --- losses ------------------------------------------------------------------------------------------


class Helpers(nn.Module):
    """Linear auxiliary heads, trained along and discarded afterwards."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.colour = nn.Linear(hidden, 1 + len(COLOURS))
        self.box = nn.Linear(hidden, 4)
        self.letters = nn.Linear(hidden, 2 * len(LETTERS))
        self.place = nn.Linear(hidden, 2)
        self.asked = nn.Linear(hidden, 1)
        self.corner = nn.Linear(hidden, 4)
        self.late_letters = nn.Linear(hidden, 2 * len(LETTERS))


def _letter_loss(logits: Tensor, letters: Tensor) -> tuple[Tensor, float]:
    there = letters[:, 0] >= 0
    if not there.any():
        return logits.sum() * 0, math.nan
    flat = logits[there].view(-1, len(LETTERS))
    right = (flat.argmax(1) == letters[there].view(-1)).float().mean().item()
    return F.cross_entropy(flat, letters[there].view(-1)), right


def vision_loss(features: Tensor, tokens: TokenTargets, helpers: Helpers, stats: dict[str, float]) -> Tensor:
    """Loss of the vision tower's tokens: colour, extent and letters of their sign."""
    colour = helpers.colour(features)
    loss = F.cross_entropy(colour, tokens.colour)
    on_sign = tokens.colour > 0
    off = helpers.box(features[on_sign]) - tokens.box[on_sign]
    letter, stats["letters"] = _letter_loss(helpers.letters(features), tokens.letters)
    stats["colour"] = (colour.argmax(1) == tokens.colour)[on_sign].float().mean().item()
    stats["edge"] = off.abs().mean().item()
    return loss + F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.2) + letter


def language_loss(
    model: Any, batch: Batch, helpers: Helpers, sigma: float, numbers: Tensor, stats: dict[str, float]
) -> Tensor:
    """Next-token loss with soft coordinates, plus auxiliary losses on a middle layer and on attention."""
    inputs = batch.model_inputs
    out = model.model(**inputs, output_hidden_states=True, output_attentions=True)
    scored = batch.targets >= 0
    # Compute logits only at target positions: most positions are image tokens.
    logp = F.log_softmax(model.lm_head(out.last_hidden_state[scored]), dim=-1)
    targets, coordinate, letter = (
        batch.targets[scored],
        batch.coordinates[scored] > 0,
        batch.letters[scored] > 0,
    )
    weight = 1.0 + 2.0 * letter[~coordinate].float()
    nll = -logp[~coordinate].gather(1, targets[~coordinate][:, None])[:, 0]
    loss = (nll * weight).sum() / weight.sum() * 2.0
    stats["said_letters"] = (logp[letter].argmax(1) == targets[letter]).float().mean().item()
    if coordinate.any():
        expected = numbers_of(targets[coordinate], numbers)
        distance = torch.arange(len(numbers), device=numbers.device)[None] - expected[:, None]
        soft = F.softmax(-0.5 * (distance / sigma) ** 2, dim=1)
        log_number = logp[coordinate][:, numbers]
        loss = loss - (soft * log_number).sum(1).mean()
        stats["pixels_off"] = (log_number.argmax(1) - expected).abs().float().median().item()

    image = inputs["mm_token_type_ids"].bool()
    tokens = batch.tokens
    middle = out.hidden_states[2][image]
    overview = tokens.overview
    sign_here = (tokens.colour > 0) & overview
    loss = loss + F.smooth_l1_loss(helpers.place(middle), tokens.place, beta=0.2)
    flag = helpers.asked(middle)[:, 0]
    # Most tokens lie on no sign: in a single mean, they would outweigh the few that distinguish signs.
    asked = (tokens.asked > 0).float()
    loss = loss + F.binary_cross_entropy_with_logits(flag[sign_here], asked[sign_here])
    loss = loss + 0.2 * F.binary_cross_entropy_with_logits(flag, asked)
    corner = tokens.box + tokens.place.repeat(1, 2)
    loss = loss + F.smooth_l1_loss(helpers.corner(middle[sign_here]), corner[sign_here], beta=0.2)
    late, stats["late_letters"] = _letter_loss(helpers.late_letters(middle), tokens.letters)
    loss = loss + late
    stats["flag"] = (flag > 0).eq(tokens.asked > 0)[sign_here].float().mean().item()

    attention = out.attentions[2][:, :2].mean(1)
    for queries, values in (
        (batch.coordinates, tokens.asked * overview),
        (batch.letters, tokens.asked_text),
    ):
        which = torch.zeros(image.shape, device=image.device)
        which[image] = values.float()
        own = (which[:, None, :] == queries[:, :, None]) & (queries[:, :, None] > 0)
        mass = (attention * own).sum(-1)
        rows = own.any(-1)
        if rows.any():
            loss = loss - 0.5 * (mass[rows] + 1e-4).log().mean()
            stats["attention"] = mass[rows].mean().item()
    return loss


# --- training ----------------------------------------------------------------------------------------

OnStep = Callable[[str, int, int, dict[str, float]], object]


class Course:
    """A model in training and its progress through the phases: the state needed to resume.

    Attributes:
        model: the model.
        helpers: the auxiliary heads.
        done: names of the finished phases.
        step: steps done in the current phase.
        seconds: total time of all steps so far.
        log: mean figures of every `SAVE_EVERY` steps.
    """

    def __init__(self, model: Any, helpers: Helpers, state: Path) -> None:
        self.model, self.helpers, self.state = model, helpers, state
        self.done: list[str] = []
        self.step, self.seconds = 0, 0.0
        self.log: list[dict[str, Any]] = []
        self._optimiser_state: dict[str, Any] | None = None
        self._figures: dict[str, list[float]] = defaultdict(list)

    def resume(self, device: str) -> None:
        """Load the saved state, if there is one."""
        if not self.state.exists():
            return
        saved = torch.load(self.state, weights_only=True, map_location=device)
        self.model.load_state_dict(saved["model"])
        self.helpers.load_state_dict(saved["helpers"])
        self._optimiser_state = saved["optimiser"]
        self.done, self.step = saved["done"], saved["step"]
        self.seconds, self.log = saved["seconds"], saved["log"]

    def save(self, optimiser: torch.optim.Optimizer | None) -> None:
        """Save the state; without an optimiser at the end of a phase."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.state) as draft:
            torch.save(
                {
                    "model": self.model.state_dict(),
                    "helpers": self.helpers.state_dict(),
                    "optimiser": optimiser and optimiser.state_dict(),
                    "done": self.done,
                    "step": self.step,
                    "seconds": self.seconds,
                    "log": self.log,
                },
                draft,
            )
        lines = (json.dumps(line) for line in self.log)
        write_atomic(self.state.with_suffix(".jsonl"), "".join(line + "\n" for line in lines))

    def take(self, phase: Phase, batches: Iterable[Batch], numbers: Tensor, on_step: OnStep | None) -> None:
        """Train one phase, starting at `step`."""
        self.model.model.visual.requires_grad_(not phase.frozen_vision)
        trained = self.model if phase.kind == "speak" else self.model.model.visual
        parameters = [p for p in (*trained.parameters(), *self.helpers.parameters()) if p.requires_grad]
        optimiser = torch.optim.AdamW(
            parameters, lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        if self._optimiser_state is not None:
            optimiser.load_state_dict(self._optimiser_state)
        began = time.perf_counter() - self.seconds
        for batch in batches:
            done = self.step / phase.steps
            rate = min(1.0, (self.step + 1) / 30) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            for group in optimiser.param_groups:
                group["lr"] = phase.learning_rate * rate
            stats: dict[str, float] = {}
            loss = self._loss(phase, batch.to(str(numbers.device)), numbers, stats)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            self.step += 1
            self.seconds = time.perf_counter() - began
            self._note(phase, {"loss": loss.item()} | stats)
            if on_step:
                on_step(phase.name, self.step, phase.steps, {"loss": loss.item()} | stats)
            if self.step % SAVE_EVERY == 0 and self.step < phase.steps:
                self.save(optimiser)
        self.done.append(phase.name)
        self.step, self._optimiser_state = 0, None
        self.save(None)

    def _loss(self, phase: Phase, batch: Batch, numbers: Tensor, stats: dict[str, float]) -> Tensor:
        if phase.kind != "speak":
            return vision_loss(see(self.model, batch), batch.tokens, self.helpers, stats)
        first, last = phase.coordinate_sigma
        sigma = first + (last - first) * self.step / phase.steps
        features: list[Tensor] = []
        hook = self.model.model.visual.register_forward_hook(
            lambda _m, _i, o: features.append(o.pooler_output)
        )
        loss = language_loss(self.model, batch, self.helpers, sigma, numbers, stats)
        hook.remove()
        if batch.views is not None:
            loss = loss + vision_loss(features[0], batch.tokens, self.helpers, stats)
            views = see(self.model, batch.views)
            loss = loss + vision_loss(views, batch.views.tokens, self.helpers, stats)
        return loss

    def _note(self, phase: Phase, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            if not math.isnan(value):
                self._figures[name].append(value)
        if self.step % SAVE_EVERY == 0 or self.step == phase.steps:
            means = {name: round(sum(values) / len(values), 4) for name, values in self._figures.items()}
            line = {"phase": phase.name, "step": self.step, "seconds": round(self.seconds, 1)}
            self.log.append(line | means)
            self._figures.clear()


def warm_up(
    output: Path,
    *,
    phases: tuple[Phase, ...] = PHASES,
    seed: int = 0,
    on_step: OnStep | None = None,
    workers: int = 1,
    width: int = 1,
    layers: int = 4,
    device: str = "cpu",
) -> Path:
    """Train the warm checkpoint and save it as a model directory.

    An interrupted run resumes from its last saved state and ends with the same weights. `output` gets
    `warm-up.pt`, the state to resume from, and `warm-up.jsonl`, the figures of every `SAVE_EVERY` steps.

    Args:
        output: Directory to write: weights (half precision), config, tokenizer, chat template.
        phases: Phases to train, in order.
        seed: Seed for the weights and all scenes.
        on_step: Called after every step with phase, step, steps of the phase and current figures.
        workers: Processes that draw scenes in parallel; 0 draws them in the training process.
        width: Width of the model, as in `build_model`.
        layers: Layers of the model, as in `build_model`.
        device: A torch device.

    Returns:
        `output`.
    """
    torch.manual_seed(seed)
    processor = small_processor()
    model: Any = build_model(processor.tokenizer, width=width, layers=layers).to(device)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    helpers = Helpers(model.config.text_config.hidden_size).to(device)
    course = Course(model, helpers, output / "warm-up.pt")
    course.resume(device)
    for phase in phases:
        if phase.name not in course.done:
            steps = range(course.step, phase.steps)
            loader = DataLoader(Batches(phase, seed), batch_size=None, sampler=steps, num_workers=workers)
            course.take(phase, loader, number_ids(processor).to(device), on_step)
    save(model, processor, output)
    return output


def see(model: Any, batch: Batch) -> Tensor:
    """The features of all image tokens of a batch."""
    inputs = batch.model_inputs
    features = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    assert isinstance(features, Tensor)
    return features


def save(model: Any, processor: Any, output: Path) -> None:
    """Write the model directory; weights in half precision to keep the package small."""
    model.set_attn_implementation("sdpa")
    half = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.save_pretrained(output, state_dict=half)
    processor.save_pretrained(output)
