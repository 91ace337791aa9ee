"""Questions about two photographs, on one core: does stage 1 teach the model to look into the right one?

    PYTHONPATH=.:integrations python -m benchmarks.two_photographs OUTPUT

Two photographs of the demo's world with two signs each, no colour twice, and a question about one sign,
which does not say where it is. Both are shown too coarsely to read. One starting model is taught for all
seeds (`benchmarks.two_photographs_start`). Each seed draws its own training pictures, goes on with that model
on scenes of its own, and trains it with `cpu-stage1`. The test is the same for all, on photographs that no
training has seen. Writes the figures into docs/results/two-photographs.md.

Again with the same OUTPUT after a stop: what is done stays done, and trainings go on from their checkpoints.
"""

import argparse
import dataclasses
import datetime as dt
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import two_photographs_page as page
from benchmarks.miniature.__main__ import checkpoint, commit, machine
from benchmarks.miniature.jobs import be_quiet
from benchmarks.miniature.runner import Job, run_jobs
from benchmarks.two_photographs_start import PICTURE_SIZE, SHOWN_TOKENS, draw_pair, make_own, make_start

CROP_TOKENS = 64
COMMON = "common"
"""The folder of the starting model that all seeds share."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything, for one seed. Two photographs carry four signs, hence four questions."""

    training_pairs: int = 24
    test_pairs: int = 30
    common_steps: int = 180
    own_steps: int = 60
    steps: int = 18
    prompts: int = 6
    rollouts: int = 8
    learning_rate: float = 2e-4


FULL = Scale()
TINY = Scale(2, 3, 1, 1, 1, 2, 2)


def plan(output: Path, seeds: Sequence[int], scale: Scale) -> list[Job]:
    """What waits for the common starting model, seed by seed."""
    jobs = []
    for seed in seeds:
        folder = output / f"seed-{seed}"
        common = (scale, seed)
        jobs += [
            Job(folder, "pictures", make_pictures, common),
            Job(folder, "start", start, common),
            Job(folder, "stage1", train_stage, common, needs=("pictures", "start")),
            *(
                Job(folder, f"{model}-on-test", look, (model,), needs=("pictures", model))
                for model in page.MODELS
            ),
        ]
    return jobs


def make_pictures(folder: Path, scale: Scale, seed: int) -> dict[str, int]:
    """The questions; those of the test are the same for every seed."""
    from lfpc_trl.demo import world

    # 5000: far from the seeds on whose pictures settings were chosen.
    train = 5000 + seed, scale.training_pairs, world.TRAINING_PHOTOS
    test = 5000, scale.test_pairs, world.UNSEEN_PHOTOS
    return {
        name: _make_rows(folder / "data", name, count, stream, photos)
        for name, (stream, count, photos) in {"train": train, "test": test}.items()
    }


def _make_rows(data: Path, name: str, count: int, seed: int, photos: Sequence[str]) -> int:
    """Draw `count` pairs of pictures; one row per sign, with the sign on its picture as target."""
    import numpy as np

    from lfpc_trl.demo.world import QUESTION, draw_background

    (data / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        backgrounds = (draw_background(rng, photos, PICTURE_SIZE), draw_background(rng, photos, PICTURE_SIZE))
        images = [f"{name}/{number:03d}-{place}.jpg" for place in (1, 2)]
        for place, (image, scene) in enumerate(
            zip(images, draw_pair(rng, backgrounds), strict=True), start=1
        ):
            scene.picture.save(data / image, quality=92, subsampling=0)
            rows += [
                {
                    "id": f"{name}-{number:03d}-{sign.colour}",
                    "question": QUESTION.format(colour=sign.colour),
                    "answer": sign.text,
                    "images": images,
                    "targets": [list(sign.text_box), list(sign.box)],
                    "target_images": place,
                }
                for sign in scene.signs
            ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return len(rows)


def teach(folder: Path, scale: Scale) -> dict[str, float]:
    """The starting model that all seeds share."""
    be_quiet()
    return make_start(folder / "start", steps=scale.common_steps, seed=0)


def start(folder: Path, scale: Scale, seed: int) -> float:
    """The starting model of the seed."""
    be_quiet()
    common = folder.parent / COMMON / "start"
    return make_own(common, folder / "start", steps=scale.own_steps, seed=seed)


def recipe_of(scale: Scale, seed: int) -> Any:
    """`cpu-stage1`, and what this model and this world need."""
    from lfpc_trl.demo.run import SMALL_MODEL
    from lfpc_trl.train.recipe import load_recipe

    return load_recipe(
        "cpu-stage1",
        **SMALL_MODEL
        | {
            "steps": scale.steps,
            "prompts_per_step": scale.prompts,
            "prompts_per_update": scale.prompts,
            "num_generations": scale.rollouts,
            "per_device_train_batch_size": scale.prompts * scale.rollouts,
            "learning_rate": scale.learning_rate,
            "save_every": 4,
            "trajectory_groups": 0,
            "seed": seed,
        },
    )


def _rows(folder: Path, name: str) -> list[Any]:
    from lfpc_trl.data.rows import read_rows, with_shown_tokens
    from lfpc_trl.demo.warm_up import FACTOR

    rows = read_rows(folder / "data" / f"{name}.jsonl", require_targets=True)
    return with_shown_tokens(rows, SHOWN_TOKENS, factor=FACTOR)


def train_stage(folder: Path, scale: Scale, seed: int) -> list[dict[str, float]]:
    """Stage 1, from its last checkpoint if there is one; its lines of `metrics.jsonl`."""
    be_quiet()
    from lfpc_trl.train.run import train

    result = train(
        recipe_of(scale, seed),
        folder / "start",
        _rows(folder, "train"),
        folder / "stage1",
        resume=(folder / "stage1" / "manifest.json").exists(),
        on_step=_tell,
    )
    return [{name: line[name] for name in page.CURVES} for line in result.metrics]


def _tell(step: int, steps: int, line: dict[str, Any]) -> None:
    figures = ", ".join(f"{name} {line[name]:.2f}" for name in page.CURVES)
    print(f"step {step}/{steps}: {figures}", flush=True)


def look(folder: Path, name: str) -> dict[str, Any]:
    """What a model does with the test questions.

    Returns:
        Of greedy rollouts `conditions`, the figures of `lfpc_trl.evaluate.in_process.evaluate`; and for
        `greedy` and `sampled` rollouts one value per question: `accuracy`, `first` (whether the first crop is
        of the right picture), `overlap` (covered share of the letters), `looked` (whether there is a crop).
        NaN, as None, where there is no crop.
    """
    be_quiet()
    from lfpc_trl.demo.run import SMALL_MODEL, TEMPERATURE
    from lfpc_trl.evaluate.in_process import evaluate
    from lfpc_trl.models.families import family_of
    from lfpc_trl.models.processors import factor, load_processor
    from lfpc_trl.models.weights import load_model
    from lfpc_trl.rollouts.crop_tool import CropSettings

    model, processor = load_model(folder / name), load_processor(folder / name)
    crops = CropSettings(
        family_of(folder / name).frame,
        factor(processor),
        crop_tokens=CROP_TOKENS,
        max_crops=SMALL_MODEL["max_crops"],
    )
    common = {
        "crop_settings": crops,
        "max_turns": SMALL_MODEL["max_turns"],
        "max_new_tokens": SMALL_MODEL["response_tokens"],
        "batch_size": 60,
    }
    rows = _rows(folder, "test")
    greedy = evaluate(model, processor, rows, conditions=page.CONDITIONS, **common)
    sampled = evaluate(model, processor, rows, conditions=(), temperature=TEMPERATURE, **common)
    return {
        "conditions": greedy.metrics,
        "greedy": _per_question(greedy.trajectories),
        "sampled": _per_question(sampled.trajectories),
    }


def _per_question(trajectories: Sequence[Any]) -> dict[str, list[Any]]:
    values = []
    for each in trajectories:
        [target], scored = each.row.targets, each.scored
        looked = bool(scored.crops)
        values.append(
            {
                "accuracy": scored.accuracy,
                "looked": float(looked),
                "first": float(scored.crop_images[0] == target.image) if looked else None,
                "overlap": scored.overlap if looked and not math.isnan(scored.overlap) else None,
            }
        )
    return {name: [value[name] for value in values] for name in values[0]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.two_photographs", description=__doc__)
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
        began = {name: before[name] for name in began}
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
    run_jobs([Job(args.output / COMMON, "start", teach, (scale,))], workers=1)
    run_jobs(plan(args.output, args.seeds, scale), workers=args.workers)
    page.write(args.output, args.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
