"""The starting model of `benchmarks.two_photographs`: it could tell where a sign is, and often does not look.

The demo's warm checkpoint knows one picture per question. A short supervised phase on scenes drawn on the
fly, with the helpers of `lfpc_trl.demo.warm_up` and two more, teaches it two, and calls that name a picture.
It answers without looking in a good part of the cases, most of its boxes are too large, and it likes the
first picture better than the second. That is what the training has to change, and all of it can be sampled.

That phase is the same for all seeds. Each seed then goes on with scenes of its own for a while.
"""

import math
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from lfpc_trl.data.columns import image_name
from lfpc_trl.demo import warm_up as demo
from lfpc_trl.demo.small_model import CALL_OPEN
from lfpc_trl.demo.world import COLOURS, QUESTION, TRAINING_PHOTOS, Scene, draw_background, draw_scene
from lfpc_trl.models.processors import load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.pictures.sizes import show, shown_size, tokens_of

PICTURE_SIZE = (672, 448)
"""Of each photograph. Smaller than the demo's, with signs of the same size."""
SHOWN_TOKENS = 35
"""Visual tokens of each overview: signs and colours are seen, letters are not."""
EXAMPLES = 12
"""In a batch."""
LEARNING_RATE, OWN_LEARNING_RATE = 2e-3, 4e-4
"""Of the phase that all seeds share, and of a seed's own."""
WIDTH = (2.0, 0.6)
"""Of the soft target around a coordinate, at the start and at the end, in pixels of the picture as shown."""
HABITS = {"now": 0.4, "near": 0.24, "mid": 0.2, "wide": 0.16}
"""Shares of the first moves."""
RIGHT_PICTURE = (0.85, 0.4)
"""Shares of the calls that name the right picture, where the sign is in the first and in the second."""
UNCLEAR, JITTER = 0.06, 5.0
"""Share of the crops that show something else; of the edges of a near box, in pixels of the original."""


def call_open(image: int) -> str:
    """The beginning of a call on a picture; one token, as that of calls without a picture is."""
    return CALL_OPEN.replace('"bbox_2d"', f'"image": {image}, "bbox_2d"')


def draw_pair(rng: np.random.Generator, backgrounds: tuple[Any, Any]) -> tuple[Scene, Scene]:
    """Two scenes with two signs each; no colour comes twice."""
    colours = rng.permutation(list(COLOURS)).tolist()
    return draw_scene(rng, backgrounds[0], colours[:2]), draw_scene(rng, backgrounds[1], colours[2:])


def make_example(rng: np.random.Generator, scenes: tuple[Scene, Scene]) -> demo.Example:
    """One conversation about two scenes, as the starting model shall imitate it; one sign is asked for."""
    holds, other = (0, 1) if rng.random() < 0.5 else (1, 0)
    asked = scenes[holds].signs[rng.integers(len(scenes[holds].signs))]
    size = shown_size(PICTURE_SIZE, SHOWN_TOKENS, factor=demo.FACTOR)
    scale = (size[0] / PICTURE_SIZE[0], size[1] / PICTURE_SIZE[1])
    blocks: list[dict[str, str]] = []
    for number in (1, 2):
        named = {"type": "text", "text": f"{image_name(number)}: "}
        blocks += [named, {"type": "image"}, {"type": "text", "text": "\n"}]
    question = {"type": "text", "text": QUESTION.format(colour=asked.colour)}
    example = demo.Example(
        messages=[{"role": "user", "content": [*blocks, question]}],
        tools=True,
        pictures=[show(scene.picture, size) for scene in scenes],
        signs=[
            [
                (s, demo.scaled(s.box, (0, 0), scale), demo.scaled(s.text_box, (0, 0), scale))
                for s in scene.signs
            ]
            for scene in scenes
        ],
        readable=[False, False],
        asked=(asked,),
    )
    habit = str(rng.choice(list(HABITS), p=list(HABITS.values())))
    if habit == "now":
        demo.say(example, habit, demo.guess(rng))
        return example
    # Where the picture is wrong, the box is still where the sign is in the other.
    looked_at = holds if rng.random() < RIGHT_PICTURE[holds] else other
    box = demo.requested_box(rng, asked, habit, JITTER, PICTURE_SIZE)
    cut, lost = demo.add_crop(rng, example, scenes[looked_at], box, habit, unclear=UNCLEAR)
    call = example.messages[-2]["tool_calls"][0]["function"]
    call["arguments"] = {"image": looked_at + 1, **call["arguments"]}
    seen = looked_at == holds and not lost and demo.shows(cut, asked)
    demo.say(example, "read" if seen else "unclear", asked.text if seen else demo.guess(rng))
    return example


def make_start(folder: Path, *, steps: int, seed: int) -> dict[str, float]:
    """Write the starting model to `folder`, and return the last figures of its training."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(str(resources.files("lfpc_trl.demo") / "warm")), folder)
    torch.manual_seed(seed)
    model, processor = load_model(folder), load_processor(folder)
    calls = _add_calls(model, processor)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    model.model.visual.requires_grad_(False)
    hidden = model.config.get_text_config().hidden_size
    helpers = demo.Helpers(hidden)
    which, holds = torch.nn.Linear(hidden, 2), torch.nn.Linear(hidden, 2)
    outputs: list[Any] = []
    model.model.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    numbers = demo.number_ids(processor)
    modules = (model, helpers, which, holds)
    parameters = [each for module in modules for each in module.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)
    stats: dict[str, float] = {}
    for step, examples in enumerate(_draw(steps, seed)):
        batch = demo.collate(examples, processor)
        batch.coordinates = torch.isin(batch.targets, numbers).int()
        of_picture = _numbers(examples)
        batch.tokens.overview = of_picture < 2
        done = step / steps
        _set_rate(optimiser, LEARNING_RATE, step, steps)
        outputs.clear()
        width = WIDTH[0] + (WIDTH[1] - WIDTH[0]) * done
        loss = demo.language_loss(model, batch, helpers, width, numbers, stats)
        loss = loss + _picture_loss(outputs[0], batch, of_picture, calls, which, holds, stats)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if (step + 1) % 10 == 0:
            names = ("attention", "pixels_off", "flag", "said_letters", "which", "look", "holds")
            figures = ", ".join(f"{name} {stats.get(name, math.nan):.2f}" for name in names)
            print(f"start {step + 1}/{steps}: loss {loss.item():.2f}, {figures}", flush=True)
    demo.save(model, processor, folder)
    return {name: stats[name] for name in ("attention", "pixels_off", "which", "holds")}


def make_own(start: Path, folder: Path, *, steps: int, seed: int) -> float:
    """Go on with a starting model on scenes of a seed, by what it shall say alone; returns the last loss."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder)
    model, processor = load_model(folder), load_processor(folder)
    model.train()
    model.model.visual.requires_grad_(False)
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)
    loss = torch.tensor(math.nan)
    for step, examples in enumerate(_draw(steps, seed)):
        batch = demo.collate(examples, processor)
        _set_rate(optimiser, OWN_LEARNING_RATE, step, steps)
        said = batch.targets >= 0
        hidden = model.model(**batch.model_inputs).last_hidden_state[said]
        loss = F.cross_entropy(model.lm_head(hidden), batch.targets[said])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if (step + 1) % 10 == 0:
            print(f"own {step + 1}/{steps}: loss {loss.item():.2f}", flush=True)
    demo.save(model, processor, folder)
    return loss.item()


def _draw(steps: int, seed: int) -> Iterator[list[demo.Example]]:
    """The examples of each step."""
    rng = np.random.default_rng((seed, 99))
    pool = [draw_background(rng, TRAINING_PHOTOS, PICTURE_SIZE) for _ in range(48)]
    for _ in range(steps):
        pool[rng.integers(len(pool))] = draw_background(rng, TRAINING_PHOTOS, PICTURE_SIZE)
        chosen = rng.integers(len(pool), size=(EXAMPLES, 2)).tolist()
        yield [make_example(rng, draw_pair(rng, (pool[a], pool[b]))) for a, b in chosen]


def _set_rate(optimiser: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Up to `rate` in 30 steps, and down by a cosine."""
    decay = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / 30) * decay


def _add_calls(model: Any, processor: Any) -> torch.Tensor:
    """Add the tokens of `call_open`, made like that of calls without a picture; returns their ids."""
    tokenizer = processor.tokenizer
    opens = [call_open(1), call_open(2)]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in opens])
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(opens))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        like = embeddings[tokenizer.convert_tokens_to_ids(CALL_OPEN)]
        embeddings[ids] = like + 0.02 * torch.randn(2, len(like))
    return ids


def _numbers(examples: list[demo.Example]) -> torch.Tensor:
    """Per image token of a batch the place of its picture in the conversation; the overviews are 0 and 1."""
    return torch.cat(
        [
            torch.full((tokens_of(picture.size, demo.FACTOR),), place)
            for example in examples
            for place, picture in enumerate(example.pictures)
        ]
    )


def _picture_loss(
    out: Any,
    batch: demo.Batch,
    of_picture: torch.Tensor,
    calls: torch.Tensor,
    which: torch.nn.Module,
    holds: torch.nn.Module,
    stats: dict[str, float],
) -> torch.Tensor:
    """Tokens on signs know which picture they are of; where a call begins, the model looks at the sign.

    And it then knows which picture holds it, whichever picture it goes on to name.
    """
    image = batch.model_inputs["mm_token_type_ids"].bool()
    tokens = batch.tokens
    on_sign = (tokens.colour > 0) & tokens.overview
    told = which(out.hidden_states[2][image][on_sign])
    loss = F.cross_entropy(told, of_picture[on_sign])
    stats["which"] = (told.argmax(1) == of_picture[on_sign]).float().mean().item()
    rows, places = torch.isin(batch.targets, calls).nonzero(as_tuple=True)
    if not len(rows):
        return loss
    asked = torch.zeros(image.shape)
    asked[image] = (tokens.asked * tokens.overview).float()
    mass = (out.attentions[2][rows, :2, places].mean(1) * asked[rows]).sum(-1)
    second = torch.zeros(image.shape)
    second[image] = (of_picture == 1).float()
    truth = (asked * second)[rows].any(-1).long()
    known = holds(out.hidden_states[3][rows, places])
    stats["look"] = mass.mean().item()
    stats["holds"] = (known.argmax(1) == truth).float().mean().item()
    return loss - 0.5 * (mass + 1e-4).log().mean() + F.cross_entropy(known, truth)
