"""LOCUS in small, on one core: is a cue found better after GRPO with `locus_reward` than before?

    PYTHONPATH=.:integrations python -m benchmarks.locus_miniature OUTPUT

A cue is one of the three signs of a picture of the demo's world; the answer is its box. Each seed draws its
own training pictures, makes its own starting model (`benchmarks.locus_start`) and trains it twice: with the
reward, and as a control with the IoU with the box of another cue. The test cues lie on photographs that no
training has seen, and are the same for all. Writes the figures into docs/results/locus.md.

Again with the same OUTPUT after a stop: what is done stays done, and trainings go on from their checkpoints.
"""

import argparse
import dataclasses
import datetime as dt
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import locus_page as page
from benchmarks.locus_start import CROP_TOKENS, SHOWN_TOKENS, make_start
from benchmarks.miniature.__main__ import checkpoint, commit, machine
from benchmarks.miniature.jobs import be_quiet
from benchmarks.miniature.runner import Job, run_jobs

TEMPERATURE = 0.5
"""Of all sampling, as in the demo. The paper samples at 1; a model this small is less sure of coordinates."""
ANSWER_TOKENS = 24


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything, for one seed. A picture carries three signs, hence three cues."""

    training_pictures: int = 100
    test_pictures: int = 60
    start_steps: int = 300
    steps: int = 50
    prompts: int = 8
    rollouts: int = 8
    learning_rate: float = 3e-4


FULL = Scale()
TINY = Scale(2, 4, 1, 1, 2, 2)


def plan(output: Path, seeds: Sequence[int], scale: Scale) -> list[Job]:
    """All jobs, seed by seed."""
    jobs = []
    for seed in seeds:
        folder = output / f"seed-{seed}"
        common = (scale, seed)
        jobs += [
            Job(folder, "pictures", make_pictures, common),
            Job(folder, "start", start, common),
            *(Job(folder, arm, train_arm, common, {"arm": arm}, ("pictures", "start")) for arm in page.ARMS),
            *(
                Job(folder, f"{model}-on-test", look, (model,), needs=("pictures", model))
                for model in ("start", *page.ARMS)
            ),
            Job(folder, f"{page.EXACT}-on-test", look_at_exact_boxes, needs=("pictures", "start")),
        ]
    return jobs


def make_pictures(folder: Path, scale: Scale, seed: int) -> dict[str, int]:
    """The cues; those of the test are the same for every seed."""
    from lfpc_trl.demo import world

    # 3000: far from the seeds on whose pictures settings were chosen.
    train = 3000 + seed, scale.training_pictures, world.TRAINING_PHOTOS
    test = 3000, scale.test_pictures, world.UNSEEN_PHOTOS
    return {
        name: _make_cues(folder / "data", name, count, stream, photos)
        for name, (stream, count, photos) in {"train": train, "test": test}.items()
    }


def _make_cues(data: Path, name: str, count: int, seed: int, photos: Sequence[str]) -> int:
    from lfpc_trl.demo.world import make_pictures as draw
    from lfpc_trl.locus.cues import QUESTION, SCALE

    for _ in draw(data, count, seed=seed, photos=photos, name=name):
        pass
    lines = []
    for line in (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        sign = row["targets"][-1]
        cue = row | {"question": QUESTION, "answer": str(sign), "targets": [sign], SCALE: 1.0}
        lines.append(json.dumps(cue) + "\n")
    (data / f"{name}-cues.jsonl").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def start(folder: Path, scale: Scale, seed: int) -> dict[str, float]:
    """The starting model of the seed."""
    be_quiet()
    return make_start(folder / "start", steps=scale.start_steps, seed=seed)


def recipe_of(scale: Scale, seed: int) -> Any:
    """`locus-cpu`, and what this model and this world need."""
    from lfpc_trl.train.recipe import load_recipe

    return load_recipe(
        "locus-cpu",
        steps=scale.steps,
        prompts_per_step=scale.prompts,
        prompts_per_update=scale.prompts,
        num_generations=scale.rollouts,
        per_device_train_batch_size=scale.prompts * scale.rollouts,
        learning_rate=scale.learning_rate,
        lr_scheduler_type="cosine",
        temperature=TEMPERATURE,
        crop_tokens=CROP_TOKENS,
        response_tokens=ANSWER_TOKENS,
        trajectory_tokens=ANSWER_TOKENS,
        trajectory_groups=0,
        save_every=10,
        gradient_checkpointing=False,
        threads=1,
        seed=seed,
    )


def other_cues(rows: Sequence[Any]) -> dict[str, Any]:
    """Per cue the one whose box the control is paid for: in the next picture, the same in every step."""
    return {row.name: rows[(place + 3) % len(rows)] for place, row in enumerate(rows)}


def train_arm(folder: Path, scale: Scale, seed: int, *, arm: str) -> list[float]:
    """One training, from its last checkpoint if there is one; the IoU that it was paid for, step by step."""
    be_quiet()
    from lfpc_trl.locus.task import score_cues
    from lfpc_trl.train.run import train

    rows = _cues(folder, "train")
    other = other_cues(rows)

    def paid_for_another(completions: Any, asked: Any, frame: Any) -> Any:
        return score_cues(completions, [other[row.name] for row in asked], frame)

    scoring = paid_for_another if arm == "control" else score_cues
    with mock.patch("lfpc_trl.locus.task.score_cues", scoring):
        result = train(
            recipe_of(scale, seed),
            folder / "start",
            rows,
            folder / arm,
            resume=(folder / arm / "manifest.json").exists(),
            on_step=_tell,
        )
    return [line["iou"] for line in result.metrics]


def look(folder: Path, model_name: str) -> dict[str, Any]:
    """How well a model finds the test cues.

    Returns:
        Per cue: `greedy` and `sampled` IoU, `alone`, the greedy IoU where all but the sign is black,
        `attention`, the share in its sign of what the pictures get when the first coordinate is due (mean of
        the layers), and the greedy `answers`. Over all: `format`, the share of well-formed greedy answers.
    """
    be_quiet()
    from lfpc_trl.locus.evaluation import suppress_context

    directory, rows = folder / model_name, _cues(folder, "test")
    greedy = _find(directory, rows)
    return {
        "greedy": greedy.iou.tolist(),
        "sampled": _find(directory, rows, TEMPERATURE).iou.tolist(),
        "alone": _find(directory, suppress_context(rows, folder / "data" / "alone")).iou.tolist(),
        "attention": _attention(directory, rows),
        "answers": list(greedy.answers),
        "format": greedy.format,
    }


def look_at_exact_boxes(folder: Path) -> dict[str, Any]:
    """`greedy` and `sampled` IoU of the starting model where its thought is given: it answers `near`."""
    be_quiet()
    directory = folder / page.EXACT
    shutil.copytree(folder / "start", directory, dirs_exist_ok=True)
    template = directory / "chat_template.jinja"
    text = (folder / "start" / template.name).read_text(encoding="utf-8")
    opened, begun = (
        "'<|im_start|>assistant\\n' -}}{%- endif",
        "'<|im_start|>assistant\\n<think>near</think>' -}}{%- endif",
    )
    assert opened in text
    template.write_text(text.replace(opened, begun), encoding="utf-8")
    rows = _cues(folder, "test")
    return {
        "greedy": _find(directory, rows).iou.tolist(),
        "sampled": _find(directory, rows, TEMPERATURE).iou.tolist(),
    }


def _find(directory: Path, rows: Sequence[Any], temperature: float = 0.0) -> Any:
    from lfpc_trl.locus.evaluation import locate_cues
    from lfpc_trl.models.processors import load_processor
    from lfpc_trl.models.weights import load_model

    return locate_cues(
        load_model(directory),
        load_processor(directory),
        rows,
        crop_settings=_crops(directory),
        max_new_tokens=ANSWER_TOKENS,
        temperature=temperature,
        batch_size=60,
    )


def _crops(directory: Path) -> Any:
    from lfpc_trl.models.families import family_of
    from lfpc_trl.models.processors import factor, load_processor
    from lfpc_trl.rollouts.crop_tool import CropSettings

    side = factor(load_processor(directory))
    return CropSettings(family_of(directory).frame, side, crop_tokens=CROP_TOKENS, max_crops=0)


def _attention(directory: Path, rows: Sequence[Any]) -> list[float]:
    import numpy as np

    from lfpc_trl.locus.attention import model_attention_in_box
    from lfpc_trl.locus.cues import cue_box
    from lfpc_trl.locus.task import CuePrompt
    from lfpc_trl.models.processors import load_processor
    from lfpc_trl.models.weights import load_model

    model, processor = load_model(directory, attention="eager"), load_processor(directory)
    crops = _crops(directory)
    prompt = CuePrompt(crops.frame, crops.factor, CROP_TOKENS)
    shares = []
    for row in rows:
        [message] = prompt(row)
        pictures = [block["image"] for block in message["content"] if block["type"] == "image"]
        text = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        text += "<think>near</think><answer>["
        inputs = processor(text=[text], images=pictures, return_tensors="pt")
        box = np.array(cue_box(row)) * np.tile(np.array(row.shown_size) / row.size, 2)
        shares.append(float(model_attention_in_box(model, inputs, box).mean()))
    return shares


def _cues(folder: Path, name: str) -> list[Any]:
    from lfpc_trl.data.rows import read_rows, with_shown_tokens
    from lfpc_trl.models.processors import factor, load_processor

    rows = read_rows(folder / "data" / f"{name}-cues.jsonl", require_targets=True)
    return with_shown_tokens(rows, SHOWN_TOKENS, factor=factor(load_processor(folder / "start")))


def _tell(step: int, total: int, line: dict[str, Any]) -> None:
    if step % 10 == 0:
        print(f"step {step}/{total}: IoU {line['iou']:.3f}, format {line['format']:.3f}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.locus_miniature", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--tiny", action="store_true", help="one step of everything")
    parser.add_argument("--page", type=Path, default=page.PAGE, help="the page to write the figures into")
    args = parser.parse_args(arguments)
    scale = TINY if args.tiny else FULL
    record = args.output / page.RUN
    began = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": commit(),
        "checkpoint": checkpoint(),
    }
    if record.exists():
        before = json.loads(record.read_text(encoding="utf-8"))
        began = {name: before.get(name, "unknown") for name in began}
        if before["scale"] != dataclasses.asdict(scale):
            parser.error(f"{args.output} holds a run of another size")
    run = began | {
        "machine": machine(),
        "workers": args.workers,
        "seeds": args.seeds,
        "scale": dataclasses.asdict(scale),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    run_jobs(plan(args.output, args.seeds, scale), workers=args.workers)
    page.write(args.output, args.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
