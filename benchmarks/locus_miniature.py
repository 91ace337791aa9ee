"""LOCUS on the demo's world, on one core: is a cue found better after GRPO with `locus_reward` than before?

    OMP_NUM_THREADS=1 PYTHONPATH=.:integrations python benchmarks/locus_miniature.py OUTPUT

A cue is one of the three signs of a picture; the answer is its box. The demo's warm checkpoint first learns
the format and roughly where signs are, from answers whose corners are moved at random. Then GRPO.
Training pictures and test pictures come from different photographs.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch

import lfpc_trl.demo
from lfpc_trl.crop_tool import CropSettings
from lfpc_trl.demo.warm_up import FACTOR, number_ids, numbers_of
from lfpc_trl.demo.world import (
    PICTURE_SIZE,
    TRAINING_PHOTOS,
    UNSEEN_PHOTOS,
    Scene,
    draw_background,
    draw_scene,
    make_pictures,
)
from lfpc_trl.images import cut, show, shown_size, tokens_of
from lfpc_trl.locus.attention import token_cover
from lfpc_trl.locus.cues import QUESTION, SCALE
from lfpc_trl.locus.evaluation import find_cues
from lfpc_trl.locus.task import CuePrompt
from lfpc_trl.models import factor, family_of, load_model, load_processor
from lfpc_trl.recipe import load_recipe
from lfpc_trl.rows import read_rows, with_shown_tokens
from lfpc_trl.train import train

SHOWN_TOKENS, CROP_TOKENS = 54, 16
RATE, SOFT = 2e-3, 2.0
"""Learning rate of the first, supervised part; width in pixels of its soft target around a coordinate."""
TEMPERATURE = 0.7
"""Of all sampling: a small model is less sure of its boxes than a large one."""
JITTER = 6.0
"""Standard deviation of a corner there, in shown pixels (the picture: 252 x 168)."""


def make_cues(folder: Path, count: int, *, seed: int, photos, name: str, side: int):
    for _ in make_pictures(folder, count, seed=seed, photos=photos, name=name):
        pass
    lines = []
    for line in (folder / f"{name}.jsonl").read_text().splitlines():
        row = json.loads(line)
        box = row["targets"][-1]
        cue = {"id": row["id"], "question": QUESTION, "answer": str(box), "image": row["image"]}
        lines.append(json.dumps(cue | {"targets": [box], SCALE: 1.0}))
    path = folder / f"{name}-cues.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return with_shown_tokens(read_rows(path), SHOWN_TOKENS, factor=side)


def start_model(folder: Path) -> Path:
    """The warm checkpoint, with a template that leaves out the words: the small model cannot read them."""
    shutil.copytree(Path(lfpc_trl.demo.__file__).parent / "warm", folder)
    path = folder / "chat_template.jinja"
    before = path.read_text()
    after = before.replace("text(message.content) + images(message.content)", "images(message.content)")
    assert after != before
    path.write_text(after)
    return folder


def warm_up(model_dir: Path, prompt: CuePrompt, steps: int, batch: int) -> None:
    """Supervised steps on scenes drawn on the fly; corners are moved at random, so boxes stay loose."""
    model, processor = load_model(model_dir), load_processor(model_dir)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    rng = np.random.default_rng(0)
    numbers = number_ids(processor)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    backgrounds = [draw_background(rng, TRAINING_PHOTOS) for _ in range(48)]
    for step in range(steps):
        scenes = [draw_scene(rng, backgrounds[i]) for i in rng.integers(len(backgrounds), size=batch)]
        inputs, targets, keys = collate(processor, prompt, [_example(rng, scene) for scene in scenes])
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - 0.95 * step / steps)
        out = model.model(**inputs, output_attentions=True)
        said = targets >= 0
        logp = torch.log_softmax(model.lm_head(out.last_hidden_state[said]), dim=-1)
        wanted = targets[said]
        is_number = torch.isin(wanted, numbers)
        value = numbers_of(wanted[is_number], numbers)
        loss = -logp[~is_number].gather(1, wanted[~is_number][:, None]).mean()
        # A coordinate a few pixels off is nearly right.
        off = torch.arange(len(numbers))[None] - value[:, None]
        soft = torch.softmax(-0.5 * (off / SOFT) ** 2, dim=1)
        among = logp[is_number][:, numbers]
        loss = loss - (soft * among).sum(1).mean()
        # Two heads are helped to look at the place that is asked for: no small model finds that by itself.
        asking = torch.zeros_like(said)
        asking[said] = is_number
        mass = (out.attentions[2][:, :2].mean(1) * keys[:, None, :]).sum(-1)[asking]
        loss = loss - 0.5 * (mass + 1e-4).log().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0:
            pixels = (among.argmax(1) - value).abs().float().median()
            figures = f"loss {loss.item():.3f} pixels {pixels:.0f} attention {mass.mean():.2f}"
            print(f"warm-up {step}/{steps} {figures}", flush=True)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(model_dir)


def _example(rng: np.random.Generator, scene: Scene):
    """A scene, the box of one of its signs, and the answer: that box in shown pixels, moved at random."""
    sign = scene.signs[rng.integers(len(scene.signs))]
    shown = shown_size(PICTURE_SIZE, SHOWN_TOKENS, factor=FACTOR)
    box = np.array(sign.box) * np.tile(np.array(shown) / PICTURE_SIZE, 2)
    answer = np.clip(np.round(box + rng.normal(0, JITTER, 4)), 0, np.tile(shown, 2)).astype(int).tolist()
    crop = cut(scene.picture, sign.box, factor=FACTOR, max_tokens=CROP_TOKENS)
    return [show(scene.picture, shown), crop], box, answer


def collate(processor, prompt: CuePrompt, examples):
    """Padded inputs, the next token where the model speaks (-100 elsewhere), the image tokens asked for."""
    tokenizer = processor.tokenizer
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    head = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    rows, said = [], []
    for pictures, _, answer in examples:
        counts = iter(tokens_of(picture.size, prompt.factor) for picture in pictures)
        ids = []
        for token in tokenizer(head)["input_ids"]:
            ids += [token] * (next(counts) if token == pad else 1)
        turn = tokenizer(f"<think>near</think><answer>{answer}</answer><|im_end|>")["input_ids"]
        rows.append(ids + turn)
        said.append(len(turn))
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    targets, keys = torch.full_like(ids, -100), torch.zeros(ids.shape)
    for i, (row, count) in enumerate(zip(rows, said, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        targets[i, len(row) - count - 1 : len(row) - 1] = torch.tensor(row[-count:])
        [scene, _], box, _ = examples[i]
        grid = (scene.width // prompt.factor, scene.height // prompt.factor)
        cover = token_cover(box, scene.size, grid)
        start = row.index(pad)
        keys[i, start : start + len(cover)] = torch.as_tensor(cover > 0.25, dtype=torch.float32)
    vision = processor.image_processor(
        images=[picture for pictures, _, _ in examples for picture in pictures], return_tensors="pt"
    )
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids != tokenizer.pad_token_id).long(),
        "mm_token_type_ids": (ids == pad).long(),
        **vision,
    }
    return inputs, targets, keys


def evaluate(model_dir: Path, rows, crops: CropSettings) -> dict[str, float]:
    model, processor = load_model(model_dir), load_processor(model_dir)
    figures = {}
    for name, temperature in (("greedy", 0.0), ("sampled", TEMPERATURE)):
        found = find_cues(
            model,
            processor,
            rows,
            crop_settings=crops,
            max_new_tokens=24,
            temperature=temperature,
            batch_size=32,
        )
        error = float(found.iou.std() / len(rows) ** 0.5)
        figures[name] = {
            "mean_iou": round(found.mean_iou, 4),
            "standard_error": round(error, 4),
            "acc_at_0.5": round(found.acc_at_half, 4),
            "format": round(found.format, 4),
        }
        print(name, figures[name], found.answers[:3], flush=True)
    return figures


def report(step: int, total: int, line) -> None:
    figures = "  ".join(f"{name} {line[name]:.3f}" for name in ("reward", "iou", "format"))
    print(f"step {step}/{total}  {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--test-pictures", type=int, default=40)
    parser.add_argument("--warm-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1.5e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    model_dir = start_model(args.output / "start")
    side, frame = factor(load_processor(model_dir)), family_of(model_dir).frame
    data = args.output / "data"
    training = make_cues(data, args.pictures, seed=1, photos=TRAINING_PHOTOS, name="train", side=side)
    test = make_cues(data, args.test_pictures, seed=2, photos=UNSEEN_PHOTOS, name="test", side=side)
    crops = CropSettings(frame, side, crop_tokens=CROP_TOKENS, max_crops=0)
    torch.manual_seed(0)
    warm_up(model_dir, CuePrompt(frame, side, CROP_TOKENS), args.warm_steps, 16)
    print(f"seconds {time.perf_counter() - start:.0f}", flush=True)
    figures = {"before": evaluate(model_dir, test, crops)}
    recipe = load_recipe(
        "locus-cpu",
        steps=args.steps,
        prompts_per_step=args.prompts,
        prompts_per_update=args.prompts,
        num_generations=args.rollouts,
        per_device_train_batch_size=args.prompts * args.rollouts,
        learning_rate=args.learning_rate,
        temperature=TEMPERATURE,
        crop_tokens=CROP_TOKENS,
        response_tokens=24,
        trajectory_tokens=24,
        trajectory_groups=0,
        save_every=args.steps,
        threads=1,
    )
    train(recipe, model_dir, training, args.output / "locus", on_step=report)
    figures["after"] = evaluate(args.output / "locus", test, crops)
    figures["seconds"] = round(time.perf_counter() - start)
    (args.output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
