"""The demo's task with a larger Qwen2.5-VL from scratch, meant for one GPU: both stages, timed by phase.

    python benchmarks/larger_model.py --output larger --width 8 --layers 12
    python benchmarks/larger_model.py --output tiny --quick --device cpu     # the same code, in a minute

A model of `width` times the demo's is warmed up, trained in stage 1, then in stage 2 and, as control, on with
stage 1's reward, and evaluated after each. `page.md` in the output has the figures: step time by phase,
memory of the device, learning curves. What is finished is not done again.
"""

import argparse
import json
import platform
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lfpc_trl.data.rows import read_rows, with_shown_tokens, write_rows
from lfpc_trl.demo import warm_up, world
from lfpc_trl.demo.run import COARSEST, CROP_TOKENS, TEMPERATURE
from lfpc_trl.evaluate.in_process import evaluate
from lfpc_trl.models.families import family_of
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.runs.directory import read_metrics
from lfpc_trl.train.recipe import Recipe, load_recipe
from lfpc_trl.train.run import train
from lfpc_trl.train.trainer import RolloutTrainer

CURVES = ("reward", "accuracy", "tool_use", "iou", "overlap", "bbox_ratio")
COLUMNS = ("accuracy", "accuracy_noise_crop", "tool_calls", "iou", "overlap", "bbox_ratio")


METHODS = {
    "_generate": "rollouts",
    "_calculate_rewards": "rewards",
    "_generate_and_score_completions": "rollouts, rewards, log-probabilities",
    "training_step": "all",
}


class Clock:
    """Seconds by phase of a training step, measured around the trainer's own methods."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure every trainer that is made meanwhile."""
        before = {name: getattr(RolloutTrainer, name) for name in METHODS}
        for name, method in before.items():
            setattr(RolloutTrainer, name, self._timed(method, METHODS[name]))
        try:
            yield
        finally:
            for name, method in before.items():
                setattr(RolloutTrainer, name, method)

    def _timed(self, method: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self._now()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds[phase] += self._now() - start

        return timed

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def per_step(self, steps: int) -> dict[str, float]:
        """Seconds of a step by phase."""
        together = self.seconds["rollouts, rewards, log-probabilities"]
        parts = {
            "rollouts": self.seconds["rollouts"],
            "rewards and metrics": self.seconds["rewards"],
            "preparation, log-probabilities": together - self.seconds["rollouts"] - self.seconds["rewards"],
            "loss, gradient": self.seconds["all"] - together,
        }
        return {name: seconds / steps for name, seconds in parts.items()}


def recipe_of(arm: str, args: argparse.Namespace) -> Recipe:
    """The recipe of an arm."""
    return load_recipe(
        f"cpu-stage{2 if arm == 'stage2' else 1}",
        use_cpu=args.device == "cpu",
        steps=args.steps,
        prompts_per_step=args.prompts,
        prompts_per_update=args.prompts,
        num_generations=args.rollouts,
        per_device_train_batch_size=args.rollouts,
        learning_rate=args.learning_rate,
        temperature=TEMPERATURE,
        crop_tokens=CROP_TOKENS,
        response_tokens=48,
        trajectory_tokens=512,
        max_turns=3,
        max_crops=2,
        save_every=20,
        seed=args.seed,
        use_vllm=args.use_vllm,
        **({"grounding_weight": 2.0} if arm == "stage2" else {}),
    )


def make_data(args: argparse.Namespace) -> dict[str, Path]:
    """Pictures and rows of training and test, shown at the coarsest overview."""
    folder = args.output / "data"
    counts = {
        "train": (args.pictures, world.TRAINING_PHOTOS, 1),
        "test": (args.tests, world.UNSEEN_PHOTOS, 3),
    }
    files = {}
    for name, (count, photos, stream) in counts.items():
        files[name] = folder / f"{name}-shown.jsonl"
        if files[name].exists():
            continue
        list(world.make_pictures(folder, count, seed=10 * args.seed + stream, photos=photos, name=name))
        rows = read_rows(folder / f"{name}.jsonl", require_targets=True)
        write_rows(with_shown_tokens(rows, COARSEST, factor=warm_up.FACTOR), files[name])
    return files


def warm(args: argparse.Namespace) -> Path:
    """The warm checkpoint."""
    output = args.output / "warm"
    if (output / "model.safetensors").exists():
        return output
    phases = tuple(
        warm_up.Phase(**vars(phase) | {"steps": max(1, int(phase.steps * args.warm_up))})
        for phase in warm_up.PHASES
    )

    def show(phase: str, step: int, steps: int, stats: dict[str, float]) -> None:
        if step % 50 == 0 or step == steps:
            figures = "  ".join(f"{name} {value:.3f}" for name, value in stats.items())
            print(f"{phase} {step}/{steps}  {figures}", flush=True)

    return warm_up.warm_up(
        output,
        phases=phases,
        seed=args.seed,
        on_step=show,
        workers=args.workers,
        width=args.width,
        layers=args.layers,
        device=args.device,
    )


def measure(model_dir: Path, rows_file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The demo's evaluation."""
    model, processor = load_model(model_dir, device=args.device), load_processor(model_dir)
    from lfpc_trl.rollouts.crop_tool import CropSettings

    return evaluate(
        model,
        processor,
        read_rows(rows_file, require_targets=True),
        crop_settings=CropSettings(
            family_of(model_dir).frame, factor(processor), crop_tokens=CROP_TOKENS, max_crops=2
        ),
        max_turns=3,
        max_new_tokens=48,
        temperature=TEMPERATURE,
        seed=args.seed,
        batch_size=60,
    ).metrics


def run_arm(arm: str, start: Path, rows_file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train one arm, unless it is there; its seconds by phase and the memory it took."""
    output, notes = args.output / arm, args.output / f"{arm}.json"
    if notes.exists():
        return dict(json.loads(notes.read_text()))
    clock = Clock(args.device)
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    with clock.running():
        train(
            recipe_of(arm, args),
            start,
            read_rows(rows_file, require_targets=True),
            output,
            resume=(output / "manifest.json").exists(),
            on_step=lambda step, total, line: print(f"{arm} {step}/{total} {line['reward']:.3f}", flush=True),
        )
    found = {
        "seconds": clock.per_step(args.steps),
        "step": (time.perf_counter() - began) / args.steps,
        "device_gb": torch.cuda.max_memory_allocated() / 1e9 if args.device == "cuda" else None,
        "host_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    notes.write_text(json.dumps(found))
    return found


def page(args: argparse.Namespace, runs: dict[str, Any], measured: dict[str, Any]) -> str:
    """The figures as a page."""
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {platform.machine()}"
    size = sum(weight.numel() for weight in load_model(args.output / "warm").parameters())
    options, today = " ".join(sys.argv[1:]), time.strftime("%Y-%m-%d")
    rollouts = args.prompts * args.rollouts
    lines = [
        "# The demo's task with a larger model",
        "",
        f"`python benchmarks/larger_model.py {options}`",
        "",
        f"{size / 1e6:.1f} million parameters, {device}, torch {torch.__version__}, {today}",
        f"{args.steps} steps of {rollouts} rollouts by {'vLLM' if args.use_vllm else 'transformers'},",
        f"{args.tests * 3} test questions.",
        "",
        "| model | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    for name, metrics in measured.items():
        cells = ("-" if metrics[key] is None else f"{metrics[key]:.3f}" for key in COLUMNS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    phases = list(next(iter(runs.values()))["seconds"])
    lines += [
        "",
        "Seconds of a step by phase, and memory:",
        "",
        "| run | " + " | ".join(phases) + " | a step in all | device | host |",
        "| --- |" + " --- |" * (len(phases) + 3),
    ]
    for name, found in runs.items():
        cells = [f"{found['seconds'][phase]:.3f}" for phase in phases]
        memory = "-" if found["device_gb"] is None else f"{found['device_gb']:.1f} GB"
        cells += [f"{found['step']:.3f}", memory, f"{found['host_gb']:.1f} GB"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "Curves, every tenth of a run:"]
    for name in runs:
        steps = read_metrics(args.output / name)
        chosen = steps[:: max(1, len(steps) // 10)]
        lines += [
            "",
            f"{name}:",
            "",
            "| step | " + " | ".join(CURVES) + " |",
            "| --- |" + " --- |" * len(CURVES),
        ]
        for line in chosen:
            cells = ("-" if line[key] is None else f"{line[key]:.3f}" for key in CURVES)
            lines.append(f"| {line['step']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--width", type=int, default=8, help="times the demo's heads")
    parser.add_argument("--layers", type=int, default=12, help="of the language model")
    parser.add_argument("--warm-up", type=float, default=1.0, help="times the demo's warm-up steps")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--tests", type=int, default=160)
    parser.add_argument("--workers", type=int, default=8, help="processes that draw scenes of the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--use-vllm", action="store_true")
    parser.add_argument(
        "--quick", action="store_true", help="the smallest of everything: proves that it runs"
    )
    args = parser.parse_args()
    if args.quick:
        vars(args).update(width=1, layers=4, warm_up=0.001, steps=2, prompts=2, rollouts=2)
        vars(args).update(pictures=2, tests=2, workers=0)
    args.output.mkdir(parents=True, exist_ok=True)
    files = make_data(args)
    start = warm(args)
    runs = {"stage1": run_arm("stage1", start, files["train"], args)}
    for arm in ("stage2", "control"):
        runs[arm] = run_arm(arm, args.output / "stage1", files["train"], args)
    measured = {name: measure(args.output / name, files["test"], args) for name in ("warm", *runs)}
    text = page(args, runs, measured)
    (args.output / "page.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
